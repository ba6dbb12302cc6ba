"""The networks of DiffWave and Time-Diffusion against the published ones: whole forward passes with given weights, parameter counts."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.generators.diffwave import DiffWave
from ecgtf.generators.step_embedding import StepEmbedding, sinusoids
from ecgtf.generators.time_diffusion import UNet

FIXTURES = Path(__file__).parent / "fixtures"


def with_weights(network, fixture):
    """The network, built, with the fixture's weights, which are listed in the order in which they work."""
    network.build()
    assert [tuple(weight.shape) for weight in network.weights] == [fixture[name].shape for name in fixture["weight_order"]]
    network.set_weights([fixture[name] for name in fixture["weight_order"]])
    return network


@pytest.fixture(scope="module")
def diffwave():
    fixture = np.load(FIXTURES / "diffwave.npz")
    return with_weights(DiffWave(12, width=16, depth=6, cycle=3, steps=50, condition_width=0), fixture), fixture


@pytest.fixture(scope="module")
def unet():
    fixture = np.load(FIXTURES / "unet1d.npz")
    return with_weights(UNet(12, width=16, multipliers=(1, 2, 4), conditional=False), fixture), fixture


def test_diffwave_fixture_with_the_exact_table(diffwave):
    network, fixture = diffwave
    np.testing.assert_allclose(network.embedding.table, fixture["embedding_table_exact"], atol=1e-7)
    for steps, output in (("step_int", "output_int_exact_table"), ("step_frac", "output_frac_interpolated_exact_table")):
        np.testing.assert_allclose(network(fixture["x"], fixture[steps]), fixture[output], atol=1e-5)


def test_diffwave_fixture_with_the_references_own_table(diffwave):
    network, fixture = diffwave
    exact, network.embedding.table = network.embedding.table, fixture["embedding_table"]
    try:
        for steps, output in (("step_int", "output_int"), ("step_frac", "output_frac_interpolated")):
            np.testing.assert_allclose(network(fixture["x"], fixture[steps]), fixture[output], atol=1e-5)
    finally:
        network.embedding.table = exact


@pytest.mark.parametrize("length", ["", "_len60"])
def test_unet_fixture(unet, length):
    network, fixture = unet
    output = network(fixture[f"x{length}"], fixture["step"])
    np.testing.assert_allclose(output, fixture[f"output{length}"], atol=1e-4)
    assert network.count_params() == 383_084


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: DiffWave(1, width=64, depth=30, cycle=10, steps=50, condition_width=0), 2_308_737),
        (lambda: DiffWave(1, width=256, depth=36, cycle=12, steps=200, condition_width=0), 24_034_305),
        (lambda: UNet(12, width=64, multipliers=(1, 2, 4, 8), conditional=False), 14_859_148),
    ],
    ids=["DiffWave", "DiffWave large", "Time-Diffusion"],
)
def test_parameters_are_as_many_as_the_published_networks_have(network, parameters):
    network = network()
    network.build()
    assert network.count_params() == parameters


def test_the_label_path_adds_one_dense_layer_a_block():
    sizes = [DiffWave(8, width=64, depth=30, condition_width=width) for width in (0, 128)]
    for network in sizes:
        network.build()
    assert sizes[1].count_params() - sizes[0].count_params() == 30 * 128 * 2 * 64


@pytest.mark.parametrize("length", [37, 250, 1001])
def test_any_length_goes_through_and_does_not_depend_on_what_follows(length):
    rng = np.random.default_rng(0)
    x, condition = rng.normal(size=(2, length, 8)).astype("float32"), rng.normal(size=(2, 128)).astype("float32")
    for network in (
        DiffWave(8, width=16, depth=4, cycle=4),
        DiffWave(8, width=16, depth=4, cycle=4, blocks=2),
        UNet(8, width=32, multipliers=(1, 2, 4)),
        UNet(8, width=32, multipliers=(1, 2), blocks=2),
    ):
        network.build()
        for weight in network.weights:  # the output layer starts at zero
            weight.assign(rng.normal(scale=0.1, size=weight.shape))
        output = network(x, np.array([3.0, 30.5], "float32"), condition)
        assert output.shape == x.shape
        assert np.isfinite(output).all()
        other = network(x, np.array([3.0, 30.5], "float32"), -condition)
        assert np.abs(np.asarray(output) - np.asarray(other)).max() > 1e-3


@pytest.mark.parametrize("length", [97, 250, 100, 104])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_gradients_have_bounds_whatever_the_length(length, precision):
    """Lengths of 7, 6, 4 and no samples fewer than the halvings divide."""
    keras.config.set_dtype_policy(precision)
    try:
        network = UNet(8, width=16, multipliers=(1, 2, 4, 8))
        network.build()
    finally:
        keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(0)
    network.leave.kernel.assign(rng.normal(size=network.leave.kernel.shape) / 16)  # starts at zero
    x = rng.normal(size=(4, length, 8)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(network(x, np.array([1.0, 300.0, 600.0, 999.0]), np.zeros((4, 64), "float32")) - x))
    norm = tf.linalg.global_norm(tape.gradient(loss, network.trainable_variables))
    assert np.isfinite(loss)
    assert 0.1 < norm < 100


def test_a_saved_network_is_the_same(tmp_path):
    rng = np.random.default_rng(0)
    x, step, condition = rng.normal(size=(2, 40, 8)).astype("float32"), np.array([1.0, 2.0]), rng.normal(size=(2, 64))
    for network in (
        DiffWave(8, width=16, depth=3, cycle=2, steps=7, condition_width=64, last_frequency=1e-4, blocks=1),
        UNet(8, width=16, multipliers=(1, 3), steps=7),
    ):
        network.build()
        copy = type(network).from_config(network.get_config())
        copy.build()
        copy.set_weights(network.get_weights())
        np.testing.assert_array_equal(network(x, step, condition), copy(x, step, condition))


def test_step_embedding_fixture():
    import json

    fixture = json.loads((FIXTURES / "schedules.json").read_text())["diffwave_step_embedding"]
    for step, row in fixture["direct"].items():
        np.testing.assert_allclose(sinusoids([float(step)], 128, 1e4)[0], row, atol=1e-9)
    table = StepEmbedding(50, 128, 1e4)
    for step, row in fixture["interpolated"].items():
        np.testing.assert_allclose(table(np.array([float(step)]))[0], row, atol=1e-6)
    # beyond the ends, the ends
    np.testing.assert_array_equal(table(np.array([-1.0, 60.0])), table(np.array([0.0, 49.0])))


def test_half_precision_keeps_steps_apart():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = UNet(8, width=16, multipliers=(1, 2))
        network.build()
    finally:
        keras.config.set_dtype_policy("float32")
    network.leave.kernel.assign(np.random.default_rng(1).normal(size=network.leave.kernel.shape))  # starts at zero
    x = np.random.default_rng(0).normal(size=(2, 32, 8)).astype("float32")
    x[1] = x[0]
    output = np.asarray(network(x, np.array([997.0, 999.0], "float32"), np.zeros((2, 64), "float32")))
    assert output.dtype == np.float32
    assert np.abs(output[0] - output[1]).max() > 0
