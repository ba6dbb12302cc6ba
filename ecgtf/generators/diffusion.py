"""Denoising diffusion (Ho et al. 2020): signals are made noisy step by step, and a network learns the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from ecgtf.generators import samplers
from ecgtf.generators.checks import check_positive
from ecgtf.generators.denoiser import Denoiser
from ecgtf.generators.schedules import SCHEDULES, aligned_steps, spaced_steps

PREDICTIONS = ("eps", "x0", "v")
SAMPLERS = ("ddpm", "ddim", "dpmpp", "fast")
FAST_BETAS = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5)
"""DiffWave's six-step sampler (Kong et al. 2021, appendix)."""


def add_noise(x0, eps, alpha_bar):
    """The noisy signal (Ho et al. 2020, eq. 4); `alpha_bar` is its share of the signal's power."""
    return ops.sqrt(alpha_bar) * x0 + ops.sqrt(1 - alpha_bar) * eps


def target(prediction: str, x0, eps, alpha_bar):
    """What a network that predicts `eps`, `x0` or `v` is to tell of a noisy signal."""
    if prediction == "v":
        return ops.sqrt(alpha_bar) * eps - ops.sqrt(1 - alpha_bar) * x0
    return {"eps": eps, "x0": x0}[prediction]


def to_x0(prediction: str, output, x, alpha_bar):
    """The clean signal that follows from what a network tells of the noisy signal `x`."""
    if prediction == "v":
        return ops.sqrt(alpha_bar) * x - ops.sqrt(1 - alpha_bar) * output
    return output if prediction == "x0" else (x - ops.sqrt(1 - alpha_bar) * output) / ops.sqrt(alpha_bar)


@keras.saving.register_keras_serializable("ecgtf")
class Diffusion(Denoiser):
    """A diffusion model over any of the networks.

    Args:
        schedule: A key of `SCHEDULES`.
        schedule_options: Such as `first` and `last` beta of the linear one.
        prediction: What the network tells of a noisy signal: the noise `eps`, the clean signal `x0`, or `v`, sqrt(alpha_bar) eps -
            sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022).
        loss: `l1` or `l2`.
        min_snr: Weighs the squared error of x0 by min(SNR, this) (Hang et al. 2023, 5 there).
        v_limit: Weighs it by min(SNR + 1, this): as the error of v, but for little noise, of which a network that predicts x0 cannot
            learn more. Much noise, where the rhythm is decided, keeps its weight. Without either, errors of what is predicted count alike.
        The others: see `Denoiser`.
    """

    def __init__(
        self,
        *args,
        schedule: str = "cosine",
        schedule_options: Mapping[str, Any] | None = None,
        prediction: str = "v",
        loss: str = "l2",
        min_snr: float | None = None,
        v_limit: float | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        # a list, which JSON may give, cannot be looked up in a dictionary
        for name, value, known in (("schedule", schedule, tuple(SCHEDULES)), ("prediction", prediction, PREDICTIONS)):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; expected one of {', '.join(known)}")
        if loss not in ("l1", "l2"):
            raise ValueError(f"unknown loss {loss!r}; expected l1 or l2")
        self.schedule_name = schedule
        if None not in (min_snr, v_limit):
            raise ValueError("give min_snr or v_limit, not both")
        check_positive(min_snr=min_snr, v_limit=v_limit)
        self.prediction, self.loss_name, self.min_snr, self.v_limit = prediction, loss, min_snr, v_limit
        try:
            self.schedule_options = dict(schedule_options or {})
            self.schedule = SCHEDULES[schedule](self.noise_levels, **self.schedule_options)
        except TypeError as error:
            raise ValueError(f"expected options of the schedule {schedule}, received {schedule_options}: {error}") from error
        if prediction == "eps" and self.schedule.alpha_bar[-1] == 0:
            raise ValueError("with no signal left at the last step the noise tells nothing of it: predict x0 or v")

    def losses(self, values, noise, place, condition, known=None):
        """See `Denoiser`; the place between data and noise is the step."""
        step = ops.minimum(ops.floor(place * self.noise_levels), self.noise_levels - 1)  # a place may round to 1
        share = ops.take(ops.cast(self.schedule.alpha_bar, "float32"), ops.cast(step, "int32"))[:, None, None]
        output = self.predict_with_network(add_noise(values, noise, share), step, condition, known, values)
        error = output - target(self.prediction, values, noise, share)
        losses = self.mean_unknown(ops.abs(error) if self.loss_name == "l1" else ops.square(error), known)
        weights = ops.take(ops.cast(self.loss_weights(), "float32"), ops.cast(step, "int32"))
        return losses * weights, place

    def loss_weights(self) -> np.ndarray:
        """`(steps,)`: 1, or those of `min_snr` or `v_limit` for what is predicted (Hang et al. 2023, section 3.4)."""
        share = self.schedule.alpha_bar
        if self.min_snr is not None:
            of_x0 = np.minimum(share, self.min_snr * (1 - share))  # times 1 - alpha_bar, which may be 0
        elif self.v_limit is not None:
            of_x0 = np.minimum(1, self.v_limit * (1 - share))
        else:
            return np.ones(self.noise_levels)
        return of_x0 / {"eps": share, "x0": 1 - share, "v": np.ones_like(share)}[self.prediction]

    def sample(
        self,
        label,
        seed,
        *,
        guidance: float = 1.0,
        sampler: str = "dpmpp",
        steps: int | None = None,
        eta: float = 0.0,
        parts: int = 1,
    ):
        """Draws `(batch, time, leads)` millivolts for labels `(batch, classes)`; `seed` is a `(2,)` int32 tensor.

        Args:
            label: One-hot or multi-hot labels.
            seed: Seed of all draws.
            guidance: Weight of classifier-free guidance; 1 is the plain conditional model and costs half.
            sampler: `ddpm`, `ddim`, `dpmpp` (DPM-Solver++ 2M) or `fast` (DDPM on DiffWave's six noise levels).
            steps: Evaluations of the network; all noise levels for `ddpm`, 25 for the others unless given.
            eta: Noise of `ddim`: 0 none, 1 that of DDPM.
            parts: Equal parts of a record that are drawn one after another, each with as many steps, by a model that learnt with a
                `prefix`.
        """
        predict = self.guided(label, guidance)
        places, table = self.plan(sampler, steps, eta)
        roots = np.interp(places, np.arange(self.noise_levels), np.sqrt(self.schedule.alpha_bar))
        shares, of_step = ops.cast(roots**2, "float32"), ops.cast(places, "float32")

        def draw(start, noise, *known):
            def denoise(x, k):
                return to_x0(self.prediction, predict(x, of_step[k], *known), x, shares[k])

            return samplers.sample(denoise, start, table, noise)

        return self.to_signal(self.drawn_in_parts(label, seed, parts, draw))

    def plan(self, sampler: str, steps: int | None = None, eta: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """The training steps `(evaluations,)` that a sampler looks at and its table `(evaluations, 4)`.

        Raises:
            ValueError: if there is no such sampler, or the steps do not fit the training's.
        """
        if sampler == "fast":
            if steps not in (None, len(FAST_BETAS)):
                raise ValueError(f"the sampler fast takes {len(FAST_BETAS)} steps, received {steps}")
            levels = np.cumprod(1 - np.array(FAST_BETAS))
            try:
                places = aligned_steps(self.schedule, levels)[::-1]
            except ValueError as error:
                raise ValueError(f"the sampler fast is for DiffWave's own linear schedule: use dpmpp ({error})") from error
            return places, samplers.ddpm(np.append(levels[::-1], 1.0))
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}")
        places = spaced_steps(
            self.noise_levels, steps or (self.noise_levels if sampler == "ddpm" else min(25, self.noise_levels))
        )
        levels = np.append(self.schedule.alpha_bar[places], 1.0)
        tables = {"ddpm": samplers.ddpm, "ddim": lambda levels: samplers.ddim(levels, eta), "dpmpp": samplers.dpmpp}
        return places, tables[sampler](levels)

    def check_sampling(self, options: Mapping[str, Any]) -> None:
        """Refuses what `sample` cannot do; see `Generator`."""
        super().check_sampling(options)
        sampler, eta = options.get("sampler", "dpmpp"), options.get("eta", 0.0)
        if not 0 <= eta <= 1 or (eta and sampler != "ddim"):
            raise ValueError(
                f"expected an eta from 0 to 1, and of 0 for other samplers than ddim, received {eta} for {sampler}"
            )
        self.plan(sampler, options.get("steps"), eta)

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {
            "schedule": self.schedule_name,
            "schedule_options": self.schedule_options,
            "prediction": self.prediction,
            "loss": self.loss_name,
            "min_snr": self.min_snr,
            "v_limit": self.v_limit,
        }
