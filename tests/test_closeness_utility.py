"""Training on synthetic against training on real records, with a classifier that needs no network."""

import numpy as np
import pytest

from ecgtf.closeness.utility import ClassifierTrainer, compare_trainings

CLASSES = ("A", "B", "C")


def records(n, rng, spread=0.6, classes=3):
    """`(n, 50, 2)` signals whose level is their class, and labels."""
    kind = rng.integers(classes, size=n)
    signals = kind[:, None, None] + rng.normal(0, spread, size=(n, 1, 1)) + rng.normal(0, 0.1, size=(n, 50, 2))
    return signals.astype(np.float32), np.eye(3, dtype=np.float32)[kind]


def nearest_mean(signals, labels, test_signals):
    """Probabilities by the distance of a record's level to the mean levels of the classes."""
    level, test_level = signals.mean(axis=(1, 2)), test_signals.mean(axis=(1, 2))
    means = np.array([level[labels[:, k] > 0].mean() if labels[:, k].any() else 1e3 for k in range(3)])
    scores = np.exp(-((test_level[:, None] - means) ** 2) / 2)
    return scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-300)


def compare(synthetic, **options):
    rng = np.random.default_rng(0)
    real, test = records(300, rng), records(200, rng)
    return compare_trainings(nearest_mean, real, synthetic, test, CLASSES, multi_label=False, bootstrap=200, **options)


def test_synthetic_records_of_the_same_kind_are_worth_as_much():
    found = compare(records(400, np.random.default_rng(1)))
    assert found.records == 300
    assert found.tstr["n"] == found.trtr["n"] == 200
    assert found.ratio == pytest.approx(found.tstr["macro_auroc"]["value"] / found.trtr["macro_auroc"]["value"])
    assert 0.97 < found.ratio < 1.03
    assert found.ratio_low < found.ratio < found.ratio_high
    assert found.tstr["balanced_accuracy"]["low"] < found.tstr["balanced_accuracy"]["value"]
    assert {"n", "auroc", "f1"} <= set(found.tstr["per_class"]["A"])


def test_wrongly_labelled_records_are_worth_less():
    signals, labels = records(300, np.random.default_rng(1))
    found = compare((signals, labels[:, [1, 2, 0]]))
    assert found.ratio_high < 0.9


def test_sizes_are_made_equal():
    seen = []

    def spy(signals, labels, test_signals):
        seen.append(len(signals))
        return nearest_mean(signals, labels, test_signals)

    rng = np.random.default_rng(0)
    compare_trainings(spy, records(90, rng), records(60, rng), records(50, rng), CLASSES, multi_label=False, bootstrap=0)
    assert seen == [60, 60]


def test_a_class_without_test_records_is_named():
    rng = np.random.default_rng(0)
    found = compare_trainings(
        nearest_mean, records(90, rng), records(90, rng), records(80, rng, classes=2), CLASSES, multi_label=False, bootstrap=50
    )
    assert found.tstr["per_class"]["C"] == {"n": 0, "reason": "no positives"}
    assert found.tstr["left_out"] == ["C"]
    assert np.isfinite([found.ratio, found.ratio_low, found.ratio_high]).all()


def test_the_seed_fixes_the_result():
    synthetic = records(400, np.random.default_rng(1))
    assert compare(synthetic, seed=3) == compare(synthetic, seed=3)


def test_nothing_to_train_on_is_refused():
    rng = np.random.default_rng(0)
    empty = records(0, rng)
    with pytest.raises(ValueError, match="0 synthetic"):
        compare_trainings(nearest_mean, records(9, rng), empty, records(9, rng), CLASSES, multi_label=False)


def test_trainer_trains_once_for_the_same_records(tmp_path):
    rng = np.random.default_rng(0)
    (signals, labels), (test_signals, test_labels) = records(90, rng, spread=0.1), records(40, rng, spread=0.1)
    trainer = ClassifierTrainer(tmp_path, CLASSES, False, 100.0, ("I", "II"), "levels", preset="tiny")
    first = trainer(signals, labels, test_signals)
    assert (first.argmax(axis=1) == test_labels.argmax(axis=1)).mean() > 0.9
    stamp = (trainer.runs[0] / "model.keras").stat().st_mtime_ns
    np.testing.assert_allclose(trainer(signals, labels, test_signals), first, atol=1e-5)
    assert trainer.runs[0] == trainer.runs[1]
    assert (trainer.runs[0] / "model.keras").stat().st_mtime_ns == stamp
    trainer(signals[:60], labels[:60], test_signals)
    assert trainer.runs[2] != trainer.runs[0]
