"""The whole evaluation: what it writes, what it refuses, and that good synthetic records score as real ones and bad ones do not."""

import json

import numpy as np
import pytest

from ecgtf.closeness.evaluate import ABOUT, GROUPS, METRICS, evaluate
from ecgtf.closeness.table import metrics_table
from ecgtf.dataset import hash_id, load_arrays
from ecgtf.generators.simulator import simulate_records

QUICK = ("temporal", "physiology")
KEYS = {"value", "floor", "low", "high", "group", "unit", "better", "label"}


@pytest.fixture(scope="module")
def people():
    """Records of different people, `(240, 1000, 12)` mV, in random order."""
    signals = np.stack([record.signal for record in simulate_records(240, seed=4, rate=100.0)])
    return signals[np.random.default_rng(0).permutation(len(signals))]


@pytest.fixture
def synthetic(make_dataset):
    """A set that says a generator made it, from the records `train`."""

    def make(trained_on=(), **options):
        generator = {"run": "vqvae", "task": "rhythm7", "settings": {}, "trained_on": [hash_id(name) for name in trained_on]}
        return make_dataset("made", {"train": 3, "validation": 1}, generator=generator, **options)

    return make


def test_every_metric_is_described_and_the_other_way_round():
    assert tuple(METRICS) == GROUPS
    assert {name for group in METRICS.values() for name in group} == set(ABOUT)


def test_folders_give_the_promised_form(small_dataset, synthetic):
    content = evaluate(small_dataset, synthetic(load_arrays(small_dataset, "train").ids), groups=QUICK)
    assert content == json.loads(json.dumps(content, allow_nan=False))  # plain, finite numbers
    assert {"schema", "real", "synthetic", "metrics", "provenance"} <= set(content)
    assert content["real"]["reference_splits"] == ["validation", "test"]  # there are fewer than 100 test records
    assert content["real"]["reference"] == 28
    assert content["synthetic"]["records"] == 28
    assert content["synthetic"]["generator"]["trained_on"] == 28  # how many, not which
    assert content["provenance"]["task"] == "rhythm7"
    assert set(content["metrics"]) == {name for group in QUICK for name in METRICS[group]}
    for name, entry in content["metrics"].items():
        assert set(entry) >= KEYS, name
        assert entry["value"] is not None or entry["reason"], name
    assert content["metrics"]["lead_inconsistency"]["value"] < 0.01
    assert "heart rate" in metrics_table(content)


def test_the_seed_fixes_everything(small_dataset, synthetic):
    made = synthetic()
    first = evaluate(small_dataset, made, groups=["physiology"], seed=3)
    assert evaluate(small_dataset, made, groups=["physiology"], seed=3) == first


def test_records_of_new_people_score_as_real_ones_and_distorted_ones_do_not(people):
    real, fresh = people[:160], people[160:]
    good = evaluate(real, fresh, groups=QUICK)["metrics"]
    smooth = np.apply_along_axis(lambda trace: np.convolve(trace, np.ones(9) / 9, mode="same"), 1, fresh)
    noisy = fresh + np.random.default_rng(1).normal(0, 0.15, size=fresh.shape)
    slow = np.repeat(fresh[:, :500], 2, axis=1)

    def beyond(synthetic, name):
        """How many times the floor."""
        return evaluate(real, synthetic.astype(np.float32), groups=QUICK)["metrics"][name]["value"] / good[name]["floor"]

    for name in ("spectrum_difference", "log_spectrum_difference", "heart_rate_distance", "lead_correlation_difference"):
        assert good[name]["value"] < 3 * good[name]["floor"], name
    assert beyond(smooth, "log_spectrum_difference") > 5
    assert beyond(noisy, "lead_inconsistency") > 5
    assert beyond(slow, "heart_rate_distance") > 4


def test_a_group_that_fails_takes_nothing_from_the_others(people):
    content = evaluate(people[:80], people[80:160], groups=["distribution", "utility", "physiology"])["metrics"]
    assert content["frechet_distance"]["value"] is None
    assert "labels" in content["frechet_distance"]["reason"]
    assert content["tstr_over_trtr"]["value"] is None
    assert content["heart_rate_distance"]["value"] > 0


def test_flat_synthetic_signals_give_reasons_not_errors(people):
    content = evaluate(people[:80], np.zeros_like(people[:40]), groups=QUICK)["metrics"]
    assert content["beats_not_found"]["value"] == 1.0
    assert content["heart_rate_distance"]["value"] is None
    assert content["heart_rate_distance"]["reason"]


def test_copies_of_training_records_are_reported(people):
    """Half of the real ones stand for the training: about half of the planted copies are copies of those."""
    real, fresh = people[:160], people[160:200]
    copies = np.concatenate([real + 0.005, fresh])
    rate = evaluate(real, copies.astype(np.float32), groups=["privacy"])["metrics"]["near_copy_rate"]
    assert 0.35 < rate["value"] < 0.5
    assert rate["low"] > 0.1 >= rate["floor"]  # measured on the half of the held-out records that sets no threshold


def test_a_generator_that_saw_held_out_records_is_refused(small_dataset, synthetic):
    seen = load_arrays(small_dataset, "test").ids[:2]
    with pytest.raises(ValueError, match="2 of 28 test records were used in training"):
        evaluate(small_dataset, synthetic(seen), groups=QUICK)


def test_unusable_input_is_refused(people, small_dataset, synthetic):
    with pytest.raises(ValueError, match="unknown group speed"):
        evaluate(people, people, groups=["speed"])
    with pytest.raises(ValueError, match="one shape"):
        evaluate(people, people[:, :500])
    with pytest.raises(ValueError, match="finite synthetic"):
        evaluate(people, np.full_like(people[:10], np.nan))
    with pytest.raises(ValueError, match="unknown task"):
        evaluate(small_dataset, synthetic(), task="rhythm5")


def test_tiny_classifiers_report_and_page(small_dataset, synthetic, tmp_path):
    out = tmp_path / "report"
    made = synthetic()
    content = evaluate(small_dataset, made, out=out, preset="tiny", max_records=20)
    assert content == json.loads((out / "closeness.json").read_text())
    assert (out / "index.html").stat().st_size > 50_000
    for name in ("frechet_distance", "tstr_macro_auroc", "near_copy_rate", "heart_rate_distance"):
        assert content["metrics"][name]["value"] is not None, content["metrics"][name]
    with pytest.raises(ValueError, match="--overwrite"):
        evaluate(small_dataset, made, out=out)
