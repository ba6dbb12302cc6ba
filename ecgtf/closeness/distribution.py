"""Distances between two sets of feature vectors, in float64 (NumPy and scikit-learn).

Features are `(records, d)`: what a frozen classifier's last layer sees. None of these numbers has a scale of its own; each is read
beside the same number between two real samples of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MOST_FOR_BANDWIDTH = 4_000
"""Records, evenly spaced in the pooled sets, at most, whose distances give the median."""

_BLOCK_CELLS = 4_000_000  # distances that are held at a time: 32 MB


class Frechet(NamedTuple):
    """The Frechet distance and its two parts."""

    distance: float
    mean_term: float
    covariance_term: float


class Neighbourhoods(NamedTuple):
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> Frechet:
    """Squared Frechet distance between the normal distributions fitted to two sets (Dowson & Landau 1982; Heusel et al. 2017).

    `||m_r - m_g||^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2))`, covariances with divisor n - 1. With few records per dimension it is
    mostly bias: compare equal sizes only.

    Args:
        real: `(n, d)`.
        generated: `(m, d)`.

    Raises:
        ValueError: if the sets differ in d, hold NaN or infinity, or have fewer than 2 records.
    """
    real, generated = _pair(real, generated, least=2)
    mean_term = float(np.sum((real.mean(axis=0) - generated.mean(axis=0)) ** 2))
    first, second = (np.atleast_2d(np.cov(side, rowvar=False)) for side in (real, generated))
    # The trace of the root of S_r S_g is that of the symmetric S_r^(1/2) S_g S_r^(1/2), which needs no complex numbers.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    covariance_term = float(np.trace(first) + np.trace(second) - 2.0 * overlap)
    return Frechet(mean_term + covariance_term, mean_term, covariance_term)


def median_bandwidth(real: np.ndarray, generated: np.ndarray) -> float:
    """Median Euclidean distance over all pairs of the pooled sets (Gretton et al. 2012, section 8), of `MOST_FOR_BANDWIDTH` records."""
    pooled = np.concatenate(_pair(real, generated, least=1))
    if len(pooled) > MOST_FOR_BANDWIDTH:
        pooled = pooled[np.linspace(0, len(pooled) - 1, MOST_FOR_BANDWIDTH).astype(int)]
    above = np.triu_indices(len(pooled), 1)
    return float(np.sqrt(np.median(_squared_distances(pooled, pooled)[above])))


def mmd(real: np.ndarray, generated: np.ndarray, bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel `exp(-||a - b||^2 / (2 h^2))` (Gretton et al. 2012, equation 3).

    Around 0, and often below it, for two samples of one distribution.

    Args:
        real: `(n, d)`.
        generated: `(m, d)`.
        bandwidth: h; by default `median_bandwidth`.

    Raises:
        ValueError: as `frechet_distance`, or if all records are equal.
    """
    real, generated = _pair(real, generated, least=2)
    bandwidth = median_bandwidth(real, generated) if bandwidth is None else bandwidth
    if not bandwidth > 0:
        raise ValueError("expected records that differ: the median distance between them is 0")
    scale = -0.5 / bandwidth**2
    return _unbiased_mmd(lambda a, b: np.exp(scale * _squared_distances(a, b)), real, generated)


def kid(real: np.ndarray, generated: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel `(a.b / d + 1)^3`, of all records at once (Binkowski et al. 2018).

    Args:
        real: `(n, d)`.
        generated: `(m, d)`.

    Raises:
        ValueError: as `frechet_distance`.
    """
    real, generated = _pair(real, generated, least=2)
    return _unbiased_mmd(lambda a, b: (a @ b.T / a.shape[1] + 1.0) ** 3, real, generated)


def sliced_wasserstein(real: np.ndarray, generated: np.ndarray, projections: int = 128, seed: int = 0) -> float:
    """Sliced Wasserstein-2 distance, in the features' unit (Bonneel et al. 2015, equation 6).

    The root of the mean, over random directions, of the squared Wasserstein-2 distance of the projections; between two sets on a
    line that is the mean squared difference of their quantiles.

    Args:
        real: `(n, d)`.
        generated: `(m, d)`.
        projections: Directions, uniform on the sphere.
        seed: Of the directions.

    Raises:
        ValueError: as `frechet_distance`.
    """
    real, generated = _pair(real, generated, least=2)
    directions = np.random.default_rng(seed).normal(size=(real.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    levels = (np.arange(max(len(real), len(generated))) + 0.5) / max(len(real), len(generated))
    first, second = (
        np.sort(side @ directions, axis=0)[np.minimum((levels * len(side)).astype(int), len(side) - 1)]
        for side in (real, generated)
    )
    return float(np.sqrt(np.mean((first - second) ** 2)))


def precision_recall_density_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> Neighbourhoods:
    """How the sets lie in each other's k-nearest-neighbour balls (Kynkaanniemi et al. 2019; Naeem et al. 2020, section 3).

    The ball of a record reaches to its k-th nearest neighbour in its own set, itself not counted; being inside is strict.

    Args:
        real: `(n, d)`.
        generated: `(m, d)`.
        k: Neighbours.

    Returns:
        precision: share of generated records inside a real ball; recall: share of real records inside a generated ball; density:
        real balls around a generated record, over k, on average; coverage: share of real balls that hold a generated record.

    Raises:
        ValueError: if the sets differ in d, hold NaN or infinity, or have k records or fewer.
    """
    real, generated = _pair(real, generated, least=k + 1)
    real_radius = nearest(real, real, k, same=True)[0][:, -1]
    generated_radius = nearest(generated, generated, k, same=True)[0][:, -1]
    precise, recalled, covered, hits = 0, np.zeros(len(real), bool), np.zeros(len(real), bool), 0
    for rows in _blocks(len(generated), len(real)):
        distances = np.sqrt(_squared_distances(generated[rows], real))
        inside = distances < real_radius
        precise += int(inside.any(axis=1).sum())
        hits += int(inside.sum())
        covered |= inside.any(axis=0)
        recalled |= (distances < generated_radius[rows, None]).any(axis=0)
    return Neighbourhoods(
        precision=precise / len(generated),
        recall=float(recalled.mean()),
        density=hits / (k * len(generated)),
        coverage=float(covered.mean()),
    )


def nearest(queries: np.ndarray, points: np.ndarray, k: int = 1, *, same: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances to the k nearest points, ascending, and which points they are, both `(queries, k)`.

    Args:
        queries: `(n, d)`.
        points: `(m, d)`.
        k: Neighbours.
        same: Whether the two are one set, and a record is no neighbour of its own.

    Raises:
        ValueError: if the sets differ in d, hold NaN or infinity, or there are fewer than k neighbours.
    """
    queries, points = _pair(queries, points, least=1)
    if len(points) - same < k:
        raise ValueError(f"expected at least {k + same} records to find {k} neighbours among, received {len(points)}")
    from sklearn.neighbors import NearestNeighbors  # takes a second to import

    # Candidates come from a matrix product, where little is lost in the differences of small numbers.
    centre = points.mean(axis=0)
    search = NearestNeighbors(n_neighbors=k + same, algorithm="brute").fit(points - centre)
    candidates = search.kneighbors(queries - centre, return_distance=False)
    if same:
        others = candidates != np.arange(len(queries))[:, None]
        others[others.all(axis=1), -1] = False  # among many copies a record may not find itself
        candidates = candidates[others].reshape(-1, k)
    distances, places = np.empty((len(queries), k)), np.empty((len(queries), k), int)
    for rows in _blocks(len(queries), k * points.shape[1]):
        found = np.linalg.norm(queries[rows, None] - points[candidates[rows]], axis=2)  # exact: copies are at 0
        order = np.argsort(found, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(found, order, axis=1)
        places[rows] = np.take_along_axis(candidates[rows], order, axis=1)
    return distances, places


def _unbiased_mmd(kernel: Callable[[np.ndarray, np.ndarray], np.ndarray], real: np.ndarray, generated: np.ndarray) -> float:
    """`E k(r, r') + E k(g, g') - 2 E k(r, g)` over pairs of different records, in blocks."""

    def total(a: np.ndarray, b: np.ndarray, same: bool = False) -> float:
        found = 0.0
        for rows in _blocks(len(a), len(b)):
            block = kernel(a[rows], b)
            found += float(block.sum() - (np.trace(block[:, rows]) if same else 0.0))
        return found

    within = sum(total(side, side, same=True) / (len(side) * (len(side) - 1)) for side in (real, generated))
    return within - 2.0 * total(real, generated) / (len(real) * len(generated))


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances `(len(a), len(b))` by one matrix product, ten times as fast as pair by pair."""
    centre = b.mean(axis=0)  # little is lost in the differences of large numbers
    a, b = a - centre, b - centre
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    squares -= 2.0 * (a @ b.T)
    return np.maximum(squares, 0.0, out=squares)


def _blocks(rows: int, columns: int):
    """Slices of rows, such that a block of the rows x columns table fits in memory."""
    size = max(1, _BLOCK_CELLS // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, start + size)


def _pair(real: np.ndarray, generated: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in float64, checked."""
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"expected two sets of features (records, d) with the same d, received {real.shape}, {generated.shape}"
        )
    if min(len(real), len(generated)) < least:
        raise ValueError(f"expected at least {least} records in each set, received {len(real)} and {len(generated)}")
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        raise ValueError("expected finite features, received NaN or infinity")
    return real, generated
