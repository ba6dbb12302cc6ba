"""What a study's folder is for: later starts may add to it, and may not change what its lines came from."""

import json
import shutil
from dataclasses import replace

import pytest
from conftest import write_toy_dataset
from study_results import made_config

from ecgtf.studies.agreement import SETTINGS, asked_for, check_folders, keep_settings, settings_of
from ecgtf.studies.config import GeneratorPlan, ReadySource, Recipe
from ecgtf.studies.results import TABLE

FIRST = made_config(grids={})


@pytest.fixture
def start(tmp_path):
    """Starts a study in `out`; cells are done from then on."""

    def start(config):
        out = tmp_path / "out"
        asked = asked_for("transfer", config)
        check_folders(out, tmp_path / "work", asked)
        keep_settings([out], asked)
        (out / TABLE).touch()

    return start


def with_recipe(**options):
    return replace(FIRST, recipes=FIRST.recipes | {"extra": Recipe(**options)})


def test_what_an_earlier_start_was_made_by_is_known_when_a_later_one_does_not_name_it(start):
    start(with_recipe(steps=100))
    start(FIRST)
    with pytest.raises(ValueError, match=r"holds a study with other recipes: extra was .*'steps': 100.*, is .*'steps': 900"):
        start(with_recipe(steps=900))
    start(with_recipe(steps=100))


def test_the_recipes_of_the_last_start_come_first_for_the_first_one_is_the_plain_one(start, tmp_path):
    one, two = (replace(FIRST, recipes={name: Recipe() for name in names}) for names in (("old",), ("base", "old")))
    start(one)
    start(two)
    assert list(settings_of(tmp_path / "out")["settings"]["recipes"]) == ["base", "old"]
    start(one)
    assert list(settings_of(tmp_path / "out")["settings"]["recipes"]) == ["old", "base"]


@pytest.mark.parametrize("made", ["folds", "generators", "pretrained"])
def test_a_work_folder_of_which_a_part_was_deleted_still_binds(tmp_path, made):
    keep_settings([work := tmp_path / "work"], asked_for("transfer", with_recipe(steps=100)))
    other = asked_for("transfer", with_recipe(steps=900))
    check_folders(tmp_path / "out", work, other)
    (work / made).mkdir()
    with pytest.raises(ValueError, match="holds a study with other recipes: extra was"):
        check_folders(tmp_path / "out", work, other)


def test_a_study_goes_on_that_was_begun_before_a_setting_existed(start, tmp_path):
    start(with_recipe(steps=100))
    path = tmp_path / "out" / SETTINGS
    content = json.loads(path.read_text())
    del content["settings"]["recipes"]["extra"]["balance_sources"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'balance_sources': 0\.4.*, is .*'balance_sources': 0\.5"):
        start(with_recipe(steps=100, balance_sources=0.5))
    start(with_recipe(steps=100))


def test_all_states_of_the_package_that_took_part_stay_known(start, tmp_path):
    def programs():
        content = json.loads((tmp_path / "out" / SETTINGS).read_text())
        return [each["source"] for each in [content["versions"], *content["earlier_versions"]]]

    start(FIRST)
    start(FIRST)
    (now,) = programs()
    path = tmp_path / "out" / SETTINGS
    path.write_text(path.read_text().replace(now, "of yore"))
    start(FIRST)
    start(FIRST)
    assert programs() == [now, "of yore"]


def test_settings_without_results_bind_nobody(tmp_path):
    for steps in (100, 900):
        keep_settings([tmp_path], asked := asked_for("transfer", with_recipe(steps=steps)))
        check_folders(tmp_path, tmp_path / "work", asked)


def test_records_tasks_and_starts_that_were_made_anew_are_refused(start, tmp_path):
    table, run = tmp_path / "mine.csv", tmp_path / "run"
    run.mkdir()
    config = replace(
        FIRST,
        sources={"simulator": ReadySource((str(tmp_path / "set"),), task=str(table))},
        generators={"vqvae": GeneratorPlan("vqvae", start=str(run))},
    )
    write_toy_dataset(tmp_path / "set", {"train": 1})
    table.write_text("code,class\n426783006,SR\n164889003,AFIB\n")
    (run / "model.keras").write_bytes(b"one")
    start(config)
    start(replace(FIRST, sources={}, generators={}))
    start(config)
    shutil.rmtree(tmp_path / "set")
    write_toy_dataset(tmp_path / "set", {"train": 2})
    with pytest.raises(ValueError, match=r"of other records: .*set was made anew"):
        start(config)
    shutil.rmtree(tmp_path / "set")
    write_toy_dataset(tmp_path / "set", {"train": 1})
    start(config)
    (run / "model.keras").write_bytes(b"two")
    with pytest.raises(ValueError, match=r"of other records: .*run was made anew"):
        start(config)
    (run / "model.keras").write_bytes(b"one")
    table.write_text("code,class\n426783006,SR\n164889003,AFIB\n164890007,AFIB\n")
    with pytest.raises(ValueError, match=r"of another task: .*mine\.csv was changed"):
        start(config)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"study": "transfer"}', '{"study": "other", "settings": {}}', '"study"'])
def test_a_file_of_settings_that_is_none_is_one_clear_line(tmp_path, content):
    (tmp_path / SETTINGS).write_text(content)
    with pytest.raises(
        ValueError, match=r"study.json is damaged \(.*\): take it from another part of the study, or name another"
    ):
        settings_of(tmp_path)
