"""The rival that every deep classifier must beat: a random forest on what a cardiologist measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from ecgtf.closeness.physiology import heart_rate, measure, p_wave_score, r_peaks, rmssd

RHYTHM_FEATURES = (
    "heart rate",
    "RMSSD",
    "variation of intervals",
    "usual difference of intervals",
    "share of differences over 50 ms",
    "shortest interval",
    "longest interval",
    "P-wave score",
)

TREES = 500


def rhythm_features(signals: np.ndarray, rate: float) -> np.ndarray:
    """`RHYTHM_FEATURES` `(records, 8)` of signals `(records, time, leads)` mV, NaN where there are none; a record's gain does not matter.

    Intervals are those between beats, in units of their median but for the first two features (beats/min, ms).

    Raises:
        ValueError: as `r_peaks`.
    """
    rows = [_rhythm(signal, peaks, rate) for signal, peaks in zip(signals, r_peaks(signals, rate), strict=True)]
    return np.array(rows, np.float64).reshape(len(rows), len(RHYTHM_FEATURES))


def _rhythm(signal: np.ndarray, peaks: np.ndarray, rate: float) -> list[float]:
    if len(peaks) < 4:
        return [heart_rate(peaks, rate), *[float("nan")] * (len(RHYTHM_FEATURES) - 1)]
    intervals = np.diff(peaks) / rate
    relative, steps = intervals / np.median(intervals), np.abs(np.diff(intervals))
    return [
        heart_rate(peaks, rate),
        rmssd(peaks, rate),
        float(relative.std()),
        float(np.median(steps) / np.median(intervals)),
        float((steps > 0.05).mean()),
        float(relative.min()),
        float(relative.max()),
        p_wave_score(signal, peaks, rate),
    ]


def morphology_features(signals: np.ndarray, rate: float, leads: Sequence[str]) -> np.ndarray:
    """Intervals, axis, ST levels and amplitudes of the average beat `(records, 6 + 2 leads)`, NaN where there are none.

    Raises:
        ValueError: as `r_peaks`.
    """
    found = measure(signals, rate, leads)
    angle = np.deg2rad(found.qrs_axis)
    columns = [found.pr_interval, found.qrs_duration, found.qt_interval, found.qtc, np.cos(angle), np.sin(angle)]
    return np.concatenate([np.stack(columns, axis=1), found.st_level, found.amplitude], axis=1)


class FeatureForest:
    """Random forests that say how probable the classes of a record are.

    Classes that exclude each other share a forest; others have one each. What could not be measured takes the median of the
    training records, and its absence is a feature of its own.
    """

    def fit(self, features: np.ndarray, labels: np.ndarray, multi_label: bool, seed: int = 0) -> FeatureForest:
        """Learns from `(records, features)` and `(records, classes)` one-hot or multi-hot; returns itself.

        Raises:
            ValueError: if there are no records.
        """
        if not len(features):
            raise ValueError("expected records to learn from, received none")
        columns = zip(features.T, np.isfinite(features).T, strict=True)
        self.medians = np.array([np.median(column[known]) if known.any() else 0.0 for column, known in columns])
        self.classes = labels.shape[1]
        targets = labels.T > 0 if multi_label else [labels.argmax(axis=1)]
        self.multi_label = multi_label
        self.forests = [
            RandomForestClassifier(TREES, class_weight="balanced_subsample", min_samples_leaf=2, random_state=seed).fit(
                self._filled(features), target
            )
            for target in targets
        ]
        return self

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """`(records, classes)`; 0 for a class that was never seen, and rows that sum to 1 where classes exclude each other."""
        filled = self._filled(features)
        found = np.zeros((len(features), self.classes))
        for number, forest in enumerate(self.forests):
            shares = forest.predict_proba(filled)
            if self.multi_label:
                found[:, number] = shares[:, forest.classes_.tolist().index(True)] if True in forest.classes_ else 0.0
            else:
                found[:, forest.classes_] = shares
        return found

    def _filled(self, features: np.ndarray) -> np.ndarray:
        known = np.isfinite(features)
        return np.concatenate([np.where(known, features, self.medians), ~known], axis=1)
