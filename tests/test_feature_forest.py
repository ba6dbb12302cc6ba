"""The feature forest: features whose values are known, gains that do not matter, forests of both kinds of task."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_record
from ecgtf.studies.feature_forest import RHYTHM_FEATURES, FeatureForest, morphology_features, rhythm_features

RATE = 100
PER_CLASS = 12


@pytest.fixture(scope="module")
def records():
    """Signals `(24, 1000, 12)` mV, the first half sinus rhythm, the others atrial fibrillation."""
    rhythms = ["SR"] * PER_CLASS + ["AFIB"] * PER_CLASS
    return np.stack([simulate_record(name, rng=np.random.default_rng(k), rate=RATE).signal for k, name in enumerate(rhythms)])


def beats_at(times: np.ndarray) -> np.ndarray:
    """A signal `(1, 1000, 12)` mV of narrow beats at these seconds and nothing else."""
    time = np.arange(1000) / RATE
    return np.repeat(np.exp(-((time[:, None] - times) ** 2) / (2 * 0.015**2)).sum(axis=1)[None, :, None], 12, axis=2)


def test_features_of_beats_at_known_times():
    even = dict(zip(RHYTHM_FEATURES, rhythm_features(beats_at(np.arange(0.5, 10, 0.8)), RATE)[0], strict=True))
    assert even["heart rate"] == pytest.approx(75, abs=0.5)
    assert even["share of differences over 50 ms"] == 0
    assert even["shortest interval"] == pytest.approx(1, abs=0.02) == even["longest interval"]
    uneven = dict(zip(RHYTHM_FEATURES, rhythm_features(beats_at(np.cumsum([0.5, *[0.6, 1.0] * 5])), RATE)[0], strict=True))
    assert uneven["heart rate"] == pytest.approx(75, abs=0.5)
    assert uneven["RMSSD"] == pytest.approx(400, abs=15)
    assert uneven["share of differences over 50 ms"] == 1
    assert uneven["longest interval"] / uneven["shortest interval"] == pytest.approx(1 / 0.6, abs=0.05)


def test_a_record_without_beats_has_no_features_but_is_classified(records):
    features = rhythm_features(np.concatenate([records, np.zeros((1, 1000, 12))]), RATE)
    assert np.isnan(features[-1]).all()
    labels = np.eye(2)[np.arange(len(features)) % 2]
    assert np.isfinite(FeatureForest().fit(features, labels, False).probabilities(features)).all()


@pytest.mark.parametrize("gain", [0.3, 4.0, -1.0])
def test_the_gain_of_a_record_does_not_matter_to_its_rhythm(records, gain):
    np.testing.assert_allclose(rhythm_features(gain * records, RATE), rhythm_features(records, RATE), rtol=1e-6, atol=1e-9)


def test_morphology_has_a_column_for_each_measurement(records):
    found = morphology_features(records, RATE, LEADS)
    assert found.shape == (len(records), 6 + 2 * 12)
    durations = found[:PER_CLASS, 1]
    assert 60 < np.nanmedian(durations) < 140  # ms, of the QRS
    angle = found[:, 4] ** 2 + found[:, 5] ** 2
    np.testing.assert_allclose(angle[np.isfinite(angle)], 1)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_forest_tells_fibrillation_from_sinus_rhythm(records, multi_label):
    features = rhythm_features(records, RATE)
    fibrillation = np.arange(len(records)) >= PER_CLASS
    labels = np.stack([~fibrillation, fibrillation], axis=1).astype(float)
    train = np.arange(len(records)) % 2 == 0
    forest = FeatureForest().fit(features[train], labels[train], multi_label, seed=1)
    found = forest.probabilities(features[~train])
    assert roc_auc_score(fibrillation[~train], found[:, 1]) > 0.95
    assert multi_label or np.allclose(found.sum(axis=1), 1)
    again = FeatureForest().fit(features[train], labels[train], multi_label, seed=1).probabilities(features[~train])
    assert np.array_equal(found, again)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_class_without_training_records_is_given_no_probability(records, multi_label):
    labels = np.tile([0.0, 1.0, 0.0], (len(records), 1))
    labels[::2] = [1.0, 0.0, 0.0]
    found = (
        FeatureForest().fit(rhythm_features(records, RATE), labels, multi_label).probabilities(rhythm_features(records, RATE))
    )
    assert found.shape == (len(records), 3)
    assert (found[:, 2] == 0).all()
    with pytest.raises(ValueError, match="received none"):
        FeatureForest().fit(np.zeros((0, 8)), np.zeros((0, 3)), multi_label)
