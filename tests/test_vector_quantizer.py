from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ecgtf.generators.vector_quantizer import VectorQuantizer

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "vector_quantizer.npz")


def quantizer_with(cluster_size, embedding_avg) -> VectorQuantizer:
    quantizer = VectorQuantizer(16, 8, decay=0.8)
    quantizer.codebook.assign(FIXTURE["codebook_before"])
    quantizer.cluster_size.assign(cluster_size)
    quantizer.embedding_avg.assign(embedding_avg)
    return quantizer


@pytest.fixture
def quantizer() -> VectorQuantizer:
    return quantizer_with(FIXTURE["cluster_size_before"], FIXTURE["embedding_avg_before"])


def assert_state(quantizer, prefix="", suffix="", **tolerance):
    for name in ("codebook", "cluster_size", "embedding_avg"):
        np.testing.assert_allclose(getattr(quantizer, name).numpy(), FIXTURE[f"{prefix}{name}_after{suffix}"], **tolerance)


def test_quantiser_fixture_forward(quantizer):
    np.testing.assert_array_equal(quantizer.nearest(FIXTURE["inputs"]), FIXTURE["indices"])
    out = quantizer(FIXTURE["inputs"], training=True)
    np.testing.assert_allclose(out["quantised"], FIXTURE["quantised"], atol=1e-5)
    np.testing.assert_allclose(out["commitment"], FIXTURE["commitment_loss"], atol=1e-5)
    np.testing.assert_allclose(out["perplexity"], FIXTURE["perplexity"], atol=1e-5)


def test_quantiser_fixture_two_updates(quantizer):
    quantizer(FIXTURE["inputs"], training=True)
    assert_state(quantizer, atol=1e-5)
    np.testing.assert_array_equal(quantizer.nearest(FIXTURE["inputs_2"]), FIXTURE["indices_2"])
    out = quantizer(FIXTURE["inputs_2"], training=True)
    np.testing.assert_allclose(out["commitment"], FIXTURE["commitment_loss_2"], atol=1e-5)
    assert_state(quantizer, suffix="_2", atol=1e-5)


def test_quantiser_fixture_start_states():
    quantizer = quantizer_with(np.zeros(16, "float32"), FIXTURE["codebook_before"])
    quantizer(FIXTURE["inputs"], training=True)
    assert_state(quantizer, "zero_start.", rtol=1e-5)
    quantizer = quantizer_with(FIXTURE["count_start.cluster_size_before"], FIXTURE["codebook_before"])
    quantizer(FIXTURE["inputs"], training=True)
    assert_state(quantizer, "count_start.", atol=1e-5)


def test_quantiser_fixture_gradients(quantizer):
    inputs = tf.constant(FIXTURE["inputs"])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        out = quantizer(inputs, training=True)
        through = tf.reduce_sum(out["quantised"] * FIXTURE["output_gradient"])
        total = through + out["commitment"]
    np.testing.assert_array_equal(tape.gradient(through, inputs), FIXTURE["grad_straight_through"])
    np.testing.assert_allclose(tape.gradient(total, inputs), FIXTURE["grad_total"], atol=1e-6)


def test_quantiser_fixture_evaluation_leaves_the_state_alone(quantizer):
    out = quantizer(FIXTURE["inputs"])
    np.testing.assert_allclose(out["quantised"], FIXTURE["eval.quantised"], atol=1e-5)
    np.testing.assert_array_equal(quantizer.codebook.numpy(), FIXTURE["codebook_before"])


def test_kmeans_start_puts_codes_on_the_clusters():
    centres = np.random.default_rng(0).normal(size=(4, 3)).astype("float32") * 10
    vectors = np.repeat(centres, 50, axis=0) + np.random.default_rng(1).normal(scale=0.01, size=(200, 3))
    quantizer = VectorQuantizer(4, 3)
    quantizer.start_from(vectors)
    order = np.argsort(quantizer.codebook.numpy()[:, 0])
    np.testing.assert_allclose(quantizer.codebook.numpy()[order], centres[np.argsort(centres[:, 0])], atol=0.01)
    np.testing.assert_allclose(
        quantizer.embedding_avg.numpy(), quantizer.codebook.numpy() * quantizer.cluster_size.numpy()[:, None], rtol=1e-6
    )
    with pytest.raises(ValueError, match="as many vectors"):
        quantizer.start_from(vectors[:3])


def test_unused_codes_restart_from_vectors_of_the_batch():
    quantizer = VectorQuantizer(16, 8, decay=0.5, reset_below=0.6)
    vectors = np.random.default_rng(0).normal(size=(4, 32, 8)).astype("float32") + 50.0  # far from every code
    used = []
    for step in range(6):
        used.append(len(np.unique(quantizer.nearest(vectors))))
        quantizer(vectors, training=True, seed=tf.constant([0, step]))
    assert used[0] <= 2
    assert used[-1] >= 12


def test_drawn_codes_are_the_likelier_the_nearer():
    quantizer = VectorQuantizer(2, 1)
    quantizer.codebook.assign([[0.0], [2.0]])
    vectors = np.full((1, 20_000, 1), 0.8, "float32")  # squared distances 0.64 and 1.44
    seed = tf.constant([1, 2])
    np.testing.assert_array_equal(quantizer.drawn(vectors, 0.0, seed), 0)
    for temperature in (0.5, 2.0):
        expected = 1 / (1 + np.exp(-(0.64 - 1.44) / (0.64 * temperature)))
        np.testing.assert_allclose(np.mean(quantizer.drawn(vectors, temperature, seed)), expected, atol=0.015)
