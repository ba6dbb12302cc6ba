"""The short-time Fourier transform that splits an ECG into a low and a high band (Lee et al., AISTATS 2023, section 3.1).

Window of `n_fft` samples (periodic Hann), hop 1, centred with reflection, divided by sqrt(n_fft): a signal of T samples has T + 1
frames. With so short a window the transform is a matrix product on shifted copies of the signal, which runs on any backend.
"""

from __future__ import annotations

import numpy as np
from keras import ops


def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window `(n_fft,)`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def _analysis_matrix(n_fft: int) -> np.ndarray:
    """`(n_fft, bins * 2)`: window, one-sided transform, normalisation; columns are (bin, real | imaginary)."""
    transform = np.fft.rfft(np.eye(n_fft), axis=1) / np.sqrt(n_fft)  # (n_fft, bins)
    parts = np.stack([transform.real, transform.imag], axis=-1).reshape(n_fft, -1)
    return (hann(n_fft)[:, None] * parts).astype("float32")


def _synthesis_matrix(n_fft: int) -> np.ndarray:
    """`(bins * 2, n_fft)`: inverse transform, normalisation, window."""
    bins = n_fft // 2 + 1
    basis = (
        np.concatenate([np.eye(bins), 1j * np.eye(bins)], axis=1).reshape(bins, 2, bins).transpose(2, 1, 0).reshape(-1, bins)
    )
    return (np.fft.irfft(basis, n=n_fft, axis=1) * np.sqrt(n_fft) * hann(n_fft)).astype("float32")


def stft(signal, n_fft: int = 4):
    """`(batch, time, leads)` -> `(batch, time + 1, leads, bins, 2)`, the last axis real and imaginary part."""
    half = n_fft // 2
    length = signal.shape[1]
    padded = ops.concatenate(
        [ops.flip(signal[:, 1 : half + 1], axis=1), signal, ops.flip(signal[:, -half - 1 : -1], axis=1)], axis=1
    )
    frames = ops.stack([padded[:, k : k + length + 1] for k in range(n_fft)], axis=-1)
    bins = ops.matmul(frames, _analysis_matrix(n_fft))
    return ops.reshape(bins, (-1, length + 1, signal.shape[2], half + 1, 2))


def istft(bins, n_fft: int = 4):
    """Inverse of `stft`: `(batch, time + 1, leads, bins, 2)` -> `(batch, time, leads)`.

    Divides by the sum of squared windows that really overlap, which is smaller at the ends.
    """
    half = n_fft // 2
    frames_count, leads = bins.shape[1], bins.shape[2]
    frames = ops.matmul(ops.reshape(bins, (-1, frames_count, leads, (half + 1) * 2)), _synthesis_matrix(n_fft))
    total = frames_count + n_fft - 1
    overlap = sum(ops.pad(frames[..., k], [[0, 0], [k, n_fft - 1 - k], [0, 0]]) for k in range(n_fft))
    weight = np.convolve(np.ones(frames_count), hann(n_fft) ** 2)[half : total - half + 1]
    signal = overlap[:, half : half + frames_count - 1] / weight[None, : frames_count - 1, None].astype("float32")
    return signal


def split_bands(signal, n_fft: int = 4):
    """The low band (bin 0) and the high band (all other bins) of `(batch, time, leads)`; they add up to the signal.

    The low band is a smooth average, not a clean low-pass: with n_fft 4 its gain is 2/3 at 0 Hz and 1/6 at a quarter of the
    sampling rate.
    """
    low = istft(keep_bins(stft(signal, n_fft), low=True), n_fft)
    return low, signal - low


def keep_bins(bins, low: bool):
    """The transform with only bin 0 (low) or only the other bins left."""
    mask = np.zeros((bins.shape[3], 1), "float32")
    mask[0] = 1.0
    return bins * (mask if low else 1.0 - mask)
