"""What the electrodes pick up beside the heart: baseline wander, muscles, mains, the amplifier's own noise.

Noise arises at the nine electrodes and passes into the leads as the heart's signal does, so the limb leads keep their relations
and the precordial leads share the noise of the limbs through Wilson's terminal.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal import butter, sosfilt

from ecgtf.ecg import ELECTRODES, ELECTRODES_TO_LEADS

# Arms move little and tremble much; the left leg the other way round. Chest muscles are quieter than those of the limbs.
_WANDER_OF = np.array([0.6, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
_TENSION_OF = np.array([1.4, 1.4, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4])

_WANDERERS = 7  # sinusoids that make up the baseline beside breathing
_SLOW_RATE = 20.0  # Hz: enough for the baseline, whose parts stay below 0.7 Hz


def draw_noise(rng: np.random.Generator, time: np.ndarray, rate: float, respiration: float, phase: float) -> np.ndarray:
    """Noise `(time, 8)` in mV on I, II, V1 ... V6.

    Sizes follow those of clinical recordings: a baseline of some 40 microvolts (one record in ten: four times that), muscle
    noise of 2 to 15 microvolts at the limbs and less than half of it at the chest, mains mostly below 5.

    Args:
        rng: source of chance.
        time: `(time,)` s, evenly spaced.
        rate: samples per second.
        respiration: breaths per second.
        phase: of breathing at time 0, in cycles.
    """
    noise = _muscles(rng, time, rate)
    mains = (50.0, 60.0)[int(rng.random() < 0.3)] * (1 + rng.normal(0, 0.001))
    size = np.exp(rng.normal(np.log(0.0015), 0.8)) * rng.uniform(0.2, 1.8, len(ELECTRODES))
    delay = rng.normal(0, 0.4, len(ELECTRODES))
    if mains < 0.45 * rate:
        turn = 2 * np.pi * mains * time
        noise += np.outer(np.sin(turn), size * np.cos(delay)) + np.outer(np.cos(turn), size * np.sin(delay))
    leads = noise @ ELECTRODES_TO_LEADS
    coarse = np.arange(time[0], time[-1] + 2 / _SLOW_RATE, 1 / _SLOW_RATE)
    baseline = _baseline(rng, coarse, respiration, phase) @ ELECTRODES_TO_LEADS
    for lead in range(leads.shape[1]):
        leads[:, lead] += np.interp(time, coarse, baseline[:, lead])
    return leads


def _baseline(rng: np.random.Generator, time: np.ndarray, respiration: float, phase: float) -> np.ndarray:
    frequency = np.append(np.exp(rng.uniform(np.log(0.03), np.log(0.7), _WANDERERS)), respiration)
    phases = np.append(rng.random(_WANDERERS), phase)
    size = np.exp(rng.normal(np.log(0.021), 0.45)) * (4.0 if rng.random() < 0.10 else 1.0)
    each = size * _WANDER_OF * np.exp(rng.normal(0, 0.5, len(ELECTRODES)))
    amplitude = rng.normal(size=(_WANDERERS + 1, len(ELECTRODES))) * np.minimum(1.0, 0.15 / frequency)[:, None]
    amplitude[-1] += 0.3  # breathing moves all electrodes together
    delays = rng.normal(0, (0.25,) * _WANDERERS + (0.03,), (len(ELECTRODES), _WANDERERS + 1)).T  # in cycles
    turn = 2 * np.pi * (frequency * time[:, None] + phases)
    lag = 2 * np.pi * delays
    return each * (np.sin(turn) @ (amplitude * np.cos(lag)) + np.cos(turn) @ (amplitude * np.sin(lag)))


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
