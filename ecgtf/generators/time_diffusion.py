"""The network of Time-Diffusion: a one-dimensional U-Net with attention, after Ho et al. (2020) and Dhariwal & Nichol (2021), linear
attention after Shen et al. (2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import keras
import numpy as np
from keras import layers, ops

from ecgtf.generators.checks import check_whole, check_wholes
from ecgtf.generators.fused import convolution, inverse_length, norm_silu, upsampled_convolution
from ecgtf.generators.step_embedding import StepEmbedding
from ecgtf.generators.transformer import ToldBlock

HEADS, HEAD_SIZE = 4, 32
ENTER_TAPS = 7


@keras.saving.register_keras_serializable("ecgtf")
class UNet(layers.Layer):
    """Noisy signals `(batch, time, channels)`, steps `(batch,)` and condition vectors `(batch, condition_width)` to the same shape.

    A signal of a length that the halvings do not divide is continued, and what comes out is cut.

    Args:
        channels: Of the signals.
        width: Channels of the first level.
        multipliers: Channels of each level, in units of `width`; each level but the last halves the time resolution.
        steps: Number of noise levels.
        conditional: Whether condition vectors are added to the step's.
        blocks: Transformer blocks with rotary positions in the middle, in place of the published plain attention, which does not know
            how far apart two beats are (for a transformer in the middle: Hoogeboom et al. 2023).
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        steps: int = 1000,
        conditional: bool = True,
        blocks: int = 0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # steps would lose their last digits in half precision
        check_whole(4, width=width)
        if width % 2:
            raise ValueError(f"expected an even width, of which half are sines of the step, received {width}")
        check_wholes(multipliers=multipliers)
        check_whole(0, blocks=blocks)
        self.channels, self.width, self.multipliers = channels, width, tuple(multipliers)
        self.steps, self.conditional, self.blocks = steps, conditional, blocks
        self.condition_width = 4 * width if conditional else 0
        self.multiple = 2 ** (len(self.multipliers) - 1)
        self.gradient_checkpointing = False

    def build(self, shape=None):
        """Creates the layers, in the order in which they work."""
        policy = {"dtype": self.dtype_policy}
        widths = [self.width, *(self.width * multiplier for multiplier in self.multipliers)]
        pairs = list(pairwise(widths))
        state, last = 4 * self.width, len(pairs) - 1
        self.enter = _convolution(ENTER_TAPS, self.channels, self.width, **policy)
        self.embedding = StepEmbedding(self.steps, self.width, 1e-4)
        gelu = lambda x: ops.gelu(x, approximate=False)  # noqa: E731
        self.state = [layers.Dense(state, activation=gelu, **policy), layers.Dense(state, **policy)]
        self.state[0].build((None, self.width))
        self.state[1].build((None, state))

        def level(width_in: int, width: int, resample) -> list:
            blocks = [ResBlock(width_in, width, state, **policy) for _ in range(2)]
            return [*map(_built, (*blocks, Attention(width, linear=True, **policy))), resample]

        self.down = [
            level(
                narrow,
                narrow,
                _convolution(3 if number == last else 4, narrow, wide, strides=1 if number == last else 2, **policy),
            )
            for number, (narrow, wide) in enumerate(pairs)
        ]
        middle = widths[-1]
        between = [ToldBlock(HEADS, state, middle, **policy) for _ in range(self.blocks)] or [
            Attention(middle, linear=False, **policy)
        ]
        blocks = (ResBlock(middle, middle, state, **policy) for _ in range(2))
        self.middle = [_built(layer) for layer in (next(blocks), *between, next(blocks))]
        self.up = [level(narrow + wide, wide, _convolution(3, wide, narrow, **policy)) for narrow, wide in reversed(pairs)]
        self.final = _built(ResBlock(2 * self.width, self.width, state, **policy))
        self.leave = _convolution(1, self.width, self.channels, kernel_initializer="zeros", dtype="float32")
        self.built = True

    def call(self, x, step, condition=None):
        """The network's output, float32."""
        time = x.shape[1]
        extra = -time % self.multiple
        x = self.enter(_continued(ops.cast(x, self.compute_dtype), extra))
        state = self.state[1](self.state[0](self.embedding(step)))
        if self.conditional:
            state = state + ops.cast(condition, state.dtype)
        run = keras.remat if self.gradient_checkpointing else lambda block: block
        start, seen = x, []
        for first, second, attention, resample in self.down:
            x = run(first)(x, state)
            seen.append(x)
            x = run(attention)(run(second)(x, state))
            seen.append(x)
            x = resample(x)
        for layer in self.middle:
            x = run(layer)(x, state)
        for number, (first, second, attention, resample) in enumerate(self.up):
            x = run(first)(ops.concatenate([x, seen.pop()], axis=-1), state)
            x = run(attention)(run(second)(ops.concatenate([x, seen.pop()], axis=-1), state))
            last = number == len(self.up) - 1
            x = (convolution if last else upsampled_convolution)(x, resample.kernel, resample.bias)
        x = self.leave(self.final(ops.concatenate([x, start], axis=-1), state))
        return x[:, :time] if extra else x

    def compute_output_shape(self, shape, *_):
        """The input's shape."""
        return shape

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        names = ("channels", "width", "multipliers", "steps", "conditional", "blocks")
        return super().get_config() | {name: getattr(self, name) for name in names}


class RMSNorm(layers.Layer):
    """Scales each time point to a root mean square of 1 over the channels, times a gain of each channel."""

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.gain = self.add_weight(name="gain", shape=(width,), initializer="ones")
        self.built = True

    def call(self, x):
        """`(batch, time, width)` to the same shape."""
        return x * inverse_length(x) * self.factor()

    def factor(self):
        """`(width,)`: what a time point of length 1 is multiplied by."""
        return self.gain * math.sqrt(self.width)


class ResBlock(layers.Layer):
    """Two convolutions, each before a norm and a SiLU; the state scales and shifts the first; the input is added."""

    def __init__(self, width_in: int, width: int, state: int, **kwargs):
        super().__init__(**kwargs)
        self.width_in, self.width, self.state_width = width_in, width, state

    def build(self, shape=None):
        """Creates the layers."""
        policy = {"dtype": self.dtype_policy}
        self.modulation = layers.Dense(2 * self.width, **policy)
        self.modulation.build((None, self.state_width))
        self.conv_1 = _convolution(3, self.width_in, self.width, **policy)
        self.norm_1 = RMSNorm(self.width, **policy)
        self.conv_2 = _convolution(3, self.width, self.width, **policy)
        self.norm_2 = RMSNorm(self.width, **policy)
        self.shortcut = _convolution(1, self.width_in, self.width, **policy) if self.width_in != self.width else None
        self.built = True

    def call(self, x, state):
        """`(batch, time, width_in)` and the state `(batch, state)` to `(batch, time, width)`."""
        scale, shift = ops.split(self.modulation(ops.silu(state))[:, None], 2, axis=-1)
        y = convolution(x, self.conv_1.kernel, self.conv_1.bias)
        y = norm_silu(y, (1 + scale) * self.norm_1.factor(), shift)
        y = convolution(y, self.conv_2.kernel, self.conv_2.bias)
        y = norm_silu(y, ops.broadcast_to(self.norm_2.factor(), ops.shape(scale)))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Attention(layers.Layer):
    """Attention over time, added to what comes in.

    Linear attention costs as much as the signal is long; full attention, for the innermost level, its square.
    """

    def __init__(self, width: int, linear: bool, **kwargs):
        super().__init__(**kwargs)
        self.width, self.linear = width, linear

    def build(self, shape=None):
        """Creates the layers."""
        policy = {"dtype": self.dtype_policy}
        inside = HEADS * HEAD_SIZE
        self.norm = RMSNorm(self.width, **policy)
        self.project = _convolution(1, self.width, 3 * inside, use_bias=False, **policy)
        self.out = _convolution(1, inside, self.width, **policy)
        if self.linear:
            self.out_norm = RMSNorm(self.width, **policy)
        self.built = True

    def call(self, x, state=None):
        """`(batch, time, width)` to the same shape; the state is not looked at."""
        q, k, v = ops.split(self.project(self.norm(x)), 3, axis=-1)
        shape = (-1, x.shape[1], HEADS, HEAD_SIZE)
        if self.linear:
            q = ops.reshape(ops.softmax(ops.reshape(q, shape), axis=-1), ops.shape(k))
            return x + self.out_norm(self.out(_linear_attention(q, k, v)))
        q, k, v = (ops.reshape(part, shape) for part in (q, k, v))
        return x + self.out(ops.reshape(_full_attention(q, k, v), (-1, x.shape[1], HEADS * HEAD_SIZE)))


def _full_attention(q, k, v):
    """Attention `(batch, time, HEADS, HEAD_SIZE)` of the same shapes."""
    weights = ops.softmax(ops.einsum("bthd,bshd->bhts", q * HEAD_SIZE**-0.5, k), axis=-1)
    return ops.einsum("bhts,bshd->bthd", weights, v)


def _linear_attention(q, k, v):
    """Attention `(batch, time, HEADS * HEAD_SIZE)` without the square of the time, of queries that are shares of their channels.

    One product for all heads, of which the blocks on the diagonal count: it costs less than to bring the heads forward and back.
    """
    weights = ops.exp(k - ops.stop_gradient(ops.max(k, axis=1, keepdims=True)))
    across = ops.transpose(weights, (0, 2, 1))
    total = ops.matmul(across, ops.ones((k.shape[1], 1), k.dtype))
    same_head = np.kron(np.eye(HEADS), np.full((HEAD_SIZE, HEAD_SIZE), HEAD_SIZE**-0.5))
    context = ops.matmul(across, v) * (ops.cast(same_head, k.dtype) / total)
    return ops.matmul(q, context)


def _continued(x, extra: int):
    """The signal with `extra` samples more: zeros, or what it ends with where so many zeros follow that whole time points would be zero
    behind the first convolution, which sees three samples beyond: the gradients of their norms have no bounds."""
    if extra > ENTER_TAPS // 2:
        return ops.concatenate([x, ops.repeat(x[:, -1:], extra, axis=1)], axis=1)
    return ops.pad(x, [[0, 0], [0, extra], [0, 0]])


def _convolution(taps: int, width_in: int, width: int, **options) -> layers.Conv1D:
    """A built convolution with zeros beyond the ends."""
    layer = layers.Conv1D(width, taps, padding="same", **options)
    layer.build((None, None, width_in))
    return layer


def _built(layer):
    layer.build()
    return layer
