"""Signals on their way into a data set: resampling with filters, cutting to length, and the faults that exclude a record (NumPy and SciPy).

Signals are `(time, leads)` float32 in millivolts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ecgtf.data_prep.filters import Filter

PASSBAND = 0.8
"""Share of the lower Nyquist frequency that resampling leaves untouched: 40 Hz when the lower rate is 100 Hz."""

FLAT_MV = 0.01
"""A lead that spans less than this over the whole record carries no signal: even the noise of a working electrode is larger."""

LIMIT_MV = 32.767
"""The largest amplitude that 16-bit integers of one microvolt hold."""

WINDOWS = ("first", "centre", "all")
SHORT = ("refuse", "pad")

_PAD_SECONDS = 1.0


def resample(signal: np.ndarray, rate: float, new_rate: float, filters: tuple[Filter, ...] = ()) -> np.ndarray:
    """`signal` `(time, leads)` at `new_rate` instead of `rate`, filtered, without aliasing: sample k stays at the time k / rate.

    Works in the frequency domain: the spectrum is kept as it is up to `PASSBAND` of the lower Nyquist frequency, falls to zero
    at that frequency along a raised cosine (a sharp edge would make QRS complexes ring), is multiplied by the gain of each filter
    and transformed back at the new rate. A Fourier transform takes the signal for periodic, which would throw the step from the
    last sample to the first into both ends; so each end is first extended by at least a second and as long as the filters take
    to settle, mirrored through its last point (odd extension, which keeps value and slope).

    From 500 to 100 Hz, a tone of up to 40 Hz keeps its amplitude within 0.001 dB, and of one above 50 Hz less than -68 dB is left
    0.2 s from the ends and less than -81 dB 0.5 s from them (10 s of a tone that begins and stops have other frequencies too).

    PTB-XL comes at 500 and 100 Hz. Its own 100 Hz files run 1.25 ms ahead of its 500 Hz files; apart from that, and from
    the last tenth of a second, where they fade to zero, 500 Hz records resampled here differ from them by 0.7 microvolts
    (root mean square, median of 242 records; 1.3 microvolts at the 95th percentile), less than one step of their resolution.

    Returns:
        `(ceil(time * new_rate / rate), leads)` float32.

    Raises:
        ValueError: if a rate is not above 0, the rates are further apart than a factor of 100, the signal is empty, or a filter
            does not fit the rate.
    """
    if not (0 < rate < math.inf and 0 < new_rate < math.inf) or not 0.01 <= new_rate / rate <= 100:
        raise ValueError(f"cannot resample from {rate:g} Hz to {new_rate:g} Hz; expected rates above 0 within a factor of 100")
    if signal.ndim != 2 or len(signal) == 0:
        raise ValueError(f"expected a signal (time, leads) with samples, received shape {signal.shape}")
    for its in filters:
        its.check(rate)
    if rate == new_rate and not filters:
        return signal.astype(np.float32, copy=False)
    ratio = Fraction(new_rate / rate).limit_denominator(10_000)
    up, down = ratio.numerator, ratio.denominator

    # both pads are whole multiples of `down`, so that the extended signal and its start fall on samples of the new rate too
    pad = math.ceil(rate * max([_PAD_SECONDS, *(its.settling for its in filters)]) / down) * down
    length = _fast_multiple(len(signal) + 2 * pad, down)
    extended = _odd_extension(signal.astype(np.float32, copy=False), pad, length - len(signal) - pad)
    new_length = length // down * up
    gain = _gain(rate, new_rate, length, min(length, new_length) // 2 + 1, filters)
    resampled = irfft(rfft(extended, axis=0)[: len(gain)] * gain, new_length, axis=0)
    start = pad // down * up
    samples = math.ceil(Fraction(len(signal) * up, down))
    return resampled[start : start + samples] * np.float32(new_length / length)


@lru_cache(maxsize=16)
def _gain(rate: float, new_rate: float, length: int, bins: int, filters: tuple[Filter, ...]) -> np.ndarray:
    """The factors `(bins, 1)` float32 on the spectrum of a signal of `length` samples."""
    frequencies = np.arange(bins) * (rate / length)
    gain = np.ones(bins)
    if rate != new_rate:
        slope = (frequencies / (min(rate, new_rate) / 2) - PASSBAND) / (1 - PASSBAND)
        gain = 0.5 + 0.5 * np.cos(np.pi * np.clip(slope, 0, 1))
    for its in filters:
        gain *= its.gain(frequencies)
    return gain.astype(np.float32)[:, None]


def cut(
    signal: np.ndarray, rate: float, seconds: float, window: str = "first", short: str = "refuse"
) -> list[tuple[int, np.ndarray]]:
    """Excerpts `(first sample, excerpt)` of `signal` `(time, leads)`, each `ceil(rate * seconds)` samples long.

    One excerpt, the `first` samples or those in the `centre`; or `all` that fit one after the other, without overlap. A signal
    that is too short is refused, or comes back whole if `short` is `pad`.

    Raises:
        ValueError: if the signal is too short, or `window` or `short` is none of `WINDOWS` and `SHORT`.
    """
    if window not in WINDOWS:
        raise ValueError(f"unknown window {window!r}; expected one of {', '.join(WINDOWS)}")
    if short not in SHORT:
        raise ValueError(f"unknown choice {short!r} for short records; expected one of {', '.join(SHORT)}")
    samples = math.ceil(round(rate * seconds, 6))
    if len(signal) < samples:
        if short == "refuse":
            raise ValueError(f"lasts {len(signal) / rate:.4g} s, shorter than the {seconds:g} s asked for")
        return [(0, signal)]
    if window == "all":
        starts = [int(number * rate * seconds) for number in range(int((len(signal) + 1e-6) / (rate * seconds)))]
        return [(start, signal[start : start + samples]) for start in starts if start + samples <= len(signal)]
    start = (len(signal) - samples) // 2 if window == "centre" else 0
    return [(start, signal[start : start + samples])]


def pad(signal: np.ndarray, samples: int) -> np.ndarray:
    """The first `samples` of `signal` `(time, leads)`, its last value held on where it is shorter (a step would ring)."""
    missing = samples - len(signal)
    return np.pad(signal, ((0, missing), (0, 0)), mode="edge") if missing > 0 else signal[:samples]


def fault(signal: np.ndarray, leads: Sequence[str]) -> str | None:
    """Why `signal` `(time, leads)` cannot be used, or None: missing samples, a flat lead, too large a voltage."""
    low, high = _extremes(signal)
    if not np.isfinite(low + high).all():  # NaN and infinity both show in the extremes
        missing = (~np.isfinite(signal)).sum(axis=0)
        worst = int(missing.argmax())
        return f"missing samples in {_names(leads, missing > 0)} ({missing[worst]} of {len(signal)} in {leads[worst]})"
    flat = high - low < FLAT_MV
    if flat.any():
        return f"flat lead {_names(leads, flat)} (spans less than {FLAT_MV:g} mV)"
    beyond = np.maximum(high, -low) > LIMIT_MV
    if beyond.any():
        return f"amplitude of {np.abs(signal).max():.4g} mV in {_names(leads, beyond)} (more than {LIMIT_MV:g} mV)"
    return None


def _extremes(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimum and maximum of each lead; rows are taken many at a time, which is several times as fast as one by one."""
    time, leads = signal.shape
    rows = max(step for step in (1, 2, 4, 5, 10, 20, 25, 50) if time % step == 0)
    wide = signal.reshape(time // rows, rows * leads)
    return wide.min(axis=0).reshape(rows, leads).min(axis=0), wide.max(axis=0).reshape(rows, leads).max(axis=0)


def _names(leads: Sequence[str], which: np.ndarray) -> str:
    return ", ".join(lead for lead, chosen in zip(leads, which, strict=True) if chosen)


def _fast_multiple(at_least: int, of: int) -> int:
    """The smallest multiple of `of` from `at_least` on whose Fourier transform is fast, or nearly so when `of` is not."""
    multiple = math.ceil(at_least / of)
    return next_fast_len(multiple, real=True) * of


def _odd_extension(signal: np.ndarray, before: int, after: int) -> np.ndarray:
    """`signal` with so many samples more at its ends, each end mirrored through its last point as often as it takes."""
    span = len(signal) - 1
    if span == 0:
        return np.repeat(signal, before + 1 + after, axis=0)
    if before > span or after > span:
        first, last = min(before, span), min(after, span)
        inner = _odd_extension(signal, first, last)
        return _odd_extension(inner, before - first, after - last)
    head = 2 * signal[:1] - signal[before:0:-1]
    tail = 2 * signal[-1:] - signal[-2 : -after - 2 : -1]
    return np.concatenate([head, signal, tail])
