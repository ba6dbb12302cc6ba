"""Trainings of seconds, which tests of classifiers share."""

import numpy as np

from ecgtf.classifiers.examples import Examples

QUICK = {"preset": "tiny", "steps": 20, "batch_size": 8, "bootstrap": 20, "quiet": True}


def examples(per_class=(60, 30, 10), samples=50, seed=0) -> Examples:
    """Sines whose frequency is the class."""
    rng = np.random.default_rng(seed)
    target = np.repeat(np.arange(len(per_class)), per_class)
    phase = rng.uniform(0, 6.28, (len(target), 1))
    wave = np.sin(np.arange(samples) * (0.2 + 0.3 * target[:, None]) + phase)[..., None]
    signals = (wave * [1.0, -0.5] + 0.1 * rng.normal(size=(len(target), samples, 2))).astype("float32")
    return Examples(
        signals, np.eye(len(per_class), dtype="float32")[target], [f"r{k}" for k in range(len(target))], ["a"] * len(target)
    )
