"""Differences along time and frequency: published definitions on fixed numbers, and signals whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ecgtf.closeness import temporal

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "closeness.npz")
REAL, GENERATED = FIXTURE["signals_real"].astype(np.float64), FIXTURE["signals_generated"].astype(np.float64)
RATE = 100.0


def autocorrelation(signals):
    return temporal.autocorrelation_from_terms(temporal.autocorrelation_terms(signals))


def spectrum(signals):
    return temporal.spectrum_from_terms(temporal.spectrum_terms(signals, RATE))


def test_autocorrelation_fixture():
    real, generated = autocorrelation(REAL), autocorrelation(GENERATED)
    np.testing.assert_allclose(real, FIXTURE["autocorrelation.real"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(generated, FIXTURE["autocorrelation.generated"], rtol=1e-6, atol=1e-12)
    per_lead = [temporal.autocorrelation_difference(real[:, [lead]], generated[:, [lead]]) for lead in range(12)]
    np.testing.assert_allclose(per_lead, FIXTURE["autocorrelation.per_lead"], rtol=1e-6)
    difference = temporal.autocorrelation_difference(real, generated)
    assert difference == pytest.approx(float(FIXTURE["autocorrelation.difference"]), rel=1e-6)


def test_marginal_fixture():
    """TSGBench's: each time of each lead has a histogram of its own, and the mean leaves out the first time."""
    real, generated = (side.reshape(len(side), 1, -1) for side in (REAL, GENERATED))
    ends = real.min(axis=(0, 1)), real.max(axis=(0, 1))
    real, generated = (temporal.marginal_terms(side, *ends) for side in (real, generated))
    found = [temporal.marginal_difference(real[:, [place]], generated[:, [place]]) for place in range(real.shape[1])]
    found = np.reshape(found, REAL.shape[1:])
    np.testing.assert_allclose(found, FIXTURE["marginal.per_time_and_lead"], rtol=1e-6)
    assert found[1:].mean() == pytest.approx(float(FIXTURE["marginal.difference"]), rel=1e-6)
    assert found.mean() == pytest.approx(float(FIXTURE["marginal.difference_all_times"]), rel=1e-6)


def test_pooled_marginal_fixture():
    """With the bins of the whole real set, the terms give the pooled difference."""
    ends = REAL.min(axis=(0, 1)), REAL.max(axis=(0, 1))
    real, generated = (temporal.marginal_terms(side, *ends) for side in (REAL, GENERATED))
    per_lead = [temporal.marginal_difference(real[:, [lead]], generated[:, [lead]]) for lead in range(12)]
    np.testing.assert_allclose(per_lead, FIXTURE["marginal_pooled.per_lead"], rtol=1e-6)
    difference = temporal.marginal_difference(real, generated)
    assert difference == pytest.approx(float(FIXTURE["marginal_pooled.difference"]), rel=1e-6)


def test_terms_of_a_choice_are_those_of_the_set():
    """What makes resampling cheap: the quantity of some records follows from their terms."""
    chosen = [3, 3, 7, 12]
    for terms, whole in (
        (temporal.autocorrelation_terms(REAL), autocorrelation),
        (temporal.spectrum_terms(REAL, RATE), spectrum),
        (temporal.lead_terms(REAL), lambda signals: temporal.lead_correlation_from_terms(temporal.lead_terms(signals))),
        (temporal.moment_terms(REAL), lambda signals: temporal.shape_from_terms(temporal.moment_terms(signals))),
    ):
        finish = {
            2: temporal.autocorrelation_from_terms,
            13: temporal.lead_correlation_from_terms,
            4: temporal.shape_from_terms,
        }
        finish = finish.get(terms.shape[1], temporal.spectrum_from_terms)
        np.testing.assert_allclose(finish(terms[chosen]), whole(REAL[chosen]), rtol=1e-9, atol=1e-12)


def test_autocorrelation_of_a_wave_is_a_wave():
    time = np.arange(1000) / RATE
    rng = np.random.default_rng(0)
    waves = np.stack([np.sin(2 * np.pi * (2.5 * time + phase)) for phase in rng.random(200)])[..., None] + 5.0
    found = autocorrelation(waves)[:, 0]
    np.testing.assert_allclose(found, np.cos(2 * np.pi * 2.5 * np.arange(64) / RATE), atol=0.02)


def test_spectrum_peaks_where_the_wave_is():
    time = np.arange(1000) / RATE
    wave = np.sin(2 * np.pi * 12.5 * time)[None, :, None]
    power = spectrum(wave)[:, 0]
    frequencies = temporal.spectrum_frequencies(1000, RATE)
    assert len(frequencies) == len(power)
    assert frequencies[power.argmax()] == 12.5
    assert power.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(spectrum(3 * wave)[:, 0], power, atol=1e-12)  # of the shape alone


def test_log_spectrum_hears_a_missing_tail():
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(50, 1000, 2)).cumsum(axis=1)  # power falls with the square of frequency
    smooth = np.apply_along_axis(lambda trace: np.convolve(trace, np.ones(8) / 8, mode="same"), 1, signal)
    same, cut = spectrum(signal[:25]), spectrum(smooth[25:])
    other = spectrum(signal[25:])
    assert temporal.log_spectrum_difference(same, cut) > 5 * temporal.log_spectrum_difference(same, other)


def test_lead_correlation_of_dependent_leads():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 30, 500, 1))
    signals = np.concatenate([first, -2 * first + 1, (first + second) / 2, np.zeros_like(first)], axis=2)
    found = temporal.lead_correlation_from_terms(temporal.lead_terms(signals))
    assert found[0, 1] == pytest.approx(-1.0)
    assert found[0, 2] == pytest.approx(np.sqrt(0.5), abs=0.02)
    assert (found[3] == 0).all()  # a flat lead correlates with nothing
    assert temporal.lead_correlation_difference(found, found) == 0


def test_shape_is_scipys():
    found = temporal.shape_from_terms(temporal.moment_terms(GENERATED))
    samples = GENERATED.reshape(-1, 12)
    np.testing.assert_allclose(found[0], stats.skew(samples), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found[1], stats.kurtosis(samples, fisher=False), rtol=1e-6)
    skewness, kurtosis = temporal.shape_differences(found, found + np.array([[0.5], [2.0]]))
    assert (skewness, kurtosis) == (pytest.approx(0.5), pytest.approx(2.0))


def test_flat_signals_give_finite_numbers():
    flat = np.zeros((4, 200, 3), np.float32)
    assert np.isfinite(autocorrelation(flat)).all()
    assert np.isfinite(spectrum(flat)).all()
    assert np.isfinite(temporal.shape_from_terms(temporal.moment_terms(flat))).all()
    terms = temporal.marginal_terms(flat, flat.min(axis=(0, 1)), flat.max(axis=(0, 1)))
    assert np.isfinite(terms).all()


def test_unusable_signals_are_refused():
    with pytest.raises(ValueError, match="longer than 64 samples"):
        autocorrelation(REAL[:, :64])
    with pytest.raises(ValueError, match=r"received shape \(20, 96\)"):
        spectrum(REAL[..., 0])


def test_the_direction_of_time_is_seen_and_nothing_else():
    """A saw rises slowly and falls at once; its mirror image has the same spectrum."""
    time = np.arange(2000) / RATE
    saws = np.stack([(time * 1.7 + phase) % 1.0 for phase in np.linspace(0, 1, 20, endpoint=False)])[..., None]
    forward, backward = (temporal.direction_from_terms(temporal.direction_terms(side, RATE)) for side in (saws, saws[:, ::-1]))
    assert (forward < -2).all()
    np.testing.assert_allclose(backward, -forward, rtol=1e-9)
    assert temporal.direction_difference(forward, backward) == pytest.approx(2 * np.abs(forward).mean())
    spectra = [spectrum(side) for side in (saws, saws[:, ::-1])]
    assert temporal.spectrum_difference(*spectra) < 1e-4  # the windows lie otherwise
    waves = np.sin(2 * np.pi * 3 * time)[None, :, None]
    assert np.abs(temporal.direction_from_terms(temporal.direction_terms(waves, RATE))).max() < 0.02
