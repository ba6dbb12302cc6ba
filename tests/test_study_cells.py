"""What a study is asked for, and the cells that follow from it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from study_results import made_config

from ecgtf.studies.cells import Cell, augmentation_cells, part_of, transfer_cells
from ecgtf.studies.config import Grid
from ecgtf.studies.config_file import config_of, read_config, shipped_configs
from ecgtf.studies.results import Predictions, Results, Row

BASE = """
task = "rhythm4"
folds = 2
merge = true
[collections]
A = ["data/a"]
B = ["data/b"]
[sources.simulator]
data = ["data/s"]
[generators.vqvae]
kind = "vqvae"
[recipes.plain]
[recipes.balanced]
balance = 1.0
"""


def config(tmp_path, text: str):
    path = tmp_path / "some.toml"
    path.write_text(BASE + text)
    return read_config(path)


def test_a_grid_is_every_combination_for_every_fold_collection_and_seed(tmp_path):
    grid = '[[augmentation.grid]]\nrecipes = ["plain"]\nsources = ["vqvae", "simulator"]\nratios = [0, 0.5, 1]\nseeds = 2\n'
    cells = augmentation_cells(config(tmp_path, grid))
    assert len(cells) == len(set(cells)) == 2 * 3 * 2 * (1 + 2 * 2)  # folds, collections, seeds; no source, or source and ratio
    assert {cell.collection for cell in cells} == {"A", "B", "A+B"}
    assert all(cell.source == "none" and not cell.mixing for cell in cells if not cell.ratio)
    first, rest = cells[: 2 * 3 * 2 * 3], cells[2 * 3 * 2 * 3 :]
    assert {cell.source for cell in first} == {"none", "simulator"}  # what needs no generator comes first
    assert [cell.seed for cell in first] == sorted(cell.seed for cell in first)
    assert [cell.collection for cell in rest] == sorted((cell.collection for cell in rest), key=["A", "B", "A+B"].index)


def test_transfer_names_the_other_collection_and_what_the_generator_saw(tmp_path):
    grid = """[[transfer.grid]]
recipes = ["plain"]
classifiers = ["resnet1d", "feature_forest"]
sources = ["none", "other", "simulator", "vqvae", "simulator>vqvae"]
fractions = [0.2, 1]
seen = ["all", "same"]
"""
    cells = [cell for cell in transfer_cells(config(tmp_path, grid)) if cell.fold == 0]
    assert {(cell.collection, cell.source) for cell in cells if cell.source in "AB"} == {("A", "B"), ("B", "A")}
    mine = [cell for cell in cells if cell.collection == "A" and cell.fraction == 0.2 and cell.classifier == "resnet1d"]
    seen = {(cell.source, cell.seen) for cell in mine}
    assert seen == {
        ("none", 1.0),
        ("B", 1.0),
        ("simulator", 1.0),
        *((name, share) for name in ("vqvae", "simulator>vqvae") for share in (1.0, 0.2)),
    }
    assert {(cell.source, cell.recipe) for cell in cells if cell.classifier == "feature_forest"} == {("none", "")}
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_source_may_be_learnt_with_the_real_records_and_others_before_it(tmp_path):
    grid = """[[transfer.grid]]
recipes = ["plain"]
classifiers = ["resnet1d", "feature_forest"]
sources = ["+simulator", "simulator>+other", "other>+vqvae"]
fractions = [0, 0.2]
seen = ["same"]
"""
    cells = [cell for cell in transfer_cells(config(tmp_path, grid)) if cell.fold == 0 and cell.classifier == "resnet1d"]
    assert {(cell.source, cell.stages, cell.seen) for cell in cells if cell.collection == "A"} == {
        ("+simulator", ("simulator",), 1.0),
        ("simulator>+B", ("simulator", "B"), 1.0),
        ("B>+vqvae", ("B", "vqvae"), 0.2),
    }
    assert {cell.fraction for cell in cells} == {0.2}  # without real records there is nothing to learn it with
    assert all(cell.together for cell in cells)
    assert not Cell("A", 0, "resnet1d", "plain", "simulator>B").together


def test_without_real_records_only_what_has_another_source_is_trained(tmp_path):
    grid = """[[transfer.grid]]
recipes = ["plain"]
classifiers = ["resnet1d", "feature_forest"]
sources = ["none", "other", "simulator", "simulator>vqvae"]
collections = ["A"]
fractions = [0]
seen = ["all", "same"]
"""
    cells = transfer_cells(config(tmp_path, grid))
    assert {(cell.source, cell.fraction, cell.seen) for cell in cells} == {
        ("B", 0.0, 1.0),
        ("simulator", 0.0, 1.0),
        ("simulator>vqvae", 0.0, 1.0),
    }
    assert {cell.classifier for cell in cells} == {"resnet1d"}


def test_parts_share_the_cells_and_keep_a_fold_of_a_collection_together(tmp_path):
    grid = '[[augmentation.grid]]\nrecipes = ["plain"]\nsources = ["vqvae"]\nratios = [0, 1]\nseeds = 3\n'
    cells = augmentation_cells(config(tmp_path, grid))
    parts = [part_of(cells, f"{number}/4") for number in range(1, 5)]
    assert Counter(cell for part in parts for cell in part) == Counter(cells)
    folds = [{(cell.collection, cell.fold) for cell in part} for part in parts]
    assert sum(map(len, folds)) == len(set.union(*folds))
    assert part_of(cells, None) == cells
    for wrong in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(ValueError, match="expected a part as 1/4"):
            part_of(cells, wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[transfer.grid]]\nrecipes = ["plan"]', "unknown recipe 'plan'; expected one of plain, balanced"),
        ('[[transfer.grid]]\nrecipes = ["plain"]\nsources = ["gan"]', "unknown source 'gan'"),
        ('[[transfer.grid]]\nrecipes = ["plain"]\nsources = ["simulator>gan"]', "unknown source 'gan'"),
        ('[[transfer.grid]]\nrecipes = ["plain"]\nfractions = [-0.1]', "fractions from 0 to 1"),
        (
            '[recipes.choosy]\nkeep = 0.5\n[[transfer.grid]]\nrecipes = ["choosy"]\nsources = ["vqvae"]\nfractions = [0]',
            "'choosy' keeps what a classifier of the real records finds probable",
        ),
        (
            '[sources.rhythms]\ndata = ["r"]\ntask = "rhythm7"\n[[transfer.grid]]\nrecipes = ["plain"]\n'
            'sources = ["rhythms"]\nfractions = [0, 1]',
            "'rhythms' ends with labels of another task than rhythm4; expected fractions above 0",
        ),
        (
            '[sources.rhythms]\ndata = ["r"]\ntask = "rhythm7"\n[[augmentation.grid]]\nrecipes = ["plain"]\nsources = ["rhythms"]',
            "'rhythms' ends with labels of another task than rhythm4; they cannot stand beside real ones",
        ),
        (
            '[sources.rhythms]\ndata = ["r"]\ntask = "rhythm7"\n[recipes.old]\nrehearsal = 0.5\n'
            '[[transfer.grid]]\nrecipes = ["old"]\nsources = ["rhythms"]',
            "they cannot stand beside real ones",
        ),
        (
            '[sources.rhythms]\ndata = ["r"]\ntask = "rhythm7"\n[[transfer.grid]]\nrecipes = ["plain"]\n'
            'sources = ["simulator>+rhythms"]',
            r"'simulator>\+rhythms' ends with labels of another task than rhythm4; they cannot stand beside real ones",
        ),
        ('[[transfer.grid]]\nrecipes = ["plain"]\nsources = ["+simulator>vqvae"]', "unknown source '\\+simulator'"),
        ('[[augmentation.grid]]\nrecipes = ["plain"]\nsources = ["+simulator"]', "unknown source '\\+simulator'"),
        ("[recipes.odd]\nbalance_sources = 2", "recipes.odd: expected a balance_sources between 0 and 1"),
        ('[[transfer.grid]]\nrecipes = ["plain"]\nseen = ["some"]', "unknown seen 'some'"),
        (
            '[[transfer.grid]]\nrecipes = ["plain"]\nratios = [0.5, 1]',
            r"ratios changes nothing in \[\[transfer.grid\]\]: leave it out, it is of \[\[augmentation.grid\]\]",
        ),
        ('[[transfer.grid]]\nrecipes = ["plain"]\nmixings = ["balancing"]', "mixings changes nothing"),
        ('[[augmentation.grid]]\nrecipes = ["plain"]\nfractions = [0.2]', "fractions changes nothing"),
        ('[[augmentation.grid]]\nrecipes = ["plain"]\nseen = ["all", "same"]', "seen changes nothing"),
        (
            '[recipes.old]\nrehearsal = 0.5\n[[transfer.grid]]\nrecipes = ["plain", "old"]\nsources = ["none", "simulator>+vqvae"]',
            r"rehearsal of the recipe 'old' changes nothing with the source 'simulator>\+vqvae', which is learnt together",
        ),
        (
            '[recipes.slow]\nmode = "unfreeze"\n[[transfer.grid]]\nrecipes = ["slow"]\nsources = ["+simulator"]',
            "mode of the recipe 'slow' changes nothing",
        ),
        ('[[transfer.grid]]\nrecipe = ["plain"]', "unknown setting 'recipe' in transfer.grid"),
        ('[[augmentation.grid]]\nrecipes = ["plain"]\nclassifiers = ["svm"]', "unknown classifier 'svm'"),
        ('[[augmentation.grid]]\nrecipes = ["plain"]\nmixings = ["even"]', "unknown mixing 'even'"),
        ("[[augmentation.grid]]\nseeds = 1", "expected recipes in each grid"),
        ('[generators."A"]\nkind = "vqvae"', "'A' names two things"),
        ('[generators."v>w"]\nkind = "vqvae"', "letters, digits and _"),
        ("[generators.gan]\nkind = 'gan'", "unknown generator 'gan'"),
        ("[recipes.odd]\nkeep = 0", "keep above 0"),
        ("[recipes.odd]\naugment = 'gain'", "expected a number for gain"),
        ("[recipes.odd]\npreset = 'huge'", "unknown preset 'huge'"),
        ("[recipes.'a/b']", "letters, digits and _"),
        ("[recipes.odd]\nmode = 'freeze'", "recipes.odd: unknown mode 'freeze'; expected one of unfreeze, full"),
        ("[recipes.odd]\nsteps = -5", "recipes.odd: expected at least 1 step"),
        ("[recipes.odd]\npretrain_steps = 0", "recipes.odd: expected at least 1 step"),
        ("[recipes.odd]\nbatch_size = 0", "recipes.odd: expected at least 1 step and 1 record a batch, received 1 and 0"),
        ("[recipes.odd]\nbalance = 3", "balance between 0 and 1"),
        ("[recipes.odd]\nlearning_rate = -1", "learning rate above 0"),
        ("[recipes.odd]\nfinetune_rate = nan", "learning rate above 0"),
        ("[recipes.odd]\nsteps = 1.5", "expected a whole number for recipes.odd.steps, received 1.5"),
        ("[recipes.odd]\nsteps = true", "expected a whole number for recipes.odd.steps, received true"),
        ("[recipes]\nodd = 3", "expected a table for recipes.odd, received 3"),
        ("[generators.g]\nkind = 'diffwave'\nprecision = 'bf16'", "generators.g: unknown precision 'bf16'"),
        ("[generators.g]\nkind = 'diffwave'\nsampler = 'heun'", "unknown sampler 'heun'; diffwave has ddpm, ddim"),
        ("[generators.g]\nkind = 'vqvae'\nsampler = 'ddpm'", "unknown sampler 'ddpm'; vqvae has none"),
        ("[generators.g]\nkind = 'diffwave'\nconditions = ['bmi']", "unknown condition 'bmi'"),
        ("[generators.g]\nkind = 'diffwave'\nconditions = ['age', 'age']", "condition age is named more than once"),
        ("[generators.g]\nkind = 'diffwave'\nsampler_steps = [0]", "at least 1 sampler step"),
        ("[generators.g]\nkind = 'diffwave'\nsampler_steps = []", r"at least 1 sampler step, received \(\)"),
        ("[sources.s]\ndata = []", "sources.s: expected at least one data set, as in data = .*, received none"),
        ("[generators.g]", "generators.g: .*'kind'"),
        (
            "[[transfer.grid]]\nrecipes = 'plain'",
            'expected a list with a text each for transfer.grid.recipes, received "plain"',
        ),
        (
            "[[transfer.grid]]\nrecipes = ['plain']\nfractions = ['a']",
            "expected a list with a number each for transfer.grid.fractions",
        ),
        ("[[transfer.grid]]\nrecipes = ['plain']\nseeds = 1.5", "expected a whole number for transfer.grid.seeds"),
        ("[[transfer.grids]]\nrecipes = ['plain']", "unknown setting 'grids' in transfer; expected blocks"),
        ("[transfer]\ngrid = 3", r"expected blocks \[\[transfer.grid\]\], received 3"),
        ("folds = = 2", "is no TOML file"),
    ],
)
def test_settings_that_are_not_possible_are_one_clear_line(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as error:
        config(tmp_path, text)
    assert "some.toml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("folds = 2", 'folds = "5"', 'expected a whole number for the file.folds, received "5"'),
        ("folds = 2", "folds = 2.5", "expected a whole number for the file.folds, received 2.5"),
        (
            "folds = 2",
            "folds = 2\ngrids = 3",
            "unknown setting 'grids' in the file; expected some of .* augmentation, transfer$",
        ),
        ('A = ["data/a"]', "A = []", r"at least one data set for the collection A, as in A = \['data/ptbxl'\], received none"),
        ('A = ["data/a"]', 'A = "data/a"', "expected a list with a text each for collections.A"),
        ('[collections]\nA = ["data/a"]\nB = ["data/b"]', 'collections = ["data/a"]', "expected a table for collections"),
    ],
)
def test_settings_of_another_type_are_one_clear_line(tmp_path, old, new, said):
    path = tmp_path / "some.toml"
    path.write_text(BASE.replace(old, new))
    with pytest.raises(ValueError, match=said):
        read_config(path)


def test_the_shipped_settings_are_read(tmp_path):
    names = shipped_configs()
    assert {"paper", "small", "smoke"} <= set(names)
    for name in names:
        settings = read_config(name)
        assert settings.name == name
        assert augmentation_cells(settings) or transfer_cells(settings)
    with pytest.raises(ValueError, match=r"no such file.*one of .*paper"):
        read_config(tmp_path / "none.toml")


def test_a_table_is_read_as_it_was_written_and_half_a_line_is_none(tmp_path):
    results, cell = Results(tmp_path), Cell("A+B", 1, "resnet1d", "plain", "simulator>vqvae", fraction=0.05, seed=3)
    rows = [Row(cell, "A", n=12, macro_auroc=0.75, macro_f1=0.5, accuracy=0.25, validation_score=0.125), Row(cell, "B", n=7)]
    failed = Row(replace(cell, seed=4), "A+B", error='ValueError: no "SB", none')
    results.append(rows)
    with results.path.open("a") as file:
        file.write("A,0,resnet1d,plain,none,0")  # a process was killed while it wrote
    assert results.rows() == rows
    results.append([failed])
    assert results.rows() == [*rows, failed]
    results.rewrite([failed.cell, cell])
    assert results.rows() == [failed, *rows]
    results.forget({failed.cell.name})
    assert results.rows() == rows
    results.path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is no table"):
        results.rows()


def test_damaged_predictions_are_one_clear_line(tmp_path):
    results, cell = Results(tmp_path), Cell("A", 1, "resnet1d", "plain")
    rng = np.random.default_rng(0)
    results.save_predictions(cell, "A", Predictions(np.arange(99), rng.integers(0, 2, (99, 4)), rng.random((99, 4))))
    (path,) = (tmp_path / "predictions").iterdir()
    whole = path.read_bytes()
    assert len(results.predictions(cell, "A").ids) == 99
    for content in (
        b"",
        whole[: len(whole) // 2],
        whole[:90] + bytes(60) + whole[150:],
        whole[:-300] + bytes(60) + whole[-240:],
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is missing or damaged .*; delete its cell's lines from results.csv") as error:
            results.predictions(cell, "A")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_study_that_was_begun_with_idle_settings_can_be_reported():
    config = made_config(grids={"transfer": (Grid(recipes=("plain",), ratios=(0.5, 1.0)),)})
    assert config_of(config.as_dict()).grids["transfer"] == config.grids["transfer"]
    with pytest.raises(ValueError, match="ratios changes nothing"):
        config.check_idle()
