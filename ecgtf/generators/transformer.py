"""A pre-norm transformer over a row of tokens, with rotary positions (Su et al. 2021) and a short convolution in each block."""

from __future__ import annotations

from functools import lru_cache

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable("ecgtf")
class RotaryAttention(layers.Layer):
    """Multi-head self-attention whose scores depend on the distance of two positions, not on where they stand.

    ECGs have no preferred start, and a model that need not learn each position apart learns from fewer records.

    Args:
        heads: Number of heads; must divide the width, by an even quotient.
        causal: Whether a position sees itself and earlier ones only.
    """

    def __init__(self, heads: int, causal: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.causal = heads, causal

    def build(self, input_shape):
        """Creates the projections for `(batch, length, width)`; only `step` needs to know the length."""
        _, self.length, width = input_shape
        if width % (2 * self.heads):
            raise ValueError(f"width {width} must be a multiple of twice the {self.heads} heads")
        self.project = layers.Dense(3 * width, use_bias=False, dtype=self.dtype_policy, name="project")
        self.project.build(input_shape)
        self.out = layers.Dense(width, dtype=self.dtype_policy, name="out")
        self.out.build(input_shape)
        self.size = width // self.heads
        self.built = True

    def call(self, x):
        """`(batch, length, width)` to the same shape."""
        q, k, v = self._parts(x)
        cos, sin = _rotations(x.shape[1], self.size)
        scores = ops.matmul(_rotate(q, cos, sin) * self.size**-0.5, _transpose(_rotate(k, cos, sin)))
        if self.causal:
            scores = scores + ops.cast(_later(x.shape[1]), scores.dtype)
        return self._joined(ops.matmul(ops.softmax(scores, axis=-1), v))

    def step(self, x, position, state):
        """One position `(batch, 1, width)` of a causal row; `state` holds the keys and values so far.

        Returns:
            What `call` gives at that position, and the new state.
        """
        q, k, v = self._parts(x)
        cos, sin = (ops.convert_to_tensor(table)[position] for table in _rotations(self.length, self.size))
        here = ops.equal(ops.arange(self.length), position)[:, None]
        keys, values = ops.where(here, _rotate(k, cos, sin), state[0]), ops.where(here, v, state[1])
        scores = ops.matmul(_rotate(q, cos, sin) * self.size**-0.5, _transpose(keys))
        scores = scores + ops.cast(ops.convert_to_tensor(_later(self.length))[position], scores.dtype)
        return self._joined(ops.matmul(ops.softmax(scores, axis=-1), values)), (keys, values)

    def empty_state(self, batch: int):
        """Keys and values before the first step."""
        shape = (batch, self.heads, self.length, self.size)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)

    def _parts(self, x):
        """Queries, keys and values `(batch, heads, length, size)`."""
        parts = ops.split(self.project(x), 3, axis=-1)
        return (ops.transpose(ops.reshape(part, (-1, x.shape[1], self.heads, self.size)), (0, 2, 1, 3)) for part in parts)

    def _joined(self, mixed):
        return self.out(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, mixed.shape[2], self.heads * self.size)))

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {"heads": self.heads, "causal": self.causal}


@keras.saving.register_keras_serializable("ecgtf")
class Block(layers.Layer):
    """A depthwise convolution over `reach` tokens, attention, and a SiLU network of four times the width, each after a layer
    normalisation and added to what came in (after Gulati et al. 2020).

    The neighbours of a token tell most about it: the convolution sees them from the first step, and leaves the beats further away
    to attention.

    Args:
        heads: Attention heads.
        causal: Whether a position sees itself and earlier ones only; `step` then goes from position to position.
        reach: Tokens the convolution sees.
    """

    def __init__(self, heads: int, *, causal: bool = False, reach: int = 5, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.causal, self.reach = heads, causal, reach

    def build(self, input_shape):
        """Creates the parts for `(batch, length, width)`."""
        width = input_shape[-1]
        policy = {"dtype": self.dtype_policy}
        self.norms = [layers.LayerNormalization(epsilon=1e-5, **policy) for _ in range(3)]
        self.near = layers.DepthwiseConv1D(self.reach, **policy)
        self.attention = RotaryAttention(self.heads, self.causal, **policy)
        self.widen = layers.Dense(4 * width, activation="silu", **policy)
        self.narrow = layers.Dense(width, **policy)
        for layer in (*self.norms, self.near, self.attention, self.widen):
            layer.build(input_shape)
        self.narrow.build((*input_shape[:-1], 4 * width))
        self.built = True

    def call(self, x):
        """`(batch, length, width)` to the same shape."""
        before = self.reach - 1 if self.causal else (self.reach - 1) // 2
        x = x + self.near(ops.pad(self.norms[0](x), [[0, 0], [before, self.reach - 1 - before], [0, 0]]))
        x = x + self.attention(self.norms[1](x))
        return x + self.narrow(self.widen(self.norms[2](x)))

    def step(self, x, position, state):
        """One position `(batch, 1, width)` of a causal row after the earlier ones, which `state` remembers.

        Returns:
            What `call` gives at that position, and the new state.
        """
        near, attended = state
        near = ops.concatenate([near, self.norms[0](x)], axis=1)
        x = x + self.near(near)
        y, attended = self.attention.step(self.norms[1](x), position, attended)
        x = x + y
        return x + self.narrow(self.widen(self.norms[2](x))), (near[:, 1:], attended)

    def empty_state(self, batch: int):
        """The state before the first step."""
        near = ops.zeros((batch, self.reach - 1, self.narrow.units), self.compute_dtype)
        return near, self.attention.empty_state(batch)

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {"heads": self.heads, "causal": self.causal, "reach": self.reach}


class ToldBlock(layers.Layer):
    """A block that is told a state, such as the step and class of a diffusion, by a vector added to every token.

    Args:
        heads: Attention heads.
        state: Length of a state.
        width: Of the tokens.
    """

    def __init__(self, heads: int, state: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.state_width, self.width = heads, state, width

    def build(self, input_shape=None):
        """Creates the parts; the length of a row need not be known."""
        self.told = layers.Dense(self.width, dtype=self.dtype_policy)
        self.told.build((None, self.state_width))
        self.block = Block(self.heads, dtype=self.dtype_policy)
        self.block.build((None, None, self.width))
        self.built = True

    def call(self, x, state):
        """`(batch, length, width)` and the state `(batch, state)` to `(batch, length, width)`."""
        return self.block(x + self.told(ops.silu(state))[:, None])


@lru_cache
def _rotations(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines `(length, size)` by which the pairs of a head are turned at each position."""
    angles = np.arange(length)[:, None] * 1000.0 ** (-np.arange(0, size, 2) / size)
    return tuple(np.concatenate([f(angles)] * 2, axis=-1).astype("float32") for f in (np.cos, np.sin))


@lru_cache
def _later(length: int) -> np.ndarray:
    """`(length, length)`: what keeps a position from those after it."""
    return np.triu(np.full((length, length), -1e9, "float32"), 1)


def _rotate(x, cos, sin):
    first, second = ops.split(x, 2, axis=-1)
    return x * ops.cast(cos, x.dtype) + ops.concatenate([-second, first], axis=-1) * ops.cast(sin, x.dtype)


def _transpose(x):
    return ops.transpose(x, (0, 1, 3, 2))
