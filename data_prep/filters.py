"""Zero-phase filters for ECGs, a band-pass and a mains notch, as gains over frequency (NumPy only).

`ecgtf.data_prep.signals.resample` applies them in the same Fourier transform that resamples: a real gain moves no wave, and every
lead is filtered alike, so the relations between the limb leads stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_HALF_POWER = math.sqrt(2) - 1  # 1 / (1 + this) is -3 dB


@dataclass(frozen=True)
class BandPass:
    """Between `low` and `high` Hz; None leaves an end open.

    The gain of a Butterworth high-pass and low-pass of order 2 that run forwards and backwards (without the warping of digital
    ones): -3 dB in all at `low` and at `high`, -80 dB a decade beyond, within 0.1 dB of 1 from 2.6 `low` to `high` / 2.6.
    """

    low: float | None = None
    high: float | None = None

    def check(self, rate: float = math.inf) -> None:
        """Raises ValueError if the band is empty, or not within 0 Hz and half the `rate` of a record, where that is known."""
        if self.low is None and self.high is None:
            raise ValueError("expected a low or a high corner frequency for the band-pass, received none")
        for name, value in vars(self).items():
            if value is not None and not 0 < value < rate / 2:
                raise ValueError(f"expected a {name} corner {_range(rate)}, received {value:g} Hz")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"expected the low corner below the high one, received {self.low:g} and {self.high:g} Hz")

    def gain(self, frequencies: np.ndarray) -> np.ndarray:
        """The factor of each frequency in Hz."""
        gain = np.ones_like(frequencies)
        if self.low is not None:
            gain *= frequencies**4 / (frequencies**4 + _HALF_POWER * self.low**4)
        if self.high is not None:
            gain /= 1 + _HALF_POWER * (frequencies / self.high) ** 4
        return gain

    @property
    def settling(self) -> float:
        """Seconds after which a step has no more influence."""
        return 2 / min(corner for corner in (self.low, self.high) if corner is not None)


@dataclass(frozen=True)
class Notch:
    """Without the mains hum of `mains` Hz: nothing passes there, -6 dB at `mains` * (1 +- 1 / (2 `quality`)).

    The gain of a second-order notch that runs forwards and backwards.
    """

    mains: float = 50.0
    quality: float = 30.0

    def check(self, rate: float = math.inf) -> None:
        """Raises ValueError if the frequency is not above 0 and below half the `rate` of a record, where that is known."""
        if not 0 < self.mains < rate / 2:
            slow = "; a slower record holds no mains hum: leave the notch out" if rate / 2 <= self.mains < math.inf else ""
            raise ValueError(f"expected a mains frequency {_range(rate)}, received {self.mains:g} Hz{slow}")

    def gain(self, frequencies: np.ndarray) -> np.ndarray:
        """The factor of each frequency in Hz."""
        off = (frequencies**2 - self.mains**2) ** 2
        return off / (off + (frequencies * self.mains / self.quality) ** 2)

    @property
    def settling(self) -> float:
        """Seconds after which a step has no more influence."""
        return 2 * self.quality / self.mains


Filter = BandPass | Notch


def _range(rate: float) -> str:
    return "above 0" if rate == math.inf else f"above 0 and below {rate / 2:g} Hz, half the record's rate"
