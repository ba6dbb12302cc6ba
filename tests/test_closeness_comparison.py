"""Values, floors and intervals: equal shares of the classes, and no verdict about records that are as good as real ones."""

from dataclasses import replace

import numpy as np
import pytest

from ecgtf.closeness.comparison import Comparison, Part, joined
from ecgtf.closeness.leaks import Leaks, share_entry
from ecgtf.closeness.metrics import is_worse
from ecgtf.dataset import hash_id
from ecgtf.tasks import get_task

TASK = get_task("rhythm7")
ABOUT = {"synthetic": {"without_records_of": []}}


def part(classes, name, people=None):
    labels = np.eye(len(TASK.classes), dtype=np.float32)[np.asarray(classes, int)]
    ids = [f"{name}{place}" for place in range(len(labels))]
    return Part(np.zeros((len(labels), 1, 1), np.float32), labels, ids, people)


def comparison(sizes, seed=0):
    """Records of the three parts, `sizes` of each class in each."""
    parts = [part(np.repeat(np.arange(len(some)), some), name) for name, some in zip("trs", sizes, strict=True)]
    return Comparison(*parts, 100.0, ("I",), TASK.classes, TASK, ABOUT, seed)


def test_a_draw_takes_of_each_class_what_the_smallest_part_has():
    found = comparison([(30, 10, 4), (12, 3, 0), (8, 20, 5)])
    rows = found.drawn(0)
    for name, drawn in rows.items():
        labels = getattr(found, name).labels[drawn].sum(axis=0)
        assert labels[:3].tolist() == [8.0, 3.0, 0.0], name
        assert len(set(drawn)) == len(drawn)
    assert not np.array_equal(rows["synthetic"], found.drawn(1)["synthetic"])
    np.testing.assert_array_equal(rows["synthetic"], found.drawn(0)["synthetic"])


def test_half_draws_halve_even_single_records_on_average():
    found = comparison([(1, 3, 40)] * 3)
    sizes = np.array([found.reference.labels[found.drawn(draw, 0.5)["reference"]].sum(axis=0)[:3] for draw in range(400)])
    np.testing.assert_allclose(sizes.mean(axis=0), [0.5, 1.5, 20.0], rtol=0.12)


def test_no_class_in_common_is_told():
    with pytest.raises(ValueError, match="no class has training, held-out and synthetic records"):
        comparison([(5, 0), (5, 0), (0, 5)]).drawn(0)


def test_value_floor_and_gap_are_those_of_the_draws():
    found = comparison([(40,), (40,), (40,)])
    values = {"train": np.full(40, 1.0), "reference": np.zeros(40), "synthetic": np.full(40, 3.0)}
    entry = found.metric(lambda real, other: float(other.mean() - real.mean()), values)
    assert entry == {"value": 3.0, "floor": 1.0, "low": 3.0, "high": 3.0, "gap_low": 2.0, "gap_high": 2.0}


def test_draws_without_a_number_are_left_out_and_none_at_all_is_told():
    found = comparison([(40,), (40,), (40,)])
    values = {"train": np.ones(40), "reference": np.ones(40), "synthetic": np.ones(40)}
    numbers = iter([np.nan, 7.0, 2.0, 1.0] * 10)  # value and floor of a draw, value and floor of the next
    entry = found.metric(lambda real, other: next(numbers), values)
    assert (entry["value"], entry["floor"]) == (2.0, 1.0)
    with pytest.raises(ValueError, match="no number in any draw"):
        found.metric(lambda real, other: float("nan"), values)


@pytest.mark.parametrize(
    "sizes",
    [
        [(200,), (200,), (200,)],
        [(300, 40, 9), (90, 12, 3), (100, 100, 100)],  # as a small real set and a balanced synthetic one
        [(3,) * 7, (3,) * 7, (3,) * 7],  # as rare combinations of labels
    ],
)
def test_records_as_good_as_real_ones_are_hardly_ever_called_worse(sizes):
    """The verdict is one-sided at 2.5 %: of 200 sets of the same distribution, 5 on average."""
    rng, worse = np.random.default_rng(0), 0
    for repetition in range(200):
        found = comparison(sizes, seed=repetition)
        values = {name: rng.normal(size=(len(side), 2)) for name, side in found.parts().items()}
        entry = found.metric(lambda real, other: float(np.abs(real.mean(axis=0) - other.mean(axis=0)).sum()), values)
        worse += bool(is_worse(entry, "lower"))
    assert worse <= 14  # 7 %


def test_what_differs_is_called_worse():
    rng, worse = np.random.default_rng(1), 0
    for repetition in range(50):
        found = comparison([(200,), (200,), (200,)], seed=repetition)
        values = {name: rng.normal(0.5 * (name == "synthetic"), 1.0, (200, 2)) for name in found.parts()}
        entry = found.metric(lambda real, other: float(np.abs(real.mean(axis=0) - other.mean(axis=0)).sum()), values)
        worse += bool(is_worse(entry, "lower"))
    assert worse >= 45


@pytest.mark.parametrize(("share", "sizes"), [(0.01, (800, 95)), (0.01, (1000, 500)), (0.002, (1000, 1000)), (0.0, (500, 50))])
def test_a_rare_event_is_no_verdict_by_itself(share, sizes):
    rng = np.random.default_rng(0)
    made, real = (rng.binomial(size, share, 500) / size for size in sizes)
    entries = [share_entry(*pair) for pair in zip(made, np.full(500, sizes[0]), real, np.full(500, sizes[1]), strict=True)]
    assert np.mean([is_worse(entry, "lower") for entry in entries]) <= 0.05
    assert is_worse(share_entry(0.2, 800, 0.01, 95), "lower")


def test_neighbours_of_new_people_lean_to_neither_side():
    rng, worse = np.random.default_rng(0), {"share": 0, "ratio": 0}
    for repetition in range(60):
        found = comparison([(300,), (100,), (400,)], seed=repetition)
        features = {name: rng.normal(size=(len(side), 8)) for name, side in found.parts().items()}
        leaks = Leaks(found, lambda found=found, features=features: (found, features))
        share = leaks.share_closer_to_train()
        assert abs(share["value"] - 0.5) < 0.15
        worse["share"] += bool(is_worse(share, "0.5"))
        worse["ratio"] += bool(is_worse(leaks.distance_ratio(), "higher"))
    assert max(worse.values()) <= 6, worse


def test_a_tenth_of_copies_brings_the_distance_ratio_down_however_few_are_held_out():
    rng = np.random.default_rng(0)
    found = comparison([(1700,), (220,), (800,)])
    features = {name: rng.normal(size=(len(side), 16)) for name, side in found.parts().items()}
    clean = Leaks(found, lambda: (found, features)).distance_ratio()
    assert not is_worse(clean, "higher")
    spoilt = features | {"synthetic": np.concatenate([features["train"][:80] + 1e-3, features["synthetic"][80:]])}
    ratio = Leaks(found, lambda: (found, spoilt)).distance_ratio()
    assert is_worse(ratio, "higher")
    assert ratio["value"] < 0.1 < 0.5 < ratio["floor"]


def test_copies_are_looked_for_among_what_the_generator_saw():
    found = comparison([(60,), (30,), (40,)])
    foreign = replace(found, seen=frozenset({hash_id("another")}))
    with pytest.raises(ValueError, match="the generator was not trained on these real records"):
        Leaks(foreign, lambda: None).near_copy_rate()
    half = replace(found, seen=frozenset(map(hash_id, found.train.ids[::2])))
    assert half.learnt.ids == found.train.ids[::2]
    assert found.learnt is found.train


def test_people_are_never_on_both_sides():
    records = part([0] * 60, "r", people=[f"p{place // 3}" for place in range(60)])
    one, other = records.split_people(0.3, np.random.default_rng(0))
    assert len(one) == 18
    assert not set(one.of_whom()) & set(other.of_whom())
    assert sorted(one.ids + other.ids) == sorted(records.ids)


def test_the_digest_changes_with_any_sample_label_or_id():
    records = part([0, 1, 2], "r")
    others = [part([0, 1, 1], "r"), part([0, 1, 2], "x"), replace(records, signals=records.signals + np.float32(1e-6))]
    digests = {side.digest() for side in (records, *others)}
    assert len(digests) == 4
    assert records.digest() == part([0, 1, 2], "r").digest()


def test_records_are_joined_with_what_all_parts_know():
    one, other = part([0], "a", people=["p"]), part([1], "b")
    both = joined([one, other])
    assert both.ids == ["a0", "b0"]
    assert both.people is None
    assert joined([one, part([], "c")]) is one
    assert joined([one, replace(other, labels=None)]).labels is None
