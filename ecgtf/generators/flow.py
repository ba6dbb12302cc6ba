"""Flow matching along straight paths (Lipman et al. 2023; Liu et al. 2023): a network learns the velocity from data to noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ecgtf.generators import samplers
from ecgtf.generators.checks import check_positive
from ecgtf.generators.denoiser import Denoiser

SAMPLERS = ("euler", "heun")
_STEEPEST = 400.0
"""Limit on 1 / t^2 unless one is given: that of t = 1 / 20."""


@keras.saving.register_keras_serializable("ecgtf")
class FlowMatching(Denoiser):
    """A flow over any of the networks: x(t) = (1 - t) x0 + t z has the velocity z - x0.

    Args:
        times: How training times are drawn: `logit_normal`, more of them in the middle (Esser et al. 2024), or `uniform`.
        prediction: What the network tells: the `velocity`, or the clean signal `x0`, from which it follows. Noise has as many
            dimensions as a patch has samples and leads, and a narrow network cannot tell a velocity, which holds it (Li & He 2025).
        v_limit: With x0, limit on the weight 1 / t^2 that makes the squared error of x0 that of the velocity.
        The others: see `Denoiser`.
    """

    def __init__(
        self, *args, times: str = "logit_normal", prediction: str = "velocity", v_limit: float | None = None, **kwargs
    ):
        super().__init__(*args, **kwargs)
        if prediction not in ("velocity", "x0"):
            raise ValueError(f"unknown prediction {prediction!r} of flow matching; expected velocity or x0")
        if prediction == "velocity" and v_limit is not None:
            raise ValueError("v_limit is for prediction x0")
        if times not in ("logit_normal", "uniform"):
            raise ValueError(f"unknown times {times!r}; expected logit_normal or uniform")
        check_positive(v_limit=v_limit)
        self.times, self.prediction, self.v_limit = times, prediction, v_limit

    def losses(self, values, noise, place, condition, known=None):
        """See `Denoiser`."""
        # the logit-normal quantile of a uniform place
        time = tf.sigmoid(tf.math.ndtri(tf.clip_by_value(place, 1e-6, 1 - 1e-6))) if self.times == "logit_normal" else place
        spread = time[:, None, None]
        noisy = (1 - spread) * values + spread * noise
        output = self.predict_with_network(noisy, time * (self.noise_levels - 1), condition, known, values)
        if self.prediction == "velocity":
            return self.mean_unknown(ops.square(output - (noise - values)), known), time
        weight = ops.minimum(1 / ops.square(time), _STEEPEST if self.v_limit is None else self.v_limit)
        return weight * self.mean_unknown(ops.square(output - values), known), time

    def sample(self, label, seed, *, guidance: float = 1.0, sampler: str = "heun", steps: int = 25, parts: int = 1):
        """Draws `(batch, time, leads)` millivolts for labels `(batch, classes)`; `seed` is a `(2,)` int32 tensor.

        Args:
            label: One-hot or multi-hot labels.
            seed: Seed of all draws.
            guidance: Weight of classifier-free guidance; 1 is the plain conditional model and costs half.
            sampler: `euler` or `heun`.
            steps: Evaluations of the network; Heun's method, which takes two a step and one in the last, makes an even number odd.
            parts: See `Diffusion.sample`.
        """
        predict = self.guided(label, guidance)
        times = samplers.flow_times(steps // 2 + 1 if sampler == "heun" else steps)
        course = ops.cast(times, "float32")

        def draw(start, _, *known):
            def denoise(x, time):
                output = predict(x, time * (self.noise_levels - 1), *known)
                return output if self.prediction == "x0" else x - time * output

            if sampler == "heun":
                return samplers.heun(denoise, start, times)
            return samplers.sample(lambda x, k: denoise(x, course[k]), start, samplers.euler(times))

        return self.to_signal(self.drawn_in_parts(label, seed, parts, draw))

    def check_sampling(self, options: Mapping[str, Any]) -> None:
        """Refuses what `sample` cannot do; see `Generator`."""
        super().check_sampling(options)
        sampler = options.get("sampler", "heun")
        if sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {sampler!r} of flow matching; expected one of {', '.join(SAMPLERS)}")

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {"times": self.times, "prediction": self.prediction, "v_limit": self.v_limit}
