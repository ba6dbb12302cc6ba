import time

import numpy as np
import pytest
from sklearn import metrics as sk

from ecgtf.classifiers.metrics import (
    auroc,
    classification_metrics,
    macro_auroc,
    metrics_table,
    paired_difference,
    weighted_auroc,
)

CLASSES = ("SR", "SB", "AFIB")


def _single(records=300, seed=0, rates=(0.7, 0.2, 0.1)):
    rng = np.random.default_rng(seed)
    target = rng.choice(3, records, p=rates)
    labels = np.eye(3, dtype="float32")[target]
    logits = rng.normal(size=(records, 3)) + 1.5 * labels
    logits = logits.round(1)  # ties
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_auroc_counts_ties_as_half():
    labels = np.array([[0], [1], [0], [1]], dtype="float32")
    assert auroc(labels, np.array([[0.1], [0.5], [0.5], [0.9]]))[0] == pytest.approx(3.5 / 4)
    assert auroc(labels, np.zeros((4, 1)))[0] == 0.5
    assert auroc(labels, -labels)[0] == 0.0


def test_auroc_within_groups_counts_their_pairs_alone():
    truth = np.array([1, 0, 0, 1, 1, 0], bool)
    scores, groups = np.array([0.9, 0.5, 0.95, 0.2, 0.1, 0.1]), np.array([0, 0, 0, 1, 1, 1])
    # Pairs of group 0: one won, one lost; of group 1, whose negative stands twice: two won, two tied.
    counts = np.array([[1, 1, 1, 1, 1, 2]], np.float64)
    assert weighted_auroc(truth, scores, counts, groups) == pytest.approx((1 + 2 + 2 * 0.5) / (2 + 4))
    nobody = np.array([[1, 0, 0, 0, 0, 1]], np.float64)
    assert np.isnan(weighted_auroc(truth, scores, nobody, groups))
    assert weighted_auroc(truth, scores, nobody) == 1


def test_auroc_is_nan_without_both_kinds_and_the_mean_leaves_it_out():
    labels = np.array([[0, 0, 1], [0, 1, 1]], dtype="float32")
    scores = np.array([[0.3, 0.1, 0.2], [0.1, 0.9, 0.3]])
    np.testing.assert_array_equal(auroc(labels, scores), [np.nan, 1.0, np.nan])
    assert macro_auroc(labels, scores) == 1.0
    assert np.isnan(macro_auroc(np.ones((2, 1)), np.ones((2, 1))))


def test_single_label_figures_are_those_of_scikit_learn():
    labels, probabilities = _single()
    got = classification_metrics(labels, probabilities, CLASSES, multi_label=False, bootstrap=50)
    target, called = labels.argmax(1), probabilities.argmax(1)
    assert got["macro_auroc"]["value"] == pytest.approx(sk.roc_auc_score(labels, probabilities, average="macro"))
    assert got["macro_f1"]["value"] == pytest.approx(sk.f1_score(target, called, average="macro"))
    assert got["accuracy"]["value"] == pytest.approx(sk.accuracy_score(target, called))
    assert got["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(target, called))
    assert got["confusion"] == sk.confusion_matrix(target, called).tolist()
    for k, name in enumerate(CLASSES):
        entry = got["per_class"][name]
        assert entry["n"] == int(labels[:, k].sum())
        assert entry["auroc"] == pytest.approx(sk.roc_auc_score(labels[:, k], probabilities[:, k]))
        assert entry["precision"] == pytest.approx(sk.precision_score(target == k, called == k))
        assert entry["recall"] == pytest.approx(sk.recall_score(target == k, called == k))
        assert entry["low"] <= entry["auroc"] <= entry["high"]


def test_multi_label_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = (rng.random((200, 3)) < (0.5, 0.3, 0.1)).astype("float32")
    probabilities = np.clip(0.3 * labels + rng.random((200, 3)) * 0.7, 0, 1)
    got = classification_metrics(labels, probabilities, CLASSES, multi_label=True, bootstrap=0)
    called = probabilities >= 0.5
    assert got["macro_f1"]["value"] == pytest.approx(sk.f1_score(labels, called, average="macro"))
    assert got["accuracy"]["value"] == pytest.approx(sk.accuracy_score(labels, called))
    assert got["macro_auroc"]["low"] is None
    assert "balanced_accuracy" not in got
    assert "confusion" not in got


def test_bootstrap_agrees_with_resampling_the_records_one_by_one():
    labels, probabilities = _single(120)
    got = classification_metrics(labels, probabilities, CLASSES, multi_label=False, bootstrap=2000)["macro_auroc"]
    rng = np.random.default_rng(5)
    slow = []
    while len(slow) < 1000:
        pick = rng.integers(120, size=120)
        if labels[pick].any(axis=0).all():
            slow.append(sk.roc_auc_score(labels[pick], probabilities[pick], average="macro"))
    np.testing.assert_allclose((got["low"], got["high"]), np.percentile(slow, (2.5, 97.5)), atol=0.012)


def test_every_resample_has_every_class_even_with_single_positives():
    labels = np.eye(3, dtype="float32")[[0] * 40 + [1, 2]]
    probabilities = np.full((42, 3), 1 / 3)
    got = classification_metrics(labels, probabilities, CLASSES, multi_label=False, bootstrap=300)
    assert got["bootstrap"] == 300
    assert got["macro_auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert got["per_class"]["SB"]["note"].startswith("fewer than 10 positives")


def test_a_class_without_positives_is_left_out_and_named():
    labels, probabilities = _single(rates=(0.8, 0.2, 0.0))
    got = classification_metrics(labels, probabilities, CLASSES, multi_label=False, bootstrap=30)
    assert got["per_class"]["AFIB"] == {"n": 0, "reason": "no positives"}
    assert got["left_out"] == ["AFIB"]
    assert got["macro_auroc"]["value"] == pytest.approx(np.mean([got["per_class"][c]["auroc"] for c in ("SR", "SB")]))
    table = metrics_table(got)
    assert "left out of the means: AFIB" in table
    assert "no positives" in table


def test_one_class_alone_gives_no_means_but_an_accuracy():
    got = classification_metrics(np.eye(3)[[0, 0]], np.eye(3)[[0, 1]], CLASSES, multi_label=False, bootstrap=30)
    assert got["macro_auroc"] == {"value": None, "low": None, "high": None}
    assert got["accuracy"]["value"] == 0.5
    assert "not defined" in metrics_table(got)


def test_a_thousand_resamples_of_two_thousand_records_take_seconds_at_most():
    rng = np.random.default_rng(2)
    labels = np.eye(7, dtype="float32")[rng.integers(7, size=2000)]
    start = time.perf_counter()
    classification_metrics(labels, rng.dirichlet(np.ones(7), 2000), "abcdefg", multi_label=False)
    assert time.perf_counter() - start < 10


def test_the_seed_fixes_the_intervals():
    labels, probabilities = _single()
    first, again, other = (
        classification_metrics(labels, probabilities, CLASSES, multi_label=False, bootstrap=50, seed=s) for s in (3, 3, 4)
    )
    assert first == again
    assert first["macro_auroc"]["low"] != other["macro_auroc"]["low"]


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.eye(3), np.eye(3)[:2], "shape"),
        (np.eye(3)[:0], np.eye(3)[:0], "at least one record"),
        (np.eye(3), np.full((3, 3), np.nan), "NaN"),
        (np.ones((2, 3)), np.ones((2, 3)), "one-hot"),
    ],
)
def test_faults_are_refused_in_words(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probabilities, CLASSES, multi_label=False)


def test_a_paired_difference_is_that_of_the_areas():
    labels, probabilities = _single()
    noise = probabilities + np.random.default_rng(0).normal(0, 0.3, probabilities.shape)
    found = paired_difference(labels, noise, probabilities, bootstrap=300)
    assert found["value"] == pytest.approx(macro_auroc(labels, noise) - macro_auroc(labels, probabilities))
    assert found["low"] < found["value"] < found["high"]
    same = paired_difference(labels, probabilities, probabilities, bootstrap=30)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert paired_difference(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))) == {"value": None, "low": None, "high": None}
