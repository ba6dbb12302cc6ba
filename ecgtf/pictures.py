"""Pictures of a generator in training, on ECG paper, for TensorBoard."""

from __future__ import annotations

import keras
import numpy as np

from ecgtf.generators.base import Generator
from ecgtf.report.ecg_paper import ecg_grid, ecg_image


def reconstruction_pictures(model: Generator, signals: np.ndarray) -> dict[str, np.ndarray]:
    """A picture of records and their reconstructions, one under the other."""
    if not len(signals):
        return {}
    signals = signals[:3]
    rebuilt = keras.ops.convert_to_numpy(model.reconstruct(signals))
    pairs = np.stack([signals, rebuilt], axis=1).reshape(-1, *signals.shape[1:])
    titles = [f"{kind} {k}" for k in range(len(signals)) for kind in ("record", "reconstruction")]
    return {"reconstructions": _picture(pairs, model, titles)}


def sample_pictures(model: Generator, signals: np.ndarray) -> dict[str, np.ndarray]:
    """A picture of one sample of each class."""
    return {"samples": _picture(signals, model, list(model.classes))}


def _picture(signals: np.ndarray, model: Generator, titles: list[str]) -> np.ndarray:
    return ecg_image(ecg_grid(signals, rate=model.sampling_rate, leads=model.leads, titles=titles))
