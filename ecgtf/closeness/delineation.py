"""Onsets and ends of P, QRS and T in the average beat.

All leads together give one set of marks, as in electrocardiographs: what is followed is the root mean square over the leads of
their slopes (spatial velocity) and of their distance from the isoelectric line (size). Where a wave is not to be seen its mark
is NaN; nothing raises on unusable signals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ecgtf.closeness.average_beat import GRID, AverageBeat, share_in_common

_NAN = float("nan")
_SMOOTH_QRS, _SMOOTH_P, _SMOOTH_T = 0.0035, 0.008, 0.008  # s: standard deviations

_QRS_LEVELS = (0.055, 0.07, 0.085, 0.1)  # of the peak velocity: the first, or a higher one where it is not left in time
_QRS_SLOWEST = 1.2  # mV/s: what is slower is no QRS complex
_QRS_GAP = 0.020  # s: the turns between Q, R and S are shorter
_QRS_LONGEST = 0.20  # s: what is longer has a steep ST segment in it, as in left bundle branch block
_QRS_NEVER = 0.32  # s: what is longer still is noise

_P_LEVEL, _P_SIZE = 0.25, 0.06  # of the flank's peak velocity, and of the peak size, above noise
_P_LOWEST = 0.012  # mV
_P_COMMON = 0.45  # of the energy of P: in atrial fibrillation hardly anything before QRS is the same in all beats
_P_NOISE = 0.35  # of the flank's peak velocity: what is noisier shows no onset
_P_SHORTEST = 0.05  # s: what is shorter is the rest of a P that begins in T
_PR = (0.07, 0.36)  # s: shortest and longest

_T_AFTER = 0.06  # s from the end of QRS to the peak of T at least
_T_LOWEST = 0.025  # mV
_T_LAST = 0.7  # of the highest peak: the last one as high as this ends T
# s from the onset of QRS at 60 beats/min, else as the square root of the interval: latest peak and end of T, and its end if unseen
_T_PEAK, _T_END, _T_USUAL = 0.46, 0.62, 0.42


@dataclass(frozen=True)
class Marks:
    """Where waves begin and end, in s from the `centre` of the average beat; NaN where that is not to be seen."""

    p_onset: float = _NAN
    p_end: float = _NAN
    qrs_onset: float = _NAN
    qrs_end: float = _NAN
    t_end: float = _NAN


def delineate(beat: AverageBeat | None) -> Marks:
    """The marks of an average beat; all NaN for None.

    QRS lasts while the spatial velocity is above a small share of its peak. T ends where the tangent to the steepest descent
    after its last peak meets the isoelectric line (Lepeschkin & Surawicz 1952), seen in the direction of that peak; the
    isoelectric line is the level just before QRS. P begins and ends where its velocity is a quarter of that of its flanks. It has
    to begin when T has ended, and to be the same in most beats: none is found in fibrillation, nor where P and T are one.
    """
    if beat is None:
        return Marks()
    leads = beat.weights > 0
    signal, interval = beat.signal[:, leads] * beat.weights[leads], beat.interval * GRID
    onset, end = _qrs(signal, beat.centre)
    if not np.isfinite(onset):
        return Marks()
    t_end = _t_end(signal - isoelectric(signal, onset), onset, end, interval)
    usual = onset + _T_USUAL * np.sqrt(interval * GRID)
    p_onset, p_end, direction = _p(signal, onset, max(0.0, (t_end if np.isfinite(t_end) else usual) - interval))
    if np.isfinite(p_onset):
        pieces = (beat.beats[:, int(p_onset) : int(p_end) + 1] * beat.weights[leads]) @ direction
        if not share_in_common(gaussian_filter1d(pieces, _SMOOTH_P * GRID, axis=1, mode="nearest")) > _P_COMMON:
            p_onset = p_end = _NAN
    return Marks(*((place - beat.centre) / GRID for place in (p_onset, p_end, onset, end, t_end)))


def isoelectric(signal: np.ndarray, onset: float) -> np.ndarray:
    """The level `(leads,)` of `signal` `(time, leads)` in the 16 ms that end 4 ms before sample `onset`, that of QRS."""
    last = max(1, int(onset - 0.004 * GRID))
    return np.median(signal[max(0, last - round(0.016 * GRID)) : last], axis=0)


def _qrs(signal: np.ndarray, centre: int) -> tuple[float, float]:
    """Samples of onset and end of QRS about `centre`."""
    velocity = _velocity(signal, _SMOOTH_QRS)
    first = max(0, centre - round(0.06 * GRID))
    top = first + int(velocity[first : centre + round(0.06 * GRID)].argmax())
    rest, gap = np.percentile(velocity, 20), round(_QRS_GAP * GRID)
    onset = end = _NAN
    for share in _QRS_LEVELS:
        level = max(rest + share * (velocity[top] - rest), _QRS_SLOWEST)
        if not velocity[top] > 2 * level:
            break
        onset, end = top - _fall(velocity[top::-1], level, gap), top + _fall(velocity[top:], level, gap)
        if end - onset <= _QRS_LONGEST * GRID:
            break
    return (onset, end) if end - onset <= _QRS_NEVER * GRID else (_NAN, _NAN)


def _t_end(signal: np.ndarray, onset: float, end: float, interval: float) -> float:
    """Sample of the end of T in `signal`, whose isoelectric line is 0."""
    smooth = gaussian_filter1d(signal, _SMOOTH_T * GRID, axis=0, mode="nearest")
    size = _size(smooth)
    root = np.sqrt(interval * GRID)
    first, last = round(end + _T_AFTER * GRID), min(round(onset + _T_PEAK * root), round(onset + interval - 0.08 * GRID))
    inner = size[first - 1 : last + 1]
    if len(inner) < 3:
        return _NAN
    peaks = np.flatnonzero((inner[1:-1] >= inner[:-2]) & (inner[1:-1] > inner[2:])) + first
    peaks = peaks[size[peaks] >= max(_T_LOWEST, _T_LAST * inner.max())]
    if not len(peaks):
        return _NAN
    main = smooth[peaks[-1] :] @ smooth[peaks[-1]] / size[peaks[-1]]
    slope = np.gradient(main)
    # P and U are no part of the descent: it is over where little of T is left, or where it turns upwards below its shoulder.
    over = np.flatnonzero((main < 0.15 * main[0]) | ((slope > 0) & (main < 0.8 * main[0])))
    steepest = int(slope[: over[0] + 1 if len(over) else None].argmin())
    if not slope[steepest] < 0:
        return _NAN
    t_end = peaks[-1] + steepest - main[steepest] / slope[steepest]
    return t_end if t_end < min(onset + _T_END * root, len(signal)) else _NAN


def _p(signal: np.ndarray, onset: float, start: float) -> tuple[float, float, np.ndarray]:
    """Samples of onset and end of P between `start` and the `onset` of QRS, and its direction `(leads,)`."""
    nothing = _NAN, _NAN, np.zeros(signal.shape[1])
    last, first = int(onset - 0.006 * GRID), max(round(start), round(onset - _PR[1] * GRID))
    if last - first < _PR[0] * GRID:
        return nothing
    velocity = _velocity(signal[:last], _SMOOTH_P)
    rises = np.flatnonzero(np.diff(velocity[first:last]) > 0)
    first += int(rises[0]) if len(rises) else 0  # behind the tail of T
    velocity = velocity[first:]
    smooth = gaussian_filter1d(signal[:last], _SMOOTH_P * GRID, axis=0, mode="nearest")[first:]
    smooth = smooth - smooth[0] - np.linspace(0, 1, len(smooth))[:, None] * (smooth[-1] - smooth[0])
    size, flank = _size(smooth), round(0.06 * GRID)
    peak = int(size.argmax())
    left = max(0, peak - flank)
    up = left + int(velocity[left : peak + 1].argmax())
    down = peak + int(velocity[peak : peak + flank].argmax())
    noise, floor = np.percentile(velocity, 10), np.percentile(size, 10)
    if size[peak] < _P_LOWEST or noise > _P_NOISE * velocity[up]:
        return nothing
    rising, falling = (np.hypot(noise, _P_LEVEL * velocity[steepest]) for steepest in (up, down))
    steep = up - _fall(velocity[up::-1], rising)
    high = peak - _fall(size[peak::-1], np.hypot(floor, _P_SIZE * size[peak]))
    p_onset, p_end = first + max(steep, high), first + down + _fall(velocity[down:], falling)
    if steep <= 0 or onset - p_onset < _PR[0] * GRID or p_end - p_onset < _P_SHORTEST * GRID:
        return nothing
    return p_onset, p_end, smooth[peak]


def _velocity(signal: np.ndarray, smooth: float) -> np.ndarray:
    """Spatial velocity `(time,)` of `(time, leads)`, smoothed by a Gaussian of `smooth` s, in mV/s."""
    return _size(gaussian_filter1d(signal, smooth * GRID, axis=0, order=1, mode="nearest")) * GRID


def _size(signal: np.ndarray) -> np.ndarray:
    """Root mean square over the leads."""
    return np.sqrt((signal**2).mean(axis=-1))


def _fall(side: np.ndarray, level: float, gap: int = 0) -> float:
    """Samples from the start of `side` to where it falls below `level` for longer than `gap`, interpolated; 0 if it begins below."""
    above = np.flatnonzero(side >= level)
    if not len(above):
        return 0.0
    breaks = np.flatnonzero(np.diff(above) > gap + 1)
    last = above[breaks[0]] if len(breaks) else above[-1]
    return float(last) if last + 1 == len(side) else last + (side[last] - level) / (side[last] - side[last + 1])
