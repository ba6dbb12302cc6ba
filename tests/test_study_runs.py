"""Studies from end to end: the settings that ship for a first look, killed, split over machines, with faults and leaks planted."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import edit_manifest, write_toy_dataset
from typer.testing import CliRunner

from ecgtf.augment import Augmentation
from ecgtf.classifiers.examples import read_examples
from ecgtf.classifiers.networks import load_classifier, predict
from ecgtf.classifiers.transfer import finetune
from ecgtf.cli.main import app
from ecgtf.dataset import hash_id, read_ids, read_manifest
from ecgtf.studies import STUDIES
from ecgtf.studies.agreement import SETTINGS
from ecgtf.studies.cells import study_cells
from ecgtf.studies.config_file import read_config, shipped_configs
from ecgtf.studies.results import Results
from ecgtf.tasks import get_task

DIFFWAVE = """[[augmentation.grid]]
recipes = ["plain"]
sources = ["diffwave"]
ratios = [0, 0.5]
mixings = ["balancing"]
collections = ["A"]
"""
AUGMENTATION, TRANSFER = "reports/smoke-augmentation", "reports/smoke-transfer"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the simulated collections of `smoke.toml`, prepared as its head says, and both studies of it."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        text = shipped_configs()["smoke"].read_text()
        for line in text.splitlines():
            if line.startswith("#   ecgtf "):
                call(*line.removeprefix("#   ecgtf ").split(), "--quiet")
        for study in STUDIES:
            call("study", study, "smoke", "--quiet")
    return folder


@pytest.fixture
def beside(tmp_path, place, monkeypatch):
    """A folder with the same collections and nothing else, and the current one."""
    (tmp_path / "data").symlink_to(place / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str, code: int = 0) -> str:
    """What a command prints, if it ends with this code."""
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done.output


def settings(folder: Path, *changes: tuple[str, str], name: str = "other", grids: str | None = None) -> Path:
    """A file of settings: those of `smoke.toml` with some texts changed, and with other grids."""
    text = shipped_configs()["smoke"].read_text()
    if grids is not None:
        text = text[: text.index("[[augmentation.grid]]")] + grids
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def table(folder: str | Path) -> list[dict[str, str]]:
    with (Path(folder) / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_error(folder: str | Path) -> None:
    assert [row["error"] for row in table(folder) if row["error"]] == []


@pytest.mark.parametrize(("study", "out"), [("augmentation", AUGMENTATION), ("transfer", TRANSFER)])
def test_every_cell_of_the_first_look_is_tested_on_every_collection(place, study, out):
    cells = study_cells(study, read_config("smoke"))
    without_error(place / out)
    tested = {(row["collection"], row["fold"], row["source"], row["test_on"]) for row in table(place / out)}
    for cell in cells:
        merged = {"A+B"} if cell.collection == "A+B" else set()
        for name in {"A", "B"} | merged:
            assert (cell.collection, str(cell.fold), cell.source, name) in tested
    assert len(table(place / out)) == sum(3 if cell.collection == "A+B" else 2 for cell in cells)
    assert all(0 <= float(row["macro_auroc"]) <= 1 and int(row["n"]) > 50 for row in table(place / out))


@pytest.mark.parametrize("out", [AUGMENTATION, TRANSFER])
def test_the_page_shows_its_answers_figures_and_tables(place, out):
    page = (place / out / "index.html").read_text()
    assert "not yet run" not in page
    assert page.count("data:image/png;base64,") == len(list((place / out / "figures").glob("*.png"))) >= 2
    endings = Counter(path.suffix for path in (place / out / "tables").iterdir())
    assert endings[".csv"] == endings[".md"] == endings[".tex"] >= 3
    assert json.loads((place / out / "summary.json").read_text())["progress"]["failed"] == {}


@pytest.mark.parametrize("out", [AUGMENTATION, TRANSFER])
def test_a_report_is_made_again_from_the_results(place, out):
    before = (place / out / "index.html").read_text()
    (place / out / "index.html").unlink()
    call("report", place / out)
    assert (place / out / "index.html").read_text() == before


def test_without_real_records_a_classifier_is_tested_as_its_source_left_it(place):
    (cell,) = (cell for cell in study_cells("transfer", read_config("smoke")) if not cell.fraction and cell.fold == 0)
    found = Results(place / TRANSFER).predictions(cell, "A")
    model = load_classifier(place / "runs/study-smoke/pretrained/resnet1d-plain-simulator-seed0")
    test = read_examples(place / "runs/study-smoke/folds/A-0-real1", "test", get_task("rhythm4"))
    assert list(found.ids) == list(test.ids)
    np.testing.assert_allclose(found.probabilities, predict(model, test.signals), atol=1e-6)


def test_a_source_with_a_plus_is_learnt_together_with_the_real_records(place, tmp_path):
    """For as long and as fast as a source is learnt alone; real records come as often as the recipe says."""
    cells = study_cells("transfer", read_config("smoke"))
    (cell,) = (cell for cell in cells if cell.source == "+simulator" and cell.fold == 0)
    found = Results(place / TRANSFER).predictions(cell, "A")
    real, synthetic = place / "runs/study-smoke/folds/A-0-real0.5", place / "data/s"
    augment = Augmentation.parse(read_config("smoke").recipes["plain"].augment)
    options = {"task": "rhythm4", "preset": "tiny", "mode": "together", "balance_sources": 0.4, "steps": 25, "augment": augment}
    run = finetune(real, tmp_path / "run", synthetic=synthetic, **options, quiet=True)
    test = read_examples(place / "runs/study-smoke/folds/A-0-real1", "test", get_task("rhythm4"))
    np.testing.assert_allclose(found.probabilities, predict(load_classifier(run), test.signals), atol=1e-6)


def test_classifiers_that_were_tested_are_not_kept(place):
    work = place / "runs/study-smoke"
    assert list((work / "classifiers").iterdir()) == []
    assert not list(work.rglob("checkpoints"))


def test_what_is_kept_of_synthetic_records_is_what_a_classifier_finds_probable(place):
    (folder,) = (place / "runs/study-smoke/kept").glob("*A-0-real0.5-by-A-0-real0.5*")
    everything = read_manifest(next((place / "runs/study-smoke/synthetic").glob("*A-0-real0.5")))
    kept = read_manifest(folder)
    assert 0.65 * everything.records < kept.records < 0.75 * everything.records
    judged_by = set(map(hash_id, read_ids(place / "runs/study-smoke/folds/A-0-real0.5", "train")))
    assert judged_by <= set(kept.generator["trained_on"])  # the judge's training records count as the set's own


def test_a_study_that_is_done_runs_nothing_again(place, monkeypatch):
    monkeypatch.chdir(place)
    before = [(place / AUGMENTATION / name).read_bytes() for name in ("results.csv", "seconds.csv")]
    call("study", "augmentation", "smoke", "--quiet")
    assert [(place / AUGMENTATION / name).read_bytes() for name in ("results.csv", "seconds.csv")] == before
    said = call("study", "augmentation", "smoke", "--dry-run")
    assert f"0 cells to run, {len(study_cells('augmentation', read_config('smoke')))} done" in said


def test_a_study_that_is_killed_ends_with_the_lines_of_one_that_ran_through(place, beside):
    """Killed with no warning behind its first cell, and again in the middle of a generator's training; a process for each cell."""
    path, out = settings(beside, name="smoke", grids=DIFFWAVE), beside / AUGMENTATION
    work = f"run_study('augmentation', read_config({str(path)!r}), {str(out)!r}, cells_per_process=1, quiet=True)"
    imports = "from ecgtf.studies.runner import run_study; from ecgtf.studies.config_file import read_config"
    done, generators = out / "results.csv", beside / "runs/study-smoke/generators"
    for moment in (lambda: done.exists() and done.read_text().count("\n") > 2, lambda: list(generators.glob("*/log.csv"))):
        running = subprocess.Popen([sys.executable, "-c", f"{imports}; {work}"])
        while running.poll() is None and not moment():
            time.sleep(0.05)
        assert running.poll() is None, "ended before it was killed"
        running.send_signal(signal.SIGKILL)
        running.wait()
        with done.open("a") as file:
            file.write("A,1,resnet1d,pla")  # the worst moment to be killed at
    call("study", "augmentation", path, "--quiet")
    whole = (place / AUGMENTATION / "results.csv").read_text().splitlines()
    lines = done.read_text().splitlines()
    assert len(lines) == 1 + 4 * 2
    assert lines == [line for line in whole if line in lines]


def test_two_parts_run_at_once_into_one_table(beside):
    grids = '[[augmentation.grid]]\nrecipes = ["plain"]\nclassifiers = ["feature_forest", "resnet1d"]\ncollections = ["A"]\n'
    path = settings(beside, grids=grids)
    command = [sys.executable, "-m", "ecgtf.cli.main", "study", "augmentation", str(path), "--quiet", "--only"]
    parts = [subprocess.Popen([*command, part], env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}) for part in ("1/2", "2/2")]
    assert [part.wait() for part in parts] == [0, 0]
    lines = {(row["fold"], row["classifier"], row["test_on"]) for row in table("reports/other-augmentation")}
    assert len(lines) == len(table("reports/other-augmentation")) == 2 * 2 * 2
    assert "0 cells to run, 4 done" in call("study", "augmentation", path, "--dry-run")


def test_parts_that_other_machines_ran_are_brought_together(place, beside):
    there = Results(place / AUGMENTATION)
    for part, folder in enumerate(("one", "two")):
        (beside / folder).mkdir()
        shutil.copy(place / AUGMENTATION / SETTINGS, beside / folder)
        results = Results(beside / folder)
        for row in there.rows():
            if row.cell.fold == part:
                results.append([row])
                results.save_predictions(row.cell, row.test_on, there.predictions(row.cell, row.test_on))
    call("study", "augmentation", "smoke", "--out", "all", "--collect", "one", "--collect", "two", "--quiet")
    assert (beside / "all/results.csv").read_bytes() == (place / AUGMENTATION / "results.csv").read_bytes()
    said = call("study", "transfer", "smoke", "--out", "else", "--collect", "two", code=2)
    assert "two holds a study of another study (augmentation there, transfer now)" in said


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(place, beside):
    shutil.copytree(place / "runs", beside / "runs")
    shard = next((beside / "runs/study-smoke/synthetic/diffwave-A-0-real1").glob("train*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:5000] + bytes(64) + whole[5064:])
    path = settings(beside, name="smoke", grids=DIFFWAVE)
    call("study", "augmentation", path, "--out", "out", "--quiet")
    failed = {(row["source"], row["fold"]) for row in table("out") if "is damaged" in row["error"]}
    assert failed == {("diffwave", "0")}
    assert len(table("out")) == 3 * 2 + 1
    assert "is damaged" in Path("out/index.html").read_text()
    shard.write_bytes(whole)
    call("study", "augmentation", path, "--out", "out", "--quiet")
    assert len([row for row in table("out") if row["error"]]) == 1  # failures stay until they are asked for again
    call("study", "augmentation", path, "--out", "out", "--retry", "--quiet")
    without_error("out")
    assert len(table("out")) == 4 * 2


# --- what a generator must not have seen


def test_a_generator_that_learnt_from_records_to_test_on_is_no_start(place, beside):
    start = place / "runs/study-smoke/generators/diffwave-A-0-real1"
    path = settings(beside, ('kind = "diffwave"', f'kind = "diffwave"\nstart = "{start}"'))
    for study in STUDIES:
        said = call("study", study, path, code=2)
        assert f"generator diffwave, which starts from {start}, leaks" in said
    assert not list(beside.glob("runs/*/classifiers"))


def test_a_source_that_learnt_from_records_to_test_on_is_refused(place, beside):
    made = next((place / "runs/study-smoke/synthetic").glob("*A-0-real1"))
    said = call("study", "transfer", settings(beside, ("data/s", str(made))), code=2)
    assert "source simulator leaks" in said


def test_a_test_record_in_the_training_set_of_a_folds_generator_ends_the_study(place, beside):
    shutil.copytree(place / "runs", beside / "runs")
    planted = read_ids(beside / "runs/study-smoke/folds/A-0-real1", "test")[0]
    synthetic = next((beside / "runs/study-smoke/synthetic").glob("*A-0-real1"))
    made = json.loads((synthetic / "dataset.json").read_text())["generator"]
    edit_manifest(synthetic, generator=made | {"trained_on": sorted([*made["trained_on"], hash_id(planted)])})
    said = call("study", "augmentation", settings(beside, name="smoke", grids=DIFFWAVE), "--out", "out", code=2)
    assert re.search("1 of [0-9]+ test records were used in training", said)
    assert {row["source"] for row in table("out")} == {"none"}


def test_a_source_with_the_ecgs_of_a_collection_under_other_names_is_refused(beside):
    call("simulate", "all/some", "--records", "150", "--rate", "100", "--quiet")
    for name, folder in (("mine", "all/some"), ("theirs", "all")):
        call("prepare", "wfdb", folder, "--out", f"own/{name}", "--quiet")
    assert not set(read_ids("own/mine", "train")) & set(read_ids("own/theirs", "train"))
    path = settings(beside, ("data/b", "own/mine"), ("data/s", "own/theirs"), ("folds = 2", "folds = 2\nwork = 'work'"))
    said = call("study", "augmentation", path, code=2)
    assert "source simulator leaks: 150 of its ECGs stand in the collections too" in said


def test_work_of_other_settings_is_not_taken_for_this_studys(place, beside):
    shutil.copytree(place / "runs", beside / "runs")
    for change, told in (
        (("folds = 2", "folds = 3"), "another folds (2 there, 3 now)"),
        (("pool_per_class = 8", "pool_per_class = 9"), "another pool_per_class"),
        (("sampler_steps = 2", "sampler_steps = 3"), "other generators: diffwave was"),
    ):
        said = call("study", "augmentation", settings(beside, change, name="smoke"), "--out", "new", code=2)
        assert "study-smoke holds a study" in said
        assert told in said
        assert "name another folder by the setting work, or delete it" in said


def test_settings_that_were_wrong_may_be_corrected(beside):
    wrong = settings(beside, ("data/s", "data/t"), name="smoke")
    assert "data/t" in call("study", "transfer", wrong, code=2)
    grids = '[[transfer.grid]]\nclassifiers = ["feature_forest"]\ncollections = ["A"]\n'
    call("study", "transfer", settings(beside, name="smoke", grids=grids), "--quiet")
    without_error("reports/smoke-transfer")


def test_a_source_with_fewer_records_than_are_to_be_added_is_refused(beside):
    for study, grid in (
        ("augmentation", 'sources = ["simulator"]\nratios = [0, 5]'),
        ("transfer", 'sources = ["simulator"]\nfractions = [1]'),
    ):
        path = settings(
            beside, ("rehearsal = 0.5", "rehearsal = 5"), grids=f'[[{study}.grid]]\nrecipes = ["filtered"]\n{grid}\n'
        )
        for dry in ([], ["--dry-run"]):
            said = call("study", study, path, *dry, code=2)
            assert re.search(
                r"simulator holds \d+ records of \w+ to learn from, but \d+ are to be added to A \(5 for each", said
            )
        assert not list(beside.glob("runs/*/classifiers"))


def test_a_dry_run_counts_the_cells_and_times_every_kind_of_work(beside):
    said = call("study", "transfer", "smoke", "--dry-run")
    counts = [int(count) for count in re.findall(r"^ *(\d+) x ", said, flags=re.MULTILINE)]
    planned = len(study_cells("transfer", read_config("smoke")))
    assert sum(counts) == planned
    assert f"{planned} cells to run, 0 done" in said
    for work in (
        "classifiers of the cells",
        "pre-training of classifiers",
        "training of generators",
        "drawing from generators",
    ):
        assert re.search(rf"\d+ h \d\d min  {work}", said), said
    assert not Path("runs/study-smoke/generators").exists()


def test_records_without_a_validation_split_choose_no_recipe_and_are_tested_all_the_same(beside):
    write_toy_dataset(beside / "own", {"train": 1, "test": 1})
    grids = '[[augmentation.grid]]\nclassifiers = ["feature_forest", "resnet1d"]\nrecipes = ["plain"]\ncollections = ["A"]\n'
    path = settings(beside, ("data/a", "own"), ("folds = 2", "folds = 0"), ("merge = true", ""), grids=grids)
    path.write_text(path.read_text().replace('B = ["data/b"]\n', ""))
    call("study", "augmentation", path, "--out", "out", "--quiet")
    without_error("out")
    assert [(row["classifier"], row["n"], row["validation_score"]) for row in table("out")] == [
        ("feature_forest", "7", ""),
        ("resnet1d", "7", ""),
    ]


def test_a_folder_of_another_study_is_left_alone(place, beside):
    shutil.copytree(place / AUGMENTATION, beside / "out")
    longer = settings(beside, ("steps = 20\npretrain", "steps = 30\npretrain"))
    for dry in ([], ["--dry-run"]):
        assert "other recipes: plain was" in call("study", "augmentation", longer, "--out", "out", *dry, code=2)
    said = call("study", "augmentation", settings(beside, ("folds = 2", "folds = 3")), "--out", "out", code=2)
    assert "another folds (2 there, 3 now)" in said
    (beside / "mine").mkdir()
    (beside / "mine/notes.txt").write_text("mine")
    assert "holds no study" in call("study", "augmentation", "smoke", "--out", "mine", code=2)
