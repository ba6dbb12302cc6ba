"""What the electrodes pick up beside the heart: baseline wander, muscles, mains, the amplifier's own noise.

Noise arises at the nine electrodes and passes into the leads as the heart's signal does, so the limb leads keep their relations and
the precordial leads share the noise of the limbs through Wilson's terminal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal import butter, sosfilt

ELECTRODES = ("RA", "LA", "LL", "C1", "C2", "C3", "C4", "C5", "C6")

# Arms move little and tremble much; the left leg the other way round. Chest muscles are quieter than those of the limbs.
_WANDER_OF = np.array([0.6, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
_TENSION_OF = np.array([1.4, 1.4, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
_TO_LEADS = np.zeros((9, 8))  # electrodes to I, II, V1 ... V6
_TO_LEADS[:3, 0] = -1, 1, 0
_TO_LEADS[:3, 1] = -1, 0, 1
_TO_LEADS[:3, 2:] = -1 / 3
_TO_LEADS[3:, 2:] = np.eye(6)

_WANDERERS = 7  # sinusoids that make up the baseline beside breathing


def draw_noise(rng: np.random.Generator, time: np.ndarray, rate: float, breath: np.ndarray, respiration: float) -> np.ndarray:
    """Noise `(time, 8)` in mV on I, II, V1 ... V6.

    Sizes follow those of clinical recordings: a baseline of some 45 microvolts (one record in ten: four times that), muscle noise of
    2 to 15 microvolts at the limbs and half of it at the chest, mains mostly below 5.

    Args:
        rng: source of chance.
        time: `(time,)` s.
        rate: samples per second.
        breath: `(time,)` filling of the lungs, about -1 to 1.
        respiration: breaths per second.
    """
    noise = _baseline(rng, time, breath, respiration)
    noise += _muscles(rng, time, rate)
    mains = (50.0, 60.0)[int(rng.random() < 0.3)] * (1 + rng.normal(0, 0.001))
    size, phase = np.exp(rng.normal(np.log(0.0015), 0.8)), rng.normal(0, 0.4, len(ELECTRODES))
    size = size * rng.uniform(0.2, 1.8, len(ELECTRODES))
    if mains < 0.45 * rate:
        turn = 2 * np.pi * mains * time
        noise += np.outer(np.sin(turn), size * np.cos(phase)) + np.outer(np.cos(turn), size * np.sin(phase))
    return noise @ _TO_LEADS


def _baseline(rng: np.random.Generator, time: np.ndarray, breath: np.ndarray, respiration: float) -> np.ndarray:
    frequency = np.sort(np.exp(rng.uniform(np.log(0.03), np.log(0.7), _WANDERERS)))
    turn = 2 * np.pi * frequency * time[:, None]
    parts = np.concatenate([np.sin(turn), np.cos(turn), breath[:, None]], axis=1)
    size = np.exp(rng.normal(np.log(0.016), 0.45)) * (4.0 if rng.random() < 0.10 else 1.0)
    each = size * _WANDER_OF * np.exp(rng.normal(0, 0.5, len(ELECTRODES)))
    weights = rng.normal(size=(2 * _WANDERERS + 1, len(ELECTRODES)))
    weights[:-1] *= np.tile(np.minimum(1.0, 0.15 / frequency), 2)[:, None]
    weights[-1] = rng.normal(0.4, 0.8, len(ELECTRODES)) * min(1.0, 0.25 / respiration)
    return parts @ (weights * each)


def _muscles(rng: np.random.Generator, time: np.ndarray, rate: float) -> np.ndarray:
    size = np.exp(rng.normal(np.log(0.0032), 0.65)) * np.exp(rng.normal(0, 0.5, len(ELECTRODES))) * _TENSION_OF
    tension = np.ones((len(time), 1))
    if rng.random() < 0.25:  # a muscle tightens for a moment
        middle, length = rng.uniform(time[0], time[-1]), rng.uniform(0.4, 1.5)
        tension += rng.uniform(1, 4) * np.exp(-0.5 * ((time[:, None] - middle) / length) ** 2)
    lasting = rng.uniform(0, len(time) / rate)
    tension *= 1 + 0.3 * np.sin(2 * np.pi * (0.13 * time[:, None] + lasting))
    white = rng.standard_normal((len(time), len(ELECTRODES)), dtype=np.float32)
    # `band` keeps the size of what lies in it, as an electrode would, so a low rate holds less of the noise.
    return sosfilt(_muscle_band(rate), white, axis=0) * tension * size + 0.0005 * white


@lru_cache(maxsize=8)
def _muscle_band(rate: float) -> np.ndarray:
    """A band pass from 15 Hz to 120 Hz, or to what `rate` can hold."""
    return butter(1, (min(15.0, 0.1 * rate), min(120.0, 0.42 * rate)), "bandpass", fs=rate, output="sos")
