from pathlib import Path

import keras
import numpy as np
import pytest

from ecgtf.generators.stft import hann, istft, keep_bins, split_bands, stft

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "stft_split.npz")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_stft_fixture_bins_and_their_order():
    bins = to_numpy(stft(FIXTURE["signal"]))
    np.testing.assert_allclose(bins[..., 0] + 1j * bins[..., 1], FIXTURE["bins"].transpose(0, 1, 3, 2), atol=1e-5)
    packed = bins.transpose(0, 3, 1, 2, 4).reshape(FIXTURE["packed"].shape)
    np.testing.assert_allclose(packed, FIXTURE["packed"], atol=1e-5)
    np.testing.assert_allclose(hann(4), FIXTURE["window"], atol=1e-7)


@pytest.mark.parametrize(("length", "prefix"), [(100, ""), (97, "signal_len97.")])
def test_stft_split_fixture(length, prefix):
    low, high = split_bands(FIXTURE["signal"][:, :length])
    np.testing.assert_allclose(to_numpy(low), FIXTURE[f"{prefix}low"], atol=1e-5)
    np.testing.assert_allclose(to_numpy(high), FIXTURE[f"{prefix}high"], atol=1e-5)


@pytest.mark.parametrize("n_fft", [4, 8, 16])
def test_inverse_gives_the_signal_back_for_any_window(n_fft):
    signal = np.random.default_rng(0).normal(size=(2, 101, 3)).astype("float32")
    np.testing.assert_allclose(to_numpy(istft(stft(signal, n_fft), n_fft)), signal, atol=1e-5)


def test_low_band_of_a_constant_is_two_thirds_of_it():
    low, high = split_bands(np.ones((1, 50, 1), "float32"))
    np.testing.assert_allclose(to_numpy(low)[0, 4:-4], 2 / 3, atol=1e-6)
    np.testing.assert_allclose(to_numpy(high)[0, 4:-4], 1 / 3, atol=1e-6)


def test_high_band_is_the_inverse_of_the_other_bins():
    signal = np.random.default_rng(1).normal(size=(1, 64, 2)).astype("float32")
    _, high = split_bands(signal)
    np.testing.assert_allclose(to_numpy(high), to_numpy(istft(keep_bins(stft(signal), low=False))), atol=1e-5)
