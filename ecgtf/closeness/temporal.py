"""How two sets of signals differ along time and frequency: amplitudes, autocorrelation, spectra, leads against each other.

Apart from the histograms, every quantity here is a function of means over records of something that each record gives by itself.
So each has a function that takes signals to per-record terms `(records, ...)` once, and one that takes the terms of any choice of
records to the quantity: a hundred resamples cost a hundred means, not a hundred transforms. Signals are `(records, time, leads)` in
mV, sums are float64.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import welch

LAGS = 64
BINS = 50
_DIRECTION_LAGS = (0.01, 0.02, 0.04, 0.08)  # s
_SMALLEST_POWER = 1e-12  # of a spectrum of unit power, per bin: what is below is silence


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


def autocorrelation_difference(real: np.ndarray, generated: np.ndarray) -> float:
    """L2 distance over lags between two autocorrelations `(lags, leads)`, a mean over leads (TSGBench's ACD; Ang et al. 2023)."""
    return float(np.sqrt(((real - generated) ** 2).sum(axis=0)).mean())


def marginal_terms(signals: np.ndarray, low: np.ndarray, high: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Per record, the amplitude density `(records, leads, bins)` in 1/mV over equal bins from `low` to `high` `(leads,)` mV.

    Both ends are closed; values outside count in the number of samples only.

    Raises:
        ValueError: if the signals are not `(records, time, leads)`.
    """
    signals = _signals(signals)
    width = _above_zero((np.asarray(high) - np.asarray(low)).astype(np.float64) / bins)
    terms = np.empty((len(signals), signals.shape[2], bins))
    for number, signal in enumerate(signals):
        terms[number] = _counts(signal, low, high, width, bins) / (len(signal) * width[:, None])
    return terms


def marginal_difference(real: np.ndarray, generated: np.ndarray) -> float:
    """Mean absolute difference over bins between the amplitude densities of two sets given by their `marginal_terms`, in 1/mV.

    It is TSGBench's MDD (Ang et al. 2023) with one histogram a lead over all records and times.
    """
    return float(np.abs(real.mean(axis=0) - generated.mean(axis=0)).mean(axis=-1).mean())


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


def spectrum_difference(real: np.ndarray, generated: np.ndarray) -> float:
    """L2 distance over frequencies between two spectra `(frequencies, leads)` of unit power, a mean over leads."""
    return float(np.sqrt(((real - generated) ** 2).sum(axis=0)).mean())


def log_spectrum_difference(real: np.ndarray, generated: np.ndarray) -> float:
    """Mean absolute difference over frequencies and leads between the logarithms (base 10) of two spectra of unit power.

    It hears a missing high-frequency tail that the plain distance, ruled by the largest powers, does not.
    """
    logs = [np.log10(np.maximum(side, _SMALLEST_POWER)) for side in (real, generated)]
    return float(np.abs(logs[0] - logs[1]).mean(axis=0).mean())


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


def direction_difference(real: np.ndarray, generated: np.ndarray) -> float:
    """Mean absolute difference over lags and leads between two results of `direction_from_terms`.

    Spectra and autocorrelations are the same for a signal and its mirror image in time; this is not.
    """
    return float(np.abs(real - generated).mean(axis=0).mean())


def shape_differences(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """Differences of skewness and of kurtosis (TSGBench's SD and KD), of two results of `shape_from_terms`: absolute, means over leads."""
    skewness, kurtosis = np.abs(real - generated)
    return float(skewness.mean()), float(kurtosis.mean())


def _counts(signal: np.ndarray, low: np.ndarray, high: np.ndarray, width: np.ndarray, bins: int) -> np.ndarray:
    """Histograms `(leads, bins)` of a record `(time, leads)`, each lead with a range of its own."""
    inside = (signal >= low) & (signal <= high)
    place = np.minimum(((signal - low.astype(np.float64)) / width).astype(np.int64), bins - 1)
    cells = place + np.arange(low.size) * bins
    return np.bincount(cells[inside], minlength=low.size * bins).reshape(-1, bins)


def _above_zero(values: np.ndarray) -> np.ndarray:
    """`values` with 1 in place of what cannot be divided by."""
    return np.where(values > 0, values, 1.0)


def _signals(signals: np.ndarray) -> np.ndarray:
    signals = np.asarray(signals)
    if signals.ndim != 3:
        raise ValueError(f"expected signals (records, time, leads), received shape {signals.shape}")
    return signals
