"""One cell of a study: what it leaves behind, and what it takes as it is."""

import contextlib
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import write_toy_dataset

from ecgtf.data_prep.prepare import prepare
from ecgtf.ecg import INDEPENDENT_LEADS
from ecgtf.run_folder import is_outdated
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import GeneratorPlan, ReadySource, Recipe, StudyConfig
from ecgtf.studies.results import Results
from ecgtf.studies.runner import _run_cell, check_study
from ecgtf.studies.sources import Workshop
from ecgtf.studies.trials import Trials

QUICK = Recipe(preset="tiny", steps=2, pretrain_steps=2, finetune_steps=2, batch_size=8, augment="")
REAL = Cell("A", 0, "resnet1d", "plain")
MADE = {"run": "toy", "settings": {}, "trained_on": []}


@pytest.fixture
def trials(tmp_path):
    """A transfer study of one small collection and two ready sources."""
    data = write_toy_dataset(tmp_path / "data", {"train": 6}, name="data")
    source = write_toy_dataset(tmp_path / "made", {"train": 2, "validation": 1}, name="made", generator=MADE)
    more = write_toy_dataset(tmp_path / "more", {"train": 1, "validation": 1}, name="more", generator=MADE)
    config = StudyConfig(
        "toy",
        "rhythm4",
        {"A": (str(data),)},
        {"plain": QUICK},
        folds=2,
        validation=0.5,
        work=str(tmp_path / "work"),
        sources={"made": ReadySource((str(source),)), "more": ReadySource((str(more),))},
    )
    return Trials(Workshop(config, quiet=True), "transfer")


class Killed(BaseException):
    """What nobody catches."""


def test_a_cell_that_is_killed_while_its_run_is_deleted_is_tested_by_the_next_start(trials, monkeypatch):
    folder, unlink = trials.workshop.folder / "classifiers", os.unlink

    def die_behind_the_model(path, **options):
        unlink(path, **options)
        if path == "model.keras":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", die_behind_the_model)
        with pytest.raises(Killed):
            trials.run(REAL)
    assert list(folder.iterdir())
    ((row, predictions),) = trials.run(REAL)
    assert row.n == len(predictions.ids) == 21
    assert list(folder.iterdir()) == []


def test_a_pre_training_that_is_finished_is_taken_as_it_is_wherever_the_work_lies_now(trials, tmp_path):
    """Its source is not read again."""
    cell = replace(REAL, source="made")
    ((_, first),) = trials.run(cell)
    (run,) = (trials.workshop.folder / "pretrained").iterdir()
    assert run.name == "resnet1d-plain-made-seed0"
    model = (run / "model.keras").read_bytes()
    moved = trials.workshop.folder.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "made")
    later = Trials(Workshop(replace(trials.config, work=str(moved)), quiet=True), "transfer")
    ((_, second),) = later.run(cell)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert (moved / "pretrained" / run.name / "model.keras").read_bytes() == model


def test_what_learnt_from_a_source_that_was_made_anew_is_trained_anew(trials, tmp_path, monkeypatch):
    def die(folder):
        raise Killed

    cell = replace(REAL, source="made")
    with monkeypatch.context() as patch:
        patch.setattr("ecgtf.studies.trials.remove_folder", die)
        with pytest.raises(Killed):
            trials.run(cell)
    (pretrained,), (classifier,) = ((trials.workshop.folder / name).iterdir() for name in ("pretrained", "classifiers"))
    assert not is_outdated(pretrained)
    shutil.rmtree(tmp_path / "made")
    assert not is_outdated(pretrained)  # what is gone has not changed
    write_toy_dataset(tmp_path / "made", {"train": 3, "validation": 1}, name="made", generator=MADE)
    assert is_outdated(pretrained)

    ((_, found),) = trials.run(cell)
    elsewhere = Trials(Workshop(replace(trials.config, work=str(tmp_path / "elsewhere")), quiet=True), "transfer")
    ((_, expected),) = elsewhere.run(cell)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert not is_outdated(pretrained)
    assert not classifier.exists()


def test_what_was_learnt_stays_where_what_it_began_from_was_deleted(trials):
    cell = replace(REAL, source="made>more")
    trials.run(cell)
    folder = trials.workshop.folder / "pretrained"
    first, last = folder / "resnet1d-plain-made-seed0", folder / "resnet1d-plain-made~more-seed0"
    model = (last / "model.keras").read_bytes()
    shutil.rmtree(first)
    trials.run(cell)
    assert not first.exists()
    assert (last / "model.keras").read_bytes() == model


def test_a_cell_that_was_killed_before_its_work_was_moved_is_begun_anew(trials, tmp_path, monkeypatch):
    def die(folder):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("ecgtf.studies.trials.remove_folder", die)
        with pytest.raises(Killed):
            trials.run(REAL)
    moved = trials.workshop.folder.rename(tmp_path / "moved")
    assert len(list((moved / "classifiers").iterdir())) == 1
    later = Trials(Workshop(replace(trials.config, work=str(moved)), quiet=True), "transfer")
    ((row, _),) = later.run(REAL)
    assert row.n == 21
    assert list((moved / "classifiers").iterdir()) == []


def test_an_augmentation_that_needs_other_leads_is_found_before_any_cell(trials, tmp_path):
    prepare(None, None, tmp_path / "few", limit=14, leads=INDEPENDENT_LEADS)
    recipes = {"plain": QUICK, "turned": replace(QUICK, augment="axis=10")}
    config = replace(trials.config, collections={"A": (str(tmp_path / "few"),)}, recipes=recipes, folds=0)
    check_study("transfer", config, tmp_path / "out", [REAL])
    with pytest.raises(ValueError, match=r"recipes.turned: axis needs the leads I, II, III, .*, received I, II, V1"):
        check_study("transfer", config, tmp_path / "out", [REAL, replace(REAL, recipe="turned")])
    assert not (tmp_path / "work").exists()


def test_a_generator_that_models_other_leads_is_found_before_any_cell(trials, tmp_path):
    prepare(None, None, tmp_path / "few", limit=14, leads=["I", "II", "V2"])
    plans = {"tv": GeneratorPlan("vqvae", preset="tiny")}
    config = replace(trials.config, collections={"A": (str(tmp_path / "few"),)}, generators=plans, folds=0, sources={})
    check_study("transfer", config, tmp_path / "out", [REAL])
    with pytest.raises(ValueError, match=r"generators.tv: .* but the collections lack V1, V3, V4, V5, V6: prepare them"):
        check_study("transfer", config, tmp_path / "out", [REAL, replace(REAL, source="tv")])
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("instead", [SystemError("bad argument to internal function"), None])
def test_an_interrupt_that_native_code_loses_ends_the_study_and_is_no_failure_of_the_cell(trials, tmp_path, instead):
    def lose(cell):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if instead:
            raise instead
        return []

    results = Results(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        _run_cell(SimpleNamespace(workshop=trials.workshop, study="transfer", config=trials.config, run=lose), results, REAL)
    assert results.rows() == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
