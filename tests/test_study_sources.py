"""What is drawn from a fold's generator: enough for whatever a cell asks for."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from study_results import one_collection

from ecgtf.classifiers.examples import Examples, dealt, mix
from ecgtf.dataset import read_manifest, verify
from ecgtf.studies import sources
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import Grid, Recipe
from ecgtf.studies.sources import _enough, best_share, pool_labels
from ecgtf.studies.trials import pretraining_name
from ecgtf.tasks import get_task

SIZES = (201, 17, 40, 3)
REAL = np.repeat(np.eye(4, dtype=np.float32), SIZES, axis=0)


def grids(ratios: tuple[float, ...], mixings: tuple[str, ...] = ("proportional", "balancing")) -> dict:
    return {"augmentation": (Grid(recipes=("plain",), sources=("vqvae",), ratios=ratios, mixings=mixings),)}


def training_part(labels: np.ndarray) -> np.ndarray:
    """What `generate` writes as the training split."""
    return labels[: len(labels) - round(0.1 * len(labels))]


@pytest.mark.parametrize(("keep", "rehearsal"), [(1.0, 0.0), (0.4, 0.0), (1.0, 1.5)])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.0])
def test_a_pool_has_enough_of_every_class_for_every_ratio_mixing_and_recipe(ratio, keep, rehearsal):
    recipes = {"plain": Recipe(), "other": Recipe(keep=keep, rehearsal=rehearsal)}
    drawn = pool_labels(REAL, one_collection(grids=grids((ratio,)), recipes=recipes, pool_per_class=5), "vqvae", "A")
    there = training_part(drawn).sum(axis=0)
    for mixing in ("proportional", "balancing"):
        assert (keep * there >= dealt(np.array(SIZES), ratio, mixing) - 0.5).all()
    assert (there >= dealt(np.array(SIZES), rehearsal, "proportional")).all()
    assert (there >= 5).all()
    rest = drawn[len(training_part(drawn)) :]
    assert (rest.sum(axis=0) > 0).all()  # a class each in what chooses the weights


def test_a_pool_is_as_large_as_is_asked_of_its_generator_on_its_collection():
    (grid,) = grids((1.0,))["augmentation"]
    config = one_collection(grids={"augmentation": (replace(grid, collections=("A",)),)}, pool_per_class=5)

    def drawn(generator, collection, seen=1.0) -> list[float]:
        return pool_labels(REAL, config, generator, collection, seen).sum(axis=0).tolist()

    assert min(drawn("vqvae", "A")) > 50
    assert drawn("diffwave", "A") == drawn("vqvae", "B") == drawn("vqvae", "A", seen=0.2) == [6, 6, 6, 6]  # one for validation


def test_a_pool_of_labels_that_go_together_is_of_the_training_records():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 5)) < [0.6, 0.3, 0.3, 0.2, 0.05]).astype(np.float32)
    config = one_collection(task="superclass", grids=grids((1.0,)), pool_per_class=2)
    drawn = pool_labels(labels, config, "vqvae", "A")
    assert {tuple(row) for row in drawn} == {tuple(row) for row in labels}
    made, real = (
        Examples(np.zeros((len(part), 1, 1), np.float32), part, list(map(str, range(len(part)))), [""] * len(part))
        for part in (training_part(drawn), labels)
    )
    rare = [mix(real, made, 1.0, True, 0, mixing).labels.mean(axis=0)[4] for mixing in ("proportional", "balancing")]
    assert rare[1] > rare[0]  # there are more than are taken, so that rare ones can come first


def test_a_pool_that_lacks_one_record_is_not_enough(make_dataset):
    pool, task = make_dataset("pool", {"train": 18, "validation": 2}), get_task("rhythm7")
    labels = np.repeat(np.eye(7), 20, axis=0)
    assert _enough(pool, labels, task)
    assert not _enough(pool, np.concatenate([labels, labels[-1:]]), task)
    assert not _enough(pool.parent / "none", labels, task)


def test_the_best_share_is_of_each_label_by_itself():
    labels = np.array([[1, 0]] * 4 + [[0, 1]] * 2)
    likely = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.8, 0.2], [0.5, 0.5]])
    assert best_share(labels, likely, 0.5).tolist() == [0, 2, 5]
    assert best_share(labels, likely, 0.01).tolist() == [0, 5]
    assert best_share(labels, likely, 1.0).tolist() == list(range(6))


@pytest.fixture
def judged(make_dataset, tmp_path, monkeypatch):
    """Keeps half of a synthetic set by a judge to whom all records are alike: the set, where its half goes, and a call."""
    pool = make_dataset("pool", {"train": 4, "validation": 2}, generator={"trained_on": ["b"]})
    monkeypatch.setattr(sources, "load_classifier", lambda run: None)
    monkeypatch.setattr(sources, "predict", lambda model, signals: np.full((len(signals), 7), 1 / 7))
    judge, config = SimpleNamespace(trained_on=lambda: ["a", "b"]), one_collection(task="rhythm7")
    out = tmp_path / "kept" / "half"
    return pool, out, lambda: sources._keep(pool, out, 0.5, judge, config)


def test_what_is_kept_is_a_set_that_knows_what_its_judge_saw(judged):
    pool, out, keep = judged
    keep()
    manifest = read_manifest(out)
    assert (manifest.name, manifest.records_in("train"), manifest.records_in("validation")) == ("half", 14, 7)
    assert manifest.generator["trained_on"] == ["a", "b"]
    assert manifest.provenance == {"command": "study", "kept": 0.5, "of": read_manifest(pool).checksum}
    assert verify(out) == []


def test_what_was_kept_stays_until_what_is_kept_anew_is_whole(judged, monkeypatch):
    _, out, keep = judged
    keep()
    before = read_manifest(out).checksum
    monkeypatch.setattr(sources, "finish_dataset", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep()
    assert read_manifest(out).checksum == before
    assert [path.name for path in out.parent.iterdir()] == ["half"]


def test_pre_training_on_what_no_fold_changes_is_shared():
    config = one_collection()
    cells = [Cell("A", fold, "resnet1d", "plain", "simulator>vqvae") for fold in range(2)]
    assert len({pretraining_name(cell, ("simulator",), config) for cell in cells}) == 1
    assert len({pretraining_name(cell, ("simulator", "vqvae"), config) for cell in cells}) == 2
