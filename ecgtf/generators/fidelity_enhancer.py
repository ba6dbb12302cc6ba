"""Time-VQVAE, stage 3: a small U-Net that takes from a drawn signal what the codebooks left in it (Lee et al., AISTATS 2023, section 3.3).

It learns from records and their reconstructions from tokens that are drawn, not chosen: a code is the likelier the nearer it is, by
which reconstructions have the faults of a prior's tokens, which do not fit together exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from ecgtf.generators.base import Generator
from ecgtf.generators.checks import check_weight, check_wholes
from ecgtf.generators.time_diffusion import UNet
from ecgtf.generators.token_prior import TokenPrior


@keras.saving.register_keras_serializable("ecgtf")
class FidelityEnhancer(Generator):
    """A trained Time-VQVAE with the enhancer behind it.

    Args:
        prior: A trained `TokenPrior`; it is frozen.
        width: Channels of the U-Net's first level.
        multipliers: Channels of each level, in units of `width`.
        temperature: Of the codes drawn in training, in units of the mean squared distance of a vector to its nearest code; 0 takes
            the nearest.
    """

    def __init__(
        self,
        prior: TokenPrior,
        *,
        width: int = 8,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        temperature: float = 1.0,
        **kwargs,
    ):
        shared = {"leads", "samples", "sampling_rate", "scale", "model_leads"}
        super().__init__(**({name: getattr(prior, name) for name in shared} | kwargs))
        check_weight(temperature=temperature)
        check_wholes(multipliers=multipliers)
        self.prior = prior
        self.prior.trainable = False
        self.classes, self.conditions, self.task = prior.classes, prior.conditions, prior.task
        self.width, self.multipliers, self.temperature = width, tuple(multipliers), float(temperature)
        self.network = UNet(
            len(self.modelled_leads), width=width, multipliers=self.multipliers, steps=1, conditional=False, name="network"
        )
        self.network.build()  # whose last weights are zeros: it changes nothing at the start

    def enhance(self, signal):
        """Millivolts `(batch, time, leads)` as the tokens give them to those that the enhancer makes of them."""
        return self.to_signal(self._enhanced(self.to_model(signal)))

    def _enhanced(self, values):
        return values + self.network(values, ops.zeros((ops.shape(values)[0],)))

    def loss_terms(self, signal, label, seed, training: bool) -> dict:
        """The mean absolute error in units of SD (`label` is not used)."""
        rebuilt = ops.stop_gradient(self.to_model(self.prior.tokenizer.reconstruct_at(signal, self.temperature, seed)))
        return {"loss": ops.mean(ops.abs(self._enhanced(rebuilt) - self.to_model(signal)))}

    def sample(
        self,
        label,
        seed,
        *,
        guidance: float = 1.0,
        steps: tuple[int, int] = (10, 10),
        temperature: tuple[float, float] = (4.0, 4.0),
        sharpness: float = 1.0,
    ):
        """Draws `(batch, time, leads)` millivolts as `TokenPrior.sample` does, whose arguments these are, enhanced."""
        drawn = self.prior.sample(label, seed, guidance=guidance, steps=steps, temperature=temperature, sharpness=sharpness)
        return self.enhance(drawn)

    def check_sampling(self, options: Mapping[str, Any]) -> None:
        """Refuses what `sample` cannot do; see `Generator`."""
        self.prior.check_sampling(options)

    def get_config(self) -> dict:
        """The arguments of `__init__`, with the prior's own configuration inside."""
        config = super().get_config()
        return {name: config[name] for name in ("seed", "clip_norm", "name")} | {
            "prior": keras.saving.serialize_keras_object(self.prior),
            "width": self.width,
            "multipliers": list(self.multipliers),
            "temperature": self.temperature,
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the enhancer with its prior."""
        return cls(keras.saving.deserialize_keras_object(config.pop("prior")), **config)
