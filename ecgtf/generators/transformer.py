"""A pre-norm transformer over a row of tokens, with rotary positions (Su et al. 2021) and a short convolution in each block."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable("ecgtf")
class RotaryAttention(layers.Layer):
    """Multi-head self-attention whose scores depend on the distance of two positions, not on where they stand.

    ECGs have no preferred start, and a model that need not learn each position apart learns from fewer records.

    Args:
        heads: Number of heads; must divide the width, by an even quotient.
    """

    def __init__(self, heads: int, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape):
        """Creates the projections and the rotation tables for `(batch, length, width)`."""
        _, length, width = input_shape
        if width % (2 * self.heads):
            raise ValueError(f"width {width} must be a multiple of twice the {self.heads} heads")
        self.project = layers.Dense(3 * width, use_bias=False, dtype=self.dtype_policy, name="project")
        self.project.build(input_shape)
        self.out = layers.Dense(width, dtype=self.dtype_policy, name="out")
        self.out.build(input_shape)
        size = width // self.heads
        angles = np.arange(length)[:, None] * 1000.0 ** (-np.arange(0, size, 2) / size)
        self._cos, self._sin = (np.concatenate([f(angles)] * 2, axis=-1).astype("float32") for f in (np.cos, np.sin))
        self.built = True

    def call(self, x):
        """`(batch, length, width)` to the same shape."""
        _, length, width = x.shape
        size = width // self.heads
        parts = ops.reshape(self.project(x), (-1, length, 3, self.heads, size))
        q, k, v = (ops.transpose(parts[:, :, i], (0, 2, 1, 3)) for i in range(3))
        scores = ops.matmul(self._rotate(q) * size**-0.5, ops.transpose(self._rotate(k), (0, 1, 3, 2)))
        mixed = ops.matmul(ops.softmax(scores, axis=-1), v)
        return self.out(ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, length, width)))

    def _rotate(self, x):
        first, second = ops.split(x, 2, axis=-1)
        return x * ops.cast(self._cos, x.dtype) + ops.concatenate([-second, first], axis=-1) * ops.cast(self._sin, x.dtype)

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {"heads": self.heads}


def transformer(x, depth: int, heads: int, reach: int = 5):
    """`depth` pre-norm blocks and a last normalisation.

    A block is a depthwise convolution over `reach` tokens, attention, and a SiLU network of four times the width, each added to what
    came in (after Gulati et al. 2020). The neighbours of a token tell most about it: the convolution sees them from the first step,
    and leaves the beats further away to attention.
    """
    width = x.shape[-1]
    for _ in range(depth):
        y = layers.DepthwiseConv1D(reach, padding="same")(layers.LayerNormalization(epsilon=1e-5)(x))
        x = layers.Add()([x, y])
        y = RotaryAttention(heads)(layers.LayerNormalization(epsilon=1e-5)(x))
        x = layers.Add()([x, y])
        y = layers.Dense(4 * width, activation="silu")(layers.LayerNormalization(epsilon=1e-5)(x))
        x = layers.Add()([x, layers.Dense(width)(y)])
    return layers.LayerNormalization(epsilon=1e-5)(x)
