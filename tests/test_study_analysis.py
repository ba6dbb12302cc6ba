"""What a study's predictions say: pooling, tuned arms, intervals, p-values, on results whose true differences are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from study_results import Maker, arms_with_seeds, made_config, one_collection, planned

from ecgtf.classifiers.metrics import auroc, classification_metrics, paired_difference
from ecgtf.studies.analysis import Analysis, Difference, Estimate, difference, estimate, freedom, holm, score, seed_weights
from ecgtf.studies.cells import Cell
from ecgtf.studies.comparisons import families, non_inferior
from ecgtf.studies.config import Grid
from ecgtf.studies.pooling import TUNED, Pool, Pools
from ecgtf.studies.results import Results, Row

REAL = Cell("A", 0, "resnet1d", "plain")
ADDED = Cell("A", 0, "resnet1d", "plain", "vqvae", 1.0, "proportional")


def analysed(folder, cells, config, bootstrap=400):
    return Analysis(Pools(Results(folder), cells, config), bootstrap=bootstrap)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04 but no less than 0.06
        ([0.5, 0.6], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_by_hand(values, expected):
    assert holm(values) == pytest.approx(expected)


def test_holm_keeps_the_order_and_never_makes_smaller():
    values = np.random.default_rng(0).uniform(size=50) ** 3
    corrected = np.array(holm(list(values)))
    assert (corrected >= values).all()
    assert (np.diff(corrected[np.argsort(values)]) >= 0).all()


def test_pooled_metrics_are_those_of_the_folds_put_together(tmp_path):
    config = one_collection()
    cells = arms_with_seeds(REAL, config, seeds=2)
    maker = Maker(tmp_path, config, records=203).write(cells, lambda cell, test_on: 1.5)
    pooled = analysed(tmp_path, cells, config).score(REAL, "A")
    classes = config.the_task.classes
    expected, within = [], []
    for seed in range(2):
        parts = [maker.results.predictions(cell, "A") for cell in cells if cell.seed == seed]
        pairs = np.array([part.labels.sum(axis=0) * (1 - part.labels).sum(axis=0) for part in parts])
        areas = np.nan_to_num([auroc(part.labels, part.probabilities) for part in parts])  # without pairs there is no weight
        within.append(np.average(areas, axis=0, weights=pairs).mean())
        labels, scores = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "probabilities"))
        expected.append(classification_metrics(labels, scores, classes, multi_label=False, bootstrap=0))
    assert pooled.n == 203
    assert pooled.seeds == 2
    assert pooled.macro_auroc.value == pytest.approx(np.mean([one["macro_auroc"]["value"] for one in expected]))
    assert pooled.within.value == pytest.approx(np.mean(within))
    assert pooled.macro_f1 == pytest.approx(np.mean([one["macro_f1"]["value"] for one in expected]))
    assert pooled.accuracy == pytest.approx(np.mean([one["accuracy"]["value"] for one in expected]))
    for name in classes:
        assert pooled.per_class[name].n == expected[0]["per_class"][name]["n"]
        assert pooled.per_class[name].auroc.value == pytest.approx(
            np.mean([one["per_class"][name]["auroc"] for one in expected])
        )
        assert pooled.per_class[name].few == (pooled.per_class[name].n < 10)


def test_within_folds_a_classifiers_own_scale_does_not_count():
    rng = np.random.default_rng(0)
    labels = np.eye(4)[rng.choice(4, size=300, p=(0.4, 0.3, 0.2, 0.1))]
    folds, counts = np.arange(300) % 5, np.asfortranarray(rng.multinomial(300, np.full(300, 1 / 300), size=50).astype(float))
    scores = 1.5 * labels + rng.normal(size=(2, 300, 4))
    ids = np.arange(300).astype(str)
    same, moved = (
        score(Pool((0, 1), ids, labels, some, folds), list("abcd"), True, counts, np.random.default_rng(1))
        for some in (scores, scores + folds[:, None])
    )
    assert moved.within == same.within
    np.testing.assert_array_equal(moved.within_drawn.drawn, same.within_drawn.drawn)
    assert same.within.value == pytest.approx(same.macro_auroc.value, abs=0.02)
    assert moved.macro_auroc.value < same.macro_auroc.value - 0.05


def test_one_seed_gives_the_interval_of_a_paired_difference(tmp_path):
    config = one_collection(folds=0)
    cells = [REAL, ADDED]
    maker = Maker(tmp_path, config).write(cells, lambda cell, test_on: 1.5 + 0.2 * (cell.source == "vqvae"))
    found = analysed(tmp_path, cells, config, bootstrap=1000).compare([(ADDED, REAL, "A")])[0].difference
    first, second = (maker.results.predictions(cell, "A") for cell in (ADDED, REAL))
    expected = paired_difference(first.labels, first.probabilities, second.probabilities, bootstrap=1000, seed=config.seed)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected["value"], expected["low"], expected["high"]), abs=1e-6
    )


def test_equal_arms_do_not_differ_and_a_better_one_does(tmp_path):
    config = one_collection()
    better = replace(ADDED, source="diff_wave")
    cells = [cell for arm in (REAL, ADDED, better) for cell in arms_with_seeds(arm, config, seeds=3)]
    maker = Maker(tmp_path, config, records=600).write(cells, lambda cell, test_on: 1.2 + 0.6 * (cell.source == "diff_wave"))
    same, more = analysed(tmp_path, cells, config).compare([(ADDED, REAL, "A"), (better, REAL, "A")])
    assert not same.difference.significant
    assert same.difference.low < 0 < same.difference.high
    assert more.difference.significant
    assert more.difference.holm >= more.difference.p
    # The difference that these scores have, on records without number.
    rng = np.random.default_rng(1)
    labels = np.eye(4)[rng.choice(4, size=100_000, p=(0.3, 0.3, 0.36, 0.04))]
    noise = rng.normal(size=labels.shape) * np.hypot(maker.shared, maker.own)
    exact = []
    for strength in (1.2, 1.8):
        scores = np.exp(strength * labels + noise)
        exact.append(auroc(labels, scores / scores.sum(axis=1, keepdims=True)).mean())
    assert more.difference.low < exact[1] - exact[0] < more.difference.high


def test_the_same_predictions_differ_by_nothing(tmp_path):
    config = one_collection(folds=0)
    cells = [REAL, ADDED]
    Maker(tmp_path, config, own=0.0).write(cells, lambda cell, test_on: 1.5)
    found = analysed(tmp_path, cells, config).compare([(ADDED, REAL, "A")])[0].difference
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    ratio = analysed(tmp_path, cells, config).ratio(ADDED, REAL, "A")
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("by_seed", "seeds"), [(0.0, 5), (0.3, 5), (0.3, 2)])
def test_the_interval_of_no_difference_holds_zero(tmp_path, by_seed, seeds):
    """Five in a hundred may miss it; on so few records (6 of the rarest class) percentile intervals are a little short."""
    config = one_collection(folds=0)
    cells = [replace(arm, seed=seed) for arm in (REAL, ADDED) for seed in range(seeds)]
    missed = small = 0
    for draw in range(100):
        folder = tmp_path / str(draw)
        Maker(folder, config, records=150, by_seed=by_seed, seed=draw).write(cells, lambda cell, test_on: 1.2)
        found = analysed(folder, cells, config, bootstrap=200).compare([(ADDED, REAL, "A")])[0].difference
        missed += not found.low <= 0 <= found.high
        small += found.p < 0.05
    assert missed <= 10
    assert small <= 10


def test_few_seeds_count_by_students_law_as_welch_has_it():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 3), rng.normal(0, 3, 5)
    variances = [values.var(ddof=1) / len(values) for values in (one, other)]
    drawn = rng.normal(size=1000)
    drawn = (drawn - drawn.mean()) * (sum(variances) / drawn.var(ddof=1)) ** 0.5  # no spread but that of the seeds
    expected = stats.ttest_ind(one, other, equal_var=False)
    by_welch = freedom(drawn, *zip(variances, (3, 5), strict=True))
    assert by_welch == pytest.approx(expected.df)
    assert difference(one.mean() - other.mean(), drawn, by_welch).p == pytest.approx(expected.pvalue)
    assert freedom(drawn, (0.0, 1), (0.0, 5)) == np.inf  # no spread of seeds, or none known: the normal law
    normal, student = estimate(0.0, drawn), estimate(0.0, drawn, 4.0)
    assert student.low / normal.low == student.high / normal.high == pytest.approx(2.7764 / 1.95996, rel=1e-4)


@pytest.mark.parametrize(
    ("seeds", "low", "within", "shown"),
    [(2, -0.009, -0.009, True), (1, -0.009, -0.009, False), (2, -0.011, -0.009, False), (2, -0.009, -0.011, False)],
)
def test_non_inferior_is_shown_by_several_seeds_pooled_and_within_folds(seeds, low, within, shown):
    assert non_inferior(Difference(0.0, low, 0.02, 0.5, 0.5, seeds, Estimate(0.0, within, 0.02))) == shown
    assert not non_inferior(Difference(0.0, seeds=2))


def test_what_learnt_from_the_collection_tested_on_carries_nothing_over(tmp_path):
    grids = {"transfer": (Grid(recipes=("plain",), sources=("none", "simulator", "other"), fractions=(0.2,)),)}
    config = made_config(grids=grids, merge=False)
    cells = planned(config, "transfer")
    Maker(tmp_path, config).write(cells, lambda cell, test_on: 1.5)
    found = families(analysed(tmp_path, cells, config), "transfer")["cross"]
    assert {(each.first.collection, each.first.source, each.test_on) for each in found} == {
        ("A", "simulator", "B"),
        ("B", "simulator", "A"),
    }


def test_seeds_are_drawn_so_that_their_mean_has_its_right_spread():
    """The variance of a mean of S is that of one over S; S draws of S would give (S - 1) / S of it."""
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        values = rng.normal(size=seeds)
        drawn = values @ seed_weights(seeds, 200_000, rng)
        assert drawn.mean() == pytest.approx(values.mean(), abs=0.01)
        assert drawn.var() == pytest.approx(values.var(ddof=1) / seeds, rel=0.03)
    assert (seed_weights(1, 5, rng) == 1).all()


def test_tuned_takes_what_is_best_on_validation_records_not_on_test_records(tmp_path):
    config = one_collection(folds=2)
    other = replace(REAL, recipe="balanced")
    cells = [cell for arm in (REAL, other) for cell in arms_with_seeds(arm, config, seeds=2)]
    maker = Maker(tmp_path, config, records=200)
    maker.write(
        cells,
        lambda cell, test_on: 3.0 if cell.recipe == "balanced" else 0.8,
        lambda cell: 0.7 + 0.2 * ((cell.recipe == "plain") == (cell.fold == 0)),  # plain wins fold 0, balanced fold 1
    )
    analysis = analysed(tmp_path, cells, config)
    tuned = replace(REAL, recipe=TUNED)
    assert analysis.pools.choice(tuned, "A") == {0: "plain", 1: "balanced"}
    pool, parts = analysis.pools.pool(tuned, "A"), [maker.results.predictions(cell, "A") for cell in (cells[0], cells[5])]
    order = np.argsort(np.concatenate([part.ids for part in parts]))
    np.testing.assert_array_equal(pool.probabilities[0], np.concatenate([part.probabilities for part in parts])[order])
    scores = [analysis.score(arm, "A").macro_auroc.value for arm in (REAL, tuned, other)]
    assert scores == sorted(scores)


def test_a_recipe_best_on_test_records_alone_is_not_chosen(tmp_path):
    config = one_collection(folds=2)
    other = replace(REAL, recipe="balanced")
    cells = [cell for arm in (REAL, other) for cell in arms_with_seeds(arm, config)]
    strong = lambda cell, test_on: 3.0 if cell.recipe == "balanced" else 0.8  # noqa: E731
    Maker(tmp_path, config, records=200).write(cells, strong, lambda cell: 0.9 if cell.recipe == "plain" else 0.8)
    analysis = analysed(tmp_path, cells, config)
    assert set(analysis.pools.choice(replace(REAL, recipe=TUNED), "A").values()) == {"plain"}
    assert analysis.score(replace(REAL, recipe=TUNED), "A") == analysis.score(REAL, "A")


def test_without_real_records_the_first_recipe_stands_whatever_else_is_done(tmp_path):
    config = one_collection(folds=0)
    plain = Cell("A", 0, "resnet1d", "plain", "simulator", fraction=0.0)
    cells = [plain, replace(plain, recipe="balanced")]
    maker = Maker(tmp_path, config).write(cells[1:], lambda cell, test_on: 1.5, lambda cell: None)
    tuned = replace(plain, recipe=TUNED)
    assert Pools(Results(tmp_path), cells, config).choice(tuned, "A") == {}
    maker.write(cells[:1], lambda cell, test_on: 1.5, lambda cell: None)
    assert Pools(Results(tmp_path), cells, config).choice(tuned, "A") == {0: "plain"}


def test_only_seeds_of_which_all_folds_are_done_count(tmp_path):
    config = one_collection()
    cells = [cell for arm in (REAL, ADDED) for cell in arms_with_seeds(arm, config, seeds=2)]
    done = [
        cell for cell in cells if cell not in (replace(REAL, fold=3, seed=1), replace(ADDED, fold=0), replace(ADDED, seed=1))
    ]
    maker = Maker(tmp_path, config).write(done, lambda cell, test_on: 1.5)
    maker.results.append([Row(replace(ADDED, seed=1), "A", error="ValueError: diverged")])
    analysis = analysed(tmp_path, cells, config)
    assert analysis.score(REAL, "A").seeds == 1
    assert analysis.score(ADDED, "A") is None
    assert analysis.compare([(ADDED, REAL, "A")])[0].difference is None
    progress = analysis.pools.progress
    assert (progress.planned, progress.done) == (20, 17)
    assert progress.failed == {replace(ADDED, seed=1).name: "ValueError: diverged"}


def test_lines_of_other_cells_are_passed_over(tmp_path):
    config = one_collection()
    cells = arms_with_seeds(REAL, config)
    Maker(tmp_path, config).write([*cells, *arms_with_seeds(ADDED, config)], lambda cell, test_on: 1.5)
    analysis = analysed(tmp_path, cells, config)
    assert analysis.pools.progress.done == analysis.pools.progress.planned == 5
    assert analysis.score(ADDED, "A") is None


def test_fractions_without_an_end_are_found_again(tmp_path):
    config = one_collection()
    third = replace(REAL, fraction=1 / 3)
    cells = arms_with_seeds(third, config)
    Maker(tmp_path, config).write(cells, lambda cell, test_on: 1.5)
    assert analysed(tmp_path, cells, config).score(third, "A").seeds == 1


def test_arms_tested_on_different_records_are_refused(tmp_path):
    config = one_collection(folds=0)
    Maker(tmp_path, config, records=200).write([REAL], lambda cell, test_on: 1.5)
    Maker(tmp_path, config, records=190).write([ADDED], lambda cell, test_on: 1.5)
    with pytest.raises(ValueError, match="other records of A"):
        analysed(tmp_path, [REAL, ADDED], config)


def test_a_class_without_positives_is_left_out(tmp_path):
    config = one_collection(folds=0)
    maker = Maker(tmp_path, config, records=200)
    ids, labels, noise, folds = maker.records["A"]
    labels = np.where(labels[:, 3:] > 0, np.eye(4)[0], labels)
    maker.records["A"] = (ids, labels, noise, folds)
    maker.write([REAL], lambda cell, test_on: 1.5)
    found = analysed(tmp_path, [REAL], config).score(REAL, "A")
    last = config.the_task.classes[3]
    assert (found.per_class[last].n, found.per_class[last].auroc) == (0, None)
    assert found.macro_auroc.value == pytest.approx(
        np.mean([found.per_class[name].auroc.value for name in config.the_task.classes[:3]])
    )


def test_the_best_rival_is_compared_with(tmp_path):
    grids = {
        "transfer": (
            Grid(
                recipes=("plain", "balanced"), sources=("none", "simulator", "vqvae"), fractions=(0.2,), seen=("same",), seeds=2
            ),
            Grid(classifiers=("feature_forest",), fractions=(0.2,)),
        )
    }
    config = one_collection(grids=grids)
    cells = planned(config, "transfer")
    strong = lambda cell, test_on: 2.5 if cell.classifier == "feature_forest" else 1.0 + (cell.source == "vqvae")  # noqa: E731
    Maker(tmp_path, config).write(cells, strong)
    found = families(analysed(tmp_path, cells, config), "transfer")
    (rival,) = found["rivals"]
    assert rival.second == Cell("A", 0, "feature_forest", "", fraction=0.2)
    assert rival.difference.value < 0
    assert rival.first.seen == 0.2
    tuned = {each.first.source: each.difference.significant for each in found["tuned-A"]}
    assert tuned == {"simulator": False, "vqvae": True}
    assert not rival.difference.significant  # large, but of a forest of one seed


def test_a_source_stands_by_the_better_of_its_two_ways_and_both_are_rivals(tmp_path):
    sources = ("none", "simulator", "+simulator", "vqvae", "+vqvae")
    grids = {"transfer": (Grid(recipes=("plain",), sources=sources, fractions=(0.2,), seen=("same",)),)}
    config = one_collection(grids=grids)
    cells = planned(config, "transfer")
    strength = {"none": 1.0, "simulator": 1.0, "+simulator": 2.5, "vqvae": 1.2, "+vqvae": 1.8}
    Maker(tmp_path, config).write(cells, lambda cell, test_on: strength[cell.source])
    found = families(analysed(tmp_path, cells, config), "transfer")
    (lead,) = found["lead"]
    assert (lead.first.source, lead.second.source) == ("+simulator", "+vqvae")
    assert {each.first.source: each.second.source for each in found["rivals"]} == {
        "vqvae": "+simulator",
        "+vqvae": "+simulator",
    }
    assert {each.first.source for each in found["tuned-A"]} == set(sources[1:])  # each with recipes of its own


def test_without_enough_resamples_there_is_no_interval():
    assert estimate(0.8, np.zeros(0)) == Estimate(0.8)
    assert difference(0.1, np.zeros(3)).p is None
    assert not difference(0.1, np.zeros(3)).significant


def test_everything_is_the_same_when_it_is_computed_again(tmp_path):
    config = made_config(merge=False)
    cells = [cell for arm in (REAL, ADDED) for cell in arms_with_seeds(arm, config, seeds=2)]
    Maker(tmp_path, config, records=120).write(cells, lambda cell, test_on: 1.5)
    first, second = (analysed(tmp_path, cells, config).compare([(ADDED, REAL, "A"), (ADDED, REAL, "B")]) for _ in range(2))
    assert first == second
