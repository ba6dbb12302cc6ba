"""Stage 3 of Time-VQVAE."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, lead_matrix
from ecgtf.generators.fidelity_enhancer import FidelityEnhancer
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.generators.token_prior import TokenPrior

FEW = {"steps": (2, 2)}


def enhancer(**options) -> FidelityEnhancer:
    tokenizer = TimeVQVAE(LEADS, 97, 100.0, np.linspace(0.1, 0.3, 12), width=32, depth=1, codes=(16, 16), code_dim=4)
    prior = TokenPrior(tokenizer, ("SR", "AFIB"), "rhythm4", width=32, depth=(1, 1), heads=2)
    return FidelityEnhancer(prior, **({"multipliers": (1, 2), "seed": 3} | options))


def test_an_enhancer_starts_as_no_change_and_keeps_the_limb_leads_together(tmp_path):
    model = enhancer()
    label, seed = tf.eye(2), tf.constant([4, 5])
    drawn = model.prior.sample(label, seed, **FEW)
    np.testing.assert_allclose(model.sample(label, seed, **FEW), drawn, atol=1e-6)
    model.network.leave.kernel.assign(np.random.default_rng(0).normal(size=model.network.leave.kernel.shape))
    changed = model.sample(label, seed, **FEW).numpy()
    assert np.abs(changed - drawn).max() > 1e-3
    modelled = changed[..., [LEADS.index(lead) for lead in INDEPENDENT_LEADS]]
    np.testing.assert_allclose(changed, modelled @ lead_matrix(INDEPENDENT_LEADS, LEADS), atol=1e-5)


def test_a_saved_enhancer_draws_the_same_samples_for_the_same_seed(tmp_path):
    model = enhancer(width=4, temperature=0.5, clip_norm=2.0)
    model.network.leave.kernel.assign(np.random.default_rng(0).normal(size=model.network.leave.kernel.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    label, seed = tf.eye(2), tf.constant([5, 0])
    np.testing.assert_array_equal(model.sample(label, seed, **FEW), loaded.sample(label, seed, **FEW))


def test_training_brings_reconstructions_nearer_and_leaves_the_prior_alone():
    model = enhancer(width=16)
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (64, 1, 1))
    signal = np.sin(2 * np.pi * np.arange(97)[:, None] / 20 + phase) * rng.normal(size=(1, 1, 8)) * 0.3
    signal = (signal @ lead_matrix(INDEPENDENT_LEADS, LEADS)).astype("float32")
    model.prior.tokenizer.start_codebooks(signal)
    label = np.zeros((64, 2), "float32")
    before = [weight.numpy() for weight in model.prior.weights]
    error = model.loss_terms(signal, label, tf.constant([1, 2]), training=False)["loss"]
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(tf.data.Dataset.from_tensors((signal, label)).repeat(), steps_per_epoch=60, verbose=0, shuffle=False)
    assert model.loss_terms(signal, label, tf.constant([1, 2]), training=False)["loss"] < 0.7 * error
    for one, other in zip(before, model.prior.weights, strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_a_temperature_below_zero_is_refused():
    with pytest.raises(ValueError, match="temperature of 0 or more"):
        enhancer(temperature=-1.0)
