"""How good a recording is: measures for the table of records, and the limits beyond which a record is left out (NumPy only).

Signals are `(time, leads)` float32 in millivolts, as the source gives them: before filters and resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.fft import rfft

QUALITY_COLUMNS = ("clipped", "disconnected_s", "einthoven_mv", "swapped_limbs", "noise_mv", "wander_mv", "peak_mv")
"""What `quality` measures, in this order."""

LIMITS = {"clipped": 0.05, "disconnected_s": 3.0, "einthoven_mv": 0.25}
"""The largest values of a record that is kept: clear faults only. Of 1643 real records (of PTB-XL, Chapman-Shaoxing, CPSC 2018 and
LUDB, none with a flat lead) they take two, both with a lead that is off for seconds; the next worst reach 0.03, 2 s and 0.17 mV."""

_WORDS = {
    "clipped": "clipped: {:.0%} of a lead at its limit",
    "disconnected_s": "a lead is disconnected for {:.1f} s",
    "einthoven_mv": "limb leads that contradict each other by {:.3g} mV",
}
_BLOCK_SECONDS = 0.1
_FLAT_MV = 0.003  # a tenth of a second of a connected lead spans more, but for the quietest
_RUN = 5  # so many equal samples at the extreme of a lead are no wave's top
_RELATIONS = {  # sums of leads that are 0 (Einthoven; Goldberger)
    "III": {"III": 1.0, "II": -1.0, "I": 1.0},
    "aVR": {"aVR": 1.0, "I": 0.5, "II": 0.5},
    "aVL": {"aVL": 1.0, "I": -1.0, "II": 0.5},
    "aVF": {"aVF": 1.0, "II": -1.0, "I": 0.5},
}


def quality(signal: np.ndarray, leads: Sequence[str], rate: float) -> dict[str, float]:
    """Measures of a signal `(time, leads)`; NaN where the leads for one are missing.

    - `clipped`: the largest share of a lead's samples that stand in runs of five or more at its highest or lowest value.
    - `disconnected_s`: the longest time in seconds in which one lead is still (spans less than 3 microvolts in each tenth of a
      second) while another is not.
    - `einthoven_mv`: how far the limb leads contradict Einthoven's and Goldberger's equations, root mean square of the worst.
    - `swapped_limbs`: 1 if the electrodes of the arms look exchanged: lead I is the mirror image of V6 and aVR its likeness. A
      heart on the right side (dextrocardia) looks the same. Of 1643 real records none is taken for it, of the same with the leads
      exchanged 75 % are. Exchanges with a leg electrode are not looked for.
    - `noise_mv`, `wander_mv`: root mean square above 40 Hz and below 0.5 Hz, median over the leads.
    - `peak_mv`: the largest amplitude.
    """
    leads = list(leads)
    power = np.abs(rfft(signal - signal.mean(axis=0), axis=0)) ** 2  # the mean is no wander
    frequencies = np.arange(len(power)) * rate / len(signal)

    def rms(band: np.ndarray) -> float:
        return float(np.median(np.sqrt(2 * power[band].sum(axis=0)) / len(signal)))

    low, high = signal.min(axis=0), signal.max(axis=0)
    return {
        "clipped": max(_in_runs(signal == low), _in_runs(signal == high)),
        "disconnected_s": _longest_stillness(signal, rate),
        "einthoven_mv": _contradiction(signal, leads),
        "swapped_limbs": _swapped(signal, leads, rate),
        "noise_mv": rms(frequencies > 40),
        "wander_mv": rms(frequencies < 0.5),
        "peak_mv": float(np.maximum(high, -low).max()),
    }


def quality_fault(measures: Mapping[str, float], limits: Mapping[str, float] = LIMITS) -> str | None:
    """Why a record of such a quality is left out, or None."""
    for name, limit in limits.items():
        if measures[name] > limit:  # never true of NaN
            return f"{_WORDS[name].format(measures[name])} (more than {limit:g})"
    return None


def _in_runs(still: np.ndarray) -> float:
    """The largest share, over leads, of samples in runs of `_RUN` or more that are true; `still` is `(time, leads)`."""
    time = len(still)
    if time < _RUN or still.sum(axis=0).max() < _RUN:
        return 0.0
    start = np.logical_and.reduce([still[offset : time - _RUN + 1 + offset] for offset in range(_RUN)])  # of a run
    covered = np.zeros_like(still)
    for offset in range(_RUN):
        covered[offset : time - _RUN + 1 + offset] |= start
    return float(covered.mean(axis=0).max())


def _longest_stillness(signal: np.ndarray, rate: float) -> float:
    samples = max(2, round(rate * _BLOCK_SECONDS))
    blocks = signal[: len(signal) // samples * samples].reshape(-1, samples, signal.shape[1])
    if not len(blocks):
        return 0.0
    still = np.ptp(blocks, axis=1) < _FLAT_MV
    still &= ~still.all(axis=1, keepdims=True)  # when all rest it is the heart that does
    longest = current = np.zeros(signal.shape[1], int)
    for row in still:
        current = np.where(row, current + 1, 0)
        longest = np.maximum(longest, current)
    return float(longest.max() * samples / rate)


def _contradiction(signal: np.ndarray, leads: list[str]) -> float:
    worst = np.nan
    for relation in _RELATIONS.values():
        if all(lead in leads for lead in relation):
            rest = sum(weight * signal[:, leads.index(lead)] for lead, weight in relation.items())
            rest = rest - rest.mean()  # an offset is the amplifier's, not the leads'
            worst = np.fmax(worst, float(np.sqrt(np.mean(np.square(rest)))))
    return float(worst)


def _swapped(signal: np.ndarray, leads: list[str], rate: float) -> float:
    if not all(lead in leads for lead in ("I", "aVR", "V6")):
        return float("nan")
    # changes over 40 ms, so that QRS complexes decide and neither wander nor noise
    lag = max(1, round(0.04 * rate))
    one, right, six = (signal[lag:, place] - signal[:-lag, place] for place in map(leads.index, ("I", "aVR", "V6")))
    like_one, like_right = (np.dot(lead, six) / max(np.linalg.norm(lead) * np.linalg.norm(six), 1e-9) for lead in (one, right))
    return float(like_one < -0.4 and like_right > 0)
