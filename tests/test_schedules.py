"""Noise schedules against published numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from ecgtf.generators.schedules import Schedule, aligned_steps, cosine, linear, log_linear, spaced_steps, zero_terminal_snr

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "schedules.json").read_text())
SCHEDULES = {
    "linear_T50_1e-4_0.05": linear(50, last=0.05),
    "linear_T200_1e-4_0.02": linear(200),
    "linear_T1000_1e-4_0.02": linear(1000),
    "cosine_T1000_s0.008": cosine(1000),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_fixture(name):
    schedule, expected = SCHEDULES[name], FIXTURE["beta_schedules"][name]
    ends = [expected[f"beta_{which}"] for which in ("first", "second", "second_last", "last")]
    np.testing.assert_allclose(schedule.betas[[0, 1, -2, -1]], ends, rtol=1e-9)
    signal, noisy = schedule.posterior_mean
    for key, values in (
        ("alpha_bar", schedule.alpha_bar),
        ("posterior_variance", schedule.posterior_variance),
        ("posterior_mean_coef_x0", signal),
        ("posterior_mean_coef_xt", noisy),
        ("snr_log", schedule.log_snr),
    ):
        steps = np.array([int(step) for step in expected[key]])
        np.testing.assert_allclose(values[steps], list(expected[key].values()), rtol=1e-8, atol=1e-15, err_msg=key)


@pytest.mark.parametrize(
    ("case", "schedule"), [("T50", linear(50, last=0.05)), ("T200", linear(200)), ("T200_last_beta_0.7", linear(200))]
)
def test_aligned_steps_fixture(case, schedule):
    expected = FIXTURE["diffwave_fast_inference"][case]
    levels = np.cumprod(1 - np.array(expected["inference_betas"]))
    np.testing.assert_allclose(levels, expected["inference_alpha_bar"], rtol=1e-12)
    np.testing.assert_allclose(aligned_steps(schedule, levels), expected["aligned_steps"], rtol=1e-9)


def test_levels_that_the_training_never_saw_are_refused():
    with pytest.raises(ValueError, match="expected noise levels"):
        aligned_steps(linear(200), np.array([0.5, 0.01]))


def test_zero_terminal_snr_leaves_no_signal_and_keeps_the_start():
    schedule = zero_terminal_snr(linear(200))
    assert schedule.alpha_bar[-1] == 0
    assert schedule.log_snr[-1] == -np.inf
    np.testing.assert_allclose(schedule.alpha_bar[0], linear(200).alpha_bar[0], rtol=1e-12)
    before, after = np.sqrt(linear(200).alpha_bar), np.sqrt(schedule.alpha_bar)
    slope, offset = np.polyfit(before, after, 1)  # a shift and a scale of the amplitude, nothing else
    np.testing.assert_allclose(after, slope * before + offset, atol=1e-12)


def test_a_shift_divides_the_amplitude_of_the_signal_by_the_same_at_every_step():
    ratio = cosine(1000, shift=0.25).log_snr - cosine(1000).log_snr
    np.testing.assert_allclose(
        ratio[:-1], 2 * np.log(0.25), atol=1e-3
    )  # but for the first step, from the offset, and the limited last


def test_the_log_linear_schedule_is_a_straight_line_of_log_snr():
    np.testing.assert_allclose(log_linear(15).log_snr, np.arange(6.0, -9.0, -1.0), atol=1e-9)
    np.testing.assert_allclose(log_linear(1000, first=3.0, last=-5.0).log_snr[[0, -1]], [3.0, -5.0], atol=1e-9)


def test_noise_grows_from_step_to_step():
    for schedule in (*SCHEDULES.values(), zero_terminal_snr(linear(1000))):
        assert (np.diff(schedule.alpha_bar) < 0).all()
        assert schedule.posterior_variance[0] == 0
        assert (schedule.posterior_variance[1:] <= schedule.betas[1:]).all()


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.5], [[0.1]]])
def test_betas_that_are_no_variances_are_refused(betas):
    with pytest.raises(ValueError, match="expected betas"):
        Schedule(np.array(betas))


def test_spaced_steps_go_down_from_the_last_at_equal_distances():
    np.testing.assert_array_equal(spaced_steps(200, 10), range(199, 0, -20))
    np.testing.assert_array_equal(spaced_steps(200, 200), range(199, -1, -1))
    last = [spaced_steps(50, evaluations)[-1] for evaluations in range(1, 51)]
    assert [place > 0 for place in last] == [evaluations <= 33 for evaluations in range(1, 51)]  # two thirds
    for evaluations in (0, 201):
        with pytest.raises(ValueError, match="expected 1 to 200 sampling steps"):
            spaced_steps(200, evaluations)
