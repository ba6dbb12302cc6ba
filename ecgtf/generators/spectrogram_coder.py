"""The encoder and decoder of Time-VQVAE's tokenizer as published (Lee et al., AISTATS 2023; layers, sizes and starting values as in the
authors' public code): two-dimensional convolutions over the short-time Fourier transform as an image.

An image is `(batch, bins, frames, channels)`. Its first channels are the real and imaginary part of each lead, and its bins those of one
band: the low band's single bin has kernels of height 1, the high band's bins have kernels of height 3. Convolutions are split into a
depthwise one and a dense layer over channels (a 1x1 convolution), and have weight normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

FIRST_WIDTH = 4
DROPOUT = 0.3
STEPS = (8, 32)


def published_downsampling(samples: int) -> tuple[int, int]:
    """Frames a token of the low and of the high band, powers of two, which leave about 8 and 32 time steps of a signal."""
    return tuple(2 ** max(1, round(np.log2(max(1, round(samples / steps))))) for steps in STEPS)


class _BandCoder(layers.Layer):
    """What encoder and decoder of a band share.

    Args:
        leads: Number of leads.
        bins: Number of bins of the band.
        downsampling: Frames a token; a power of two, at least 2.
        code_dim: Dimension of a code.
        width: Channels of the vectors beside the quantiser.
        depth: Residual blocks at each resolution but the first.
    """

    def __init__(self, leads: int, bins: int, downsampling: int, code_dim: int, width: int = 128, depth: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.leads, self.bins, self.downsampling = leads, bins, downsampling
        self.code_dim, self.width, self.depth = code_dim, width, depth

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        names = ("leads", "bins", "downsampling", "code_dim", "width", "depth")
        return super().get_config() | {name: getattr(self, name) for name in names}

    def _run(self, x, training: bool, seed):
        """Through the stack of blocks; the dropout of each has draws of its own."""
        for number, block in enumerate(self.stack):
            own = tf.random.experimental.stateless_fold_in(seed, number) if training else None
            x = block(x, training=training, seed=own)
        return x


@keras.saving.register_keras_serializable("ecgtf")
class SpectrogramEncoder(_BandCoder):
    """A band of a transform `(batch, frames, leads, bins, 2)` to vectors `(batch, (frames // downsampling) * bins, code_dim)`.

    Each halving of the frames doubles the channels, which start at 4. Vectors of `width` channels are brought to length 1 before a
    dense layer takes them to the codebook's dimension. Tokens go by time first, so that those of the bins of one time are neighbours.
    """

    def build(self, shape=None):
        """Creates the layers, in the order in which they work."""
        policy, height = {"dtype": self.dtype_policy}, _height(self.bins)
        widths = _widths(self.downsampling)
        stack = [Resampling(2 * self.leads, widths[0], height, **policy)]
        for narrow, wide in pairwise(widths):
            stack.append(Resampling(narrow, wide, height, **policy))
            stack += [ResidualBlock(wide, wide, height, **policy) for _ in range(self.depth)]
        self.stack = [_built(layer) for layer in (*stack, ResidualBlock(widths[-1], self.width, height, **policy))]
        self.leave = _dense(self.width, self.code_dim, dtype="float32")
        self.built = True

    def call(self, band, training: bool = False, seed=None):
        """The vectors, float32; `seed` is that of the dropout in training."""
        image = ops.transpose(ops.cast(band, self.compute_dtype), (0, 3, 1, 2, 4))
        x = self._run(ops.reshape(image, (-1, self.bins, band.shape[1], 2 * self.leads)), training, seed)
        vectors = self.leave(ops.normalize(ops.cast(x, "float32"), axis=-1))
        return ops.reshape(ops.transpose(vectors, (0, 2, 1, 3)), (-1, x.shape[2] * self.bins, self.code_dim))

    def compute_output_shape(self, shape, *_):
        """That of the vectors."""
        return (shape[0], shape[1] // self.downsampling * self.bins, self.code_dim)


@keras.saving.register_keras_serializable("ecgtf")
class SpectrogramDecoder(_BandCoder):
    """Code vectors `(batch, steps * bins, code_dim)` to a band of a transform `(batch, 2 * downsampling * steps, leads, bins, 2)`.

    It mirrors the encoder with one doubling of the frames more, so that there are more of them than the signal had; what the inverse
    transform makes of them is then resized.
    """

    def build(self, shape=None):
        """Creates the layers, in the order in which they work."""
        policy, height, channels = {"dtype": self.dtype_policy}, _height(self.bins), 2 * self.leads
        widths = _widths(self.downsampling)[::-1]
        self.enter = _dense(self.code_dim, self.width, **policy)
        stack = [ResidualBlock(self.width, widths[0], height, **policy)]
        for wide, narrow in pairwise(widths):
            stack += [ResidualBlock(wide, wide, height, **policy) for _ in range(self.depth)]
            stack.append(Resampling(wide, narrow, height, up=True, **policy))
        self.stack = [_built(layer) for layer in stack]
        self.double = _built(Depthwise(widths[-1], (height, 4), resample="up", normalised=False, **policy))
        self.to_channels = _dense(widths[-1], channels, **policy)
        self.double_again = layers.Conv2DTranspose(channels, (height, 4), strides=(1, 2), padding="same", **policy)
        self.double_again.build((None, self.bins, None, channels))
        self.leave = _dense(channels, channels, dtype="float32")
        self.built = True

    def call(self, codes, training: bool = False, seed=None):
        """The band, float32; `seed` is that of the dropout in training."""
        steps = codes.shape[1] // self.bins
        x = ops.reshape(ops.cast(codes, self.compute_dtype), (-1, steps, self.bins, self.code_dim))
        x = self._run(self.enter(ops.transpose(x, (0, 2, 1, 3))), training, seed)
        x = self.leave(self.double_again(self.to_channels(self.double(x))))
        x = ops.reshape(x, (-1, self.bins, 2 * self.downsampling * steps, self.leads, 2))
        return ops.transpose(x, (0, 2, 3, 1, 4))

    def compute_output_shape(self, shape, *_):
        """That of the band."""
        return (shape[0], 2 * self.downsampling * (shape[1] // self.bins), self.leads, self.bins, 2)


class ResidualBlock(layers.Layer):
    """Two convolutions of 3 frames behind Snakes, with a batch normalisation between them and dropout after; the input is added."""

    def __init__(self, width_in: int, width: int, height: int, **kwargs):
        super().__init__(**kwargs)
        self.width_in, self.width, self.height = width_in, width, height

    def build(self, shape=None):
        """Creates the layers."""
        policy = {"dtype": self.dtype_policy}
        self.snake_1 = _built(Snake(self.width_in, **policy))
        self.depthwise_1 = _built(Depthwise(self.width_in, (self.height, 3), **policy))
        self.pointwise_1 = _built(Pointwise(self.width_in, self.width, **policy))
        self.norm = _batch_norm(self.width, **policy)
        self.snake_2 = _built(Snake(self.width, **policy))
        self.depthwise_2 = _built(Depthwise(self.width, (self.height, 3), **policy))
        self.pointwise_2 = _built(Pointwise(self.width, self.width, **policy))
        self.shortcut = None if self.width_in == self.width else _dense(self.width_in, self.width, **policy)
        self.built = True

    def call(self, x, training: bool = False, seed=None):
        """`(batch, bins, frames, width_in)` to `(batch, bins, frames, width)`."""
        y = self.pointwise_1(self.depthwise_1(self.snake_1(x)))
        y = self.snake_2(self.norm(y, training=training))
        y = self.pointwise_2(self.depthwise_2(y))
        if training:
            kept = tf.random.stateless_uniform(tf.shape(y), seed) >= DROPOUT
            y = ops.where(kept, y / (1 - DROPOUT), ops.zeros_like(y))
        return y + (x if self.shortcut is None else self.shortcut(x))


class Resampling(layers.Layer):
    """A convolution of 4 frames that halves (or, `up`, a transposed one that doubles) the frames, batch normalisation and Snake."""

    def __init__(self, width_in: int, width: int, height: int, up: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.width_in, self.width, self.height, self.up = width_in, width, height, up

    def build(self, shape=None):
        """Creates the layers."""
        policy = {"dtype": self.dtype_policy}
        taps, which = (self.height, 4), "up" if self.up else "down"
        self.depthwise = _built(Depthwise(self.width_in, taps, resample=which, **policy))
        self.pointwise = _built(Pointwise(self.width_in, self.width, transposed=self.up, **policy))
        self.norm = _batch_norm(self.width, **policy)
        self.snake = _built(Snake(self.width, **policy))
        self.built = True

    def call(self, x, training: bool = False, seed=None):
        """`(batch, bins, frames, width_in)` to `(batch, bins, frames / 2 or * 2, width)`; nothing is drawn."""
        return self.snake(self.norm(self.pointwise(self.depthwise(x)), training=training))


class Snake(layers.Layer):
    """x + sin^2(a x) / a with a learned a for each channel, which gives a network a bent for periodic signals (Ziyin et al. 2020)."""

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape=None):
        """Creates a, between 0.2 and 0.5."""
        self.a = self.add_weight(name="a", shape=(self.width,), initializer=keras.initializers.RandomUniform(0.2, 0.5))
        self.built = True

    def call(self, x):
        """`(..., width)` to the same shape."""
        return x + ops.square(ops.sin(self.a * x)) / self.a


class _Convolution(layers.Layer):
    """A kernel that is, with weight normalisation, a direction times a length (Salimans & Kingma 2016, equation 2); and a bias."""

    normalised = True

    def _create(self, shape: Sequence[int], axes: Sequence[int], inputs: int, width: int) -> None:
        """Creates the weights of a kernel of this shape, whose norms are over the axes, uniform over +-1 / sqrt(inputs)."""

        def weight(name, shape):
            uniform = keras.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5)
            return self.add_weight(name=name, shape=shape, initializer=uniform, autocast=False)

        self.axes = tuple(axes)
        self.direction, self.bias = weight("direction", shape), weight("bias", (width,))
        if self.normalised:
            norm = self._norm()
            self.length = self.add_weight(name="length", shape=norm.shape, initializer="ones", autocast=False)
            self.length.assign(norm)
        self.built = True

    def _norm(self):
        return ops.sqrt(ops.sum(ops.square(self.direction), axis=self.axes, keepdims=True))

    def _weights(self):
        kernel = self.direction * (self.length / self._norm()) if self.normalised else self.direction
        return ops.cast(kernel, self.compute_dtype), ops.cast(self.bias, self.compute_dtype)


class Depthwise(_Convolution):
    """A convolution of each channel by itself over bins and frames.

    Args:
        width: Channels.
        taps: Bins and frames of the kernel.
        resample: `down` takes every second frame, and what is beyond the edges is like the edge, which is otherwise zero; `up` is the
            transposed convolution, which doubles the frames.
        normalised: Whether there is weight normalisation.
    """

    def __init__(self, width: int, taps: tuple[int, int], resample: str | None = None, normalised: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.width, self.taps, self.resample, self.normalised = width, taps, resample, normalised

    def build(self, shape=None):
        """Creates the kernel."""
        self._create((*self.taps, self.width, 1), (0, 1), self.taps[0] * self.taps[1], self.width)

    def call(self, x):
        """`(batch, bins, frames, width)` to the same shape, or half or twice as many frames."""
        kernel, bias = self._weights()
        sides = [1, 1]
        if self.resample == "up":  # a transposed convolution of stride 2 is a plain one over frames with zeros between them
            x = ops.reshape(ops.stack([x, ops.zeros_like(x)], axis=3), (-1, x.shape[1], 2 * x.shape[2], self.width))
            sides = [2, 1]
        edge, down = self.taps[0] // 2, self.resample == "down"
        x = ops.pad(x, [[0, 0], [edge, edge], sides, [0, 0]], mode="symmetric" if down else "constant")
        x = ops.depthwise_conv(x, kernel, padding="valid")
        # TensorFlow's depthwise convolution has no strides that differ between height and width.
        return (x[:, :, ::2] if down else x) + bias


class Pointwise(_Convolution):
    """A dense layer over channels, whose norms are those of each channel that comes out, or (`transposed`) that comes in."""

    def __init__(self, width_in: int, width: int, transposed: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.width_in, self.width, self.transposed = width_in, width, transposed

    def build(self, shape=None):
        """Creates the kernel."""
        inputs, axis = (self.width, 1) if self.transposed else (self.width_in, 0)
        self._create((self.width_in, self.width), (axis,), inputs, self.width)

    def call(self, x):
        """`(..., width_in)` to `(..., width)`."""
        kernel, bias = self._weights()
        return ops.matmul(x, kernel) + bias


def _height(bins: int) -> int:
    """Bins that a kernel spans."""
    return 1 if bins == 1 else 3


def _widths(downsampling: int) -> list[int]:
    """Channels after each halving of the frames."""
    return [FIRST_WIDTH * 2**level for level in range(int(np.log2(downsampling)))]


def _batch_norm(width: int, **policy) -> layers.BatchNormalization:
    """A built batch normalisation with PyTorch's constants, over all replicas: a result does not depend on their number."""
    layer = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, synchronized=True, **policy)
    layer.build((None, None, None, width))
    return layer


def _dense(width_in: int, width: int, **policy) -> layers.Dense:
    layer = layers.Dense(width, **policy)
    layer.build((None, None, None, width_in))
    return layer


def _built(layer: layers.Layer) -> layers.Layer:
    layer.build()
    return layer
