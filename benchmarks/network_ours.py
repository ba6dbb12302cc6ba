"""ecgtf's diffusion generators as a worker, for `train_step.py` and `draw.py`."""

from __future__ import annotations

import sys
from functools import lru_cache

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from workers import seconds, serve

from ecgtf.ecg import LEADS
from ecgtf.generators.diffusion import Diffusion
from ecgtf.generators.diffwave import DiffWave
from ecgtf.generators.time_diffusion import UNet
from ecgtf.precision import set_precision
from ecgtf.training import make_optimizer

SIZES = {
    "unet": ("timediffusion", {"width": 64, "multipliers": [1, 2, 4, 8]}, 1000),
    "diffwave": ("diffwave", {"width": 64, "depth": 20, "cycle": 10}, 50),
}
LIKE_THE_PEER = {
    "unet": lambda: UNet(8, conditional=False),
    "diffwave": lambda: DiffWave(8, depth=20, condition_width=0),
}
"""The networks without the condition, which the peers do not have."""


def _order(name: str, key: str) -> tuple:
    """Where a parameter of the peer stands in our network, whose weights are in the order in which they work."""
    part = key.split(".")
    if name == "unet":
        stages = (
            "init_conv",
            "time_mlp",
            "downs",
            "mid_block1",
            "mid_attn",
            "mid_block2",
            "ups",
            "final_res_block",
            "final_conv",
        )
        place = tuple(map(int, part[1:3])) if part[0] in ("downs", "ups") else ()
        return stages.index(part[0]), *place, "fn.fn." in key  # the norm before an attention comes after it there
    stages = ("enter", "embedding", "blocks", "skip", "leave")
    inside = ("diffusion_projection", "dilated_conv", "output_projection")
    return stages.index(part[0]), *((int(part[1]), inside.index(part[2])) if part[0] == "blocks" else ())


def _converted(value: np.ndarray) -> np.ndarray:
    """A parameter of PyTorch as Keras holds it."""
    if value.ndim == 3 and value.shape[0] == value.shape[2] == 1:  # a norm's gain
        return value.reshape(-1)
    return value.transpose(2, 1, 0) if value.ndim == 3 else value.T


def main() -> None:
    name, precision, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    set_precision(precision)
    network, options, levels = SIZES[name]
    generator = Diffusion(
        LEADS,
        1000,
        100.0,
        [1.0] * len(LEADS),
        classes=("AFIB", "SR"),
        task="benchmark",
        network=network,
        network_options=options,
        noise_levels=levels,
        schedule="linear",
        prediction="eps",
    )
    generator.compile(make_optimizer(1e-4, 1000))
    generator.optimizer.build(generator.trainable_variables)
    signals = tf.random.normal((batch, 1000, len(LEADS)))
    labels = tf.one_hot(tf.zeros(batch, tf.int32), 2)
    step = tf.function(lambda: generator.train_step((signals, labels))["loss"])

    def losses(weights: str, given: str) -> list[float]:
        """Of the bare network on given batches from given weights, as the peer trains it."""
        network = LIKE_THE_PEER[name]()
        network.build()
        peer = np.load(weights)
        keys = sorted(peer.files, key=lambda key: _order(name, key))  # a stable order: within a part it is the same
        network.set_weights([_converted(peer[key]) for key in keys])
        optimizer = keras.optimizers.Adam(1e-4, beta_2=0.999, epsilon=1e-8)
        optimizer.build(network.trainable_variables)

        @tf.function
        def train(x, noise, level, at):
            with tf.GradientTape() as tape:
                output = network(ops.sqrt(level) * x + ops.sqrt(1 - level) * noise, at)
                loss = ops.mean((output - noise) ** 2)
            gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, network.trainable_variables), 1.0)
            optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
            return loss

        batches = np.load(given)
        turned = [np.swapaxes(batches[key], 2, 3) for key in ("x", "noise")]
        found = zip(*turned, batches["level"], batches["at"].astype(np.float32), strict=True)
        return [float(train(*map(tf.constant, one))) for one in found]

    @lru_cache
    def sampler(evaluations: int):
        draw = tf.function(lambda seed: generator.sample(labels, seed, sampler="ddim", steps=evaluations))
        draw(tf.constant([0, 0]))  # compiles
        return draw

    def draw(evaluations: int) -> float:
        """Seconds of DDIM with so many evaluations of the network."""
        compiled = sampler(evaluations)
        return seconds(lambda: compiled(tf.constant([0, 1])).numpy())

    serve({"draw": draw, "steps": lambda times: seconds(lambda: step().numpy(), times), "losses": losses})


if __name__ == "__main__":
    main()
