"""The predictor: exact where the next sample follows from the last ones, no better than the noise where it does not."""

import numpy as np
import pytest

from ecgtf.closeness.prediction import predictive_errors

RNG = np.random.default_rng(0)


def waves(records, frequency, noise=0.0, samples=400):
    time = np.arange(samples) / 100
    phase = RNG.uniform(0, 2 * np.pi, (records, 1))
    wave = np.sin(2 * np.pi * frequency * time + phase)
    return np.stack([wave, 0.5 * wave], axis=2) + RNG.normal(0, noise, (records, samples, 2))


def test_what_follows_is_predicted():
    assert predictive_errors(waves(40, 3.0), waves(5, 3.0)).max() < 1e-3


def test_white_noise_is_predicted_by_its_mean():
    """The mean absolute deviation of a normal variable is sqrt(2 / pi) of its standard deviation."""
    errors = predictive_errors(RNG.normal(1.0, 0.2, (300, 400, 2)), RNG.normal(1.0, 0.2, (200, 400, 2)))
    assert errors.mean() == pytest.approx(0.2 * np.sqrt(2 / np.pi), rel=0.03)


def test_a_predictor_of_other_signals_errs_more():
    same, other = (predictive_errors(waves(40, frequency, 0.02), waves(20, 3.0, 0.02)).mean() for frequency in (3.0, 9.0))
    assert other > 3 * same


def test_records_in_blocks_give_what_each_gives_alone():
    fitted, tried = waves(300, 3.0, 0.1), waves(300, 3.0, 0.1)
    together = predictive_errors(fitted, tried)
    np.testing.assert_allclose(together[[0, 299]], predictive_errors(fitted, tried[[0, 299]]))


@pytest.mark.parametrize("tried", [np.zeros((3, 400, 3)), np.zeros((3, 32, 2)), np.zeros((0, 400, 2)), np.zeros((400, 2))])
def test_signals_that_do_not_fit_are_refused(tried):
    with pytest.raises(ValueError, match=r"expected signals \(records, more than 32 samples, 2\)"):
        predictive_errors(waves(4, 3.0), tried)
