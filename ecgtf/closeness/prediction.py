"""Whether synthetic ECGs teach what comes next in real ones: a predictor fitted to one set and tried on another.

The predictive score of Yoon et al. (2019, section 5) trains a recurrent network anew for each number, whose noise covers small
differences. Here the predictor is linear and fitted in closed form, so that equal sets give equal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ORDER = 32
"""Samples that are looked back at, all leads together."""

WINDOWS = 40
"""Places in each record."""

_BLOCK = 256  # records at a time: 32 MB of windows
_RIDGE = 1e-4  # of the mean power of what is looked at: leads that follow from others would make the fit singular


def predictive_errors(fitted: np.ndarray, tried: np.ndarray) -> np.ndarray:
    """Mean absolute error in mV of each record of `tried`, `(records,)`, of a linear one-step predictor fitted to `fitted`.

    The next sample of every lead is predicted from the last `ORDER` samples of all leads by ridge regression; the same `WINDOWS`
    places, evenly spaced, are taken from every record.

    Args:
        fitted: `(n, time, leads)` mV.
        tried: `(m, time, leads)` mV.

    Raises:
        ValueError: if the signals disagree in leads, a set is empty, or they are not longer than `ORDER`.
    """
    for signals in (fitted, tried):
        if signals.ndim != 3 or not len(signals) or signals.shape[1] <= ORDER or signals.shape[2] != fitted.shape[2]:
            raise ValueError(
                f"expected signals (records, more than {ORDER} samples, {fitted.shape[-1]}), received {signals.shape}"
            )
    size = ORDER * fitted.shape[2] + 1
    gram, moments = np.zeros((size, size)), np.zeros((size, fitted.shape[2]))
    for past, following in _windows(fitted):
        past, following = past.reshape(-1, size), following.reshape(-1, fitted.shape[2])
        gram += past.T @ past
        moments += past.T @ following
    gram[np.diag_indices(size)] += _RIDGE * np.trace(gram) / size
    weights = np.linalg.solve(gram, moments)
    errors = [np.abs(past @ weights - following).mean(axis=(1, 2)) for past, following in _windows(tried)]
    return np.concatenate(errors)


def _windows(signals: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """In blocks, what is looked at `(records, WINDOWS, ORDER * leads + 1)` and what follows `(records, WINDOWS, leads)`, float64."""
    ends = np.linspace(ORDER, signals.shape[1] - 1, WINDOWS).astype(int)
    for start in range(0, len(signals), _BLOCK):
        block = signals[start : start + _BLOCK]
        past = block[:, ends[:, None] + np.arange(-ORDER, 0)].astype(np.float64).reshape(len(block), WINDOWS, -1)
        yield np.concatenate([past, np.ones((*past.shape[:2], 1))], axis=2), block[:, ends].astype(np.float64)
