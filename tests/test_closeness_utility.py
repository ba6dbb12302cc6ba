"""Training on synthetic against training on real records: tiny networks on waves whose class is their frequency."""

import numpy as np
import pytest

from ecgtf.closeness.comparison import Comparison, Part
from ecgtf.closeness.utility import MOST_FEATURES, budgeted_classifier, feature_vectors, train_test_scores
from ecgtf.dataset import hash_id
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


@pytest.fixture(scope="module")
def comparison():
    synthetic = waves(60, 1, "made")
    turned = Part(synthetic.signals, synthetic.labels[:, [1, 2, 3, 0]], synthetic.ids)  # every label is wrong
    parts = (waves(60, 0, "real"), waves(40, 2, "held out"), turned)
    return Comparison(*parts, 100.0, ("I", "II"), TASK.classes, TASK, {})


@pytest.fixture(scope="module")
def runs(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("utility")
    return [
        budgeted_classifier(part, comparison, folder / name, "tiny", True)
        for name, part in (("real", comparison.train), ("synthetic", comparison.synthetic))
    ]


def test_wrong_labels_are_worth_nothing_and_right_ones_much(comparison, runs):
    scores = train_test_scores(*(run.folder for run in runs), comparison)
    assert scores["trtr"]["macro_auroc"]["value"] > 0.95
    assert scores["tstr"]["macro_auroc"]["value"] < 0.5
    assert scores["tstr"]["n"] == scores["trtr"]["n"] == 40
    assert scores["tstr"]["per_class"]["AFIB"]["n"] == 10


def test_the_same_records_are_trained_on_once(comparison, runs):
    folder = runs[0].folder
    stamp = (folder / "model.keras").stat().st_mtime_ns
    assert budgeted_classifier(comparison.train, comparison, folder, "tiny", True).finished
    assert (folder / "model.keras").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another configuration"):
        budgeted_classifier(comparison.reference, comparison, folder, "tiny", True)


def test_the_run_names_the_records_it_saw(comparison, runs):
    assert runs[0].trained_on() == sorted(hash_id(name) for name in comparison.train.ids)


def test_features_lie_on_the_axes_of_the_training_records(comparison, runs):
    found = feature_vectors(runs[0].folder, comparison)
    assert {name: len(values) for name, values in found.items()} == {"train": 60, "reference": 40, "synthetic": 60}
    size = found["train"].shape[1]
    assert size <= min(MOST_FEATURES, 40 // 3)
    covariance = np.cov(found["train"], rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6 * covariance.max())
    assert (np.diff(np.diag(covariance)) <= 1e-9).all()  # the largest first


def test_an_extractor_of_another_shape_is_refused(comparison, runs):
    shorter = [Part(part.signals[:, :150], part.labels, part.ids) for part in (comparison.train, comparison.reference)]
    other = Comparison(*shorter, shorter[0], 100.0, ("I", "II"), TASK.classes, TASK, {})
    with pytest.raises(ValueError, match=r"takes signals of shape \(200, 2\), received \(150, 2\)"):
        feature_vectors(runs[0].folder, other)
