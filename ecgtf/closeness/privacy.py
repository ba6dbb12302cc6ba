"""Whether synthetic records repeat training records: distances to nearest neighbours, exact and near copies of signals.

Low numbers here are no proof of privacy: distances miss leaks that a membership-inference attack finds (arXiv
2505.01524). High numbers are a proof of copying.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, sosfiltfilt
from scipy.spatial import KDTree

from ecgtf.closeness.distribution import nearest

PERCENTILE = 1.0
"""A copy is nearer to a training record than this percentage of real held-out records are to theirs."""

MAX_SHIFT = 1.0
"""Seconds by which a copy may be moved in time: a cycle of all but slow hearts."""

RESOLUTION = 0.001
"""mV: the step in which records are commonly stored; PTB-XL is."""

_COMPARED = 32  # samples of a record by which exact copies are looked up
_BAND = (0.5, 40.0)  # Hz: between baseline wander and muscle noise
_RATE = 100.0  # samples per second, or the next higher that divides the signals': enough for the band
_FLAT = 0.001  # mV: leads of a smaller RMS are not raised to the height of the others
_LEAST = 0.1  # of its energy a record has in the overlap, or the correlation counts for less
_QUERIES, _POINTS = 16, 64  # records that are compared at a time: their correlations fit in a cache


@dataclass(frozen=True)
class NearCopies:
    """Synthetic records that nearly are training records."""

    rate: float
    """Share of the synthetic records."""
    floor: float
    """Share of the held-out records that did not set the threshold: what records of new people give."""
    threshold: float
    """Distance below which a record is a near copy."""
    distances: np.ndarray
    """Of each synthetic record to its nearest training record, `(records,)`."""
    places: np.ndarray
    """Which training record that is, `(records,)`."""


def share_closer_to_train(generated: np.ndarray, train: np.ndarray, holdout: np.ndarray) -> float:
    """Share of records that are nearer to the training than to the held-out set; 0.5 without memorising and equal sizes.

    By Euclidean distances between features `(records, d)`.

    Raises:
        ValueError: if the sets differ in d, hold NaN, or there are no training or no held-out records.
    """
    to_train, to_holdout = (nearest(generated, side)[0][:, 0] for side in (train, holdout))
    return float((to_train < to_holdout).mean())


def low_distance_ratio(generated: np.ndarray, train: np.ndarray) -> float:
    """5th percentile of the distance to the nearest over that to the second nearest training record: near 0, a twentieth is copied.

    The ratio is 1 where both distances are 0: the training record stands there twice.

    Raises:
        ValueError: if the features `(records, d)` differ in d, hold NaN, or there are fewer than 2 training records.
    """
    first, second = nearest(generated, train, 2)[0].T
    return float(np.percentile(np.where(second > 0, first / np.where(second > 0, second, 1.0), 1.0), 5.0))


def exact_copies(synthetic: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Which synthetic records are a training record, `(n,)` bool.

    All samples of both are within half of `RESOLUTION` of each other: stored in steps of that, one may be the other. A record
    that was shifted, scaled or has noise is no exact copy, nor is one that holds NaN.

    Args:
        synthetic: `(n, time, leads)` mV.
        train: `(m, time, leads)` mV.

    Raises:
        ValueError: if the signals disagree in time or leads, or a set is empty.
    """
    synthetic, train = _signals(synthetic, train)
    reach = 0.5 * RESOLUTION + 1e-6  # float32 holds some mV to less than that
    few = np.linspace(0, synthetic[0].size - 1, _COMPARED).astype(int)
    made, real = (np.nan_to_num(side.reshape(len(side), -1)[:, few]) for side in (synthetic, train))
    alike = KDTree(real).query_ball_point(made, reach, p=np.inf)
    return np.array(
        [any((np.abs(synthetic[n] - train[place]) <= reach).all() for place in places) for n, places in enumerate(alike)]
    )


def near_copies(synthetic: np.ndarray, train: np.ndarray, holdout: np.ndarray, rate: float) -> NearCopies:
    """Finds synthetic records that are a training record, up to noise, baseline, gains and a shift in time.

    Signals are compared themselves, not their features: a copy is one of the waveform, while features of two people with the same
    rhythm are alike by design. Distances are those of `signal_distances`. A synthetic record is a near copy if it is nearer to a
    training record than `PERCENTILE` % of every other held-out record are to theirs; the held-out records between give the floor.

    Args:
        synthetic: `(n, time, leads)` mV.
        train: `(m, time, leads)` mV, what the generator was trained on.
        holdout: `(k, time, leads)` mV, real records of other people, in random order.
        rate: Samples per second.

    Raises:
        ValueError: if the signals disagree in time or leads, a set is empty, or there are fewer than 2 held-out records.
    """
    if len(holdout) < 2:
        raise ValueError(f"expected at least 2 held-out records, for the threshold and the floor, received {len(holdout)}")
    usual, _ = signal_distances(holdout, train, rate)
    distances, places = signal_distances(synthetic, train, rate)
    threshold = float(np.percentile(usual[::2], PERCENTILE))
    share, floor = (float((side < threshold).mean()) for side in (distances, usual[1::2]))
    return NearCopies(share, floor, threshold, distances, places)


def signal_distances(queries: np.ndarray, points: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each query to its nearest point, and which one it is, `(queries,)` each.

    The distance is `sqrt(2 - 2 c)`, c being the largest correlation over shifts up to `MAX_SHIFT` of the overlapping samples of all
    leads together, each lead between 0.5 and 40 Hz and at unit power: 0 for a copy at any gains, about 1.4 for unrelated signals.
    Every query is compared with every point at every shift, in steps of at most 10 ms (or one sample).

    Args:
        queries: `(n, time, leads)` mV.
        points: `(m, time, leads)` mV.
        rate: Samples per second.

    Raises:
        ValueError: if the signals disagree in time or leads, or a set is empty.
    """
    queries, points = _signals(queries, points)
    step = max(1, int(rate // _RATE))
    time = -(-queries.shape[1] // step)
    reach = min(round(MAX_SHIFT * rate / step), time // 2)
    shifts = np.arange(-reach, reach + 1)
    start, stop = np.maximum(shifts, 0), time + np.minimum(shifts, 0)  # of a query's samples in the overlap
    size = next_fast_len(time + reach, real=True)
    asked = [(rows, *_spectra(queries[rows], rate, step, size, start, stop)) for rows in _blocks(len(queries), _QUERIES)]
    best, places = np.full(len(queries), -np.inf), np.zeros(len(queries), int)
    for block in _blocks(len(points), _POINTS):
        theirs, their_gains = _spectra(points[block], rate, step, size, start - shifts, stop - shifts)
        theirs = np.conj(theirs).transpose(0, 2, 1)
        for rows, mine, gains in asked:
            # sum over t and leads of query(t + shift) point(t), `(shifts, queries, points)`
            products = irfft(mine @ theirs, size, axis=0, workers=-1)
            correlation = np.concatenate([products[size - reach :], products[: reach + 1]])
            correlation *= gains[:, :, None]
            correlation *= their_gains[:, None]
            highest = correlation.max(axis=0)
            place = highest.argmax(axis=1)
            highest = highest.max(axis=1)
            places[rows] = np.where(highest > best[rows], block.start + place, places[rows])
            best[rows] = np.maximum(best[rows], highest)
    return np.sqrt(np.maximum(0.0, 2.0 - 2.0 * best)), places


def _signals(queries: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as arrays, checked."""
    queries, points = np.asarray(queries), np.asarray(points)
    if queries.ndim != 3 or points.ndim != 3 or queries.shape[1:] != points.shape[1:]:
        raise ValueError(f"expected signals of the same time and leads, received {queries.shape} and {points.shape}")
    if not (len(queries) and len(points)):
        raise ValueError(f"expected records to compare, received {len(queries)} and {len(points)}")
    return queries, points


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _spectra(
    signals: np.ndarray, rate: float, step: int, size: int, start: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spectra `(frequencies, records, leads)` of filtered records of norm 1, and 1 over their norms from `start` to `stop`
    `(shifts, records)`; all leads have the same energy."""
    signals = np.where(np.isfinite(signals), signals, 0.0)
    band = butter(3, (_BAND[0], min(_BAND[1], 0.4 * rate)), "bandpass", fs=rate, output="sos")
    padding = min(signals.shape[1] - 1, round(rate))  # the filter rings for about a second
    signals = sosfiltfilt(band, signals, axis=1, padlen=padding)[:, ::step]
    signals /= np.maximum(np.sqrt((signals**2).mean(axis=1, keepdims=True)), _FLAT)
    signals /= np.maximum(np.linalg.norm(signals, axis=(1, 2), keepdims=True), 1e-12)
    energy = np.pad(np.cumsum((signals**2).sum(axis=2), axis=1), ((0, 0), (1, 0))).T
    gains = 1.0 / np.sqrt(np.maximum(energy[stop] - energy[start], _LEAST))
    spectra = rfft(signals.astype(np.float32), size, axis=1).transpose(1, 0, 2)
    return np.ascontiguousarray(spectra), gains.astype(np.float32)
