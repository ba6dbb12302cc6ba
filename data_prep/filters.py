"""Zero-phase filters for ECGs: a band-pass and a mains notch (NumPy and SciPy).

Signals are `(time, leads)` float32 in millivolts. Every lead is filtered alike, so the relations between the limb leads stay.
Each filter runs forwards and backwards, so that no wave moves; the ends are extended by mirroring through the last point.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import butter, iirnotch, sosfiltfilt, tf2sos

ORDER = 2
"""Of the Butterworth filters, in each direction."""


def band_pass(signal: np.ndarray, rate: float, low: float | None = None, high: float | None = None) -> np.ndarray:
    """`signal` `(time, leads)` between `low` and `high` Hz; None leaves an end open.

    A Butterworth high-pass and low-pass of order 2, forwards and backwards: -3 dB in all at `low` and at `high`, -46 dB a decade
    and -80 dB two decades beyond, within 0.1 dB of 1 from 2.6 `low` to `high` / 2.6.

    Raises:
        ValueError: if the band is empty, or not within 0 Hz and half the rate.
    """
    if low is None and high is None:
        raise ValueError("expected a low or a high corner frequency for the band-pass, received none")
    for name, value in (("low", low), ("high", high)):
        if value is not None and not 0 < value < rate / 2:
            raise ValueError(
                f"expected a {name} corner above 0 and below {rate / 2:g} Hz, half the rate; received {value:g} Hz"
            )
    if low is not None and high is not None and low >= high:
        raise ValueError(f"expected the low corner below the high one, received {low:g} and {high:g} Hz")
    corners = [(low, "highpass", _ONE_PASS), (high, "lowpass", 1 / _ONE_PASS)]
    for corner, kind, factor in corners:
        if corner is not None:
            # in the frequencies of the bilinear transform, tan(pi f / rate), a digital Butterworth filter is an exact one
            once = math.atan(math.tan(math.pi * corner / rate) * factor) * rate / math.pi
            signal = _both_ways(butter(ORDER, once, kind, fs=rate, output="sos"), signal, 2 * rate / corner)
    return signal


def notch(signal: np.ndarray, rate: float, mains: float = 50.0, quality: float = 30.0) -> np.ndarray:
    """`signal` `(time, leads)` without the mains hum of `mains` Hz.

    A second-order notch, forwards and backwards: nothing passes at `mains`, -6 dB at `mains` * (1 +- 1 / (2 `quality`)).

    Raises:
        ValueError: if the frequency is not above 0 and below half the rate.
    """
    if not 0 < mains < rate / 2:
        raise ValueError(
            f"expected a mains frequency above 0 and below {rate / 2:g} Hz, half the record's rate, received {mains:g} Hz; "
            "a slower record holds no mains hum: leave the notch out"
        )
    return _both_ways(tf2sos(*iirnotch(mains, quality, fs=rate)), signal, 2 * quality * rate / mains)


_ONE_PASS = (math.sqrt(2) - 1) ** (1 / (2 * ORDER))
"""Two passes give -3 dB at a corner if one pass has its -3 dB at the corner times this (high-pass) or over this (low-pass)."""


def _both_ways(sections: np.ndarray, signal: np.ndarray, settling: float) -> np.ndarray:
    """Filters along time; `settling` samples are put before and after, as far as the signal allows."""
    padding = min(len(signal) - 1, math.ceil(settling))
    return sosfiltfilt(sections, signal, axis=0, padtype="odd", padlen=padding).astype(np.float32)
