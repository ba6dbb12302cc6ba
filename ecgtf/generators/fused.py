"""Convolutions and norms with gradients of their own, which go over memory fewer times than those of the framework.

On a CPU half of a training step went to what stands between the matrix products; on a GPU these are the same operations or fewer.
"""

from __future__ import annotations

from functools import lru_cache

import keras
from keras import ops

LEAST_LENGTH = 1e-4
"""A time point that is shorter counts as one of this length, of which float16 can hold the inverse."""

MINIMAL_FILTERING_FROM = 128
"""Channels from which four products for two samples, in place of six, win more on a CPU than the sums around them cost."""


def convolution(x, kernel, bias=None, dilation: int = 1):
    """A convolution of three taps, `dilation` samples apart, with zeros beyond the ends.

    The gradient of the kernel is a matrix product for each tap: oneDNN's own reaches half of that in bfloat16, and not every build of
    TensorFlow has one for dilated kernels on a CPU.

    Args:
        x: `(batch, time, in)`.
        kernel: `(3, in, out)`.
        bias: `(out,)`.
        dilation: Samples between the taps.

    Returns:
        `(batch, time, out)`, of the type of `x`.
    """
    time = x.shape[1]
    kernel = ops.cast(kernel, x.dtype)
    bias = ops.zeros(kernel.shape[-1:], x.dtype) if bias is None else ops.cast(bias, x.dtype)
    if dilation >= time:  # the outer taps see zeros only
        return ops.matmul(x, kernel[1]) + bias
    if dilation == 1 and kernel.shape[1] >= MINIMAL_FILTERING_FROM and _on_a_cpu():
        return _minimal_filtering(x, kernel, bias)

    @ops.custom_gradient
    def convolved(x, kernel, bias):
        def gradient(upstream):
            back = _convolved(upstream, ops.transpose(ops.flip(kernel, 0), (0, 2, 1)), None, dilation)
            taps = zip(_three_views(x, dilation), reversed(_three_views(upstream, dilation)), strict=True)
            to_kernel = ops.stack([ops.matmul(ops.transpose(_flat(seen)), _flat(made)) for seen, made in taps])
            return back, to_kernel, _sum_over_rows(_flat(upstream))

        return _convolved(x, kernel, bias, dilation), gradient

    return convolved(x, kernel, bias)


def upsampled_convolution(x, kernel, bias):
    """The same convolution, of a signal whose every sample is doubled: `(batch, time, in)` to `(batch, 2 time, out)`.

    Two of the three taps see the same sample, so that each of the two phases is a convolution of two taps.
    """
    first, second, third = (ops.cast(tap, x.dtype) for tap in ops.unstack(kernel))
    even = ops.conv(ops.pad(x, [[0, 0], [1, 0], [0, 0]]), ops.stack([first, second + third]))
    odd = ops.conv(ops.pad(x, [[0, 0], [0, 1], [0, 0]]), ops.stack([first + second, third]))
    return ops.reshape(ops.concatenate([even, odd], axis=-1), (-1, 2 * x.shape[1], kernel.shape[-1])) + ops.cast(bias, x.dtype)


def norm_silu(x, factor, shift=None):
    """SiLU of `factor` times `x` over its length + `shift`.

    Args:
        x: `(batch, time, width)`; each time point is divided by its length over the channels.
        factor: `(batch, 1, width)`.
        shift: `(batch, 1, width)`; none if None.

    Returns:
        `(batch, time, width)`.
    """

    @ops.custom_gradient
    def activated(x, factor, *shift):
        scale = inverse_length(x)
        unit = x * scale
        before = sum(shift, unit * factor)
        gate = ops.sigmoid(before)
        y = before * gate

        def gradient(upstream):
            to_before = upstream * (gate * (1.0 - y) + y)
            weighed = to_before * unit
            along = ops.matmul(weighed, ops.transpose(factor, (0, 2, 1)))  # what would only change the length
            to_x = (to_before * factor - unit * along) * scale
            to_shift = [ops.sum(to_before, axis=1, keepdims=True) for _ in shift]
            return to_x, ops.sum(weighed, axis=1, keepdims=True), *to_shift

        return y, gradient

    return activated(x, factor) if shift is None else activated(x, factor, shift)


@ops.custom_gradient
def _minimal_filtering(x, kernel, bias):
    """An undilated convolution by the minimal filtering algorithm F(2, 3) of Winograd (1980): two samples at a time from four products.

    Gradients go the same way back, with four products for each as well. GPUs have such algorithms of their own.
    """
    time = x.shape[1]
    even, odd = _halves(x)
    seen = [_flat(part) for part in (_later(odd) - odd, even + odd, odd - even, even - _sooner(even))]
    first, second, third = ops.unstack(kernel)
    outer, inner = (first + third) * 0.5, second * 0.5
    filters = (first, outer + inner, outer - inner, third)

    def rows(flat):
        return ops.reshape(flat, (-1, even.shape[1], flat.shape[-1]))

    def gradient(upstream):
        even, odd = (_flat(part) for part in _halves(upstream))
        made = (even, even + odd, even - odd, -odd)
        products = [ops.matmul(ops.transpose(part), to) for part, to in zip(seen, made, strict=True)]
        middle = (products[1] + products[2]) * 0.5
        to_kernel = ops.stack([products[0] + middle, (products[1] - products[2]) * 0.5, middle + products[3]])
        a, b, c, d = (rows(ops.matmul(to, ops.transpose(filter))) for to, filter in zip(made, filters, strict=True))
        back = _interleaved(b - c + d - _later(d), b + c - a + _sooner(a), time)
        return back, to_kernel, _sum_over_rows(_flat(upstream))

    a, b, c, d = (ops.matmul(part, filter) for part, filter in zip(seen, filters, strict=True))
    return _interleaved(rows(a + b + c + bias), rows(b - c - d + bias), time), gradient


def _halves(x):
    """The even and the odd samples, `(batch, ceil(time / 2), width)` each; a zero follows where there are fewer odd ones."""
    x = ops.pad(x, [[0, 0], [0, x.shape[1] % 2], [0, 0]]) if x.shape[1] % 2 else x
    return ops.split(ops.reshape(x, (-1, x.shape[1] // 2, 2 * x.shape[2])), 2, axis=-1)


def _interleaved(even, odd, time: int):
    """The signal `(batch, time, width)` of these halves."""
    x = ops.reshape(ops.concatenate([even, odd], axis=-1), (-1, 2 * even.shape[1], even.shape[2]))
    return x[:, :time] if time % 2 else x


def _later(x):
    """One sample later; the first is 0."""
    return ops.pad(x, [[0, 0], [1, 0], [0, 0]])[:, :-1]


def _sooner(x):
    """One sample sooner; the last is 0."""
    return ops.pad(x, [[0, 0], [0, 1], [0, 0]])[:, 1:]


def inverse_length(x):
    """`(batch, time, 1)`: one over the length of each time point over its channels, summed up in float32; at most 1 / `LEAST_LENGTH`."""
    power = ops.sum(ops.square(ops.cast(x, "float32")), axis=-1, keepdims=True)
    return ops.cast(1.0 / ops.sqrt(ops.maximum(power, LEAST_LENGTH**2)), x.dtype)  # a root of 0 has no gradient


def _convolved(x, kernel, bias, dilation: int):
    if keras.backend.backend() != "tensorflow":
        y = ops.conv(x, kernel, padding="same", dilation_rate=dilation)
        return y if bias is None else y + bias
    import tensorflow as tf

    # Keras's goes over tf.nn.convolution, which rearranges the signal where it is dilated on a CPU.
    y = tf.nn.conv2d(x[:, None], kernel[None], 1, "SAME", dilations=(1, dilation))
    y = tf.squeeze(y, [1])
    return y if bias is None else tf.nn.bias_add(y, bias)


@lru_cache(1)
def _on_a_cpu() -> bool:
    """Whether TensorFlow runs the networks, and sees no GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def _three_views(x, shift: int) -> tuple:
    """`x` without its end, whole, and without its beginning."""
    early, _ = ops.split(x, [x.shape[1] - shift], axis=1)
    _, late = ops.split(x, [shift], axis=1)
    return early, x, late


def _flat(x):
    return ops.reshape(x, (-1, x.shape[-1]))


def _sum_over_rows(x):
    """`(rows, width)` to `(width,)`; a product with ones adds up in float32 whatever the type."""
    return ops.matmul(ops.ones((1, ops.shape(x)[0]), x.dtype), x)[0]
