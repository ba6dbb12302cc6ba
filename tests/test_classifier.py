import csv
import gc
import json
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import edit_manifest, toy_record

from ecgtf.augment import Augmentation, augmented
from ecgtf.classifiers import KINDS
from ecgtf.classifiers.classifier import train_classifier
from ecgtf.classifiers.examples import Examples, dealt, mix, read_examples, read_splits, share, training_batches
from ecgtf.classifiers.fitting import _loss, fit_classifier
from ecgtf.classifiers.networks import features, load_classifier, new_classifier, predict
from ecgtf.classifiers.transfer import finetune
from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import LeakError, finish_dataset, hash_id, load_arrays, write_split
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS
from ecgtf.run_folder import Run
from ecgtf.tasks import check_classes, get_task

QUICK = {"preset": "tiny", "steps": 20, "batch_size": 8, "bootstrap": 20, "quiet": True}


def examples(per_class=(60, 30, 10), samples=50, seed=0) -> Examples:
    """Sines whose frequency is the class."""
    rng = np.random.default_rng(seed)
    target = np.repeat(np.arange(len(per_class)), per_class)
    phase = rng.uniform(0, 6.28, (len(target), 1))
    wave = np.sin(np.arange(samples) * (0.2 + 0.3 * target[:, None]) + phase)[..., None]
    signals = (wave * [1.0, -0.5] + 0.1 * rng.normal(size=(len(target), samples, 2))).astype("float32")
    return Examples(
        signals, np.eye(len(per_class), dtype="float32")[target], [f"r{k}" for k in range(len(target))], ["a"] * len(target)
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    from conftest import write_toy_dataset

    return write_toy_dataset(tmp_path_factory.mktemp("sets") / "real", {"train": 6, "validation": 2, "test": 4}, name="real")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, real):
    """As many records as the real set, said to come of a generator that saw its training records."""
    from conftest import write_toy_dataset

    saw = [hash_id(name) for name in load_arrays(real, "train").ids]
    folder = tmp_path_factory.mktemp("sets") / "synthetic"
    made = {"run": "toy", "settings": {}, "trained_on": saw}
    return write_toy_dataset(folder, {"train": 6}, name="synthetic", generator=made)


@pytest.fixture(scope="module")
def run(tmp_path_factory, real):
    """A classifier of four rhythms."""
    options = QUICK | {"steps": 60}
    return train_classifier("resnet1d", real, tmp_path_factory.mktemp("runs") / "c", task="rhythm4", seed=1, **options)


# --- records in memory


def test_shares_are_nested_stratified_and_keep_every_class():
    labels = np.eye(3, dtype="float32")[np.repeat([0, 1, 2], (80, 18, 2))]
    previous: set = set()
    for fraction, sizes in ((0.01, [1, 1, 1]), (0.2, [16, 4, 1]), (0.5, [40, 9, 1]), (1.0, [80, 18, 2])):
        kept = share(labels, fraction, seed=3)
        assert labels[kept].sum(axis=0).tolist() == sizes
        assert previous <= set(kept.tolist())
        previous = set(kept.tolist())
    assert not np.array_equal(share(labels, 0.2, seed=3), share(labels, 0.2, seed=4))


def test_shares_of_multi_hot_labels_keep_every_class():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 4)) < (0.6, 0.3, 0.02, 0.0)).astype("float32")
    labels[7, 3] = 1
    kept = share(labels, 0.05, seed=0)
    assert (labels[kept].sum(axis=0) > 0).all()
    assert len(kept) < 20
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        share(labels, 0.0, seed=0)


def test_synthetic_records_are_added_class_by_class():
    real, made = examples((10, 4, 2)), examples((50, 50, 3))
    assert mix(real, made, 1.5, False, 0).labels.sum(axis=0).tolist() == [15, 6, 3]
    assert mix(real, made, 2.0, False, 0).labels.sum(axis=0).tolist() == [20, 8, 3]  # no more than there are
    assert len(mix(real, made, 0.0, False, 0)) == 0
    assert len(mix(real, made, 0.5, True, 0)) == 8


def test_synthetic_records_may_balance_the_rare_classes():
    assert dealt(np.array([10, 4, 2]), 0.25, "balancing").tolist() == [0, 1, 3]  # to the smallest, one after another: 10, 5, 5
    assert dealt(np.array([10, 4, 2]), 1.0, "balancing").tolist() == [1, 7, 8]
    sizes = np.array([100, 7, 31, 0])
    for ratio in (0.0, 0.3, 1.0, 4.0):
        added = dealt(sizes, ratio, "balancing")
        assert added.sum() == round(ratio * sizes.sum())
        assert (added >= 0).all()
        filled = (sizes + added)[added > 0]
        assert ratio == 0 or filled.max() - filled.min() <= 1  # whoever got records ends level
    real, made = examples((10, 4, 2)), examples((50, 50, 5))
    assert mix(real, made, 1.0, False, 0, "balancing").labels.sum(axis=0).tolist() == [1, 7, 5]
    rare = mix(real, made, 3.0, True, 0, "balancing").labels.sum(axis=0)[2]
    assert rare > mix(real, made, 3.0, True, 0).labels.sum(axis=0)[2]
    with pytest.raises(ValueError, match="expected one of proportional, balancing"):
        mix(real, made, 1.0, False, 0, "evenly")


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_stream_entered_late_goes_on_as_if_never_left(balance):
    train = examples((5, 4, 2))
    options = {"batch_size": 4, "balance": balance, "seed": 5}
    whole = [batch[0].numpy() for batch in training_batches(train, **options).take(9)]
    late = [batch[0].numpy() for batch in training_batches(train, start_batch=6, **options).take(3)]
    np.testing.assert_array_equal(whole[6:], late)


def test_an_epoch_shows_every_record_once_and_balance_shows_classes_equally():
    train = examples((5, 4, 3))
    plain = np.concatenate([batch[0].numpy() for batch in training_batches(train, batch_size=4).take(3)])
    order = np.lexsort(plain[:, :2, 0].T), np.lexsort(train.signals[:, :2, 0].T)
    np.testing.assert_array_equal(plain[order[0]], train.signals[order[1]])
    train = examples((900, 90, 10))
    balanced = next(iter(training_batches(train, batch_size=3000, balance=1.0)))[1].numpy()
    np.testing.assert_allclose(balanced.mean(axis=0), 1 / 3, atol=0.04)


def test_ids_of_synthetic_sets_carry_the_name_of_the_set(real, synthetic):
    both = read_examples([real, synthetic], "train", get_task("rhythm7"))
    assert both.ids[0].startswith("toy/train/")
    assert both.ids[-1].startswith("synthetic/toy/train/")
    assert len(both) == len(both.signals) == 84


# --- training


def test_a_run_folder_holds_model_metrics_predictions_and_ids(run, real):
    assert run.finished
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["test"]["n"] == 28
    assert metrics["test"]["per_class"]["SR"]["n"] == 8  # sinus rhythm and sinus arrhythmia
    assert metrics["test"]["macro_auroc"]["low"] <= metrics["test"]["macro_auroc"]["value"]
    assert run.config["training_records"] == {"given": {"SB": 6, "AFIB": 12, "GSVT": 12, "SR": 12}}
    assert set(run.trained_on()) == {hash_id(name) for name in load_arrays(real, "train").ids}


def test_the_loaded_model_gives_the_predictions_of_the_run(run, real):
    model = load_classifier(run.folder)
    test = load_arrays(real, "test", "rhythm4")
    kept = np.load(run.folder / "predictions.npz")
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


def test_no_thread_tunes_batches():
    batches = augmented(
        training_batches(examples((5, 5)), batch_size=4), 0, 0, Augmentation(gain=0.1), rate=100.0, leads=("I", "II")
    )
    assert not batches.options().autotune.enabled  # an iterator that ends would wait for it, asleep for seconds


def test_batches_show_sets_equally_often_on_request():
    train = examples((50, 50)).plus(replace(examples((5, 5), seed=1), sources=["b"] * 10))
    few = {signal.tobytes() for signal in train.signals[100:]}

    def share(**options) -> float:
        batch = next(iter(training_batches(train, batch_size=3000, **options)))[0].numpy()
        return np.mean([signal.tobytes() in few for signal in batch])

    assert share() == pytest.approx(10 / 110, abs=0.005)
    assert share(balance_sources=1.0) == pytest.approx(0.5, abs=0.03)
    assert share(balance=1.0) == pytest.approx(10 / 110, abs=0.02)  # the classes are balanced already


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


def test_synthetic_records_are_mixed_in_and_their_lineage_kept(tmp_path, real, synthetic):
    run = train_classifier(
        "resnet1d", real, tmp_path / "m", synthetic=synthetic, synthetic_ratio=0.5, class_weights="balanced", balance=0, **QUICK
    )
    assert run.config["training_records"]["synthetic"] == dict.fromkeys(get_task("rhythm7").classes, 3)
    assert len(run.trained_on()) == 42 + 21
    with pytest.raises(ValueError, match="not empty"):
        train_classifier("resnet1d", real, tmp_path / "m", **QUICK)


def test_a_synthetic_set_alone_is_tested_on_the_set_that_is_named(real, synthetic):
    train, validation, test = read_splits(synthetic, real, get_task("rhythm7"), seed=0)
    assert len(test) == 28
    assert train.labels.sum(axis=0).tolist() == [5.0] * 7  # one of the six is held out for validation
    assert validation.labels.sum(axis=0).tolist() == [1.0] * 7
    assert not set(train.ids) & set(validation.ids)


def test_classes_without_records_are_named(tmp_path, real):
    rhythms, superclasses = get_task("rhythm4"), get_task("superclass")
    labels = np.array([[1, 0, 1, 0]], dtype="float32")
    with pytest.raises(
        ValueError, match="no training records of AFIB, SR; choose another --task, or accept it with --allow-empty"
    ):
        check_classes(labels, rhythms, allow_empty=False)
    check_classes(labels, rhythms, allow_empty=True)
    check_classes(np.array([[1, 0, 0, 0, 0]]), superclasses, allow_empty=False)  # a multi-label task keeps its empty classes
    with pytest.raises(ValueError, match="no training record has a class of task superclass"):
        train_classifier("resnet1d", real, tmp_path / "c", task="superclass", **QUICK)
    assert not (tmp_path / "c").exists()


def test_test_records_that_a_generator_saw_are_refused(tmp_path, real, make_dataset):
    saw = [hash_id(name) for name in load_arrays(real, "test").ids[:3]]
    leaky = make_dataset(generator={"run": "toy", "settings": {}, "trained_on": saw})
    for train in (lambda **o: train_classifier("resnet1d", real, **o), lambda **o: finetune(real, **o)):
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
def test_impossible_options_are_refused_before_anything_is_written(tmp_path, real, options, message):
    options = {"kind": "resnet1d", "quiet": True} | options
    with pytest.raises(ValueError, match=message):
        train_classifier(data=real, out=tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


# --- transfer


def test_pretraining_on_synthetic_records_then_a_share_of_real_ones(tmp_path, real, synthetic):
    run = finetune(real, tmp_path / "f", real_frac=0.5, synthetic=synthetic, pretrain_steps=20, seed=2, **QUICK)
    assert run.config["training_records"]["used"] == dict.fromkeys(get_task("rhythm7").classes, 3)
    assert run.config["seen_beyond_real_frac"] == 21  # the generator saw all 42, the share holds 21
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["before"]["n"] == metrics["test"]["n"] == 28
    stages = {row.split(",")[0] for row in (run.folder / "log.csv").read_text().splitlines()[1:]}
    assert stages == {"pretrain", "head", "finetune"}
    again = finetune(real, run.folder, real_frac=0.5, synthetic=synthetic, pretrain_steps=20, seed=2, resume=True, **QUICK)
    assert again.config == run.config


def test_synthetic_records_may_stay_in_the_fine_tuning(tmp_path, real, synthetic, run):
    options = QUICK | {"task": "rhythm4", "from_run": run.folder, "real_frac": 0.5, "mode": "full"}
    alone = finetune(real, tmp_path / "a", **options)
    beside = finetune(real, tmp_path / "b", rehearse=synthetic, rehearsal=0.5, **options)
    assert beside.config["training_records"] == alone.config["training_records"]  # of real ones
    logs = [(each.folder / "log.csv").read_text() for each in (alone, beside)]
    assert logs[0] != logs[1]
    assert set(map(hash_id, load_arrays(real, "train").ids)) <= set(beside.trained_on())  # what the generator saw


def test_learning_together_is_one_training_on_a_share_of_the_real_records_and_all_synthetic_ones(tmp_path, real, make_dataset):
    saw = [hash_id(name) for name in load_arrays(real, "train").ids]
    made = {"run": "toy", "settings": {}, "trained_on": saw}
    synthetic = make_dataset("made", {"train": 5, "validation": 1}, generator=made)
    options = QUICK | {"seed": 3, "balance_sources": 0.5}
    one = finetune(real, tmp_path / "a", synthetic=synthetic, mode="together", **options)
    other = train_classifier("resnet1d", [real, synthetic], tmp_path / "b", **options)
    for ours, theirs in zip(load_classifier(one).get_weights(), load_classifier(other).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(one.trained_on()) == set(saw) <= set(other.trained_on())
    assert one.config["training_records"]["synthetic"] == dict.fromkeys(get_task("rhythm7").classes, 5)
    share = finetune(real, tmp_path / "c", synthetic=synthetic, mode="together", real_frac=0.5, **options)
    assert share.config["training_records"]["used"] == dict.fromkeys(get_task("rhythm7").classes, 3)
    assert share.config["seen_beyond_real_frac"] == 21
    assert {row.split(",")[0] for row in (share.folder / "log.csv").read_text().splitlines()[1:]} == {"finetune"}


@pytest.mark.parametrize("given", [(), ("synthetic", "pretrain_steps"), ("synthetic", "rehearse")])
def test_learning_together_needs_synthetic_records_and_nothing_before_or_beside_them(tmp_path, real, synthetic, given):
    values = {"synthetic": synthetic, "pretrain_steps": 5, "rehearse": synthetic}
    more = {name: values[name] for name in given}
    with pytest.raises(
        ValueError, match="together learns real and synthetic records in one training: give synthetic data, and no"
    ):
        finetune(real, tmp_path / "x", mode="together", **more, **QUICK)
    assert not (tmp_path / "x").exists()


def test_a_trained_network_may_go_on_with_real_and_synthetic_records_together(tmp_path, real, synthetic, run):
    options = QUICK | {"task": "rhythm4", "from_run": run.folder, "synthetic": synthetic, "real_frac": 0.5}
    both = finetune(real, tmp_path / "b", mode="together", **options)
    assert json.loads((both.folder / "metrics.json").read_text())["before"]["n"] == 28
    assert set(run.trained_on()) <= set(both.trained_on())
    with pytest.raises(ValueError, match="synthetic data to pre-train on or a run to start from, not both"):
        finetune(real, tmp_path / "x", mode="full", **options)


@pytest.fixture
def of_rhythm4(tmp_path):
    """Eight records that a generator of rhythm4 drew: SB alone is a class of rhythm7 too."""
    task, samples = get_task("rhythm4"), 1000
    classes = np.eye(4)[[0, 1, 2, 3] * 2]
    records = [replace(toy_record(k, "SB", "train"), id=f"made/{k}", codes=task.code_of(row)) for k, row in enumerate(classes)]
    folder = tmp_path / "rhythm4"
    folder.mkdir()
    summary = write_split(folder, "train", iter(records), len(records), LEADS, samples)
    made = {"run": "toy", "task": "rhythm4", "settings": {}, "trained_on": []}
    about = {"name": "rhythm4", "sampling_rate": 100, "seconds": 10.0, "leads": LEADS, "sources": [], "generator": made}
    finish_dataset(folder, about, summary)
    return folder


@pytest.mark.parametrize("more", [{"pretrain_steps": 1}, {"mode": "together"}], ids=["before", "together"])
def test_classes_that_the_synthetic_records_lack_are_named(tmp_path, real, of_rhythm4, capsys, more):
    options = QUICK | {"steps": 1, "quiet": False} | more
    finetune(real, tmp_path / "a", synthetic=of_rhythm4, task="rhythm7", **options)
    (note,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("note"))
    assert note == (
        "note: no synthetic training record of SR, ST, SA, AFIB, AFLT, SVT; 6 of 8 have no class of task rhythm7; "
        "they were drawn for --task rhythm4"
    )


@pytest.mark.parametrize("more", [{"task": "rhythm4"}, {"allow_empty": True}], ids=str)
def test_nothing_is_noted_where_no_class_lacks_or_nobody_asks(tmp_path, real, of_rhythm4, capsys, more):
    options = QUICK | {"steps": 1, "quiet": False, "task": "rhythm7"} | more
    finetune(real, tmp_path / "run", synthetic=of_rhythm4, mode="together", **options)
    assert "note" not in capsys.readouterr().err


def test_what_was_learnt_before_counts_as_trained_on(tmp_path, real, make_dataset):
    """Also where the records to pre-train on are no generator's."""
    others = make_dataset("others", {"train": 10, "validation": 1})  # the first six of each class are real ones too
    run = finetune(real, tmp_path / "o", synthetic=others, pretrain_steps=1, **QUICK | {"steps": 1})
    assert set(map(hash_id, load_arrays(others, "train").ids)) <= set(run.trained_on())


@pytest.mark.parametrize("options", [{"mode": "together"}, {"pretrain_steps": 1}])
def test_records_that_weights_are_chosen_by_are_not_tested_on(tmp_path, real, make_dataset, options):
    others = make_dataset("others", {"train": 1, "test": 4})
    splits = json.loads((others / "dataset.json").read_text())["splits"]
    edit_manifest(others, splits=splits | {"validation": splits["test"], "test": splits["validation"]})
    with pytest.raises(LeakError, match="28 of 28 test records were used in training"):
        finetune(real, tmp_path / "x", synthetic=others, **options, **QUICK)


def test_records_that_an_earlier_run_was_chosen_by_are_not_tested_on(tmp_path, real, make_dataset):
    others = make_dataset("others", {"train": 1, "test": 4})
    splits = json.loads((others / "dataset.json").read_text())["splits"]
    edit_manifest(others, splits=splits | {"validation": splits["test"], "test": splits["validation"]})
    options = QUICK | {"steps": 1}
    first = train_classifier("resnet1d", others, tmp_path / "a", **options)
    assert set(first.chosen_by()) == set(map(hash_id, load_arrays(real, "test").ids))
    third = make_dataset("third", {"train": 2, "validation": 1})
    second = finetune(third, tmp_path / "b", from_run=first.folder, mode="full", **options)
    assert set(second.chosen_by()) == {*first.chosen_by(), *map(hash_id, load_arrays(third, "validation").ids)}
    for start in (first, second):
        with pytest.raises(LeakError, match="28 of 28 test records were used in training"):
            finetune(real, tmp_path / "x", from_run=start.folder, **options)
    (second.folder / "chosen_by.txt").unlink()
    assert second.chosen_by() == []


def test_a_run_that_does_not_tell_what_it_was_trained_on_is_no_start(tmp_path, real, run):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    (copy / "trained_on.txt").unlink()
    with pytest.raises(
        ValueError, match=r"copy holds no trained_on.txt, .*: put the file back, or train again with --overwrite"
    ):
        finetune(real, tmp_path / "x", from_run=copy, **QUICK)
    assert not (tmp_path / "x").exists()


def test_starting_from_a_run_replaces_the_head_where_classes_differ(tmp_path, real, run):
    moved = finetune(real, tmp_path / "g", from_run=run.folder, task="rhythm7", mode="full", real_frac=0.4, **QUICK)
    model = load_classifier(moved)
    assert model.get_layer("logits").classes == get_task("rhythm7").classes
    assert json.loads((moved.folder / "metrics.json").read_text())["before"] is None
    assert moved.config["seen_beyond_real_frac"] == 42 - 7 * 2  # the run saw the whole training split


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_is_trained_saved_and_fine_tuned_with_a_new_head(tmp_path, real, kind):
    first = train_classifier(kind, real, tmp_path / "c", task="rhythm4", **QUICK | {"steps": 3})
    tuned = finetune(real, tmp_path / "f", from_run=first.folder, task="rhythm7", real_frac=0.5, **QUICK | {"steps": 5})
    assert tuned.config["kind"] == kind
    model = load_classifier(tuned)
    assert model.get_layer("logits").classes == get_task("rhythm7").classes
    stages = {row.split(",")[0] for row in (tuned.folder / "log.csv").read_text().splitlines()[1:]}
    assert stages == {"head", "finetune"}
    assert any(layer.weights for layer in model.layers if layer.name != "logits" and layer.trainable)  # thawed again


def test_a_run_that_does_not_fit_is_refused(tmp_path, real, run):
    other = Run.open(tmp_path / "other", {"command": "train-generator"})
    with pytest.raises(ValueError, match="run of train-generator; expected a run of train-classifier"):
        finetune(real, tmp_path / "h", from_run=other.folder, **QUICK)
    with pytest.raises(ValueError, match="not both"):
        finetune(real, tmp_path / "h", from_run=run.folder, synthetic=real, **QUICK)


def test_what_cannot_be_trained_is_refused_before_anything_is_made_or_deleted(tmp_path, real, run, monkeypatch):
    before = (run.folder / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="is the run to start from, which stays as it is"):
        finetune(real, run.folder, from_run=run.folder, overwrite=True, **QUICK)
    assert (run.folder / "model.keras").read_bytes() == before
    few = tmp_path / "few"
    prepare(None, None, few, limit=14, leads=INDEPENDENT_LEADS)
    turned = QUICK | {"augment": Augmentation(axis=5.0)}
    for train in (lambda out, **options: train_classifier("resnet1d", few, out, **options), partial(finetune, few)):
        with pytest.raises(ValueError, match="axis needs the leads I, II, III"):
            train(out=tmp_path / "new", **turned)
    for wrong in ({"steps": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected at least 1 step and 1 record a batch"):
            finetune(real, tmp_path / "new", **QUICK | wrong)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}))
    for train in (lambda: train_classifier("resnet1d", real, tmp_path / "new"), lambda: finetune(real, tmp_path / "new")):
        with pytest.raises(ValueError, match="classifiers are trained on one machine, and TF_CONFIG names 2 workers"):
            train()
    assert not (tmp_path / "new").exists()


def test_the_log_has_what_weights_are_chosen_by(run):
    with (run.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row["val_macro_auroc"]) <= 1 and float(row["val_loss"]) > 0 for row in rows)
    best = json.loads((run.folder / "checkpoints" / "classifier" / "best.json").read_text())
    assert max(float(row["val_score"]) for row in rows) == pytest.approx(best["value"], abs=1e-5)


def test_two_replicas_train_and_predict(tmp_path, real):
    code = f"""
from ecgtf.classifiers import KINDS
from ecgtf.classifiers.classifier import train_classifier
run = train_classifier("resnet1d", {str(real)!r}, {str(tmp_path / "r")!r}, preset="tiny", steps=4, batch_size=8, devices=2,
                       bootstrap=0, quiet=True)
print("finished", run.config["steps_done"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert "finished 4" in done.stdout, done.stderr[-2000:]
