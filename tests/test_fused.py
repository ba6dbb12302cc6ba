"""Operations with gradients of their own give what the plain ones give, and so do their gradients."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from ecgtf.generators import fused
from ecgtf.generators.fused import convolution, inverse_length, norm_silu, upsampled_convolution


def with_gradients(function, *inputs):
    """The value of a function, and the gradients of a sum that weighs each number of it otherwise."""
    inputs = [tf.constant(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
        weights = np.sin(np.arange(tf.size(value))).reshape(value.shape).astype(np.float32)
        scalar = tf.reduce_sum(value * weights)
    return [value, *tape.gradient(scalar, inputs)]


def assert_same(found, expected, **tolerance):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def plain(x, kernel, bias, dilation=1):
    """The definition: a sum over taps of shifted signals."""
    time = x.shape[1]
    padded = ops.pad(x, [[0, 0], [dilation, dilation], [0, 0]])
    return sum(ops.matmul(padded[:, tap * dilation : tap * dilation + time], kernel[tap]) for tap in range(3)) + bias


@pytest.mark.parametrize("dilation", [1, 3, 16, 63, 64, 500])
def test_convolution_and_its_gradients_are_those_of_the_definition(dilation):
    inputs = normal(2, 64, 5), normal(3, 5, 7, seed=1), normal(7, seed=2)
    found = with_gradients(lambda *given: convolution(*given, dilation=dilation), *inputs)
    assert_same(found, with_gradients(lambda *given: plain(*given, dilation), *inputs), atol=2e-4)


@pytest.mark.parametrize("time", [1, 2, 3, 8, 125])
def test_minimal_filtering_and_its_gradients_are_those_of_the_definition(time):
    inputs = normal(2, time, 6), normal(3, 6, 4, seed=1), normal(4, seed=2)
    assert_same(with_gradients(fused._minimal_filtering, *inputs), with_gradients(plain, *inputs), atol=2e-4)


def test_a_wide_convolution_is_that_of_keras():
    layer = layers.Conv1D(32, 3, padding="same", bias_initializer="normal")
    x = normal(2, 50, fused.MINIMAL_FILTERING_FROM)
    np.testing.assert_allclose(layer(x), convolution(tf.constant(x), layer.kernel, layer.bias), atol=1e-4)


def test_minimal_filtering_is_as_exact_as_half_precision_lets_it_be():
    inputs = normal(2, 100, 128), normal(3, 128, 64, seed=1) / 20, normal(64, seed=2)
    exact = plain(*map(tf.constant, inputs))
    halved = [ops.cast(value, "bfloat16") for value in inputs]
    errors = [float(ops.std(ops.cast(way(*halved), "float32") - exact)) for way in (fused._minimal_filtering, plain)]
    assert errors[0] < 2 * errors[1]


def test_upsampled_convolution_is_one_of_doubled_samples():
    inputs = normal(2, 31, 5), normal(3, 5, 7, seed=1), normal(7, seed=2)
    doubled = with_gradients(lambda x, *given: plain(ops.repeat(x, 2, axis=1), *given), *inputs)
    assert_same(with_gradients(upsampled_convolution, *inputs), doubled, atol=2e-4)


@pytest.mark.parametrize("shifted", [True, False])
def test_norm_silu_and_its_gradients_are_those_of_the_definition(shifted):
    def definition(x, factor, shift=0.0):
        return ops.silu(ops.normalize(x, axis=-1) * factor + shift)

    inputs = [normal(3, 20, 6), normal(3, 1, 6, seed=1), normal(3, 1, 6, seed=2)][: 3 if shifted else 2]
    assert_same(with_gradients(norm_silu, *inputs), with_gradients(definition, *inputs), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_inverse_of_any_length_and_its_gradient_are_numbers(dtype):
    x = tf.cast(np.array([[[0.0, 0.0], [3e-5, 4e-5], [3.0, 4.0]]]), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        inverse = inverse_length(x)
        unit = x * inverse
    np.testing.assert_allclose(inverse[0, :, 0], [1e4, 1e4, 0.2], rtol=1e-3)
    assert np.isfinite(tape.gradient(unit, x)).all()


def test_a_silent_time_point_gives_no_gradient_that_is_not_a_number():
    x = normal(1, 4, 6)
    x[:, 2] = 0
    assert all(np.isfinite(value).all() for value in with_gradients(norm_silu, x, normal(1, 1, 6), normal(1, 1, 6)))
