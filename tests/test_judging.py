"""The figures of samples in the log of a training."""

import sys

import numpy as np
import pytest

from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_record
from ecgtf.judging import Judge, band_powers


def test_powers_are_those_of_the_octave_that_a_sine_is_in():
    signals = np.zeros((2, 1000, 12))
    signals[0, :, LEADS.index("II")] = np.sin(2 * np.pi * 5 * np.arange(1000) / 100)
    powers = band_powers(signals, 100.0, LEADS).reshape(2, 6, 3)
    assert powers[0, 3, 0] == pytest.approx(np.log10(0.25), abs=1e-6)  # 4 to 8 Hz, lead II: amplitude 1
    powers[0, 3, 0] = powers[1, 3, 0]
    np.testing.assert_allclose(powers, -9.0, atol=0.1)


def records(rhythm: str, number: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([simulate_record(rhythm, rng=rng, rate=100.0).signal for _ in range(number)])


def test_figures_tell_records_of_the_same_kind_from_others():
    rhythms, labels = ("SR", "AFIB"), np.repeat(np.eye(2), 16, axis=0)
    real, alike = (np.concatenate([records(rhythm, 16, seed) for rhythm in rhythms]) for seed in (1, 2))
    judge = Judge(real, labels, LEADS, 100.0, rhythms)
    good, swapped = judge(alike, labels), judge(alike, labels[::-1])
    loud = judge(3.0 * alike, labels)
    assert swapped["sample_rmssd"] > 2 * good["sample_rmssd"]
    assert loud["sample_frechet"] > 2 * good["sample_frechet"]
    assert 50 < good["heart_rate_SR"] < 100
    few = Judge(
        real[:18], labels[:18], LEADS, 100.0, rhythms
    )  # mostly SR: samples of as many of each class are no worse for it
    assert few(alike, labels)["sample_frechet"] < 2 * few(alike[:18], labels[:18])["sample_frechet"]
    noise = judge(np.zeros_like(alike), labels)
    assert np.isnan(noise["sample_heart_rate"])


def test_held_out_records_are_measured_once_and_not_kept():
    real, labels = np.concatenate([records("SR", 4, 1), records("AFIB", 4, 1)]), np.repeat(np.eye(2), 4, axis=0)
    drawn = np.concatenate([records("SR", 4, 2), records("AFIB", 4, 2)])
    expected = Judge(real, labels, LEADS, 100.0, ("SR", "AFIB"))(drawn, labels)
    given = real.copy()
    judge = Judge(given, labels, LEADS, 100.0, ("SR", "AFIB"))
    held = sys.getrefcount(given)
    given[:] = np.nan  # whatever becomes of the signals
    assert judge(drawn, labels) == judge(drawn, labels) == expected
    del judge
    assert sys.getrefcount(given) == held
