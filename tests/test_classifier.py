import csv
import gc
import json
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_classifiers import QUICK, examples

from ecgtf.augment import Augmentation
from ecgtf.classifiers.classifier import train_classifier
from ecgtf.classifiers.examples import training_batches
from ecgtf.classifiers.fitting import _loss, fit_classifier
from ecgtf.classifiers.networks import features, load_classifier, new_classifier, predict
from ecgtf.classifiers.transfer import finetune
from ecgtf.dataset import hash_id, load_arrays
from ecgtf.ecg import LEADS
from ecgtf.run_folder import Run
from ecgtf.tasks import check_classes, get_task


def test_a_run_folder_holds_model_metrics_predictions_and_ids(classifier_run, real_set):
    assert classifier_run.finished
    metrics = json.loads((classifier_run.folder / "metrics.json").read_text())
    assert metrics["test"]["n"] == 28
    assert metrics["test"]["per_class"]["SR"]["n"] == 8  # sinus rhythm and sinus arrhythmia
    assert metrics["test"]["macro_auroc"]["low"] <= metrics["test"]["macro_auroc"]["value"]
    assert classifier_run.config["training_records"] == {"given": {"SB": 6, "AFIB": 12, "GSVT": 12, "SR": 12}}
    assert set(classifier_run.trained_on()) == {hash_id(name) for name in load_arrays(real_set, "train").ids}


def test_the_loaded_model_gives_the_predictions_of_the_run(classifier_run, real_set):
    model = load_classifier(classifier_run.folder)
    test = load_arrays(real_set, "test", "rhythm4")
    kept = np.load(classifier_run.folder / "predictions.npz")
    assert kept["ids"].tolist() == test.ids
    probabilities = predict(model, test.signals, batch_size=5)
    np.testing.assert_allclose(probabilities, kept["probabilities"], atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    assert model.get_layer("logits").classes == ("SB", "AFIB", "GSVT", "SR")
    assert features(model, test.signals[:3]).shape == (3, 16)
    assert predict(model, test.signals[:0]).shape == (0, 4)
    with pytest.raises(ValueError, match=r"takes signals \(records, 1000, 12\)"):
        predict(model, test.signals[:, :500])


def test_the_records_of_a_training_are_free_again_when_it_is_over(tmp_path):
    """However long TensorFlow keeps the graphs of their batches."""
    train, validation = examples((8, 8), samples=1000), examples((4, 4), samples=1000, seed=1)
    gone = weakref.ref(train)
    model = new_classifier("resnet1d", train, "ab", multi_label=False, preset="tiny")
    run = Run.open(tmp_path / "run", {})
    options = {"run": run, "rate": 100.0, "leads": ("I", "II"), "steps": 2, "batch_size": 4, "quiet": True}
    fit_classifier(model, train, validation, augment=Augmentation(gain=0.1), **options)
    lost = training_batches(train, batch_size=4)
    del train
    gc.collect()
    assert gone() is None
    assert model.optimizer.iterations.numpy() == 2  # it is still there itself
    with pytest.raises(tf.errors.OpError, match="keep them as long as the batches are drawn"):
        next(iter(lost))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_of_a_mixed_label_is_the_mixture_of_the_losses(multi_label):
    loss = _loss(np.array([1.0, 2.0, 5.0]), multi_label)
    logits = keras.ops.convert_to_tensor([[1.0, -2.0, 0.5]])
    a, b = np.float32([[1, 0, 0]]), np.float32([[0, 0, 1]])
    hard = [float(loss(keras.ops.convert_to_tensor(label), logits)[0]) for label in (a, b)]
    mixed = float(loss(keras.ops.convert_to_tensor(0.3 * a + 0.7 * b), logits)[0])
    assert mixed == pytest.approx(0.3 * hard[0] + 0.7 * hard[1], rel=1e-5)
    softmax = np.exp([1.0, -2.0, 0.5]) / np.exp([1.0, -2.0, 0.5]).sum()
    sigmoid = 1 / (1 + np.exp([-1.0, 2.0, -0.5]))
    single = -5 * np.log(softmax[2])
    many = np.mean([-np.log(1 - sigmoid[0]), -np.log(1 - sigmoid[1]), -5 * np.log(sigmoid[2])])
    assert hard[1] == pytest.approx(many if multi_label else single, rel=1e-5)


def test_training_learns_and_keeps_the_best_weights(tmp_path):
    train, held_out = examples((60, 30, 10)), examples((20, 20, 20), seed=1)
    folder = Run.open(tmp_path / "r", {})
    keras.utils.set_random_seed(0)
    model = new_classifier("resnet1d", train, "abc", False, "tiny", stride=2)
    settings = {"steps": 60, "batch_size": 16, "learning_rate": 5e-3, "quiet": True, "rate": 100, "leads": LEADS[:2]}
    fit_classifier(model, train, held_out, run=folder, **settings)
    assert (predict(model, held_out.signals).argmax(axis=1) == held_out.labels.argmax(axis=1)).mean() > 0.9
    best = json.loads((folder.folder / "checkpoints" / "classifier" / "best.json").read_text())
    assert best["value"] > 0.98


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    train, held_out = examples((30, 20, 10)), examples((5, 5, 5), seed=1)
    settings = {"steps": 12, "batch_size": 8, "quiet": True, "rate": 100, "leads": LEADS[:2]}

    def trained(name, resume=False, **options):
        keras.utils.set_random_seed(3)
        model = new_classifier("resnet1d", train, "abc", False, "tiny", stride=2, dropout=0.3)
        folder = Run.open(tmp_path / name, {}, resume=resume)
        done = fit_classifier(model, train, train.take([]), run=folder, resume=resume, **settings, **options)
        return done, predict(model, held_out.signals)

    done, whole = trained("whole")
    stopped, half = trained("parts", max_minutes=0)
    resumed, parts = trained("parts", resume=True)
    assert (done, resumed) == (12, 12)
    assert stopped < 12
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert np.abs(half - whole).max() > 1e-2


def test_synthetic_records_are_mixed_in_and_their_lineage_kept(tmp_path, real_set, synthetic_set):
    run = train_classifier(
        "resnet1d",
        real_set,
        tmp_path / "m",
        synthetic=synthetic_set,
        synthetic_ratio=0.5,
        class_weights="balanced",
        balance=0,
        **QUICK,
    )
    assert run.config["training_records"]["synthetic"] == dict.fromkeys(get_task("rhythm7").classes, 3)
    assert len(run.trained_on()) == 42 + 21
    with pytest.raises(ValueError, match="holds a run already"):
        train_classifier("resnet1d", real_set, tmp_path / "m", **QUICK)


def test_classes_without_records_are_named(tmp_path, real_set):
    rhythms, superclasses = get_task("rhythm4"), get_task("superclass")
    labels = np.array([[1, 0, 1, 0]], dtype="float32")
    with pytest.raises(
        ValueError, match="no training records of AFIB, SR; choose another --task, or accept it with --allow-empty"
    ):
        check_classes(labels, rhythms, allow_empty=False)
    check_classes(labels, rhythms, allow_empty=True)
    check_classes(np.array([[1, 0, 0, 0, 0]]), superclasses, allow_empty=False)  # a multi-label task keeps its empty classes
    with pytest.raises(ValueError, match="no training record has a class of task superclass"):
        train_classifier("resnet1d", real_set, tmp_path / "c", task="superclass", **QUICK)
    assert not (tmp_path / "c").exists()


def test_test_records_that_a_generator_saw_are_refused(tmp_path, real_set, make_dataset):
    saw = [hash_id(name) for name in load_arrays(real_set, "test").ids[:3]]
    leaky = make_dataset(generator={"run": "toy", "settings": {}, "trained_on": saw})
    for train in (lambda **o: train_classifier("resnet1d", real_set, **o), lambda **o: finetune(real_set, **o)):
        with pytest.raises(ValueError, match="3 of 42 test records were used in training"):
            train(out=tmp_path / "x", synthetic=leaky, **QUICK)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "resnet2d"}, "unknown classifier 'resnet2d'; expected one of resnet1d, inception_time, xresnet1d"),
        ({"preset": "huge"}, "unknown preset"),
        ({"balance": 2.0}, "balance between 0 and 1"),
        ({"class_weights": "auto"}, "'balanced' or None"),
        ({"class_weights": "balanced", "balance": 1.0}, "'balanced' and balance 1 do the same: expected one of them"),
        ({"mixing": "evenly"}, "unknown mixing 'evenly'; expected one of proportional, balancing"),
        ({"synthetic_ratio": -1.0}, "expected a synthetic ratio of at least 0, received -1.0"),
        ({"steps": 5, "epochs": 1}, "not both"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(tmp_path, real_set, options, message):
    options = {"kind": "resnet1d", "quiet": True} | options
    with pytest.raises(ValueError, match=message):
        train_classifier(data=real_set, out=tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


def test_the_log_has_what_weights_are_chosen_by(classifier_run):
    with (classifier_run.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["val_macro_auroc"]) <= 1 and float(row["val_loss"]) > 0 for row in rows)
    best = json.loads((classifier_run.folder / "checkpoints" / "classifier" / "best.json").read_text())
    assert max(float(row["val_score"]) for row in rows) == pytest.approx(best["value"], abs=1e-5)


def test_two_replicas_train_and_predict(tmp_path, real_set):
    code = f"""
from ecgtf.classifiers import KINDS
from ecgtf.classifiers.classifier import train_classifier
run = train_classifier("resnet1d", {str(real_set)!r}, {str(tmp_path / "r")!r}, preset="tiny", steps=4, batch_size=8, devices=2,
                       bootstrap=0, quiet=True)
print("finished", run.config["steps_done"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert "finished 4" in done.stdout, done.stderr[-2000:]
