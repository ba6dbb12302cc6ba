"""The network of DiffWave (Kong et al. 2021): gated residual blocks of dilated convolutions; its class condition after SSSD-ECG
(Alcaraz & Strodthoff 2023)."""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from ecgtf.generators.checks import check_positive, check_whole
from ecgtf.generators.fused import convolution
from ecgtf.generators.step_embedding import StepEmbedding
from ecgtf.generators.transformer import ToldBlock

HEADS = 4
STEP_SIZE, STEP_WIDTH = 128, 512
"""Length of the step's sinusoids, and channels of the two layers behind them."""


@keras.saving.register_keras_serializable("ecgtf")
class DiffWave(layers.Layer):
    """Noisy signals `(batch, time, channels)`, steps `(batch,)` and condition vectors `(batch, condition_width)` to the same shape.

    Args:
        channels: Of the signals.
        width: Channels inside.
        depth: Residual blocks.
        cycle: Block i has dilation 2 ** (i mod cycle).
        steps: Number of noise levels.
        condition_width: Length of a condition vector; 0 for none.
        last_frequency: Of the step embedding. The published 10 000 tells whole steps apart like names; 1 / 10 000 makes near steps
            alike.
        blocks: Transformer blocks with rotary positions, spread evenly among the residual blocks; the published network has none, and
            a beat knows of others through many convolutions only.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        depth: int = 30,
        cycle: int = 10,
        steps: int = 50,
        condition_width: int = 128,
        last_frequency: float = 1e4,
        blocks: int = 0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # steps would lose their last digits in half precision
        check_whole(4, width=width)
        check_whole(depth=depth, cycle=cycle)
        check_whole(0, condition_width=condition_width, blocks=blocks)
        check_positive(last_frequency=last_frequency)
        if not 0 <= blocks < depth:  # what follows the last residual block does not reach the output
            raise ValueError(f"expected fewer transformer blocks than residual ones, {depth}, received blocks={blocks}")
        self.channels, self.width, self.depth, self.cycle = channels, width, depth, cycle
        self.steps, self.condition_width, self.last_frequency, self.blocks = steps, condition_width, last_frequency, blocks
        self.gradient_checkpointing = False

    def build(self, shape=None):
        """Creates the layers, in the order in which they work."""
        policy = {"dtype": self.dtype_policy}
        self.embedding = StepEmbedding(self.steps, STEP_SIZE, self.last_frequency)
        self.enter = _built(
            layers.Conv1D(self.width, 1, activation="relu", kernel_initializer="he_normal", **policy), self.channels
        )
        self.step_layers = [
            _built(layers.Dense(STEP_WIDTH, activation="silu", **policy), size) for size in (STEP_SIZE, STEP_WIDTH)
        ]
        dilations = [2 ** (number % self.cycle) for number in range(self.depth)]
        self.gated = [GatedBlock(self.width, dilation, self.condition_width, **policy) for dilation in dilations]
        self.attending = [ToldBlock(HEADS, STEP_WIDTH, self.width, **policy) for _ in range(self.blocks)]
        for block in (*self.gated, *self.attending):
            block.build()
        self.skip = _built(
            layers.Conv1D(self.width, 1, activation="relu", kernel_initializer="he_normal", **policy), self.width
        )
        self.leave = _built(layers.Conv1D(self.channels, 1, kernel_initializer="zeros", dtype="float32"), self.width)
        self.built = True

    def call(self, x, step, condition=None):
        """The network's output, float32."""
        x = self.enter(ops.cast(x, self.compute_dtype))
        state = self.embedding(step)
        for layer in self.step_layers:
            state = layer(state)
        skips = 0.0
        places = [(number + 1) * (self.depth - 1) // self.blocks - 1 for number in range(self.blocks)]
        attending = dict(zip(places, self.attending, strict=True))
        run = keras.remat if self.gradient_checkpointing else lambda block: block
        for number, block in enumerate(self.gated):
            x, skip = run(block)(x, state, condition)
            skips = skips + skip
            if number in attending:
                x = run(attending[number])(x, state)
        return self.leave(self.skip(skips / math.sqrt(self.depth)))

    def compute_output_shape(self, shape, *_):
        """The input's shape."""
        return shape

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        names = ("channels", "width", "depth", "cycle", "steps", "condition_width", "last_frequency", "blocks")
        return super().get_config() | {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable("ecgtf")
class GatedBlock(layers.Layer):
    """A dilated convolution of three taps behind the step, a gate, and the two halves of what comes out: residual and skip.

    Args:
        width: Channels.
        dilation: Samples between the taps.
        condition_width: Length of a condition vector; 0 for none.
    """

    def __init__(self, width: int, dilation: int, condition_width: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.width, self.dilation, self.condition_width = width, dilation, condition_width

    def build(self, shape=None):
        """Creates the layers."""
        policy = {"dtype": self.dtype_policy}
        self.step = _built(layers.Dense(self.width, **policy), STEP_WIDTH)
        dilated = layers.Conv1D(2 * self.width, 3, dilation_rate=self.dilation, kernel_initializer="he_normal", **policy)
        self.taps = _built(dilated, self.width)
        self.leave = _built(layers.Conv1D(2 * self.width, 1, kernel_initializer="he_normal", **policy), self.width)
        if self.condition_width:
            self.condition = _built(layers.Dense(2 * self.width, use_bias=False, **policy), self.condition_width)
        self.built = True

    def call(self, x, state, condition=None):
        """`(batch, time, width)` to the same, and the block's skip."""
        told = self.taps.bias[None]
        if self.condition_width:
            told = told + self.condition(condition)
        x_told = x + self.step(state)[:, None]
        # A product for each half: to split what one product for both gives would go over memory four times more.
        (gate_taps, signal_taps), (gate_told, signal_told) = (ops.split(part, 2, axis=-1) for part in (self.taps.kernel, told))
        gate = ops.sigmoid(convolution(x_told, gate_taps, dilation=self.dilation) + gate_told[:, None])
        signal = ops.tanh(convolution(x_told, signal_taps, dilation=self.dilation) + signal_told[:, None])
        opened = gate * signal
        shares = (math.sqrt(0.5), 1.0)  # of the residual, of the skip; the factors go to the weights, which are small
        kernels, biases = (ops.split(part, 2, axis=-1) for part in (self.leave.kernel[0], self.leave.bias))
        halves = zip(kernels, biases, shares, strict=True)
        residual, skip = (ops.matmul(opened, kernel * share) + bias * share for kernel, bias, share in halves)
        return x * math.sqrt(0.5) + residual, skip

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {
            "width": self.width,
            "dilation": self.dilation,
            "condition_width": self.condition_width,
        }


def _built(layer, channels: int):
    """The layer with its weights for this many channels."""
    layer.build((None, channels) if isinstance(layer, layers.Dense) else (None, None, channels))
    return layer
