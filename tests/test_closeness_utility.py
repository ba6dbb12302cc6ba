"""Training on synthetic against training on real records: tiny networks on waves whose class is their frequency."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecgtf.closeness.comparison import Comparison, Part
from ecgtf.closeness.evaluate import metric_entry
from ecgtf.closeness.metrics import METRICS
from ecgtf.closeness.results import Results
from ecgtf.closeness.utility import MOST_FEATURES, budgeted_classifier, discriminative_score, feature_vectors, of_two_origins
from ecgtf.dataset import hash_id
from ecgtf.run_folder import Run
from ecgtf.tasks import get_task

TASK = get_task("rhythm4")


def waves(n, seed, name):
    """`(n, 200, 2)` mV, the class k being a wave of 2 + 3 k Hz."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 4
    time = np.arange(200) / 100
    phase = rng.uniform(0, 2 * np.pi, size=(n, 1))
    signal = np.sin(2 * np.pi * (2 + 3 * kind[:, None]) * time + phase)[..., None] * [1.0, 0.5]
    signal = signal + rng.normal(0, 0.1, size=signal.shape)
    return Part(signal.astype(np.float32), np.eye(4, dtype=np.float32)[kind], [f"{name}{place}" for place in range(n)])


ABOUT = {"synthetic": {"without_records_of": []}}


@pytest.fixture(scope="module")
def comparison():
    synthetic = waves(120, 1, "made")
    turned = Part(synthetic.signals, synthetic.labels[:, [1, 2, 3, 0]], synthetic.ids)  # every label is wrong
    parts = (waves(120, 0, "real"), waves(80, 2, "held out"), turned)
    return Comparison(*parts, 100.0, ("I", "II"), TASK.classes, TASK, ABOUT)


@pytest.fixture(scope="module")
def results(comparison, tmp_path_factory):
    return Results(comparison, tmp_path_factory.mktemp("utility"), "tiny", None, True)


@pytest.fixture(scope="module")
def runs(results):
    return [Run.load(results.run(kind)) for kind in ("real", "synthetic")]


def test_wrong_labels_are_worth_nothing_and_right_ones_much(results):
    assert results.auroc("trtr")["value"] > 0.95
    assert results.auroc("tstr")["value"] < 0.5
    assert results.auroc("trts")["value"] < 0.5
    assert 0.0 < results.auroc_ratio()["value"] < 0.6
    assert results.scores("tstr")["n"] == 80
    assert results.scores("tstr")["per_class"]["AFIB"]["n"] == 20
    assert results.auroc("tstr")["gap_high"] < 0  # worse than real records, beyond chance
    assert results.auroc("trtr")["floor"] is None  # it is the floor of the others


def test_training_on_both_takes_a_synthetic_record_for_each_real_one(results):
    results.auroc("tr_plus_s")
    assert Run.load(results.run("both")).config["data"][1] == 240


def test_what_differs_is_told_apart_and_what_does_not_is_not(comparison, tmp_path):
    alike = Results(comparison, tmp_path / "alike", "tiny", None, True).discriminative_score()
    assert alike["value"] < 0.2
    louder = Part(3 * comparison.synthetic.signals, comparison.synthetic.labels, comparison.synthetic.ids)
    found = Results(replace(comparison, synthetic=louder), tmp_path / "louder", "tiny", None, True).discriminative_score()
    assert found["value"] == pytest.approx(0.5, abs=0.02)
    assert found["floor"] < 0.2


def test_the_discriminative_score_is_the_distance_from_guessing():
    assert discriminative_score(0.8, 0.7, 0.9) == pytest.approx({"value": 0.3, "low": 0.2, "high": 0.4})
    assert discriminative_score(0.45, 0.3, 0.6) == pytest.approx({"value": 0.05, "low": 0.0, "high": 0.2})
    assert discriminative_score(0.2, 0.1, 0.3) == pytest.approx({"value": 0.3, "low": 0.2, "high": 0.4})
    assert discriminative_score(1.0, None, None) == {"value": 0.5, "low": None, "high": None}


def test_records_are_fitted_or_tried_never_both():
    twins = replace(waves(20, 0, "a"), people=[f"person {place // 2}" for place in range(20)])
    fitted, tried = of_two_origins(twins, waves(20, 1, "b"), np.random.default_rng(0))
    assert len(fitted) == len(tried) == 20
    assert fitted.labels.sum(axis=0).tolist() == tried.labels.sum(axis=0).tolist() == [10.0, 10.0]
    person = {f"real/a{place}": place // 2 for place in range(20)}
    sides = [{person[name] for name in side.ids if name in person} for side in (fitted, tried)]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[0] | sides[1]) == 10
    assert all(name.startswith("synthetic/b") for name in set(fitted.ids + tried.ids) - set(person))


def test_the_predictive_score_of_real_records_is_its_floor(comparison):
    """The synthetic records are drawn like the real ones; their labels do not matter here."""
    found = Results(comparison, Path("unused"), "tiny", None, True).predictive_score()
    assert found["value"] == pytest.approx(found["floor"], rel=0.03)
    louder = Part(comparison.synthetic.signals[:, ::2].repeat(2, axis=1), comparison.synthetic.labels, comparison.synthetic.ids)
    other = Results(replace(comparison, synthetic=louder), Path("unused"), "tiny", None, True).predictive_score()
    assert other["gap_low"] > 0
    assert other["floor"] == found["floor"]


def test_the_floor_is_made_of_records_that_the_extractor_never_saw(results):
    """An extractor sets the records that it was trained on apart from all others."""
    known = set(Run.load(results.extractor_run).trained_on())
    floor = results.seen_from_outside.train
    assert len(known) == len(floor) == 60
    assert not known & {hash_id(name) for name in floor.ids}
    assert len(results.features["train"]) == 60


def test_too_few_records_support_no_distance_of_features(comparison, tmp_path):
    few = replace(comparison, reference=comparison.reference.take(np.arange(40)))
    results = Results(few, tmp_path, "tiny", None, True)
    for number in (lambda: results.features, results.discriminative_score):
        with pytest.raises(ValueError, match="40 records of each part fit together"):
            number()


def test_classes_without_synthetic_records_are_named(comparison, tmp_path):
    lacking = replace(comparison, about={"synthetic": {"without_records_of": ["AFIB"]}})
    results = Results(lacking, tmp_path, "tiny", None, True)
    with pytest.raises(ValueError, match="no synthetic records of AFIB"):
        results.auroc("tstr")


def test_a_single_class_has_no_auroc_and_says_so(comparison, tmp_path):
    one = [part.take(np.flatnonzero(part.labels[:, 0])) for part in (comparison.train, comparison.reference)]
    results = Results(replace(comparison, train=one[0], reference=one[1], synthetic=one[0]), tmp_path, "tiny", None, True)
    for metric in (METRICS["utility"][name] for name in ("trtr_macro_auroc", "tstr_over_trtr")):
        assert metric_entry(results, metric)["reason"].startswith("no class has both records that are of it")


def test_the_same_records_are_trained_on_once(comparison, runs):
    folder = runs[0].folder
    stamp = (folder / "model.keras").stat().st_mtime_ns
    assert budgeted_classifier(comparison.train, comparison, folder, "tiny", True).finished
    assert (folder / "model.keras").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another configuration"):
        budgeted_classifier(comparison.reference, comparison, folder, "tiny", True)


def test_the_run_names_the_records_it_saw(comparison, runs):
    assert runs[0].trained_on() == sorted(hash_id(name) for name in comparison.train.ids)


def test_features_lie_on_the_axes_of_the_real_records(comparison, runs):
    found = feature_vectors(runs[0].folder, comparison)
    assert {name: len(values) for name, values in found.items()} == {"train": 120, "reference": 80, "synthetic": 120}
    size = found["train"].shape[1]
    assert size <= min(MOST_FEATURES, 80 // 6)
    covariance = np.cov(np.concatenate([found["train"], found["reference"]]), rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6 * covariance.max())
    assert (np.diff(np.diag(covariance)) <= 1e-9).all()  # the largest first


def test_an_extractor_of_another_shape_is_refused(comparison, runs):
    shorter = [Part(part.signals[:, :150], part.labels, part.ids) for part in (comparison.train, comparison.reference)]
    other = Comparison(*shorter, shorter[0], 100.0, ("I", "II"), TASK.classes, TASK, {})
    with pytest.raises(ValueError, match=r"takes signals of shape \(200, 2\), received \(150, 2\)"):
        feature_vectors(runs[0].folder, other)
