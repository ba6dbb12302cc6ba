"""Intervals, ST level, electrical axis and amplitudes of a delineated average beat; NaN where a mark or a lead is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgtf.closeness.average_beat import GRID, AverageBeat
from ecgtf.closeness.delineation import Marks, isoelectric
from ecgtf.ecg import LEADS

_ST_AFTER, _ST_WIDTH = 0.060, 0.004  # s: J + 60 ms, with so much on either side


def pr_interval(marks: Marks) -> float:
    """From the onset of P to the onset of QRS, ms."""
    return (marks.qrs_onset - marks.p_onset) * 1000.0


def qrs_duration(marks: Marks) -> float:
    """From the onset to the end of QRS, ms."""
    return (marks.qrs_end - marks.qrs_onset) * 1000.0


def qt_interval(marks: Marks) -> float:
    """From the onset of QRS to the end of T, ms."""
    return (marks.t_end - marks.qrs_onset) * 1000.0


def corrected_qt(qt: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """QTc by Fridericia (1920): QT over the cube root of the interval between beats in s.

    Bazett's square root corrects too much where hearts are fast, and too little where they are slow.

    Args:
        qt: QT intervals in ms.
        rate: Heart rates in beats/min.

    Returns:
        QTc in ms.
    """
    return np.asarray(qt) * np.cbrt(np.asarray(rate) / 60.0)


def st_level(beat: AverageBeat | None, marks: Marks, leads: int) -> np.ndarray:
    """Level of each of the `leads` 60 ms after the end of QRS above the level just before QRS, `(leads,)` mV."""
    if beat is None or not np.isfinite(marks.qrs_end):
        return np.full(leads, np.nan)
    first, last = (round(beat.centre + (marks.qrs_end + _ST_AFTER + side) * GRID) for side in (-_ST_WIDTH, _ST_WIDTH))
    if last >= len(beat.signal):
        return np.full(leads, np.nan)
    onset = beat.centre + marks.qrs_onset * GRID
    return beat.signal[first : last + 1].mean(axis=0) - isoelectric(beat.signal, onset)


def amplitude(beat: AverageBeat | None, marks: Marks, leads: int) -> np.ndarray:
    """Peak to peak of the QRS complex in each of the `leads`, `(leads,)` mV."""
    return np.full(leads, np.nan) if beat is None or not np.isfinite(marks.qrs_end) else np.ptp(_qrs(beat, marks), axis=0)


def qrs_axis(beat: AverageBeat | None, marks: Marks, leads: Sequence[str] = LEADS) -> float:
    """Direction of the mean QRS vector in the frontal plane, degrees from -180 to 180: 0 to the left, 90 to the feet.

    `atan2(2/sqrt(3) aVF, I)` of the net areas under QRS: aVF, led against the arms, is `sqrt(3)/2` of what a lead as long as I
    would see (Novosel et al. 1999). aVF follows from I and II where it is missing; NaN without them.

    Args:
        beat: The average beat.
        marks: Its marks.
        leads: Its leads' names.
    """
    if beat is None or not np.isfinite(marks.qrs_end):
        return float("nan")
    level = isoelectric(beat.signal, beat.centre + marks.qrs_onset * GRID)
    area = dict(zip(leads, (_qrs(beat, marks) - level).sum(axis=0), strict=True))
    left = area.get("I", np.nan)
    foot = area.get("aVF", np.nan)
    foot = foot if np.isfinite(foot) else area.get("II", np.nan) - left / 2
    return float(np.degrees(np.arctan2(2 / np.sqrt(3) * foot, left)))


def _qrs(beat: AverageBeat, marks: Marks) -> np.ndarray:
    """The samples of QRS, `(time, leads)`."""
    return beat.signal[round(beat.centre + marks.qrs_onset * GRID) : round(beat.centre + marks.qrs_end * GRID) + 1]
