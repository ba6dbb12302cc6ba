"""Samplers against closed forms: a Gaussian and a mixture of two, whose best denoisers are known."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ecgtf.generators import samplers
from ecgtf.generators.condition import guide
from ecgtf.generators.diffusion import FAST_BETAS, add_noise, target, to_x0
from ecgtf.generators.schedules import aligned_steps, cosine, linear, spaced_steps, zero_terminal_snr

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "ddpm_ddim.npz")
SCHEDULE = linear(200)


def fixture_eps(x, share, which=""):
    """The best noise predictor of the fixture's data, N(mu, sigma^2) in each channel."""
    mu, sigma = FIXTURE[f"mu{which}"], FIXTURE[f"sigma{which}"]
    return ops.sqrt(1 - share) * (x - ops.sqrt(share) * mu) / (share * sigma**2 + 1 - share)


def levels(places, schedule=SCHEDULE):
    return np.append(schedule.alpha_bar[places], 1.0)


def denoiser(eps, places, schedule=SCHEDULE):
    shares = tf.constant(schedule.alpha_bar[places])
    return lambda x, k: to_x0("eps", eps(x, shares[k]), x, shares[k])


def test_conversions_fixture():
    for k, step in enumerate(FIXTURE["steps"]):
        share = SCHEDULE.alpha_bar[step]
        x0, eps, x = (tf.constant(FIXTURE[name][k]) for name in ("x0", "eps", "x_t"))
        np.testing.assert_allclose(add_noise(x0, eps, share), x, atol=1e-12)
        np.testing.assert_allclose(target("v", x0, eps, share), FIXTURE["v"][k], atol=1e-12)
        for prediction in ("eps", "x0", "v"):
            np.testing.assert_allclose(to_x0(prediction, target(prediction, x0, eps, share), x, share), x0, atol=1e-10)
        best = fixture_eps(x, share)
        np.testing.assert_allclose(best, FIXTURE["optimal_eps"][k], atol=1e-12)
        np.testing.assert_allclose(to_x0("eps", best, x, share), FIXTURE["optimal_x0"][k], atol=1e-10)


def test_ancestral_step_fixture():
    signal, noisy = SCHEDULE.posterior_mean
    table = samplers.ddpm(levels(np.arange(200)[::-1]))[::-1]  # row t: from step t to t - 1
    for k, step in enumerate(FIXTURE["steps"]):
        mean = signal[step] * FIXTURE["optimal_x0"][k] + noisy[step] * FIXTURE["x_t"][k]
        np.testing.assert_allclose(mean, FIXTURE["posterior_mean"][k], atol=1e-10)
        np.testing.assert_allclose(SCHEDULE.posterior_variance[step], FIXTURE["posterior_variance"][k], atol=1e-14)
        one = samplers.sample(
            lambda x, _, k=k: tf.constant(FIXTURE["optimal_x0"][k]),
            tf.constant(FIXTURE["x_t"][k]),
            table[step : step + 1],
            lambda _, k=k: tf.constant(FIXTURE["ancestral_noise"][k]),
        )
        np.testing.assert_allclose(one, FIXTURE["ancestral_next"][k], atol=1e-10)


@pytest.mark.parametrize("evaluations", [10, 25])
def test_ddim_trajectory_fixture(evaluations):
    places = spaced_steps(200, evaluations)
    np.testing.assert_array_equal([*places, -1], FIXTURE[f"ddim{evaluations}.indices"])
    for k, expected in enumerate(FIXTURE[f"ddim{evaluations}.trajectory"]):
        x = samplers.sample(denoiser(fixture_eps, places), tf.constant(FIXTURE["x_T"]), samplers.ddim(levels(places))[:k])
        np.testing.assert_allclose(x, expected, atol=1e-10)


def test_all_ddim_steps_fixture():
    places = spaced_steps(200, 200)
    x = samplers.sample(denoiser(fixture_eps, places), tf.constant(FIXTURE["x_T"]), samplers.ddim(levels(places)))
    np.testing.assert_allclose(x, FIXTURE["ddim200.x_0"], atol=1e-9)


def test_second_order_reaches_the_limit_sooner_fixture():
    places, limit = spaced_steps(200, 25), FIXTURE["ode_limit.x_0"]
    distances = {
        name: np.abs(samplers.sample(denoiser(fixture_eps, places), tf.constant(FIXTURE["x_T"]), table) - limit).max()
        for name, table in (("ddim", samplers.ddim(levels(places))), ("dpmpp", samplers.dpmpp(levels(places))))
    }
    np.testing.assert_allclose(distances["ddim"], 0.078, atol=0.001)
    assert distances["dpmpp"] < distances["ddim"] / 3


def test_guidance_fixture():
    step, places = int(FIXTURE["guidance.step"]), spaced_steps(200, 25)
    x, share = tf.constant(FIXTURE["x_t"][4]), SCHEDULE.alpha_bar[step]
    for k, scale in enumerate(FIXTURE["guidance.scales"]):

        def guided(x, share, scale=float(scale)):
            return guide(fixture_eps(x, share), fixture_eps(x, share, "_unconditional"), scale)

        np.testing.assert_allclose(guided(x, share), FIXTURE["guidance.eps"][k], atol=1e-10)
        end = samplers.sample(denoiser(guided, places), tf.constant(FIXTURE["x_T"]), samplers.ddim(levels(places)))
        np.testing.assert_allclose(end, FIXTURE["guidance.ddim25.x_0"][k], atol=1e-9)


MEAN, SD = 0.7, 0.5
MODES, WIDTH = (-1.0, 0.5), 0.2
"""The two modes of a mixture, with weights 1/4 and 3/4."""


def gaussian(x, signal, noise):
    """E[x0 | x] for x = signal x0 + noise z and x0 ~ N(MEAN, SD^2)."""
    return MEAN + signal * SD**2 / (signal**2 * SD**2 + noise**2) * (x - signal * MEAN)


def mixture(x, signal, noise):
    """E[x0 | x] of the mixture."""
    variance = signal**2 * WIDTH**2 + noise**2
    score = [-0.5 * (x - signal * mode) ** 2 / variance for mode in MODES]
    share = tf.sigmoid(score[1] - score[0] + np.log(3.0))  # of the second mode
    means = [mode + signal * WIDTH**2 / variance * (x - signal * mode) for mode in MODES]
    return (1 - share) * means[0] + share * means[1]


def drawn(name, best, schedule=None, evaluations=200):
    """4,000 draws of a sampler with the best denoiser of the data."""
    rng = tf.random.Generator.from_seed(3)
    x = rng.normal((4000, 1), dtype=tf.float64)
    if name in ("euler", "heun"):
        times = samplers.flow_times(evaluations)
        course = tf.constant(times)
        if name == "heun":
            return samplers.heun(lambda x, time: best(x, 1 - time, time), x, times).numpy()[:, 0]
        return samplers.sample(lambda x, k: best(x, 1 - course[k], course[k]), x, samplers.euler(times)).numpy()[:, 0]
    if name in ("ddpm", "ddim1"):
        evaluations = schedule.steps  # the noise of each step is exact for short steps only
    alpha_bar = levels(spaced_steps(schedule.steps, evaluations), schedule)
    shares = tf.constant(alpha_bar)
    tables = {
        "ddpm": samplers.ddpm,
        "ddim": samplers.ddim,
        "ddim1": lambda levels: samplers.ddim(levels, 1.0),
        "dpmpp": samplers.dpmpp,
    }
    seeds = tf.constant([5, 6])

    def noise(k):
        return tf.random.stateless_normal((4000, 1), tf.random.experimental.stateless_fold_in(seeds, k), dtype=tf.float64)

    def denoise(x, k):
        return best(x, ops.sqrt(shares[k]), ops.sqrt(1 - shares[k]))

    return samplers.sample(denoise, x, tables[name](alpha_bar), noise).numpy()[:, 0]


EVERY = [
    *(
        (name, schedule)
        for name in ("ddpm", "ddim", "ddim1", "dpmpp")
        for schedule in (cosine(1000), zero_terminal_snr(linear(1000)))
    ),
    ("euler", None),
    ("heun", None),
]
NAMES = [
    f"{name}-{'' if schedule is None else 'zero' if schedule.alpha_bar[-1] == 0 else 'cosine'}" for name, schedule in EVERY
]


@pytest.mark.parametrize(("name", "schedule"), EVERY, ids=NAMES)
def test_a_gaussian_is_recovered(name, schedule):
    values = drawn(name, gaussian, schedule)
    # 4,000 draws: standard errors 0.008 and 0.006; first-order samplers miss the spread by their step
    assert abs(values.mean() - MEAN) < 0.03
    assert abs(values.std() - SD) < 0.02


@pytest.mark.parametrize(("name", "schedule"), EVERY, ids=NAMES)
def test_a_mixture_of_two_modes_is_recovered(name, schedule):
    values = drawn(name, mixture, schedule)
    upper = values > -0.25
    assert abs(upper.mean() - 0.75) < 0.025
    for mode, part in zip(MODES, (values[~upper], values[upper]), strict=True):
        assert abs(part.mean() - mode) < 0.03
        assert abs(part.std() - WIDTH) < 0.02


def test_six_steps_have_the_moments_that_their_table_gives_and_near_those_of_the_data():
    """DiffWave's fast sampler, from the noisy signals of its first level: with the best denoiser of a Gaussian each step is linear."""
    schedule = linear(50, last=0.05)
    alpha_bar = np.append(np.cumprod(1 - np.array(FAST_BETAS))[::-1], 1.0)
    assert (np.diff(aligned_steps(schedule, alpha_bar[:-1])) < 0).all()
    table = samplers.ddpm(alpha_bar)
    mean, variance = np.sqrt(alpha_bar[0]) * MEAN, alpha_bar[0] * SD**2 + 1 - alpha_bar[0]
    for (keep, data, _, noise), share in zip(table, alpha_bar[:-1], strict=True):
        slope = np.sqrt(share) * SD**2 / (share * SD**2 + 1 - share)
        mean = keep * mean + data * (MEAN + slope * (mean - np.sqrt(share) * MEAN))
        variance = (keep + data * slope) ** 2 * variance + noise**2
    assert mean == pytest.approx(MEAN, abs=1e-9)  # no step biases the mean; few steps lose some of the spread
    assert 0.6 * SD < np.sqrt(variance) < SD

    shares, rng = tf.constant(alpha_bar), np.random.default_rng(2)
    start = np.sqrt(alpha_bar[0]) * rng.normal(MEAN, SD, (20_000, 1)) + np.sqrt(1 - alpha_bar[0]) * rng.normal(size=(20_000, 1))
    fresh = tf.constant(rng.normal(size=(6, 20_000, 1)))

    def denoise(x, k):
        return gaussian(x, ops.sqrt(shares[k]), ops.sqrt(1 - shares[k]))

    values = samplers.sample(denoise, tf.constant(start), table, lambda k: fresh[k]).numpy()
    assert values.mean() == pytest.approx(mean, abs=0.01)
    assert values.std() == pytest.approx(np.sqrt(variance), abs=0.01)


def test_ddim_of_eta_1_over_all_steps_is_ddpm():
    """The same step, so the same moments, at every step but the last, where DDPM adds no noise and neither has DDIM any left."""
    for schedule in (linear(200), cosine(1000)):
        alpha_bar = levels(np.arange(schedule.steps)[::-1], schedule)
        np.testing.assert_allclose(samplers.ddim(alpha_bar, 1.0), samplers.ddpm(alpha_bar), atol=1e-9)


def test_flow_and_diffusion_agree_where_the_answer_is_known():
    """Both follow the same noise to the same place: x0 = mean + SD z, for the deterministic samplers."""
    z = tf.random.Generator.from_seed(3).normal((4000, 1), dtype=tf.float64).numpy()[:, 0]
    for name, schedule in (("dpmpp", zero_terminal_snr(linear(1000))), ("heun", None), ("euler", None)):
        np.testing.assert_allclose(drawn(name, gaussian, schedule), MEAN + SD * z, atol=0.02)


def test_heun_is_of_second_order_and_euler_of_first():
    z = tf.random.Generator.from_seed(3).normal((4000, 1), dtype=tf.float64).numpy()[:, 0]
    error = {
        (name, steps): np.abs(drawn(name, gaussian, None, steps) - MEAN - SD * z).max()
        for name in ("euler", "heun")
        for steps in (25, 50)
    }
    assert 1.7 < error["euler", 25] / error["euler", 50] < 2.3
    assert error["heun", 25] / error["heun", 50] > 3
    assert error["heun", 25] < error["euler", 50] / 5


def test_what_a_sampler_cannot_use_is_refused():
    with pytest.raises(ValueError, match="expected noise levels"):
        samplers.ddpm(np.array([0.9, 0.5, 1.0]))
    with pytest.raises(ValueError, match="adds noise at each step"):
        samplers.sample(lambda x, k: x, tf.zeros((1, 1)), samplers.ddpm(np.array([0.1, 0.9, 1.0])))
