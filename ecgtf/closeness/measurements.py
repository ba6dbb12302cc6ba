"""The measurements of physiology that two sets are compared in: their names, units and distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ecgtf.closeness.physiology import angle_distance, distribution_distance


class Measurement(NamedTuple):
    """One field of `Physiology`."""

    label: str
    unit: str
    distance: Callable[[np.ndarray, np.ndarray], float]
    """Of two sets of measurements `(records, 1)` or `(records, leads)`."""


def _by_lead(real: np.ndarray, other: np.ndarray) -> float:
    """Wasserstein-1 distance, averaged over the leads in which there is one."""
    found = [distribution_distance(real[:, lead], other[:, lead]) for lead in range(real.shape[1])]
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


MEASUREMENTS: Mapping[str, Measurement] = {
    "heart_rate": Measurement("heart rate", "beats/min", _by_lead),
    "rmssd": Measurement("RMSSD", "ms", _by_lead),
    "p_wave": Measurement("P-wave score", "", _by_lead),
    "pr_interval": Measurement("PR interval", "ms", _by_lead),
    "qrs_duration": Measurement("QRS duration", "ms", _by_lead),
    "qt_interval": Measurement("QT interval", "ms", _by_lead),
    "qtc": Measurement("QTc", "ms", _by_lead),
    "st_level": Measurement("ST level", "mV", _by_lead),
    "qrs_axis": Measurement("QRS axis", "degrees", angle_distance),
    "amplitude": Measurement("amplitude", "mV", _by_lead),
}
