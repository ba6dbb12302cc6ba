"""The whole evaluation: what it writes, what it refuses, and that good synthetic records score as real ones and bad ones do not."""

import json
import shutil
import signal

import numpy as np
import pytest
from conftest import write_toy_dataset

from ecgtf.closeness.evaluate import UNFINISHED, evaluate, metric_entry
from ecgtf.closeness.loading import compare_arrays
from ecgtf.closeness.metrics import GROUPS, METRICS, is_worse
from ecgtf.closeness.results import Results
from ecgtf.closeness.table import metrics_table
from ecgtf.dataset import LeakError, hash_id, load_arrays
from ecgtf.ecg import LEADS, derive_leads
from ecgtf.generators.simulator import simulate_collection, simulate_records
from ecgtf.run_folder import Run

QUICK = ("temporal", "physiology")
KEYS = {"value", "floor", "low", "high", "worse", "group", "unit", "better", "label"}


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


def test_every_metric_has_a_name_of_its_own_and_a_way_to_be_better():
    assert GROUPS == ("distribution", "temporal", "physiology", "utility", "privacy")
    names = [name for group in METRICS.values() for name in group]
    assert len(names) == len(set(names))
    assert {metric.better for group in METRICS.values() for metric in group.values()} <= {"lower", "higher", "0.5"}


@pytest.mark.parametrize(
    ("better", "entry", "expected"),
    [
        (
            "lower",
            {"value": 2.0, "floor": 1.0, "low": 0.0, "high": 4.0, "gap_low": 0.5, "gap_high": 1.5},
            True,
        ),  # the gap decides
        ("lower", {"value": 2.0, "floor": 1.0, "low": 1.5, "high": 2.5, "gap_low": -0.5, "gap_high": 2.5}, False),
        ("lower", {"value": 2.0, "floor": 1.0, "low": 1.5, "high": 2.5}, True),
        ("lower", {"value": 0.5, "floor": 1.0, "low": 0.4, "high": 0.6}, False),  # better than real is not worse
        ("higher", {"value": 0.5, "floor": 1.0, "low": 0.4, "high": 0.6}, True),
        ("higher", {"value": 0.5, "floor": 0.6, "low": 0.4, "high": 0.6}, False),
        ("0.5", {"value": 0.7, "floor": 0.5, "low": 0.6, "high": 0.8}, True),
        ("lower", {"value": 2.0, "floor": 1.0, "low": None, "high": None}, None),
        ("lower", {"value": None, "floor": 1.0, "low": None, "high": None}, None),
    ],
)
def test_worse_is_what_is_beyond_the_floor_by_more_than_chance(better, entry, expected):
    assert is_worse(entry, better) is expected


def test_rounding_noise_is_not_worse_than_other_rounding_noise(tmp_path):
    """Whole microvolts that fit, kept as float32 millivolts: both sets depart by rounding alone, one a little more."""
    rng = np.random.default_rng(0)

    def signals(records: int) -> np.ndarray:
        return derive_leads(2e-3 * np.round(rng.normal(0, 200, (records, 300, 8)))).astype(np.float32)

    def compared(made: np.ndarray) -> tuple[dict, bool | None]:
        results = Results(compare_arrays(real, made, rate=100.0, leads=LEADS), tmp_path, "tiny", None, True)
        entry = METRICS["physiology"]["lead_inconsistency"].compute(results)
        return entry, is_worse(entry, "lower", METRICS["physiology"]["lead_inconsistency"].resolution)

    real, made = signals(40), signals(20)
    made[:, :, 2] *= np.float32(1 + 1e-7)
    entry, found = compared(made)
    assert is_worse(entry, "lower") is True  # beyond chance, and of no size:
    assert 0 < entry["floor"] < entry["value"] < 1e-6
    assert found is False
    made[:, :, 2] += 0.001  # III off by a microvolt
    assert compared(made)[1] is True


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
    groups = ["distribution", "utility", "physiology"]
    content = evaluate(people[:120], people[120:200], groups=groups, preset="tiny")["metrics"]
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
        evaluate(people, people, groups="speed,temporal")
    with pytest.raises(ValueError, match="max_records of at least 4"):
        evaluate(people, people, max_records=0)
    with pytest.raises(ValueError, match="arrays have no labels"):
        evaluate(people, people, task="rhythm4")
    with pytest.raises(ValueError, match="one shape"):
        evaluate(people, people[:, :500])
    with pytest.raises(ValueError, match="finite synthetic"):
        evaluate(people, np.full_like(people[:10], np.nan))
    with pytest.raises(ValueError, match="unknown task"):
        evaluate(small_dataset, synthetic(), task="rhythm5")


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A real and a synthetic set with enough records for every metric."""
    folder = tmp_path_factory.mktemp("larger")
    generator = {"run": "vqvae", "task": "rhythm7", "settings": {}, "trained_on": []}
    return (
        write_toy_dataset(folder / "real", {"train": 20, "validation": 8, "test": 8}, name="real"),
        write_toy_dataset(folder / "made", {"train": 10}, name="made", generator=generator),
    )


@pytest.fixture(scope="module")
def reported(larger, tmp_path_factory):
    """The folder of a whole report on the two, and what it says."""
    out = tmp_path_factory.mktemp("reported") / "report"
    return out, evaluate(*larger, out=out, preset="tiny", max_records=130)


def test_tiny_classifiers_report_and_page(larger, reported):
    real, made = larger
    out, content = reported
    assert content == json.loads((out / "closeness.json").read_text())
    assert (out / "index.html").stat().st_size > 50_000
    reasons = {name: entry["reason"] for name, entry in content["metrics"].items() if entry["value"] is None}
    few = reasons.pop("attack_tpr")
    assert few.startswith("a false-positive rate of 0.01 needs at least 100 non-members")
    # the toy records have no P and T waves
    nothing = "no number in any draw: no record, or too few, has what is measured"
    assert reasons == dict.fromkeys(("pr_interval_distance", "qt_interval_distance", "qtc_distance"), nothing)
    assert set(content["scores"]) == {"trtr", "tstr", "trts", "tr_plus_s"}
    assert content["provenance"]["sampling"].startswith("at most 130 records of each part, drawn at random")
    assert len(content["provenance"]["extractor_sha256"]) == 64
    assert set(content["physiology"]["AFIB"]["qt_interval"]["real"]) == {"n", "failed", "low", "median", "high"}
    assert not (out / UNFINISHED).exists()
    with pytest.raises(ValueError, match="--overwrite"):
        evaluate(real, made, out=out)
    # the extractor of one report serves another, and gives the same numbers
    again = evaluate(real, made, groups=["distribution"], extractor=out / "extractor", max_records=130)
    assert again["metrics"]["frechet_distance"] == content["metrics"]["frechet_distance"]
    assert again["provenance"]["extractor_sha256"] == content["provenance"]["extractor_sha256"]


def test_an_interrupt_that_native_code_loses_is_no_metric_that_failed():
    def lose(results):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemError("bad argument to internal function") from None

    with pytest.raises(KeyboardInterrupt):
        metric_entry(None, METRICS["temporal"]["spectrum_difference"]._replace(compute=lose))


def test_groups_that_are_done_outlive_what_comes_after(small_dataset, synthetic, tmp_path, monkeypatch):
    made, out = synthetic(), tmp_path / "report"

    def stop(*arguments):
        raise KeyboardInterrupt

    whole = evaluate(small_dataset, made, groups=QUICK)
    with monkeypatch.context() as patched:
        patched.setattr("ecgtf.closeness.physiology.measure", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(small_dataset, made, groups=QUICK, out=out)
    assert not (out / "closeness.json").exists()
    assert set(json.loads((out / UNFINISHED).read_text())["groups"]) == {"temporal"}
    with monkeypatch.context() as patched:
        patched.setattr("ecgtf.closeness.temporal.moment_terms", stop)  # not asked for again
        assert evaluate(small_dataset, made, groups=QUICK, out=out)["metrics"] == whole["metrics"]
    assert not (out / UNFINISHED).exists()


def test_numbers_of_other_records_are_not_taken_for_these(people, tmp_path, monkeypatch):
    """Records of arrays have the same ids whatever they are."""
    out, real, made, other = tmp_path / "report", people[:80], people[80:160], 3 * people[80:160]
    (out).mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("ecgtf.closeness.contents.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(real, made, groups=["temporal"], out=out)
    with pytest.raises(ValueError, match=r"unfinished report of other records or settings \(records\); use --overwrite"):
        evaluate(real, other, groups=["temporal"], out=out)
    with pytest.raises(ValueError, match=r"of other records or settings \(rate\)"):
        evaluate(real, made, groups=["temporal"], rate=250.0, out=out)
    fresh = evaluate(real, other, groups=["temporal"])["metrics"]["marginal_difference"]
    assert evaluate(real, other, groups=["temporal"], out=out, overwrite=True)["metrics"]["marginal_difference"] == fresh


def test_an_evaluation_stopped_in_its_first_training_leaves_no_riddle(larger, tmp_path, monkeypatch):
    """The classifiers that it leaves are of its settings; others are told so before anything is computed."""
    real, made = larger
    out = tmp_path / "report"

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ecgtf.closeness.utility.fit_classifier", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(real, made, groups=["distribution"], preset="tiny", out=out)
    with pytest.raises(ValueError, match=r"other records or settings \(seed\)"):
        evaluate(real, made, groups=["distribution"], preset="tiny", out=out, seed=1)
    found = evaluate(real, made, groups=["distribution"], preset="tiny", out=out)
    assert found["metrics"]["coverage"]["value"] is not None


def test_a_metric_that_breaks_says_so_and_the_others_are_there(small_dataset, synthetic, monkeypatch):
    def broken(*arguments):
        raise MemoryError("no room for the terms")

    monkeypatch.setattr("ecgtf.closeness.temporal.marginal_terms", broken)
    found = evaluate(small_dataset, synthetic(), groups=["temporal"])["metrics"]
    assert found["marginal_difference"]["reason"] == "failed with MemoryError: no room for the terms"
    assert found["spectrum_difference"]["value"] is not None


def test_a_class_without_synthetic_records_is_named(small_dataset, tmp_path):
    folder = simulate_collection(tmp_path / "theirs", 12, seed=0, rate=100.0, rhythms=["SR", "AFIB"])
    content = evaluate(small_dataset, folder, groups=["temporal", "utility"], preset="tiny")
    assert content["synthetic"]["without_records_of"] == ["SB", "ST", "SA", "AFLT", "SVT"]
    assert content["metrics"]["spectrum_difference"]["value"] is not None
    assert content["metrics"]["tstr_macro_auroc"]["reason"] == "no synthetic records of SB, ST, SA, AFLT, SVT"
    assert metrics_table(content).startswith("no synthetic records of SB, ST, SA, AFLT, SVT")


def test_an_extractor_is_looked_at_before_anything_is_computed_or_deleted(larger, reported, tmp_path):
    real, made = larger
    out, _ = reported
    with pytest.raises(ValueError, match="is not a run folder"):
        evaluate(real, made, groups=["temporal"], extractor=tmp_path)
    with pytest.raises(ValueError, match="lies in the report folder"):
        evaluate(real, made, groups=["distribution"], extractor=out / "extractor", out=out, overwrite=True)
    assert (out / "extractor" / "model.keras").exists()


def test_an_extractor_that_was_trained_on_held_out_records_costs_no_report(larger, reported, tmp_path):
    real, made = larger
    out, _ = reported
    leaking = shutil.copytree(out / "extractor", tmp_path / "leaking")
    Run.load(leaking).write_trained_on([hash_id(load_arrays(real, "test").ids[0])])
    with pytest.raises(LeakError, match="1 of 112 test records were used in training"):
        evaluate(real, made, groups=["temporal"], extractor=leaking, out=out, overwrite=True)
    assert (out / "closeness.json").exists()


def test_a_preset_that_does_not_exist_costs_no_report(larger, tmp_path):
    real, made = larger
    evaluate(real, made, groups=["temporal"], out=tmp_path / "report")
    before = (tmp_path / "report" / "closeness.json").read_bytes()
    with pytest.raises(ValueError, match="unknown preset 'smal'; expected one of tiny, small, base, paper"):
        evaluate(real, made, groups=["temporal"], preset="smal", out=tmp_path / "report", overwrite=True)
    assert (tmp_path / "report" / "closeness.json").read_bytes() == before


def test_a_training_that_breaks_costs_only_what_needs_it(larger, tmp_path, monkeypatch):
    real, made = larger

    def broken(*arguments, **options):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("ecgtf.closeness.utility.fit_classifier", broken)
    found = evaluate(real, made, groups=["distribution", "temporal", "utility"], preset="tiny", out=tmp_path / "report")
    assert found["metrics"]["frechet_distance"]["reason"] == "failed with RuntimeError: out of memory"
    assert found["metrics"]["tstr_macro_auroc"]["reason"] == "failed with RuntimeError: out of memory"
    assert found["metrics"]["spectrum_difference"]["value"] is not None
    assert found["metrics"]["predictive_score"]["value"] is not None
    assert (tmp_path / "report" / "index.html").exists()


def test_signals_too_slow_for_beats_say_so(people):
    found = evaluate(people[:80, ::2], people[80:160, ::2], rate=50.0, groups=["physiology"])
    assert "at least 60 samples a second" in found["metrics"]["heart_rate_distance"]["reason"]
    assert found["metrics"]["lead_inconsistency"]["value"] is not None
    assert "physiology" not in found


def test_few_records_give_no_distance_of_features_but_the_reason(small_dataset, synthetic):
    found = evaluate(small_dataset, synthetic(), groups=["distribution"], preset="tiny")["metrics"]
    assert "14 records of each part fit together" in found["frechet_distance"]["reason"]
