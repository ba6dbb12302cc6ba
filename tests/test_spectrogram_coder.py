"""The published encoder and decoder: the numbers of the public code, sizes, lengths, and what moves in training only."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.generators.spectrogram_coder import (
    ResidualBlock,
    Snake,
    SpectrogramDecoder,
    SpectrogramEncoder,
    published_downsampling,
)

# First and last element, sum, sum of absolute values, and sum with weights sin(0), sin(1), ... of what the authors' PyTorch modules (and
# the dense layers of their quantiser) give for the weights and inputs of `test_layers_compute_what_the_public_code_computes`.
PUBLIC_CODE = {
    (SpectrogramEncoder, 1): (0.86023, -1.02458, 0.41, 16.12963, 0.86116),
    (SpectrogramDecoder, 1): (0.30623, -1.22436, -20.64009, 276.10287, 0.63041),
    (SpectrogramEncoder, 2): (0.88152, -0.91446, 1.21059, 31.06516, 0.0242),
    (SpectrogramDecoder, 2): (-0.44068, -0.17509, -41.33118, 429.65704, -0.10188),
}
# Counted in the public code for 12 leads, without the dense layers of the quantiser.
PARAMETERS = {(1, 128): (500_676, 554_036), (2, 32): (69_540, 64_660), (1, 32): (64_836, 55_028), (2, 8): (26_724, 17_188)}
INTO_CODES, OUT_OF_CODES = 128 * 8 + 8, 8 * 128 + 128


def coder(build, bins: int, downsampling: int, leads=2, code_dim=3, **options):
    layer = build(leads, bins, downsampling, code_dim, **options)
    layer.build()
    return layer


@pytest.mark.parametrize(("build", "bins"), PUBLIC_CODE)
def test_layers_compute_what_the_public_code_computes(build, bins):
    layer = coder(build, bins, 8, width=6, depth=1)
    for number, weight in enumerate(layer.weights):
        wave = np.sin(1.7 * np.arange(np.prod(weight.shape)) + number).reshape(weight.shape)
        positive = weight.name in ("a", "length", "gamma", "moving_variance")
        weight.assign(0.6 + 0.3 * wave if positive else 0.5 * wave)
    if build is SpectrogramEncoder:
        inputs = np.sin(0.9 * np.arange(2 * 37 * 2 * bins * 2)).reshape(2, 37, 2, bins, 2)
    else:
        inputs = np.cos(0.7 * np.arange(2 * 4 * bins * 3)).reshape(2, 4 * bins, 3)
    given = layer(inputs.astype("float32")).numpy().astype("float64")
    assert given.shape == ((2, 4 * bins, 3) if build is SpectrogramEncoder else (2, 64, 2, bins, 2))
    flat = given.ravel()
    figures = (flat[0], flat[-1], flat.sum(), np.abs(flat).sum(), flat @ np.sin(np.arange(flat.size)))
    np.testing.assert_allclose(figures, PUBLIC_CODE[build, bins], atol=3e-4)


@pytest.mark.parametrize(("bins", "downsampling"), PARAMETERS)
def test_parts_have_the_published_number_of_parameters(bins, downsampling):
    encoder, decoder = (
        coder(build, bins, downsampling, leads=12, code_dim=8) for build in (SpectrogramEncoder, SpectrogramDecoder)
    )
    counts = [sum(np.prod(weight.shape) for weight in layer.trainable_weights) for layer in (encoder, decoder)]
    expected = PARAMETERS[bins, downsampling]
    assert counts == [expected[0] + INTO_CODES, expected[1] + OUT_OF_CODES]


@pytest.mark.parametrize("frames", [32, 33, 39])
@pytest.mark.parametrize(("bins", "downsampling"), [(1, 2), (2, 8), (4, 4)])
def test_each_halving_drops_a_last_odd_frame_and_the_decoder_doubles_once_more(bins, downsampling, frames):
    band = tf.random.stateless_normal((3, frames, 2, bins, 2), [1, 2])
    encoder, decoder = (coder(build, bins, downsampling, width=8) for build in (SpectrogramEncoder, SpectrogramDecoder))
    vectors = encoder(band)
    steps = frames // downsampling
    assert vectors.shape == encoder.compute_output_shape(band.shape) == (3, steps * bins, 3)
    assert decoder(vectors).shape == decoder.compute_output_shape(vectors.shape) == (3, 2 * downsampling * steps, 2, bins, 2)


def test_tokens_go_by_time_first():
    encoder = coder(SpectrogramEncoder, 2, 4, width=8, depth=0)
    band = np.random.default_rng(0).normal(size=(1, 64, 2, 2, 2)).astype("float32")
    later = band.copy()
    later[:, 48:] += 1.0
    changed = np.abs(encoder(later) - encoder(band)).max(axis=(0, 2)) > 1e-6
    assert changed[-8:].all()  # four time steps of two bins
    assert not changed[:16].any()


def test_snake_is_the_identity_and_a_squared_sine():
    layer = Snake(3)
    layer.build()
    a = layer.a.numpy()
    assert (a >= 0.2).all()
    assert (a <= 0.5).all()
    x = np.linspace(-9, 9, 60, dtype="float32").reshape(20, 3)
    np.testing.assert_allclose(layer(x), x + np.sin(a * x) ** 2 / a, atol=1e-5)


def test_dropout_draws_by_its_seed_and_in_training_only():
    layer = ResidualBlock(4, 4, 3)
    layer.build()
    x = tf.random.stateless_normal((2, 2, 50, 4), [1, 2])
    first, again, other = (layer(x, training=True, seed=tf.constant([seed, 0])) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    dropped = np.isclose(first, x).mean()
    assert 0.2 < dropped < 0.4
    assert 0.2 < np.isclose(other, x).mean() < 0.4
    assert np.abs(other - first).max() > 0
    np.testing.assert_array_equal(layer(x), layer(x, training=False))
    assert np.isclose(layer(x), x).mean() < 0.05


def test_moments_are_a_batchs_own_in_training_and_the_running_ones_of_pytorch_else():
    layer = ResidualBlock(4, 4, 1)
    layer.build()
    norm = layer.norm
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(8, 1, 40, 4)).astype("float32")
    norm(x, training=True)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * x.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, 0.9 + 0.1 * x.var(axis=(0, 1, 2)), rtol=1e-4)
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    np.testing.assert_allclose(norm(x, training=False), (x - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_array_equal(norm.moving_mean, mean)


def test_an_untrained_kernel_has_the_length_of_its_direction():
    layer = ResidualBlock(4, 6, 3)
    layer.build()
    direction = layer.pointwise_1.direction.numpy()
    np.testing.assert_allclose(layer.pointwise_1.length[0], np.linalg.norm(direction, axis=0), rtol=1e-6)
    x = tf.random.stateless_normal((2, 2, 5, 4), [1, 2])
    before = layer.pointwise_1(x)
    layer.pointwise_1.direction.assign(3 * direction)  # of which the direction is all that counts
    np.testing.assert_allclose(layer.pointwise_1(x), before, atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "expected"), [(1000, (128, 32)), (5000, (512, 128)), (187, (32, 8)), (30, (4, 2)), (3, (2, 2))]
)
def test_published_downsampling_leaves_about_8_and_32_steps(samples, expected):
    assert published_downsampling(samples) == expected


def test_half_precision_comes_out_as_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder, decoder = (coder(build, 2, 4, width=8, depth=1) for build in (SpectrogramEncoder, SpectrogramDecoder))
    finally:
        keras.config.set_dtype_policy("float32")
    band = tf.random.stateless_normal((3, 33, 2, 2, 2), [1, 2])
    vectors = encoder(band, training=True, seed=tf.constant([1, 2]))
    rebuilt = decoder(vectors, training=True, seed=tf.constant([3, 4]))
    assert (vectors.dtype, rebuilt.dtype) == (tf.float32, tf.float32)
    assert np.isfinite(rebuilt).all()
