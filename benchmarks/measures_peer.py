"""Published code of measures of closeness as a worker, for `closeness.py`. Runs in the peers' environment."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from functools import lru_cache

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import prdc
import scipy.linalg
import sklearn.neighbors
from workers import seconds, serve


@lru_cache
def _sets(path: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as sets:
        return sets["real"], sets["generated"]


def neighbourhoods(path: str) -> list[float]:
    """Seconds, and precision, recall, density and coverage, by `prdc`."""
    found = {}

    def work() -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # the orders' answers go there
            found.update(prdc.compute_prdc(*_sets(path), nearest_k=5))

    return [seconds(work), *(float(found[name]) for name in ("precision", "recall", "density", "coverage"))]


def mmd(path: str) -> list[float]:
    """Seconds, and the biased squared MMD with a kernel of width 1, by tsgm."""
    with contextlib.redirect_stdout(sys.stderr):
        from tsgm.metrics import MMDMetric
    real, generated = (side[..., None].astype(np.float32) for side in _sets(path))
    found = []
    took = seconds(lambda: found.append(float(MMDMetric()(real, generated))))
    return [took, *found]


def frechet(path: str) -> list[float]:
    """Seconds, and the Frechet distance with the matrix root of SciPy, as image benchmarks compute it."""
    real, generated = _sets(path)
    found = []

    def work() -> None:
        first, second = (np.cov(side, rowvar=False) for side in (real, generated))
        root = scipy.linalg.sqrtm(first @ second)
        apart = np.sum((real.mean(axis=0) - generated.mean(axis=0)) ** 2)
        found.append(float(apart + np.trace(first) + np.trace(second) - 2 * np.trace(root).real))

    return [seconds(work), found[0]]


def nearest(path: str) -> list[float]:
    """Seconds, and the mean distance of each generated record to the nearest real one, by scikit-learn without a tree."""
    real, generated = _sets(path)
    found = []

    def work() -> None:
        neighbours = sklearn.neighbors.NearestNeighbors(n_neighbors=1, algorithm="brute").fit(real)
        found.append(float(neighbours.kneighbors(generated)[0].mean()))

    return [seconds(work), found[0]]


if __name__ == "__main__":
    serve({"neighbourhoods": neighbourhoods, "mmd": mmd, "frechet": frechet, "nearest": nearest})
