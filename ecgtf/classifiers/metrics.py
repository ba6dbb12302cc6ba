"""How good a classifier is on held-out records: AUROC, F1 and accuracy with bootstrap intervals (NumPy only).

A resample is a row of counts, one for each record, so every quantity of all resamples is a matrix product or a cumulative sum:
1,000 resamples of 2,000 records in 7 classes take about half a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

FEW_POSITIVES = 10
"""Classes with fewer positives than this carry a note: their numbers support no claim."""

_RESAMPLE_CELLS = 4_000_000  # resamples x records that are held at a time: 32 MB
_RESAMPLE_ROUNDS = 200  # a resample that misses a class is drawn again at most so often


def auroc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every class `(classes,)`, NaN where a class has no positives or no negatives.

    The area is the chance that a positive scores above a negative, ties counting half (Hanley & McNeil 1982).

    Args:
        labels: `(records, classes)` zeros and ones.
        scores: `(records, classes)`, higher for more likely.
    """
    counts = np.ones((1, len(labels)))
    return np.array([weighted_auroc(labels[:, k] > 0, scores[:, k], counts)[0] for k in range(labels.shape[1])])


def macro_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean `auroc` over the classes that have positives and negatives; NaN when there is none."""
    areas = auroc(labels, scores)
    return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")


def classification_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    multi_label: bool,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """Metrics of predictions on held-out records, with 95 % percentile bootstrap intervals, as plain numbers fit for JSON.

    Macro means run over the classes that have positives and negatives; the others are named in `left_out`. A resample of the
    records is drawn again until every one of those classes has a positive and a negative in it; where that is hopeless (a few
    records in many classes) fewer resamples are used, as `bootstrap` in the result says, and no interval below 20.

    Args:
        labels: `(records, classes)` one-hot, or multi-hot with `multi_label`.
        probabilities: `(records, classes)`.
        classes: Names of the classes.
        multi_label: Whether each class is decided by itself, positive from a probability of 0.5; otherwise the most probable class
            is taken.
        bootstrap: Number of resamples; 0 gives no intervals.
        seed: Seed of the resamples.

    Returns:
        `macro_auroc`, `macro_f1`, `accuracy` (multi-label: every class of the record right) and, for single-label tasks,
        `balanced_accuracy` (mean recall), each `{"value", "low", "high"}`; `per_class` with `n` (positives), `auroc` and its
        `low` and `high`, `f1`, `precision`, `recall`, or the `reason` why there are none; `n`, `left_out`, `bootstrap`; for
        single-label tasks `confusion`, rows true and columns predicted. None stands for what is not defined.

    Raises:
        ValueError: if shapes disagree, a probability is not finite, or single-label rows are not one-hot.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(labels, probabilities, classes, multi_label)
    truth = labels > 0.5
    if multi_label:
        decided = probabilities >= 0.5
    else:
        decided = np.eye(len(classes), dtype=bool)[probabilities.argmax(axis=1)]
    usable = truth.any(axis=0) & ~truth.all(axis=0)

    point = _scores(truth, decided, probabilities, usable, np.ones((1, len(truth))))
    resampled = [
        _scores(truth, decided, probabilities, usable, counts) for counts in resamples(truth[:, usable], bootstrap, seed)
    ]
    drawn = {name: np.concatenate([part[name] for part in resampled]) for name in point} if resampled else {}
    intervals = {name: _interval(drawn[name]) if drawn else (None, None) for name in point}

    names = ["macro_auroc", "macro_f1", "accuracy"] + ([] if multi_label else ["balanced_accuracy"])
    result: dict = {"n": len(truth), "bootstrap": len(drawn["accuracy"]) if drawn else 0}
    for name in names:
        low, high = intervals[name]
        result[name] = {"value": _plain(point[name][0]), "low": low, "high": high}
    result["per_class"] = {name: _class_entry(k, truth, point, intervals, bool(usable[k])) for k, name in enumerate(classes)}
    result["left_out"] = [name for name, kept in zip(classes, usable, strict=True) if not kept]
    if not multi_label:
        result["confusion"] = (truth.T.astype(int) @ decided.astype(int)).tolist()
    return result


def paired_difference(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, float | None]:
    """Macro-AUROC of `first` minus that of `second` on the same records, with a 95 % interval over paired resamples.

    Args:
        labels: `(records, classes)` zeros and ones.
        first, second: `(records, classes)` probabilities of two classifiers.
        bootstrap: Number of resamples, drawn as those of `classification_metrics`.
        seed: Seed of the resamples.

    Returns:
        `{"value", "low", "high"}`; None for what is not defined.
    """
    truth = np.asarray(labels) > 0.5
    usable = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))

    def difference(counts: np.ndarray) -> np.ndarray:
        sides = (
            np.mean([weighted_auroc(truth[:, k], scores[:, k], counts) for k in usable], axis=0) for scores in (first, second)
        )
        return next(sides) - next(sides)

    if not len(usable):
        return {"value": None, "low": None, "high": None}
    drawn = [difference(counts) for counts in resamples(truth[:, usable], bootstrap, seed)]
    low, high = _interval(np.concatenate(drawn)) if drawn else (None, None)
    return {"value": float(difference(np.ones((1, len(truth))))[0]), "low": low, "high": high}


def metrics_table(metrics: dict) -> str:
    """`classification_metrics` as lines of text for a terminal: the means with their intervals, then one line a class."""
    lines = [f"{metrics['n']} records, {metrics['bootstrap']} bootstrap resamples, 95 % intervals"]
    for name in ("macro_auroc", "macro_f1", "accuracy", "balanced_accuracy"):
        if name in metrics:
            lines.append(f"{name:18s} {_spelt(**metrics[name])}")
    width = max(len(name) for name in metrics["per_class"])
    for name, entry in metrics["per_class"].items():
        if "reason" in entry:
            lines.append(f"  {name:{width}s}  n {entry['n']:5d}  {entry['reason']}")
            continue
        spelt = _spelt(entry["auroc"], entry["low"], entry["high"])
        note = f"  ({entry['note']})" if "note" in entry else ""
        lines.append(f"  {name:{width}s}  n {entry['n']:5d}  AUROC {spelt}  F1 {entry['f1']:.3f}{note}")
    if metrics["left_out"]:
        lines.append(f"left out of the means: {', '.join(metrics['left_out'])}")
    return "\n".join(lines)


def _spelt(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "not defined"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _check(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], multi_label: bool) -> None:
    if labels.ndim != 2 or labels.shape != probabilities.shape or labels.shape[1] != len(classes):
        raise ValueError(
            f"expected labels and probabilities of shape (records, {len(classes)}), "
            f"received {labels.shape} and {probabilities.shape}"
        )
    if len(labels) == 0:
        raise ValueError("expected at least one record to measure on, received none")
    if not np.isfinite(probabilities).all():
        raise ValueError("expected finite probabilities, received NaN or infinity: the training diverged")
    if not multi_label and not (labels.sum(axis=1) == 1).all():
        raise ValueError(
            "expected one-hot labels, received rows without exactly one class; pass multi_label=True for multi-hot"
        )


def weighted_auroc(truth: np.ndarray, scores: np.ndarray, counts: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """AUROC `(resamples,)` of one class when record i stands `counts[:, i]` times; NaN without positives or negatives.

    Fastest where `counts` is in Fortran order, for a record's counts of all resamples are then next to each other.

    Args:
        truth: `(records,)` booleans.
        scores: `(records,)`.
        counts: `(resamples, records)` of floats.
        groups: `(records,)`; where given, only pairs of the same group count.
    """
    parts = [slice(None)] if groups is None else [np.flatnonzero(groups == group) for group in np.unique(groups)]
    found = [_won_pairs(truth[part], scores[part], counts.T[part]) for part in parts]
    won, pairs = (np.sum(each, axis=0) for each in zip(*found, strict=True))
    return np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def _won_pairs(truth: np.ndarray, scores: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a positive and a negative in which the positive has the higher score, and all pairs; `times` `(records, resamples)`."""
    positive, negative = np.flatnonzero(truth), np.flatnonzero(~truth)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below, upto = (np.searchsorted(scores[negative], scores[positive], side) for side in ("left", "right"))
    passed = np.zeros((len(negative) + 1, times.shape[1]), times.dtype)  # negatives among the first 0, 1, 2 ... of them
    np.cumsum(times[negative], axis=0, out=passed[1:])
    beaten = passed[below] if np.array_equal(below, upto) else 0.5 * (passed[below] + passed[upto])  # ties count half
    won = np.einsum("pr,pr->r", times[positive], beaten)
    return won, times[positive].sum(axis=0, dtype=np.float64) * passed[-1]


def _scores(truth, decided, probabilities, usable, counts) -> dict[str, np.ndarray]:
    """Every figure for each row of `counts` `(resamples, records)`; figures of a class `(resamples, classes)`."""
    hits = counts @ (truth & decided)
    present = counts @ truth
    called = counts @ decided
    areas = np.full(hits.shape, np.nan)
    for k in np.flatnonzero(usable):
        areas[:, k] = weighted_auroc(truth[:, k], probabilities[:, k], counts)
    f1 = _ratio(2 * hits, present + called)
    recall = _ratio(hits, present)
    scores = {
        "auroc": areas,
        "f1": f1,
        "precision": _ratio(hits, called),
        "recall": recall,
        "accuracy": counts @ (truth == decided).all(axis=1) / counts.sum(axis=1),
    }
    some = bool(usable.any())
    nothing = np.full(len(counts), np.nan)
    scores["macro_auroc"] = areas[:, usable].mean(axis=1) if some else nothing
    scores["macro_f1"] = f1[:, usable].mean(axis=1) if some else nothing
    scores["balanced_accuracy"] = recall[:, usable].mean(axis=1) if some else nothing
    return scores


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where `whole` is 0: no call is no hit."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def resamples(truth: np.ndarray, wanted: int, seed: int) -> Iterator[np.ndarray]:
    """Yields `(some, records)` counts of bootstrap resamples in which every class has a positive and a negative."""
    rng = np.random.default_rng(seed)
    records = len(truth)
    block = max(1, min(wanted, _RESAMPLE_CELLS // records))
    missing = wanted
    for _ in range(_RESAMPLE_ROUNDS * max(1, -(-wanted // block))):
        if missing <= 0:
            return
        drawn = rng.integers(records, size=(block, records)) + np.arange(block)[:, None] * records
        counts = np.bincount(drawn.ravel(), minlength=block * records).reshape(block, records).astype(np.float64)
        positives = counts @ truth
        kept = counts[((positives > 0) & (positives < records)).all(axis=1)][:missing]
        missing -= len(kept)
        if len(kept):
            yield kept


def _interval(values: np.ndarray):
    """The 2.5 and 97.5 percentiles of `(resamples,)` or `(resamples, classes)`; Nones under 20 resamples."""
    if len(values) < 20:
        return None, None
    low, high = np.percentile(values, (2.5, 97.5), axis=0)
    return (low, high) if values.ndim == 2 else (_plain(low), _plain(high))


def _class_entry(k: int, truth, point, intervals, usable: bool) -> dict:
    entry: dict = {"n": int(truth[:, k].sum())}
    if not usable:
        return entry | {"reason": "no positives" if entry["n"] == 0 else "no negatives"}
    low, high = intervals["auroc"]
    entry["auroc"] = _plain(point["auroc"][0, k])
    entry["low"], entry["high"] = (None, None) if low is None else (_plain(low[k]), _plain(high[k]))
    for name in ("f1", "precision", "recall"):
        entry[name] = _plain(point[name][0, k])
    if entry["n"] < FEW_POSITIVES:
        entry["note"] = f"fewer than {FEW_POSITIVES} positives: no claim"
    return entry


def _plain(value) -> float | None:
    return float(value) if np.isfinite(value) else None
