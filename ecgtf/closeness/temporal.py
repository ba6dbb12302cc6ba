"""How two sets of signals differ along time and frequency: amplitudes, autocorrelation, spectra, leads against each other.

Apart from the histograms, every quantity here is a function of means over records of something that each record gives by itself.
So each has a function that takes signals to per-record terms `(records, ...)` once, and one that takes the terms of any choice of
records to the quantity: a hundred resamples cost a hundred means, not a hundred transforms. Signals are `(records, time, leads)` in
mV, sums are float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import welch

LAGS = 64
BINS = 50
_DIRECTION_LAGS = (0.01, 0.02, 0.04, 0.08)  # s
_SMALLEST_POWER = 1e-12  # of a spectrum of unit power, per bin: what is below is silence


class Difference(NamedTuple):
    """A difference between two sets, `(leads,)` and on average."""

    per_lead: np.ndarray
    mean: float


class MarginalDifference(NamedTuple):
    """Difference of amplitude densities, in 1/mV."""

    per_time_and_lead: np.ndarray
    """`(time, leads)`."""
    mean: float
    """Over leads and times but the first: the benchmark's definition."""
    mean_all_times: float


def autocorrelation_terms(signals: np.ndarray, lags: int = LAGS) -> np.ndarray:
    """Per record `(records, 2, lags, leads)`: means over the valid times of `x(t) x(t + l)` and of `x(t) + x(t + l)`.

    Raises:
        ValueError: if the signals are not `(records, time, leads)` or not longer than `lags`.
    """
    signals = _signals(signals)
    time = signals.shape[1]
    if time <= lags:
        raise ValueError(f"expected signals longer than {lags} samples for {lags} lags, received {time} samples")
    terms = np.empty((len(signals), 2, lags, signals.shape[2]))
    size = next_fast_len(time + lags, real=True)  # so long that nothing wraps around
    valid = (time - np.arange(lags))[:, None]
    for number, signal in enumerate(signals):  # record by record: the transforms of a whole set would fill the memory
        signal = signal.astype(np.float64)
        spectrum = rfft(signal, size, axis=0)
        terms[number, 0] = irfft(np.abs(spectrum) ** 2, size, axis=0)[:lags] / valid
        upto = np.cumsum(signal, axis=0)[::-1][:lags]  # sums of the first time - l samples
        total = upto[0]
        before = np.concatenate([np.zeros((1, signal.shape[1])), np.cumsum(signal[: lags - 1], axis=0)])
        terms[number, 1] = (upto + total - before) / valid
    return terms


def autocorrelation_from_terms(terms: np.ndarray) -> np.ndarray:
    """The autocorrelation `(lags, leads)` of the set that these records make."""
    products, sums = terms.mean(axis=0)
    mean = sums[0] / 2
    variance = products[0] - mean**2
    return (products - mean * sums + mean**2) / _above_zero(variance)


def autocorrelation(signals: np.ndarray, lags: int = LAGS) -> np.ndarray:
    """Autocorrelation `(lags, leads)` of a set: mean and variance of each lead are taken over all records and times.

    Raises:
        ValueError: as `autocorrelation_terms`.
    """
    return autocorrelation_from_terms(autocorrelation_terms(signals, lags))


def autocorrelation_difference(real: np.ndarray, generated: np.ndarray) -> Difference:
    """L2 distance over lags between two autocorrelations `(lags, leads)` (TSGBench's ACD; Ang et al. 2023)."""
    per_lead = np.sqrt(((real - generated) ** 2).sum(axis=0))
    return Difference(per_lead, float(per_lead.mean()))


def marginal_difference(real: np.ndarray, generated: np.ndarray, bins: int = BINS) -> MarginalDifference:
    """Mean absolute difference between the amplitude densities at each time and lead (TSGBench's MDD; Ang et al. 2023).

    `bins` equal bins reach from the smallest to the largest real value, both ends closed; generated values outside of them count in
    the number of records only.

    Args:
        real: `(n, time, leads)` mV.
        generated: `(m, time, leads)` mV.
        bins: Bins of the histograms.

    Raises:
        ValueError: if the signals disagree in time or leads.
    """
    difference = _density_difference(*_both(real, generated), bins)
    return MarginalDifference(difference, float(difference[1:].mean()), float(difference.mean()))


def pooled_marginal_difference(real: np.ndarray, generated: np.ndarray, bins: int = BINS) -> Difference:
    """As `marginal_difference`, with one histogram a lead over all records and times."""
    real, generated = (side.reshape(-1, 1, side.shape[-1]) for side in _both(real, generated))
    per_lead = _density_difference(real, generated, bins)[0]
    return Difference(per_lead, float(per_lead.mean()))


def marginal_terms(signals: np.ndarray, low: np.ndarray, high: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Per record, the amplitude density `(records, leads, bins)` in 1/mV over equal bins from `low` to `high` `(leads,)` mV.

    Raises:
        ValueError: if the signals are not `(records, time, leads)`.
    """
    signals = _signals(signals)
    width = _above_zero((np.asarray(high) - np.asarray(low)).astype(np.float64) / bins)
    terms = np.empty((len(signals), signals.shape[2], bins))
    for number, signal in enumerate(signals):
        terms[number] = _counts(signal[:, None], low[None], high[None], width[None], bins)[0] / (len(signal) * width[:, None])
    return terms


def marginal_difference_from_terms(real: np.ndarray, generated: np.ndarray) -> Difference:
    """`pooled_marginal_difference` of sets given by their `marginal_terms`, the bins being those of the terms."""
    per_lead = np.abs(real.mean(axis=0) - generated.mean(axis=0)).mean(axis=-1)
    return Difference(per_lead, float(per_lead.mean()))


def spectrum_terms(signals: np.ndarray, rate: float) -> np.ndarray:
    """Per record, its power spectral density `(records, frequencies, leads)` in mV^2/Hz by Welch's method, 2 s Hann windows.

    Raises:
        ValueError: if the signals are not `(records, time, leads)`.
    """
    signals = _signals(signals)
    window = min(signals.shape[1], round(2 * rate))
    parts = np.array_split(signals, -(-len(signals) // 100)) if len(signals) else [signals]
    return np.concatenate([welch(part, rate, nperseg=window, axis=1)[1] for part in parts])


def spectrum_frequencies(samples: int, rate: float) -> np.ndarray:
    """The frequencies in Hz of `spectrum_terms` of signals with this many samples."""
    return np.fft.rfftfreq(min(samples, round(2 * rate)), 1 / rate)


def spectrum_from_terms(terms: np.ndarray) -> np.ndarray:
    """The mean spectrum `(frequencies, leads)` of these records, of unit power in each lead: it sums to 1."""
    power = terms.mean(axis=0)
    return power / _above_zero(power.sum(axis=0))


def spectrum(signals: np.ndarray, rate: float) -> np.ndarray:
    """The mean spectrum `(frequencies, leads)` of a set, of unit power in each lead."""
    return spectrum_from_terms(spectrum_terms(signals, rate))


def spectrum_difference(real: np.ndarray, generated: np.ndarray) -> Difference:
    """L2 distance over frequencies between two spectra `(frequencies, leads)` of unit power."""
    per_lead = np.sqrt(((real - generated) ** 2).sum(axis=0))
    return Difference(per_lead, float(per_lead.mean()))


def log_spectrum_difference(real: np.ndarray, generated: np.ndarray) -> Difference:
    """Mean absolute difference over frequencies between the logarithms (base 10) of two spectra of unit power.

    It hears a missing high-frequency tail that the plain distance, ruled by the largest powers, does not.
    """
    logs = [np.log10(np.maximum(side, _SMALLEST_POWER)) for side in (real, generated)]
    per_lead = np.abs(logs[0] - logs[1]).mean(axis=0)
    return Difference(per_lead, float(per_lead.mean()))


def lead_terms(signals: np.ndarray) -> np.ndarray:
    """Per record `(records, leads + 1, leads)`: mean products of its leads, and in the last row their means.

    Raises:
        ValueError: if the signals are not `(records, time, leads)`.
    """
    signals = _signals(signals)
    terms = np.empty((len(signals), signals.shape[2] + 1, signals.shape[2]))
    for number, signal in enumerate(signals):
        signal = signal.astype(np.float64)
        terms[number] = np.vstack([signal.T @ signal / len(signal), signal.mean(axis=0)])
    return terms


def lead_correlation_from_terms(terms: np.ndarray) -> np.ndarray:
    """Correlation `(leads, leads)` between leads over all records and times; 0 with a flat lead."""
    mean = terms.mean(axis=0)
    covariance = mean[:-1] - np.outer(mean[-1], mean[-1])
    scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return covariance / _above_zero(np.outer(scale, scale))


def lead_correlation_difference(real: np.ndarray, generated: np.ndarray) -> float:
    """Mean absolute difference between two correlation matrices over the pairs of different leads; 0 with a single lead."""
    pairs = ~np.eye(len(real), dtype=bool)
    return float(np.abs(real - generated)[pairs].mean()) if pairs.any() else 0.0


def moment_terms(signals: np.ndarray) -> np.ndarray:
    """Per record, the means of the first four powers `(records, 4, leads)` of its samples.

    Raises:
        ValueError: if the signals are not `(records, time, leads)`.
    """
    signals = _signals(signals)
    terms = np.empty((len(signals), 4, signals.shape[2]))
    for number, signal in enumerate(signals):
        signal = signal.astype(np.float64)
        square = signal * signal
        terms[number] = [power.mean(axis=0) for power in (signal, square, square * signal, square * square)]
    return terms


def shape_from_terms(terms: np.ndarray) -> np.ndarray:
    """Skewness and kurtosis (3 for a normal distribution) of each lead over all records and times, `(2, leads)`."""
    first, second, third, fourth = terms.mean(axis=0)
    variance = _above_zero(second - first**2)
    skewness = (third - 3 * first * second + 2 * first**3) / variance**1.5
    kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / variance**2
    return np.stack([skewness, kurtosis])


def direction_terms(signals: np.ndarray, rate: float) -> np.ndarray:
    """Per record `(records, 2, lags, leads)`: means of the squares and of the cubes of `x(t + l) - x(t)`, l of 10 to 80 ms.

    Raises:
        ValueError: if the signals are not `(records, time, leads)`.
    """
    signals = _signals(signals)
    lags = np.unique(np.maximum(1, np.round(np.array(_DIRECTION_LAGS) * rate).astype(int)))
    terms = np.empty((len(signals), 2, len(lags), signals.shape[2]))
    for number, signal in enumerate(signals):
        signal = signal.astype(np.float64)
        for place, lag in enumerate(lags):
            steps = signal[lag:] - signal[:-lag]
            square = steps * steps
            terms[number, :, place] = square.mean(axis=0), (square * steps).mean(axis=0)
    return terms


def direction_from_terms(terms: np.ndarray) -> np.ndarray:
    """Skewness `(lags, leads)` of the increments of a set: it changes its sign when time is turned (Ramsey & Rothman 1996)."""
    squares, cubes = terms.mean(axis=0)
    return cubes / _above_zero(squares) ** 1.5


def direction_difference(real: np.ndarray, generated: np.ndarray) -> Difference:
    """Mean absolute difference over lags between two results of `direction_from_terms`.

    Spectra and autocorrelations are the same for a signal and its mirror image in time; this is not.
    """
    per_lead = np.abs(real - generated).mean(axis=0)
    return Difference(per_lead, float(per_lead.mean()))


def shape_differences(real: np.ndarray, generated: np.ndarray) -> tuple[Difference, Difference]:
    """Absolute differences of skewness and of kurtosis (TSGBench's SD and KD) between two results of `shape_from_terms`."""
    skewness, kurtosis = np.abs(real - generated)
    return Difference(skewness, float(skewness.mean())), Difference(kurtosis, float(kurtosis.mean()))


def _density_difference(real: np.ndarray, generated: np.ndarray, bins: int) -> np.ndarray:
    """Mean absolute difference of histogram densities `(time, leads)`, the bins being the real signals'."""
    low, high = real.min(axis=0), real.max(axis=0)
    width = _above_zero((high - low).astype(np.float64) / bins)
    densities = [_counts(side, low, high, width, bins) / (len(side) * width[..., None]) for side in (real, generated)]
    return np.abs(densities[0] - densities[1]).mean(axis=-1)


def _counts(values: np.ndarray, low: np.ndarray, high: np.ndarray, width: np.ndarray, bins: int) -> np.ndarray:
    """Histograms `(time, leads, bins)` of `(records, time, leads)`, each place with a range of its own."""
    counts = np.zeros((*low.shape, bins), np.int64)
    offsets = np.arange(low.size).reshape(low.shape) * bins
    for part in np.array_split(values, max(1, -(-values.size // 4_000_000))):
        inside = (part >= low) & (part <= high)
        place = np.minimum(((part - low.astype(np.float64)) / width).astype(np.int64), bins - 1)
        counts += np.bincount((place + offsets)[inside], minlength=counts.size).reshape(counts.shape)
    return counts


def _above_zero(values: np.ndarray) -> np.ndarray:
    """`values` with 1 in place of what cannot be divided by."""
    return np.where(values > 0, values, 1.0)


def _signals(signals: np.ndarray) -> np.ndarray:
    signals = np.asarray(signals)
    if signals.ndim != 3:
        raise ValueError(f"expected signals (records, time, leads), received shape {signals.shape}")
    return signals


def _both(real: np.ndarray, generated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real, generated = _signals(real), _signals(generated)
    if real.shape[1:] != generated.shape[1:] or not (len(real) and len(generated)):
        raise ValueError(
            f"expected two sets of signals of the same time and leads, received {real.shape} and {generated.shape}"
        )
    return real, generated
