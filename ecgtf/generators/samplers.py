"""Samplers of diffusion and flow models: from noise to signals with a given model, in one loop that compiles to one graph.

A model is a function `denoise(x, k) -> x0`: the clean signal that it sees in `x` `(batch, ...)` at evaluation k. Every sampler of
one evaluation a step is a table `(evaluations, 4)` of the factors in

    x <- keep x + data x0 + before (the previous x0) + noise z,    z ~ N(0, I),

computed once in float64; so a new sampler is a new table. Noise levels are `alpha_bar`, the share of the signal's power that is
left, in falling order of noise, ending with 1: `(evaluations + 1,)`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from keras import ops


def ddpm(alpha_bar: np.ndarray) -> np.ndarray:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), with the posterior's variance: no noise at the end.

    The levels may be any subset of the training's; with all of them it is the published sampler, with those of six betas DiffWave's
    fast one (Kong et al. 2021).
    """
    now, following = _levels(alpha_bar)
    alpha = now / following
    keep = np.sqrt(alpha) * (1 - following) / (1 - now)
    data = np.sqrt(following) * (1 - alpha) / (1 - now)
    noise = np.sqrt((1 - alpha) * (1 - following) / (1 - now))
    return np.stack([keep, data, np.zeros_like(keep), noise], axis=1)


def ddim(alpha_bar: np.ndarray, eta: float = 0.0) -> np.ndarray:
    """DDIM (Song et al. 2021, eq. 12 and 16): deterministic with `eta` 0, of DDPM's moments with 1."""
    now, following = _levels(alpha_bar)
    noise = eta * np.sqrt((1 - following) / (1 - now) * (1 - now / following))
    keep = np.sqrt(np.maximum(1 - following - noise**2, 0.0) / (1 - now))
    data = np.sqrt(following) - keep * np.sqrt(now)
    return np.stack([keep, data, np.zeros_like(keep), noise], axis=1)


def dpmpp(alpha_bar: np.ndarray) -> np.ndarray:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order at one evaluation a step; the first and the last are of first order."""
    now, following = _levels(alpha_bar)
    with np.errstate(divide="ignore"):
        half_log_snr = 0.5 * (np.log(np.append(now, 1.0)) - np.log1p(-np.append(now, 1.0)))
    width = np.diff(half_log_snr)
    keep = np.sqrt((1 - following) / (1 - now))
    whole = np.sqrt(following) - keep * np.sqrt(now)  # -alpha (exp(-h) - 1), which stays finite at both ends
    extra = np.zeros_like(whole)
    extra[1:-1] = 0.5 * width[1:-1] / width[:-2]  # 1 / (2 r)
    return np.stack([keep, whole * (1 + extra), -whole * extra, np.zeros_like(keep)], axis=1)


def euler(times: np.ndarray) -> np.ndarray:
    """Euler steps of a flow along straight paths x(t) = (1 - t) x0 + t z (Lipman et al. 2023), as a table like the others.

    Args:
        times: `(evaluations + 1,)`, falling from 1, noise, to 0, data.
    """
    now, following = times[:-1], times[1:]
    keep = following / now
    zero = np.zeros_like(keep)
    return np.stack([keep, 1 - keep, zero, zero], axis=1)


def sample(denoise: Callable, x, table: np.ndarray, noise: Callable[[object], object] | None = None):
    """Runs a table: from `x` `(batch, ...)` of noise to signals of the same shape.

    Args:
        denoise: Gives x0 `(batch, ...)` of `x` at evaluation k, an int32 tensor `()`.
        x: Standard normal noise; its type is that of all that is computed.
        table: `(evaluations, 4)` as the functions above give it.
        noise: `noise(k)` gives the standard normal noise of evaluation k, shaped as `x`; needed where the table has any.

    Raises:
        ValueError: if the table needs noise and there is none.
    """
    if table[:, 3].any() and noise is None:
        raise ValueError("this sampler adds noise at each step: expected a function that gives it")
    factors = ops.cast(table, x.dtype)

    def step(k, state):
        x, before = state
        keep, data, earlier, fresh = (factors[k, column] for column in range(4))
        x0 = denoise(x, k)
        following = keep * x + data * x0
        if table[:, 2].any():
            following = following + earlier * before
        if table[:, 3].any():
            following = following + fresh * noise(k)
        return following, x0

    return ops.fori_loop(0, len(table), step, (x, ops.zeros_like(x)))[0]


def heun(denoise: Callable, x, times: np.ndarray):
    """Heun's method for a flow along straight paths, of second order at two evaluations a step (one in the last).

    Args:
        denoise: Gives x0 `(batch, ...)` of `x` at a time.
        x: Standard normal noise.
        times: `(steps + 1,)`, falling from 1 to 0.
    """
    course = ops.cast(np.asarray(times, np.float64), x.dtype)

    def velocity(x, time):
        return (x - denoise(x, time)) / time

    def step(k, x):
        now, following = course[k], course[k + 1]
        first = velocity(x, now)
        guess = x + (following - now) * first
        return x + (following - now) * 0.5 * (first + velocity(guess, following))

    x = ops.fori_loop(0, len(times) - 2, step, x)
    return denoise(x, course[len(times) - 2])  # an Euler step to time 0, where the velocity cannot be told from x0


def flow_times(evaluations: int) -> np.ndarray:
    """`(evaluations + 1,)` times at equal distances from 1 to 0."""
    return np.linspace(1.0, 0.0, evaluations + 1)


def _levels(alpha_bar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The noise levels of the evaluations and those that follow them."""
    alpha_bar = np.asarray(alpha_bar, np.float64)
    if (
        alpha_bar.ndim != 1
        or len(alpha_bar) < 2
        or alpha_bar[-1] != 1
        or not (np.diff(alpha_bar) > 0).all()
        or alpha_bar[0] < 0
    ):
        raise ValueError("expected noise levels (alpha_bar) that rise from 0 or more to 1, the clean signal")
    return alpha_bar[:-1], alpha_bar[1:]
