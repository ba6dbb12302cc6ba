"""What diffusion and flow models share: a network that sees a noisy signal, its step and its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from ecgtf.conditions import columns
from ecgtf.generators.base import Generator, draws
from ecgtf.generators.checks import check_share, check_whole
from ecgtf.generators.condition import CONDITION_DROP, Condition, Guided
from ecgtf.generators.diffwave import DiffWave
from ecgtf.generators.time_diffusion import UNet

NETWORKS: dict[str, type[keras.layers.Layer]] = {"diffwave": DiffWave, "timediffusion": UNet}
"""Networks by name."""

LEVELS = 4
"""Ranges of noise whose losses are logged apart, from little noise to much."""


class Denoiser(Generator):
    """A generator from noise. Subclasses say how signals are made noisy, what is learnt of them, and how they are drawn.

    Args:
        leads, samples, sampling_rate, scale, model_leads, seed, clip_norm: See `Generator`.
        classes: Names of the classes, in the order of the label vector.
        task: Name of the task the labels come from.
        network: A key of `NETWORKS`.
        network_options: Its sizes.
        patch: Samples that the network sees as one, as channels: 4 makes it four times as fast at the same width.
        noise_levels: Steps that the network tells apart.
        label_drop: Share of training records whose label is hidden (for classifier-free guidance).
        conditions: Of `ecgtf.conditions`, whose columns follow the classes in a label.
        prefix: Share of training records whose beginning, of a random length, the network sees without noise. It learns to go on with
            beats of the same kind at the same pace, and a record can be drawn in parts, each knowing those before it.
        gradient_checkpointing: Whether what happens inside the network's blocks is computed again for the gradient rather than kept:
            less memory for a longer step of the same values. It is a matter of a training, and not saved with the model.
    """

    term_names = ("loss", *(f"loss_level_{level + 1}" for level in range(LEVELS)))

    def __init__(
        self,
        leads: Sequence[str],
        samples: int,
        sampling_rate: float,
        scale: Sequence[float],
        *,
        classes: Sequence[str],
        task: str,
        network: str = "timediffusion",
        network_options: Mapping[str, Any] | None = None,
        patch: int = 1,
        noise_levels: int = 1000,
        label_drop: float = 0.1,
        conditions: Sequence[str] = (),
        prefix: float = 0.0,
        gradient_checkpointing: bool = False,
        **kwargs,
    ):
        super().__init__(leads, samples, sampling_rate, scale, **kwargs)
        if network not in NETWORKS:
            raise ValueError(f"unknown network {network!r}; expected one of {', '.join(NETWORKS)}")
        check_whole(patch=patch, noise_levels=noise_levels)
        check_share(label_drop=label_drop, prefix=prefix)
        self.classes, self.task = tuple(classes), task
        self.network_name = network
        self.network_options = {  # as they come back from a file
            name: list(value) if isinstance(value, tuple) else value for name, value in (network_options or {}).items()
        }
        self.patch, self.noise_levels, self.label_drop, self.prefix = patch, noise_levels, label_drop, prefix
        channels = (len(self.modelled_leads) + (prefix > 0)) * patch  # what is known is told in a channel of its own
        _check_known(network, self.network_options)
        self.network = NETWORKS[network](channels, steps=noise_levels, name="network", **self.network_options)
        self.network.build()
        self.network.gradient_checkpointing = gradient_checkpointing
        self.conditions = tuple(conditions)
        more = [columns(name) for name in self.conditions]
        self.condition = Condition(len(self.classes), self.network.condition_width, more, spread=0.5, seed=self.seed)

    def loss_terms(self, signal, label, seed, training: bool) -> dict:
        """The mean loss, and for each range of noise the sum of its losses and their number."""
        values = self.to_model(signal)
        batch, uniform = ops.shape(values)[0], draws(seed)
        hidden = known = None
        if training:
            if self.prefix:
                length = uniform(5, (batch,)) * tf.cast(uniform(4, (batch,)) < self.prefix, tf.float32)
                known = self.known_until(length)
            hidden = uniform(0, (batch,)) < self.label_drop
            label = self.condition.without_some(label, uniform(3, (batch, len(self.conditions) + 1)), CONDITION_DROP)
        # one draw in each of `batch` equal parts of [0, 1): every batch sees all noise levels (Kingma et al. 2021, appendix I.1)
        place = (tf.range(batch, dtype=tf.float32) + uniform(1, (batch,))) / tf.cast(batch, tf.float32)
        noise = tf.random.stateless_normal(tf.shape(values), tf.random.experimental.stateless_fold_in(seed, 2))
        losses, level = self.losses(values, noise, place, self.condition(label, hidden), known)
        of_level = tf.one_hot(tf.minimum(tf.cast(level * LEVELS, tf.int32), LEVELS - 1), LEVELS)
        sums, numbers = tf.reduce_sum(of_level * losses[:, None], 0), tf.reduce_sum(of_level, 0)
        return {"loss": ops.mean(losses)} | {name: (sums[k], numbers[k]) for k, name in enumerate(self.term_names[1:])}

    def known_until(self, share):
        """`(batch, time, 1)`: 1 in this share `(batch,)` of the time, below 1, of each record from its start, 0 after it."""
        return ops.cast(
            ops.arange(self.samples)[None, :, None] < ops.cast(share * self.samples, "int32")[:, None, None], "float32"
        )

    def losses(self, values, noise, place, condition, known=None):
        """Losses `(batch,)` of modelled leads `(batch, time, channels)`, and where each lies between data, 0, and noise, 1.

        Args:
            values: Clean signals in units of SD.
            noise: Standard normal noise of the same shape.
            place: `(batch,)` uniform in [0, 1): decides on the noise level.
            condition: `(batch, width)`.
            known: `(batch, time, 1)`, 1 where the network sees the clean signal, for which there is no loss; None is nowhere.
        """
        raise NotImplementedError

    def mean_unknown(self, values, known=None):
        """`(batch,)` means of `(batch, time, channels)` over the time that was not known."""
        if known is None:
            return ops.mean(values, axis=(1, 2))
        return ops.sum(ops.mean(values, axis=2) * (1 - known[..., 0]), axis=1) / ops.sum(1 - known[..., 0], axis=1)

    def predict_with_network(self, x, step, condition, known=None, clean=None):
        """The network's output for noisy signals `(batch, time, channels)` at steps `(batch,)`, which are `clean` where `known`."""
        batch, time, leads = ops.shape(x)[0], x.shape[1], x.shape[2]
        if known is not None:
            x = ops.where(known > 0, clean, x)
        if self.prefix:
            x = ops.concatenate(
                [x, ops.zeros_like(x[..., :1]) if known is None else ops.broadcast_to(known, (batch, time, 1))], axis=-1
            )
        channels = x.shape[2]
        padded = ops.pad(x, [[0, 0], [0, -time % self.patch], [0, 0]])
        patches = ops.reshape(padded, (batch, padded.shape[1] // self.patch, self.patch * channels))
        output = ops.reshape(self.network(patches, step, condition), (batch, padded.shape[1], channels))
        return output[:, :time, :leads]

    def guided(self, label, guidance: float):
        """A function `(x, step (), known, clean) -> output` of the network for these labels, with guidance in one call on twice the
        batch."""
        asked = Guided(self.condition, label, guidance)

        def predict(x, step, known=None, clean=None):
            x, clean = asked.doubled(x), None if clean is None else asked.doubled(clean)
            steps = ops.broadcast_to(step, (ops.shape(x)[0],))
            return asked.joined(self.predict_with_network(x, steps, asked.vectors, known, clean))

        return predict

    def noise_for(self, label, seed):
        """The noise that sampling starts from, and a function that gives that of evaluation k."""
        shape = (label.shape[0], self.samples, len(self.modelled_leads))

        def normal(k):
            return tf.random.stateless_normal(shape, tf.random.experimental.stateless_fold_in(seed, k))

        return normal(-1), normal

    def drawn_in_parts(self, label, seed, parts: int, draw: Callable):
        """What `draw(start, noise, known, clean)` makes of noise: in one go, or in equal parts one after another.

        Each part is drawn with all that follow it, of which nothing is kept, in the sight of those before it.
        """
        if parts == 1:
            return draw(*self.noise_for(label, seed))

        def part(k, clean):
            known = self.known_until(ops.cast(k, "float32")[None] / parts)
            start, noise = self.noise_for(label, tf.random.experimental.stateless_fold_in(seed, -2 - k))
            return ops.where(known > 0, clean, draw(start, noise, known, clean))

        return ops.fori_loop(0, parts, part, ops.zeros((label.shape[0], self.samples, len(self.modelled_leads))))

    def check_sampling(self, options: Mapping[str, Any]) -> None:
        """Refuses what `sample` cannot do; see `Generator`."""
        super().check_sampling(options)
        steps = options.get("steps")
        if steps is not None and (not isinstance(steps, Integral) or steps < 1):
            raise ValueError(f"expected one number of sampling steps, 1 or more evaluations of the network, received {steps}")
        parts = options.get("parts", 1)
        if not isinstance(parts, Integral) or not 1 <= parts <= self.samples or (parts > 1 and not self.prefix):
            raise ValueError(
                f"expected 1 part, or up to {self.samples} of a generator that was trained with a prefix, received {parts}"
            )

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {
            "classes": list(self.classes),
            "task": self.task,
            "network": self.network_name,
            "network_options": self.network_options,
            "patch": self.patch,
            "noise_levels": self.noise_levels,
            "label_drop": self.label_drop,
            "conditions": list(self.conditions),
            "prefix": self.prefix,
        }


def _check_known(network: str, options: Mapping[str, Any]) -> None:
    """Refuses options that the network does not take; the number of steps is that of the noise levels."""
    parameters = inspect.signature(NETWORKS[network].__init__).parameters.values()
    known = [
        parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "steps"
    ]
    for name in options:
        if name not in known:
            raise ValueError(f"{network} has no network option {name!r}; expected one of {', '.join(known)}")
