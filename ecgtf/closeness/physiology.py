"""What a cardiologist measures: rate, irregularity, P waves, intervals, ST level, axis, and whether the leads fit together.

The extractor is our own, and biased as every extractor is: compare two sets through it, never one set with a textbook. It does
not raise on signals without beats (flat, NaN, noise); it gives no beats, and no numbers. Signals are
`(records, time, leads)` in mV at 100 to 500 samples a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks
from scipy.stats import wasserstein_distance

from ecgtf.closeness.average_beat import FLAT, average_beat, share_in_common
from ecgtf.closeness.delineation import delineate
from ecgtf.closeness.intervals import amplitude, corrected_qt, pr_interval, qrs_axis, qrs_duration, qt_interval, st_level
from ecgtf.ecg import LEADS

_BAND = (8.0, 24.0)  # Hz: QRS complexes are here, P and T waves and drifts are below
_REFRACTORY = 0.24  # s between beats at least: 220 beats/min are 0.273 s apart
_SLOWEST = 40.0  # beats/min: so many of the highest peaks are taken for beats when the level is set
_LEVEL = 0.35  # of the usual beat's envelope: what is lower is no beat
_EVIDENCE = 2.0  # contrast of beats and rest times likeness of beats to each other: 1.7 at most in noise of any colour
_QUIET = 0.5  # mV/s: slopes of noise; the lowest QRS complexes have several times as much
_BLOCK = 128  # records at a time


@dataclass(frozen=True)
class Physiology:
    """Measurements of a set, one number a record (or a record and lead), NaN where there are none.

    All but the first three are those of the record's average beat (`average_beat`, `delineation`, `intervals`).
    """

    heart_rate: np.ndarray
    """Beats/min: 60 over the median interval between beats."""
    rmssd: np.ndarray
    """ms: root mean square of successive differences of the intervals, irregular in atrial fibrillation."""
    p_wave: np.ndarray
    """0 to 1: share of the energy before the QRS complex that is the same in every beat; low in atrial fibrillation."""
    pr_interval: np.ndarray
    """ms: onset of P to onset of QRS; NaN without P waves, and where P begins in the T wave before it."""
    qrs_duration: np.ndarray
    """ms: onset to end of QRS in all leads together."""
    qt_interval: np.ndarray
    """ms: onset of QRS to end of T."""
    qtc: np.ndarray
    """ms: QT corrected for the heart rate by Fridericia's formula."""
    st_level: np.ndarray
    """`(records, leads)` mV: level 60 ms after the end of QRS above that just before QRS."""
    qrs_axis: np.ndarray
    """Degrees from -180 to 180, in the frontal plane; NaN without the leads I and aVF (or II). Compare by `angle_distance`."""
    amplitude: np.ndarray
    """`(records, leads)` mV: QRS from peak to peak."""

    @property
    def without_beats(self) -> np.ndarray:
        """Which records gave no beats, `(records,)`."""
        return ~np.isfinite(self.heart_rate)


def measure(signals: np.ndarray, rate: float, leads: Sequence[str] = LEADS) -> Physiology:
    """All measurements of each record of `(records, time, leads)` mV.

    Args:
        signals: `(records, time, leads)` mV.
        rate: Samples per second.
        leads: Names of the leads; signals that have another number of them get no axis.

    Raises:
        ValueError: as `r_peaks`.
    """
    signals, columns = np.asarray(signals), {field.name: [] for field in fields(Physiology)}
    for signal, peaks in zip(signals, r_peaks(signals, rate), strict=True):
        for name, value in _measured(signal, peaks, rate, leads).items():
            columns[name].append(value)
    records, _, count = signals.shape
    shapes = {"st_level": (records, count), "amplitude": (records, count)}
    return Physiology(
        **{name: np.array(values, np.float64).reshape(shapes.get(name, records)) for name, values in columns.items()}
    )


def r_peaks(signals: np.ndarray, rate: float) -> list[np.ndarray]:
    """Where the beats of each record are: sample numbers, ascending; empty where there are fewer than 2 beats or only noise.

    The leads' slopes between 8 and 24 Hz, each over its own usual height, are merged by their median, so that a few bad leads do
    no harm; a beat is a peak of that envelope above a share of the record's usual beat (after Pan & Tompkins 1985).

    Args:
        signals: `(records, time, leads)` mV; leads with NaN and flat ones are left aside.
        rate: Samples per second.

    Raises:
        ValueError: if the signals have another number of dimensions, or the rate is below 60.
    """
    signals = np.asarray(signals)
    if signals.ndim != 3:
        raise ValueError(f"expected signals (records, time, leads), received shape {signals.shape}")
    if not rate >= 60:
        raise ValueError(f"expected at least 60 samples a second to find beats, received {rate}")
    beats = []
    for start in range(0, len(signals), _BLOCK):
        block = signals[start : start + _BLOCK]
        usable = np.isfinite(block).all(axis=1)
        block = np.where(usable[:, None], block, 0.0).astype(np.float32)
        usable &= np.ptp(block, axis=1) > FLAT if block.shape[1] else False
        filtered = _band_pass(block, rate) if usable.any() else block
        beats += [_beats(signal[:, leads], rate) for signal, leads in zip(filtered, usable, strict=True)]
    return beats


def heart_rate(peaks: np.ndarray, rate: float) -> float:
    """Beats/min by the median interval, NaN with fewer than 2 beats."""
    return 60.0 * rate / float(np.median(np.diff(peaks))) if len(peaks) > 1 else float("nan")


def rmssd(peaks: np.ndarray, rate: float) -> float:
    """Root mean square of successive differences of the intervals between beats in ms, NaN with fewer than 4 beats."""
    return float(np.sqrt(np.mean(np.diff(peaks, n=2) ** 2)) * 1000.0 / rate) if len(peaks) > 3 else float("nan")


def p_wave_score(signal: np.ndarray, peaks: np.ndarray, rate: float) -> float:
    """How much of what stands before the QRS complex, from 220 to 70 ms before the R peak, is the same in every beat: 0 to 1.

    `share_in_common` of all leads together; NaN with fewer than 4 usable beats.

    Args:
        signal: `(time, leads)` mV.
        peaks: Sample numbers of its beats.
        rate: Samples per second.
    """
    windows = _windows(signal, peaks, round(-0.22 * rate), round(-0.07 * rate))
    return share_in_common(windows) if windows.size else float("nan")


def consistency_terms(signals: np.ndarray, leads: Sequence[str]) -> np.ndarray:
    """Per record `(records, 2, 4)`: mean squares of left - right and of left of each of Einthoven's and Goldberger's equations.

    They are II = I + III, aVR = -(I + II)/2, aVL = (I - III)/2 and aVF = (II + III)/2.

    Args:
        signals: `(records, time, leads)` mV.
        leads: Their names.

    Raises:
        ValueError: if a limb lead is missing.
    """
    missing = [lead for lead in LEADS[:6] if lead not in leads]
    if missing:
        raise ValueError(f"lead consistency needs the six limb leads; {', '.join(missing)} is missing")
    limbs, terms = [list(leads).index(lead) for lead in LEADS[:6]], np.empty((len(signals), 2, 4))
    for number, signal in enumerate(signals):  # record by record: whole sets in float64 would double the memory
        one, two, three, right, left, foot = signal[:, limbs].T.astype(np.float64)
        sides = np.array([two, right, left, foot])
        others = np.array([one + three, -(one + two) / 2, (one - three) / 2, (two + three) / 2])
        terms[number] = ((sides - others) ** 2).mean(axis=1), (sides**2).mean(axis=1)
    return terms


def consistency_from_terms(terms: np.ndarray) -> np.ndarray:
    """`RMS(left - right) / RMS(left)` of each equation, `(4,)`, over all these records and times; 0 for leads that fit together."""
    difference, size = terms.mean(axis=0)
    return np.sqrt(difference / np.where(size > 0, size, 1.0))


def distribution_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Wasserstein-1 distance between two sets of measurements, in their unit; NaNs are left out, NaN when nothing is left."""
    real, generated = (side[np.isfinite(side)] for side in (np.asarray(real), np.asarray(generated)))
    return float(wasserstein_distance(real, generated)) if len(real) and len(generated) else float("nan")


def angle_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Wasserstein-1 distance between two sets of angles on the circle, in degrees; NaNs are left out, NaN when nothing is left.

    `min over c of the integral of |F - G - c|` over the circle, F and G the shares of angles up to each angle: the best c is the
    median of F - G (Rabin, Delon & Gousseau 2011). 179 and -179 degrees are 2 degrees apart; 180 is the most there is.
    """
    real, generated = (np.sort(side[np.isfinite(side)] % 360.0) for side in (np.asarray(real), np.asarray(generated)))
    if not (len(real) and len(generated)):
        return float("nan")
    angles = np.sort(np.concatenate([real, generated]))
    widths = np.diff(angles, append=angles[0] + 360.0)
    shares = [np.searchsorted(side, angles, side="right") / len(side) for side in (real, generated)]
    difference = shares[0] - shares[1]
    order = np.argsort(difference)
    median = difference[order][np.searchsorted(np.cumsum(widths[order]), 180.0)]
    return float(np.abs(difference - median) @ widths)


def _measured(signal: np.ndarray, peaks: np.ndarray, rate: float, leads: Sequence[str]) -> dict[str, float | np.ndarray]:
    """The fields of `Physiology` for one record `(time, leads)`."""
    beat = average_beat(signal, peaks, rate)
    marks, count, bpm = delineate(beat), signal.shape[1], heart_rate(peaks, rate)
    qt = qt_interval(marks)
    return {
        "heart_rate": bpm,
        "rmssd": rmssd(peaks, rate),
        "p_wave": p_wave_score(signal, peaks, rate),
        "pr_interval": pr_interval(marks),
        "qrs_duration": qrs_duration(marks),
        "qt_interval": qt,
        "qtc": corrected_qt(qt, bpm),
        "st_level": st_level(beat, marks, count),
        "qrs_axis": qrs_axis(beat, marks, leads) if len(leads) == count else float("nan"),
        "amplitude": amplitude(beat, marks, count),
    }


def _band_pass(signals: np.ndarray, rate: float) -> np.ndarray:
    """The slopes of the signals between 8 and 24 Hz in mV/s, without phase shift, the ends continued by their mirror image."""
    pad = min(signals.shape[1] - 1, round(rate))
    padded = np.pad(signals - np.median(signals, axis=1, keepdims=True), ((0, 0), (pad, pad), (0, 0)), mode="reflect")
    size = next_fast_len(padded.shape[1], real=True)
    frequency = rfftfreq(size, 1 / rate)
    gain = 1 / np.sqrt((1 + (_BAND[0] / np.maximum(frequency, 1e-9)) ** 6) * (1 + (frequency / _BAND[1]) ** 6))
    gain = (gain * 2j * np.pi * frequency).astype(np.complex64)
    filtered = irfft(rfft(padded, size, axis=1) * gain[:, None], size, axis=1)
    return filtered[:, pad : pad + signals.shape[1]]


def _beats(slopes: np.ndarray, rate: float) -> np.ndarray:
    """Beats of one record from the filtered slopes `(time, leads)` of its usable leads."""
    none = np.empty(0, int)
    seconds = len(slopes) / rate
    if slopes.shape[1] == 0 or seconds < 1:
        return none
    energy = uniform_filter1d(slopes**2, max(1, round(0.07 * rate)), axis=0, mode="nearest")
    usual = np.maximum(np.percentile(energy, 95, axis=0), _QUIET**2)
    envelope = np.sqrt(np.median(energy / usual, axis=1))
    peaks, _ = find_peaks(np.pad(envelope, 1), distance=max(1, round(_REFRACTORY * rate)))
    peaks = peaks - 1
    if len(peaks) < 2:
        return none
    expected = max(2, min(len(peaks), int(seconds * _SLOWEST / 60)))
    beat = np.median(np.sort(envelope[peaks])[-expected:])
    rest = max(np.percentile(envelope, 25), 0.05)  # between the beats, even at 220 of them a minute
    peaks = peaks[envelope[peaks] >= _LEVEL * beat]
    alike = _likeness(slopes / np.sqrt(usual), peaks, rate)
    return peaks if len(peaks) > 1 and alike * beat / rest > _EVIDENCE else none


def _likeness(slopes: np.ndarray, peaks: np.ndarray, rate: float) -> float:
    """Median correlation of the beats with the average of the others; around 0 in noise, whatever its colour."""
    windows = _windows(slopes, peaks, -round(0.06 * rate), round(0.06 * rate) + 1)
    if len(windows) < 2:
        return 0.0
    flat = windows.reshape(len(windows), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    others = flat.sum(axis=0) - flat
    return float(np.median((flat * others).sum(axis=1) / np.maximum(np.linalg.norm(others, axis=1), 1e-12)))


def _windows(signal: np.ndarray, peaks: np.ndarray, start: int, end: int) -> np.ndarray:
    """The pieces `(beats, end - start, leads)` around the beats that lie within the record, leads with NaN left out."""
    signal = np.asarray(signal, np.float64)
    signal = signal[:, np.isfinite(signal).all(axis=0)]
    peaks = np.asarray(peaks, int)
    inside = peaks[(peaks + start >= 0) & (peaks + end <= len(signal))]
    return signal[inside[:, None] + np.arange(start, end)]
