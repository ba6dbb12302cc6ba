"""Noise schedules of diffusion models, as arrays (NumPy, float64).

Steps are counted from 0: step 0 is the first, smallest noise. `alpha_bar[t]` is the product of `1 - betas` up to step t, so that a
noisy signal is `sqrt(alpha_bar[t]) x0 + sqrt(1 - alpha_bar[t]) eps` (Ho et al. 2020, eq. 4).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """The variances of the noise that each step adds, and what follows from them."""

    betas: np.ndarray
    """`(steps,)` in (0, 1]."""

    def __post_init__(self):
        betas = np.asarray(self.betas, np.float64)
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas <= 1)).all():
            raise ValueError("expected betas (steps,) above 0 and at most 1")
        object.__setattr__(self, "betas", betas)

    @property
    def steps(self) -> int:
        """The number of noise levels."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """`(steps,)`: the share of the signal's power that is left."""
        return np.cumprod(1.0 - self.betas)

    @property
    def log_snr(self) -> np.ndarray:
        """`(steps,)`: log of the signal-to-noise ratio; minus infinity where no signal is left."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha_bar) - np.log1p(-self.alpha_bar)

    @property
    def posterior_variance(self) -> np.ndarray:
        """`(steps,)`: of x[t-1] given x[t] and x0 (Ho et al. 2020, eq. 7); 0 at step 0."""
        return self.betas * (1.0 - self._before) / (1.0 - self.alpha_bar)

    @property
    def posterior_mean(self) -> tuple[np.ndarray, np.ndarray]:
        """The factors `(steps,)` of x0 and of x[t] in the mean of x[t-1] given both (Ho et al. 2020, eq. 7)."""
        signal = self.betas * np.sqrt(self._before) / (1.0 - self.alpha_bar)
        noisy = (1.0 - self._before) * np.sqrt(1.0 - self.betas) / (1.0 - self.alpha_bar)
        return signal, noisy

    @property
    def _before(self) -> np.ndarray:
        return np.concatenate([[1.0], self.alpha_bar[:-1]])


def linear(steps: int, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Betas at equal distances, both ends included (Ho et al. 2020). Signal is left at the last step: 36 % of the amplitude for 200
    steps to 0.02, which `zero_terminal_snr` removes."""
    return Schedule(np.linspace(first, last, steps))


def cosine(steps: int, offset: float = 0.008, most: float = 0.999, shift: float = 1.0) -> Schedule:
    """Betas by which alpha_bar follows a squared cosine (Nichol & Dhariwal 2021, eq. 17), none above `most`.

    Args:
        steps: Noise levels.
        offset: Of the cosine's start.
        most: Limit of a beta.
        shift: Factor on the ratio of the signal's to the noise's amplitude at every step; below 1 more steps have much noise, where the
            coarse structure of long signals is decided (Hoogeboom et al. 2023, eq. 5).
    """
    course = np.cos(np.pi / 2 * (np.arange(steps + 1) / steps + offset) / (1 + offset)) ** 2
    course /= course[0]
    course = shift**2 * course / (shift**2 * course + 1 - course)
    return Schedule(np.minimum(1.0 - course[1:] / course[:-1], most))


def log_linear(steps: int, first: float = 6.0, last: float = -8.0) -> Schedule:
    """Betas by which the log of the signal-to-noise ratio falls at equal distances (the fixed schedule of Kingma et al. 2021).

    All scales get equal shares of the steps: in a 12-lead ECG the rhythm is decided from -6 to -3, and P waves stand out of what noise is
    left from 0 to 5, beyond most schedules.
    """
    alpha_bar = 1.0 / (1.0 + np.exp(-np.linspace(first, last, steps)))
    return Schedule(1.0 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]))


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """The schedule with sqrt(alpha_bar) shifted and scaled so that no signal is left at the last step (Lin et al. 2024, algorithm 1).

    Training then sees pure noise, which is where sampling starts. The noise tells nothing of the signal there: predict x0 or v.

    Raises:
        ValueError: if the schedule has one step only.
    """
    if schedule.steps < 2:
        raise ValueError(f"expected at least 2 noise levels, of which the last holds no signal, received {schedule.steps}")
    root = np.sqrt(schedule.alpha_bar)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return Schedule(1.0 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "log_linear": log_linear,
    "zero_terminal_snr": lambda *arguments, **options: zero_terminal_snr(linear(*arguments, **options)),
}
"""Schedules by name, as functions of the number of steps and their own options."""


def aligned_steps(schedule: Schedule, alpha_bar: np.ndarray) -> np.ndarray:
    """The fractional training steps with these noise levels, by linear interpolation of sqrt(alpha_bar) (Kong et al. 2021, appendix).

    Raises:
        ValueError: if a level is outside those of the schedule.
    """
    root, wanted = np.sqrt(schedule.alpha_bar), np.sqrt(np.asarray(alpha_bar, np.float64))
    if wanted.max() > root[0] * (1 + 1e-12) or wanted.min() < root[-1] * (1 - 1e-12):
        raise ValueError(
            f"expected noise levels (alpha_bar) from {root[-1] ** 2:.4g} to {root[0] ** 2:.6g}, those of the training; "
            f"received {wanted.min() ** 2:.4g} to {wanted.max() ** 2:.6g}"
        )
    return np.interp(-wanted, -root, np.arange(schedule.steps, dtype=np.float64))


def spaced_steps(steps: int, evaluations: int) -> np.ndarray:
    """`(evaluations,)` training steps for a sampler, from the last downwards at equal distances.

    Up to two thirds of the steps leave step 0 out; of more the last one rounds to it.

    Raises:
        ValueError: if there are more evaluations than steps, or none.
    """
    if not 1 <= evaluations <= steps:
        raise ValueError(
            f"expected 1 to {steps} sampling steps, as many as the training has noise levels; received {evaluations}"
        )
    return np.round(np.linspace(steps - 1, -1, evaluations + 1)[:-1]).astype(np.int64)
