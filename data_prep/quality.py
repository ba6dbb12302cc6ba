"""How good a recording is: measures for the table of records, and the limits beyond which a record is left out (NumPy and SciPy).

Signals are `(time, leads)` float32 in millivolts, as the source gives them: before filters and resampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

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
_RELATIONS = (  # sums of leads that are 0 (Einthoven; Goldberger)
    {"III": 1.0, "II": -1.0, "I": 1.0},
    {"aVR": 1.0, "I": 0.5, "II": 0.5},
    {"aVL": 1.0, "I": -1.0, "II": 0.5},
    {"aVF": 1.0, "II": -1.0, "I": 0.5},
)


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
    rows = np.ascontiguousarray(signal.T)  # (leads, time): whole leads at a time are several times as fast
    spectrum = rfft(rows - rows.mean(axis=1, keepdims=True))  # the mean is no wander

    def rms(band: slice) -> float:
        parts = spectrum[:, band].view(np.float32)  # real and imaginary
        return float(np.median(np.sqrt(2 * np.einsum("ij,ij->i", parts, parts)) / len(signal)))

    bins_per_hz = len(signal) / rate
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    lead = dict(zip(leads, rows, strict=True))
    return {
        "clipped": max(_in_runs(rows == low), _in_runs(rows == high)),
        "disconnected_s": _longest_stillness(rows, rate),
        "einthoven_mv": _contradiction(rows, tuple(leads)),
        "swapped_limbs": _swapped(lead, rate),
        "noise_mv": rms(slice(math.floor(40 * bins_per_hz + 1e-6) + 1, None)),
        "wander_mv": rms(slice(math.ceil(0.5 * bins_per_hz - 1e-6))),
        "peak_mv": float(np.maximum(high, -low).max()),
    }


def quality_fault(measures: Mapping[str, float]) -> str | None:
    """Why a record of such a quality is left out, or None."""
    for name, limit in LIMITS.items():
        if measures[name] > limit:  # never true of NaN
            return f"{_WORDS[name].format(measures[name])} (more than {limit:g})"
    return None


def _in_runs(still: np.ndarray) -> float:
    """The largest share, over leads, of samples in runs of `_RUN` or more that are true; `still` is `(leads, time)`."""
    if np.count_nonzero(still, axis=1).max() < _RUN:  # as in most records
        return 0.0
    lead, length = _runs(still)
    long = length >= _RUN
    covered = np.bincount(lead[long], weights=length[long], minlength=len(still))
    return float(covered.max() / still.shape[1])


def _runs(true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lead and length of each run of true values in `(leads, time)`."""
    places = np.flatnonzero(true)
    first = np.ones(len(places), bool)
    first[1:] = (np.diff(places) > 1) | (places[1:] % true.shape[1] == 0)
    starts = np.flatnonzero(first)
    return places[starts] // true.shape[1], np.diff(starts, append=len(places))


def _longest_stillness(rows: np.ndarray, rate: float) -> float:
    samples = max(2, round(rate * _BLOCK_SECONDS))
    starts = np.arange(0, rows.shape[1] - samples + 1, samples)
    if not len(starts):
        return 0.0
    whole = rows[:, : len(starts) * samples]
    still = np.maximum.reduceat(whole, starts, axis=1) - np.minimum.reduceat(whole, starts, axis=1) < _FLAT_MV
    still &= ~still.all(axis=0)  # when all rest it is the heart that does
    return float(_runs(still)[1].max() * samples / rate) if still.any() else 0.0


def _contradiction(rows: np.ndarray, leads: tuple[str, ...]) -> float:
    relations = _relations(leads)
    # without the mean: an offset is the amplifier's, not the leads'; the last bits of float32 would differ from processor to processor
    return float((relations @ rows.astype(np.float64)).std(axis=1).max()) if len(relations) else math.nan


@lru_cache(maxsize=16)
def _relations(leads: tuple[str, ...]) -> np.ndarray:
    """`(relations, leads)`: those of `_RELATIONS` that these leads can show."""
    known = [relation for relation in _RELATIONS if relation.keys() <= set(leads)]
    return np.array([[relation.get(lead, 0.0) for lead in leads] for relation in known], np.float32).reshape(-1, len(leads))


def _swapped(lead: Mapping[str, np.ndarray], rate: float) -> float:
    if not {"I", "aVR", "V6"} <= lead.keys():
        return float("nan")
    # changes over 40 ms, so that QRS complexes decide and neither wander nor noise
    lag = max(1, round(0.04 * rate))
    one, right, six = (lead[name][lag:] - lead[name][:-lag] for name in ("I", "aVR", "V6"))
    like_one, like_right = (
        np.dot(other, six) / max(np.linalg.norm(other) * np.linalg.norm(six), 1e-9) for other in (one, right)
    )
    return float(like_one < -0.4 and like_right > 0)
