"""Whether synthetic records repeat training records: distances to nearest neighbours, and near copies of signals.

Low numbers here are no proof of privacy: distances miss leaks that a membership-inference attack finds (arXiv
2505.01524). High numbers are a proof of copying.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ecgtf.closeness.distribution import nearest

PERCENTILE = 1.0
"""A copy is nearer to a training record than this percentage of real held-out records are to theirs."""

MAX_SHIFT = 0.25
"""Seconds by which a copy may be moved in time."""

_CANDIDATES = 8  # training records per query that are compared sample by sample
_BAND = (0.7, 20.0)  # Hz: what the candidates are chosen by, without drifts
_BLOCK = 256  # records at a time


@dataclass(frozen=True)
class Neighbours:
    """Distances of synthetic records to their nearest real ones, `(records,)` each."""

    to_train: np.ndarray
    to_train_second: np.ndarray
    to_holdout: np.ndarray
    holdout_to_train: np.ndarray
    """Of each held-out record to its nearest training record: what is usual between different people."""

    @property
    def ratio(self) -> np.ndarray:
        """Nearest over second nearest training record: far below 1 where a record was copied; 1 where both are 0."""
        second = np.where(self.to_train_second > 0, self.to_train_second, 1.0)
        return np.where(self.to_train_second > 0, self.to_train / second, 1.0)

    @property
    def share_closer_to_train(self) -> float:
        """Share of records that are nearer to the training than to the held-out set; 0.5 without memorising and equal sizes."""
        return float((self.to_train < self.to_holdout).mean())


@dataclass(frozen=True)
class NearCopies:
    """Synthetic records that nearly are training records."""

    rate: float
    """Share of the synthetic records; `PERCENTILE` % is expected of records of new people."""
    threshold: float
    """Distance below which a record is a near copy."""
    pairs: list[tuple[int, int, float, float]]
    """Places of the synthetic and of the training record, their distance, and the shift in s; nearest first."""
    distances: np.ndarray
    """Of each synthetic record to its nearest training record, `(records,)`."""


def neighbours(generated: np.ndarray, train: np.ndarray, holdout: np.ndarray) -> Neighbours:
    """Euclidean distances between features `(records, d)`; give equally many training and held-out records.

    Raises:
        ValueError: if the sets differ in d, hold NaN, or there are fewer than 2 training records or none held out.
    """
    to_train = nearest(generated, train, 2)[0]
    return Neighbours(
        to_train=to_train[:, 0],
        to_train_second=to_train[:, 1],
        to_holdout=nearest(generated, holdout)[0][:, 0],
        holdout_to_train=nearest(holdout, train)[0][:, 0],
    )


def near_copies(
    synthetic: np.ndarray, train: np.ndarray, holdout: np.ndarray, rate: float, *, max_shift: float = MAX_SHIFT
) -> NearCopies:
    """Finds synthetic records that are a training record, up to noise, scale, offset and a shift in time.

    Signals are compared themselves, not their features: a copy is one of the waveform, while features of two people with the same
    rhythm are alike by design. Distances are those of `signal_distances`. A synthetic record is a near copy if it is nearer to a
    training record than `PERCENTILE` % of the held-out real records are to theirs.

    Args:
        synthetic: `(n, time, leads)` mV.
        train: `(m, time, leads)` mV, what the generator was trained on.
        holdout: `(k, time, leads)` mV, real records of other people.
        rate: Samples per second.
        max_shift: Seconds.

    Raises:
        ValueError: if the signals disagree in time or leads, or a set is empty.
    """
    usual, _, _ = signal_distances(holdout, train, rate, max_shift=max_shift)
    distances, places, shifts = signal_distances(synthetic, train, rate, max_shift=max_shift)
    threshold = float(np.percentile(usual, PERCENTILE))
    found = sorted(np.flatnonzero(distances < threshold), key=lambda place: (distances[place], place))
    pairs = [(int(n), int(places[n]), float(distances[n]), float(shifts[n])) for n in found]
    return NearCopies(len(pairs) / len(distances), threshold, pairs, distances)


def signal_distances(
    queries: np.ndarray, points: np.ndarray, rate: float, *, max_shift: float = MAX_SHIFT
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance of each query to its nearest point, which one it is, and the shift in s, `(queries,)` each.

    The distance is `sqrt(2 - 2 c)`, c being the largest correlation over shifts up to `max_shift` of the overlapping samples of all
    leads together, each lead about its mean: 0 for a copy at any scale, about 1.4 for unrelated signals. Candidates come from
    the amplitude spectra, which shifts hardly change.

    Args:
        queries: `(n, time, leads)` mV.
        points: `(m, time, leads)` mV.
        rate: Samples per second.
        max_shift: Seconds.

    Raises:
        ValueError: if the signals disagree in time or leads, or a set is empty.
    """
    queries, points = np.asarray(queries), np.asarray(points)
    if queries.ndim != 3 or points.ndim != 3 or queries.shape[1:] != points.shape[1:]:
        raise ValueError(f"expected signals of the same time and leads, received {queries.shape} and {points.shape}")
    if not (len(queries) and len(points)):
        raise ValueError(f"expected records to compare, received {len(queries)} and {len(points)}")
    reach = min(round(max_shift * rate), queries.shape[1] // 2)
    count = min(_CANDIDATES, len(points))
    known = _descriptors(points, rate)
    results = []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        likeness = _descriptors(block, rate) @ known.T
        candidates = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        results.extend(
            _nearest_of(query, points, np.sort(places), reach) for query, places in zip(block, candidates, strict=True)
        )
    distances, places, shifts = (np.array(column) for column in zip(*results, strict=True))
    return distances, places, shifts / rate


def _descriptors(signals: np.ndarray, rate: float) -> np.ndarray:
    """Amplitude spectra of all leads as float32 vectors of length 1."""
    time = signals.shape[1]
    frequency = np.fft.rfftfreq(time, 1 / rate)
    band = (frequency >= _BAND[0]) & (frequency <= _BAND[1])
    window = np.hanning(time + 2)[1:-1].astype(np.float32)[:, None]  # so that what enters at the ends weighs little
    rows = []
    for start in range(0, len(signals), _BLOCK):
        block = np.nan_to_num(np.asarray(signals[start : start + _BLOCK], np.float32))
        block = (block - block.mean(axis=1, keepdims=True)) * window
        rows.append(np.abs(rfft(block, axis=1)[:, band]).reshape(len(block), -1))
    flat = np.concatenate(rows)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def _nearest_of(query: np.ndarray, points: np.ndarray, places: np.ndarray, reach: int) -> tuple[float, int, int]:
    """Distance, place and shift (samples) of the nearest candidate."""
    query = np.nan_to_num(query.astype(np.float64))
    query = query - query.mean(axis=0)
    others = np.nan_to_num(points[places].astype(np.float64))
    others = others - others.mean(axis=1, keepdims=True)
    time = len(query)
    size = next_fast_len(time + reach, real=True)
    spectra = np.conj(rfft(others, size, axis=1)) * rfft(query, size, axis=0)
    shifts = np.arange(-reach, reach + 1)
    products = irfft(spectra.sum(axis=2), size, axis=1)[:, shifts]  # sum over t of query(t + shift) other(t)
    # Energies of the samples that overlap at each shift.
    energy = np.concatenate([[0.0], np.cumsum((query**2).sum(axis=1))])
    other_energy = np.concatenate([np.zeros((len(others), 1)), np.cumsum((others**2).sum(axis=2), axis=1)], axis=1)
    start, stop = np.maximum(shifts, 0), time + np.minimum(shifts, 0)
    mine = energy[stop] - energy[start]
    theirs = other_energy[:, stop - shifts] - other_energy[:, start - shifts]
    scale = np.sqrt(mine * theirs)
    correlation = np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-9)
    best = np.unravel_index(correlation.argmax(), correlation.shape)
    return float(np.sqrt(max(0.0, 2.0 - 2.0 * correlation[best]))), int(places[best[0]]), int(shifts[best[1]])
