import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import edit_manifest, toy_record
from small_classifiers import QUICK

from ecgtf.augment import Augmentation
from ecgtf.classifiers import KINDS
from ecgtf.classifiers.classifier import train_classifier
from ecgtf.classifiers.networks import load_classifier
from ecgtf.classifiers.transfer import finetune
from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import LeakError, finish_dataset, hash_id, load_arrays, write_split
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS
from ecgtf.run_folder import Run
from ecgtf.tasks import get_task


def test_pretraining_on_synthetic_records_then_a_share_of_real_ones(tmp_path, real_set, synthetic_set):
    run = finetune(real_set, tmp_path / "f", real_frac=0.5, synthetic=synthetic_set, pretrain_steps=20, seed=2, **QUICK)
    assert run.config["training_records"]["used"] == dict.fromkeys(get_task("rhythm7").classes, 3)
    assert run.config["seen_beyond_real_frac"] == 21  # the generator saw all 42, the share holds 21
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["before"]["n"] == metrics["test"]["n"] == 28
    stages = {row.split(",")[0] for row in (run.folder / "log.csv").read_text().splitlines()[1:]}
    assert stages == {"pretrain", "head", "finetune"}
    again = finetune(
        real_set, run.folder, real_frac=0.5, synthetic=synthetic_set, pretrain_steps=20, seed=2, resume=True, **QUICK
    )
    assert again.config == run.config


def test_synthetic_records_may_stay_in_the_fine_tuning(tmp_path, real_set, synthetic_set, classifier_run):
    options = QUICK | {"task": "rhythm4", "from_run": classifier_run.folder, "real_frac": 0.5, "mode": "full"}
    alone = finetune(real_set, tmp_path / "a", **options)
    beside = finetune(real_set, tmp_path / "b", rehearse=synthetic_set, rehearsal=0.5, **options)
    assert beside.config["training_records"] == alone.config["training_records"]  # of real ones
    logs = [(each.folder / "log.csv").read_text() for each in (alone, beside)]
    assert logs[0] != logs[1]
    assert set(map(hash_id, load_arrays(real_set, "train").ids)) <= set(beside.trained_on())  # what the generator saw


def test_learning_together_is_one_training_on_a_share_of_the_real_records_and_all_synthetic_ones(
    tmp_path, real_set, make_dataset
):
    saw = [hash_id(name) for name in load_arrays(real_set, "train").ids]
    made = {"run": "toy", "settings": {}, "trained_on": saw}
    synthetic = make_dataset("made", {"train": 5, "validation": 1}, generator=made)
    options = QUICK | {"seed": 3, "balance_sources": 0.5}
    one = finetune(real_set, tmp_path / "a", synthetic=synthetic, mode="together", **options)
    other = train_classifier("resnet1d", [real_set, synthetic], tmp_path / "b", **options)
    for ours, theirs in zip(load_classifier(one).get_weights(), load_classifier(other).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(one.trained_on()) == set(saw) <= set(other.trained_on())
    assert one.config["training_records"]["synthetic"] == dict.fromkeys(get_task("rhythm7").classes, 5)
    share = finetune(real_set, tmp_path / "c", synthetic=synthetic, mode="together", real_frac=0.5, **options)
    assert share.config["training_records"]["used"] == dict.fromkeys(get_task("rhythm7").classes, 3)
    assert share.config["seen_beyond_real_frac"] == 21
    assert {row.split(",")[0] for row in (share.folder / "log.csv").read_text().splitlines()[1:]} == {"finetune"}


@pytest.mark.parametrize("given", [(), ("synthetic", "pretrain_steps"), ("synthetic", "rehearse")])
def test_learning_together_needs_synthetic_records_and_nothing_before_or_beside_them(tmp_path, real_set, synthetic_set, given):
    values = {"synthetic": synthetic_set, "pretrain_steps": 5, "rehearse": synthetic_set}
    more = {name: values[name] for name in given}
    with pytest.raises(
        ValueError, match="together learns real and synthetic records in one training: give synthetic data, and no"
    ):
        finetune(real_set, tmp_path / "x", mode="together", **more, **QUICK)
    assert not (tmp_path / "x").exists()


def test_a_trained_network_may_go_on_with_real_and_synthetic_records_together(
    tmp_path, real_set, synthetic_set, classifier_run
):
    options = QUICK | {"task": "rhythm4", "from_run": classifier_run.folder, "synthetic": synthetic_set, "real_frac": 0.5}
    both = finetune(real_set, tmp_path / "b", mode="together", **options)
    assert json.loads((both.folder / "metrics.json").read_text())["before"]["n"] == 28
    assert set(classifier_run.trained_on()) <= set(both.trained_on())
    with pytest.raises(ValueError, match="synthetic data to pre-train on or a run to start from, not both"):
        finetune(real_set, tmp_path / "x", mode="full", **options)


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
def test_classes_that_the_synthetic_records_lack_are_named(tmp_path, real_set, of_rhythm4, capsys, more):
    options = QUICK | {"steps": 1, "quiet": False} | more
    finetune(real_set, tmp_path / "a", synthetic=of_rhythm4, task="rhythm7", **options)
    (note,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("note"))
    assert note == (
        "note: no synthetic training record of SR, ST, SA, AFIB, AFLT, SVT; 6 of 8 have no class of task rhythm7; "
        "they were drawn for --task rhythm4"
    )


@pytest.mark.parametrize("more", [{"task": "rhythm4"}, {"allow_empty": True}], ids=str)
def test_nothing_is_noted_where_no_class_lacks_or_nobody_asks(tmp_path, real_set, of_rhythm4, capsys, more):
    options = QUICK | {"steps": 1, "quiet": False, "task": "rhythm7"} | more
    finetune(real_set, tmp_path / "run", synthetic=of_rhythm4, mode="together", **options)
    assert "note" not in capsys.readouterr().err


def test_what_was_learnt_before_counts_as_trained_on(tmp_path, real_set, make_dataset):
    """Also where the records to pre-train on are no generator's."""
    others = make_dataset("others", {"train": 10, "validation": 1})  # the first six of each class are real ones too
    run = finetune(real_set, tmp_path / "o", synthetic=others, pretrain_steps=1, **QUICK | {"steps": 1})
    assert set(map(hash_id, load_arrays(others, "train").ids)) <= set(run.trained_on())


@pytest.mark.parametrize("options", [{"mode": "together"}, {"pretrain_steps": 1}])
def test_records_that_weights_are_chosen_by_are_not_tested_on(tmp_path, real_set, make_dataset, options):
    others = make_dataset("others", {"train": 1, "test": 4})
    splits = json.loads((others / "dataset.json").read_text())["splits"]
    edit_manifest(others, splits=splits | {"validation": splits["test"], "test": splits["validation"]})
    with pytest.raises(LeakError, match="28 of 28 test records were used in training"):
        finetune(real_set, tmp_path / "x", synthetic=others, **options, **QUICK)


def test_records_that_an_earlier_run_was_chosen_by_are_not_tested_on(tmp_path, real_set, make_dataset):
    others = make_dataset("others", {"train": 1, "test": 4})
    splits = json.loads((others / "dataset.json").read_text())["splits"]
    edit_manifest(others, splits=splits | {"validation": splits["test"], "test": splits["validation"]})
    options = QUICK | {"steps": 1}
    first = train_classifier("resnet1d", others, tmp_path / "a", **options)
    assert set(first.chosen_by()) == set(map(hash_id, load_arrays(real_set, "test").ids))
    third = make_dataset("third", {"train": 2, "validation": 1})
    second = finetune(third, tmp_path / "b", from_run=first.folder, mode="full", **options)
    assert set(second.chosen_by()) == {*first.chosen_by(), *map(hash_id, load_arrays(third, "validation").ids)}
    for start in (first, second):
        with pytest.raises(LeakError, match="28 of 28 test records were used in training"):
            finetune(real_set, tmp_path / "x", from_run=start.folder, **options)
    (second.folder / "chosen_by.txt").unlink()
    assert second.chosen_by() == []


def test_a_run_that_does_not_tell_what_it_was_trained_on_is_no_start(tmp_path, real_set, classifier_run):
    copy = shutil.copytree(classifier_run.folder, tmp_path / "copy")
    (copy / "trained_on.txt").unlink()
    with pytest.raises(
        ValueError, match=r"copy holds no trained_on.txt, .*: put the file back, or train again with --overwrite"
    ):
        finetune(real_set, tmp_path / "x", from_run=copy, **QUICK)
    assert not (tmp_path / "x").exists()


def test_starting_from_a_run_replaces_the_head_where_classes_differ(tmp_path, real_set, classifier_run):
    moved = finetune(
        real_set, tmp_path / "g", from_run=classifier_run.folder, task="rhythm7", mode="full", real_frac=0.4, **QUICK
    )
    model = load_classifier(moved)
    assert model.get_layer("logits").classes == get_task("rhythm7").classes
    assert json.loads((moved.folder / "metrics.json").read_text())["before"] is None
    assert moved.config["seen_beyond_real_frac"] == 42 - 7 * 2  # the run saw the whole training split


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_is_trained_saved_and_fine_tuned_with_a_new_head(tmp_path, real_set, kind):
    first = train_classifier(kind, real_set, tmp_path / "c", task="rhythm4", **QUICK | {"steps": 3})
    tuned = finetune(real_set, tmp_path / "f", from_run=first.folder, task="rhythm7", real_frac=0.5, **QUICK | {"steps": 5})
    assert tuned.config["kind"] == kind
    model = load_classifier(tuned)
    assert model.get_layer("logits").classes == get_task("rhythm7").classes
    stages = {row.split(",")[0] for row in (tuned.folder / "log.csv").read_text().splitlines()[1:]}
    assert stages == {"head", "finetune"}
    assert any(layer.weights for layer in model.layers if layer.name != "logits" and layer.trainable)  # thawed again


def test_a_run_that_does_not_fit_is_refused(tmp_path, real_set, classifier_run):
    other = Run.open(tmp_path / "other", {"command": "train-generator"})
    with pytest.raises(ValueError, match="run of train-generator; expected a run of train-classifier"):
        finetune(real_set, tmp_path / "h", from_run=other.folder, **QUICK)
    with pytest.raises(ValueError, match="not both"):
        finetune(real_set, tmp_path / "h", from_run=classifier_run.folder, synthetic=real_set, **QUICK)


def test_what_cannot_be_trained_is_refused_before_anything_is_made_or_deleted(tmp_path, real_set, classifier_run, monkeypatch):
    before = (classifier_run.folder / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="is the run to start from, which stays as it is"):
        finetune(real_set, classifier_run.folder, from_run=classifier_run.folder, overwrite=True, **QUICK)
    assert (classifier_run.folder / "model.keras").read_bytes() == before
    few = tmp_path / "few"
    prepare(None, None, few, limit=14, leads=INDEPENDENT_LEADS)
    turned = QUICK | {"augment": Augmentation(axis=5.0)}
    for train in (lambda out, **options: train_classifier("resnet1d", few, out, **options), partial(finetune, few)):
        with pytest.raises(ValueError, match="axis needs the leads I, II, III"):
            train(out=tmp_path / "new", **turned)
    for wrong in ({"steps": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected at least 1 step and 1 record a batch"):
            finetune(real_set, tmp_path / "new", **QUICK | wrong)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}))
    for train in (
        lambda: train_classifier("resnet1d", real_set, tmp_path / "new"),
        lambda: finetune(real_set, tmp_path / "new"),
    ):
        with pytest.raises(ValueError, match="classifiers are trained on one machine, and TF_CONFIG names 2 workers"):
            train()
    assert not (tmp_path / "new").exists()
