"""The average beat of a record: its usual beats, aligned to 2 ms and free of baseline wander, under their median."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

GRID = 500.0
"""Samples per second of an average beat, whatever the record's own rate."""

FLAT = 0.02
"""mV: a lead whose whole range is smaller holds no ECG."""

_BEFORE, _AFTER = 0.40, 0.70  # s about the R peak; never more than one interval between beats
_ALIGN, _REACH = 0.10, 0.04  # s about the R peak that are compared, and by which a beat may move
_ALIKE = 0.85  # correlation of the QRS complexes of two beats of one kind
_LEVEL = slice(-55, -40)  # samples from the R peak: where wander is read, at the same phase of each beat
_USUAL = 2.0  # times the usual lead's noise: a noisier lead counts for less
_NOISY = 0.5  # of the usual lead's QRS: a lead that differs by more from beat to beat is left aside


@dataclass(frozen=True)
class AverageBeat:
    """The median of the usual beats of one record at `GRID` samples a second."""

    signal: np.ndarray
    """`(time, leads)` mV, of an arbitrary level; NaN in leads that are flat, not finite or mere noise."""
    beats: np.ndarray
    """`(beats, time, leads)` mV: the beats under that median."""
    weights: np.ndarray
    """`(leads,)` 0 to 1: below 1 where a lead is noisier than others are, 0 where it is not usable."""
    centre: int
    """Sample of the middle of the QRS complex."""
    interval: float
    """Median interval between beats in s."""


def average_beat(signal: np.ndarray, peaks: np.ndarray, rate: float) -> AverageBeat | None:
    """The average beat, or None with fewer than 2 whole beats of one kind.

    The record is resampled to `GRID` (band-limited), beats are aligned by the cross-correlation of their spatial velocity, the
    wander is the broken line through the level before each QRS complex (after Meyer & Keiser 1977), and of several kinds of
    beats the most frequent one is averaged, so ectopic beats do no harm.

    Args:
        signal: `(time, leads)` mV.
        peaks: Sample numbers of its beats, ascending.
        rate: Samples per second.
    """
    signal = np.asarray(signal, np.float32)
    usable = np.isfinite(signal).all(axis=0)
    usable &= np.ptp(np.where(usable, signal, 0.0), axis=0) > FLAT if len(signal) else False
    if len(peaks) < 2 or not usable.any():
        return None
    fine = _resample(signal[:, usable], rate)
    interval = float(np.median(np.diff(peaks))) / rate
    steps = np.diff(fine, axis=0, prepend=fine[:1])
    rough = np.abs(steps).mean(axis=0)
    equal = np.minimum(1.0, np.median(rough) / np.maximum(rough, 1e-9))  # so that no lead's noise drowns the others
    velocity = np.sqrt(((steps * equal) ** 2).sum(axis=1))
    places = _align(velocity, np.minimum(np.round(np.asarray(peaks) * GRID / rate).astype(int), len(fine) - 1))
    before, after = (round(min(reach, interval) * GRID) for reach in (_BEFORE, _AFTER))
    inside = (places >= before) & (places + after <= len(fine))
    if inside.sum() < 2:
        return None
    windows = (fine - _wander(fine, places))[places[inside, None] + np.arange(-before, after)]
    middle = slice(max(0, before - round(_ALIGN * GRID)), before + round(_ALIGN * GRID))
    windows = windows[_most_frequent_kind(windows[:, middle] * equal)]
    if len(windows) < 2:
        return None
    return _average(windows, usable, before, interval)


def share_in_common(windows: np.ndarray) -> float:
    """How much of the energy of pieces of beats `(beats, time, ...)` is the same in every beat: 0 to 1.

    The energy of the pieces' average over the average energy of the pieces, each without its straight line, all leads together,
    corrected for the energy that averages of unrelated pieces keep; NaN with fewer than 4 pieces of usual energy.
    """
    if len(windows) < 4:
        return float("nan")
    ramp = np.linspace(-1.0, 1.0, windows.shape[1])
    windows = windows.reshape(*windows.shape[:2], -1)
    slope = np.einsum("btl,t->bl", windows, ramp) / (ramp @ ramp)
    windows = windows - windows.mean(axis=1, keepdims=True) - slope[:, None] * ramp[:, None]
    energy = (windows**2).sum(axis=(1, 2))
    windows = windows[energy <= 5 * np.median(energy)]  # not before an ectopic beat or in a burst of noise
    count = len(windows)
    single, together = (np.mean(windows**2), np.mean(windows.mean(axis=0) ** 2)) if count > 3 else (0.0, 0.0)
    return float(np.clip((count * together / single - 1) / (count - 1), 0.0, 1.0)) if single > 0 else float("nan")


def _average(windows: np.ndarray, usable: np.ndarray, centre: int, interval: float) -> AverageBeat | None:
    """The average of beats `(beats, time, usable leads)`, None where no lead repeats."""
    ordered = np.sort(windows, axis=0)  # the median, in half of the time that np.median takes
    beat = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    noise = np.abs(windows - beat).mean(axis=(0, 1))
    clean = noise <= _NOISY * np.median(np.ptp(beat, axis=0))
    if not clean.any():
        return None
    places = np.flatnonzero(usable)[clean]
    whole, weights = np.full((len(beat), len(usable)), np.nan), np.zeros(len(usable))
    whole[:, places] = beat[:, clean]
    weights[places] = np.minimum(1.0, (_USUAL * np.median(noise[clean]) + 1e-6) / (noise[clean] + 1e-6))
    return AverageBeat(whole, windows[:, :, clean], weights, centre, interval)


def _resample(signal: np.ndarray, rate: float) -> np.ndarray:
    """`signal` `(time, leads)` at `GRID` samples a second by its Fourier series, the ends continued by their mirror image."""
    if rate == GRID:
        return signal
    count, pad = len(signal), min(len(signal) - 1, round(0.2 * rate))
    size = next_fast_len(count + 2 * pad, real=True)
    padded = np.pad(signal.T, ((0, 0), (pad, size - count - pad)), mode="reflect")
    fine = round(size * GRID / rate)
    spectrum = rfft(padded, axis=1)[:, : fine // 2 + 1]
    resampled = irfft(spectrum, fine, axis=1) * (fine / size)
    start = round(pad * GRID / rate)
    return np.ascontiguousarray(resampled[:, start : start + round(count * GRID / rate)].T)


def _align(velocity: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`places` moved so that the `velocity` `(time,)` about them fits best: to its mean, then to the mean of the moved."""
    half, reach = round(_ALIGN * GRID), round(_REACH * GRID)
    windows = np.pad(velocity, half)[places[:, None] + np.arange(2 * half + 1)]
    spectra = rfft(windows - windows.mean(axis=1, keepdims=True), 4 * half, axis=1)
    turn = -2j * np.pi * np.arange(spectra.shape[1]) / (4 * half)
    lags = np.arange(-reach, reach + 1)
    moves = np.zeros(len(places), int)
    for _ in range(2):
        mean = (spectra * np.exp(-turn * moves[:, None])).mean(axis=0)
        moves = lags[irfft(spectra * mean.conj(), 4 * half, axis=1)[:, lags].argmax(axis=1)]
    return np.clip(places + moves, 0, len(velocity) - 1)


def _wander(fine: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The broken line through the level before each QRS complex, `(time, leads)`."""
    before = np.clip(places[:, None] + np.arange(_LEVEL.start, _LEVEL.stop), 0, len(fine) - 1)
    level = fine[before].mean(axis=1)
    knots = before.mean(axis=1)
    share = np.interp(np.arange(len(fine)), knots, np.arange(len(knots)))
    left = np.minimum(share.astype(int), len(knots) - 2)
    return level[left] + (share - left).astype(np.float32)[:, None] * (level[left + 1] - level[left])


def _most_frequent_kind(windows: np.ndarray) -> np.ndarray:
    """Which beats `(beats,)` have QRS complexes like the one that most others are like."""
    flat = (windows - windows.mean(axis=1, keepdims=True)).reshape(len(windows), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    alike = flat @ flat.T
    usual = np.argmax((alike > _ALIKE).sum(axis=1) + alike.mean(axis=1) / 2)
    return alike[usual] > _ALIKE
