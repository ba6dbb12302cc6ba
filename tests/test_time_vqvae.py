"""Both stages of Time-VQVAE: shapes, exact lead relations, saving with other than default arguments, conditional draws."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, lead_matrix
from ecgtf.generators.fidelity_enhancer import FidelityEnhancer
from ecgtf.generators.presets import get_preset
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.generators.token_prior import CodeLogits, TokenNetwork, TokenPrior


def tokenizer(samples=200, leads=LEADS, **options) -> TimeVQVAE:
    defaults = {"width": 32, "depth": 1, "codes": (32, 48), "code_dim": 4, "seed": 1}
    return TimeVQVAE(leads, samples, 100.0, np.linspace(0.1, 0.3, len(leads)), **(defaults | options))


def published(samples=200, leads=LEADS, **options) -> TimeVQVAE:
    defaults = {"downsampling": (8, 4), "depth": 1, "lead_loss": 0.0, "commitment": 1.0}
    return tokenizer(samples, leads, coder="published", **(defaults | options))


def prior(**options) -> TokenPrior:
    defaults = {"width": 32, "depth": (1, 1), "heads": 2, "seed": 2}
    return TokenPrior(tokenizer(), ("SR", "AFIB", "SB"), "rhythm4", **(defaults | options))


@pytest.fixture
def signals() -> np.ndarray:
    modelled = np.random.default_rng(0).normal(scale=0.3, size=(6, 200, 8))
    return (modelled @ lead_matrix(INDEPENDENT_LEADS, LEADS)).astype("float32")


@pytest.mark.parametrize("model_leads", ["independent", "all"])
@pytest.mark.parametrize(("samples", "downsampling"), [(200, (8, 8)), (203, (16, 4)), (97, (4, 8))])
def test_tokens_and_signals_have_the_promised_shapes(samples, downsampling, model_leads):
    model = tokenizer(samples, downsampling=downsampling, model_leads=model_leads)
    signal = np.random.default_rng(0).normal(size=(3, samples, 12)).astype("float32")
    low, high = model.encode(signal)
    assert (low.shape, high.shape) == ((3, model.tokens[0]), (3, model.tokens[1]))
    assert model.tokens[0] * downsampling[0] == model.tokens[1] * downsampling[1] >= samples
    assert model.decode(low, high).shape == (3, samples, 12)


def test_default_token_grid_is_2500_bits_for_ten_seconds_at_100_hz():
    model = TimeVQVAE(LEADS, 1000, 100.0, np.ones(12), width=32, depth=1)
    assert sum(n * np.log2(k) for n, k in zip(model.tokens, model.codes, strict=True)) == 2500


def test_limb_leads_follow_exactly_from_the_independent_ones(signals):
    rebuilt = tokenizer().reconstruct(signals).numpy()
    lead = {name: rebuilt[..., k] for k, name in enumerate(LEADS)}
    size = np.abs(rebuilt).max()
    assert size > 0
    for name, follows in {
        "III": lead["II"] - lead["I"],
        "aVR": -(lead["I"] + lead["II"]) / 2,
        "aVL": lead["I"] - lead["II"] / 2,
        "aVF": lead["II"] - lead["I"] / 2,
    }.items():
        np.testing.assert_allclose(lead[name], follows, atol=1e-6 * size, err_msg=name)


def test_scaling_is_undone_exactly(signals):
    model = tokenizer()
    np.testing.assert_allclose(model.to_signal(model.to_model(signals)), signals, atol=1e-6)


def test_leads_that_cannot_be_modelled_are_refused():
    with pytest.raises(ValueError, match="V6 are missing: model every lead with --leads all"):
        tokenizer(leads=("I", "II", "V1"))
    with pytest.raises(ValueError, match="'independent' or 'all'"):
        tokenizer(model_leads="some")
    assert tokenizer(leads=("I", "II", "V1"), model_leads="all").modelled_leads == ("I", "II", "V1")


def test_a_saved_tokenizer_gives_the_same_tokens_and_signals(tmp_path, signals):
    model = tokenizer(downsampling=(16, 8), n_fft=8, model_leads="all", commitment=0.7, decay=0.9, reset_below=0.5)
    model.start_codebooks(np.concatenate([signals] * 3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for mine, other in zip(model.encode(signals), loaded.encode(signals), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(model.reconstruct(signals), loaded.reconstruct(signals))


@pytest.mark.parametrize(
    ("model_leads", "downsampling", "tokens", "parameters"),
    [
        ("all", None, (7, 62), 1_193_280),
        ("all", (32, 8), (31, 250), 168_144),
        # 8 channels of real and imaginary parts less, for kernels of height h = 1 and 3: (4h taps, bias and length) + (4 first widths)
        # a channel into the encoder; 4 first widths and a bias out of the decoder's last but one doubling; its last one is a full
        # convolution of 4h taps and one of 1, with a bias each
        (
            "independent",
            None,
            (7, 62),
            1_193_280 - sum(8 * (4 * h + 2 + 4 + 4 + 1) + (24**2 - 16**2) * (4 * h + 1) + 16 for h in (1, 3)),
        ),
    ],
)
def test_the_published_coder_has_the_published_number_of_parameters(model_leads, downsampling, tokens, parameters):
    options = get_preset("vqvae", "paper").stages[0].options
    options = options if downsampling is None else {**options, "downsampling": downsampling}
    model = TimeVQVAE(LEADS, 1000, 100.0, np.ones(12), model_leads=model_leads, **options)
    assert model.tokens == tokens
    assert sum(np.prod(weight.shape) for weight in model.trainable_variables) == parameters
    # what does not learn by gradients: codebooks with their counts and sums, and the moments of batch normalisations
    moments = [weight for weight in model.non_trainable_variables if weight.name.startswith("moving")]
    assert len(model.non_trainable_variables) == 2 * 3 + len(moments)


@pytest.mark.parametrize("model_leads", ["independent", "all"])
@pytest.mark.parametrize(("samples", "downsampling", "n_fft"), [(200, (8, 4), 4), (203, (16, 2), 4), (97, (4, 8), 8)])
def test_published_tokens_and_signals_have_the_promised_shapes(samples, downsampling, n_fft, model_leads):
    model = published(samples, downsampling=downsampling, n_fft=n_fft, model_leads=model_leads, depth=0)
    signal = np.random.default_rng(0).normal(size=(3, samples, 12)).astype("float32")
    low, high = model.encode(signal)
    # the transform has a frame more than the signal has samples; the high band's bins have tokens each
    assert model.tokens == ((samples + 1) // downsampling[0], (samples + 1) // downsampling[1] * (n_fft // 2))
    assert (low.shape, high.shape) == ((3, model.tokens[0]), (3, model.tokens[1]))
    assert model.decode(low, high).shape == model.reconstruct(signal).shape == signal.shape


def test_coders_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="coder must be one of sequence, published, received 'unet'"):
        tokenizer(coder="unet")
    for downsampling in ((8, 1), (512, 8)):
        with pytest.raises(ValueError, match="downsampling of at least 2 that leaves a token of 200 samples"):
            published(downsampling=downsampling)
    with pytest.raises(ValueError, match="expected powers of two"):
        published(downsampling=(8, 6))


@pytest.mark.parametrize(
    ("stage", "options", "says"),
    [
        (TimeVQVAE, {"codes": (0, 16)}, r"expected codes as 2 whole numbers >= 1, received \(0, 16\)"),
        (TimeVQVAE, {"codes": (16, 16, 16)}, "expected codes as 2 whole numbers >= 1"),
        (TimeVQVAE, {"codes": 16}, "expected codes as 2 whole numbers >= 1, received 16"),
        (TimeVQVAE, {"downsampling": (8.0, 4)}, r"expected downsampling as 2 whole numbers >= 1, received \(8.0, 4\)"),
        (TimeVQVAE, {"code_dim": 0}, "expected code_dim as a whole number >= 1, received 0"),
        (TimeVQVAE, {"width": 3}, "expected width as a whole number >= 4, received 3"),
        (TimeVQVAE, {"depth": -1}, "expected depth as a whole number >= 0, received -1"),
        (TimeVQVAE, {"n_fft": 2}, "expected n_fft as a whole number >= 4, received 2"),
        (TimeVQVAE, {"decay": 1.5}, "expected decay from 0 to 1, received 1.5"),
        (TimeVQVAE, {"commitment": -1.0}, "expected commitment of 0 or more, received -1.0"),
        (TimeVQVAE, {"lead_loss": np.nan}, "expected lead_loss of 0 or more, received nan"),
        (TimeVQVAE, {"reset_below": -1}, "expected reset_below of 0 or more, received -1"),
        (TokenPrior, {"label_drop": -0.1}, "expected label_drop from 0 to 1, received -0.1"),
        (TokenPrior, {"token_drop": 1.1}, "expected token_drop from 0 to 1, received 1.1"),
        (TokenPrior, {"depth": (1,)}, r"expected depth as 2 whole numbers >= 1, received \(1,\)"),
        (TokenPrior, {"heads": 0}, "expected heads as a whole number >= 1, received 0"),
        (TokenPrior, {"width": 2}, "expected width as a whole number >= 4, received 2"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(stage, options, says):
    with pytest.raises(ValueError, match=says) as told:
        tokenizer(**options) if stage is TimeVQVAE else prior(**options)
    assert "\n" not in str(told.value)


def test_the_published_loss_is_of_the_bands_and_the_codes(signals):
    for model, weight in ((published(commitment=0.7), 0.0), (published(commitment=0.7, lead_loss=1.0), 1.0)):
        terms = model.loss_terms(signals, None, tf.constant([1, 2]), training=False)
        whole = terms["low"] + terms["high"] + 0.7 * terms["commitment"] + weight * terms["leads"]
        assert float(terms["loss"]) == pytest.approx(float(whole), rel=1e-6)


def test_states_move_in_training_only(signals):
    model = published(codes=(8, 8), depth=0)
    states = [weight for weight in model.non_trainable_variables if "seed" not in weight.path]
    assert {"moving_mean", "moving_variance", "codebook"} <= {weight.name for weight in states}
    before = [weight.numpy() for weight in states]
    model.reconstruct(signals)
    model.reconstruct_at(signals, 1.0, tf.constant([1, 2]))
    evaluated = [model.loss_terms(signals, None, tf.constant([seed, 2]), training=False)["loss"] for seed in (1, 2)]
    assert float(evaluated[0]) == float(evaluated[1])  # nothing is drawn
    for weight, value in zip(states, before, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)
    model.loss_terms(signals, None, tf.constant([1, 2]), training=True)
    assert all(np.abs(weight.numpy() - value).max() > 0 for weight, value in zip(states, before, strict=True))


def test_every_weight_of_the_published_coder_learns(signals):
    model = published()
    with tf.GradientTape() as tape:
        loss = model.loss_terms(signals, None, tf.constant([1, 2]), training=True)["loss"]
    gradients = tape.gradient(loss, model.trainable_variables)
    missing = [
        v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None or not np.isfinite(g).all()
    ]
    assert missing == []


def test_a_few_steps_lower_the_published_loss():
    rng = np.random.default_rng(0)
    phase = np.cumsum(rng.uniform(0.1, 0.6, size=(32, 1, 1)) * np.ones((1, 64, 1)), axis=1)
    signal = (np.sin(phase) * rng.normal(size=(32, 1, 12))).astype("float32")
    keras.utils.set_random_seed(0)
    model = published(64, downsampling=(2, 2), depth=0, width=16, codes=(32, 32))
    model.start_codebooks(signal)
    model.compile(keras.optimizers.SGD(0.5))
    data = tf.data.Dataset.from_tensor_slices((signal, np.ones((32, 1), "float32"))).batch(32).repeat()
    losses = model.fit(data, steps_per_epoch=10, epochs=3, verbose=0, shuffle=False).history["loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


def test_a_saved_published_chain_gives_the_same_signals(tmp_path, signals):
    coder = published(model_leads="all", depth=0)
    coder.start_codebooks(np.concatenate([signals] * 3))
    coder.loss_terms(signals, None, tf.constant([1, 2]), training=True)
    model = FidelityEnhancer(
        TokenPrior(coder, ("SR", "AFIB"), "rhythm4", width=32, depth=(1, 1), heads=2), width=8, multipliers=(1,)
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    other = loaded.prior.tokenizer
    assert (other.coder, other.lead_loss, other.downsampling) == ("published", 0.0, (8, 4))
    np.testing.assert_array_equal(coder.reconstruct(signals), other.reconstruct(signals))
    label, seed = tf.eye(2), tf.constant([5, 0])
    drawn = model.sample(label, seed, guidance=1.5, steps=(4, 3), temperature=(10.0, 0.0))
    assert drawn.shape == (2, 200, 12)
    np.testing.assert_array_equal(drawn, loaded.sample(label, seed, guidance=1.5, steps=(4, 3), temperature=(10.0, 0.0)))
    for frozen in (model, model.prior):
        before = [weight.numpy() for weight in coder.weights]
        frozen.loss_terms(signals, tf.eye(2)[:1] * np.ones((6, 1)), tf.constant([1, 2]), training=True)
        for weight, value in zip(coder.weights, before, strict=True):
            np.testing.assert_array_equal(weight, value, err_msg=weight.path)


@pytest.mark.parametrize("causal", [True, False])
def test_a_saved_prior_draws_the_same_samples_for_the_same_seed(tmp_path, causal):
    model = prior(depth=(2, 1), mask_convention="known", token_drop=0.3, label_drop=0.5, clip_norm=2.0, causal=causal)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    label, seed = tf.eye(3), tf.constant([5, 0])
    drawn = model.sample(label, seed, guidance=1.5, steps=(4, 3))
    np.testing.assert_array_equal(drawn, loaded.sample(label, seed, guidance=1.5, steps=(4, 3)))
    assert np.abs(drawn - model.sample(label, tf.constant([6, 0]), guidance=1.5, steps=(4, 3))).max() > 0


@pytest.mark.parametrize("causal", [True, False])
def test_guidance_of_one_is_the_conditional_model(causal):
    model = prior(causal=causal)
    label, seed = tf.eye(3), tf.constant([5, 0])
    # 1 + 1e-7 goes through the guided path, with the null label in the same batch
    guided = model.sample(label, seed, guidance=1.0 + 1e-7, steps=(4, 3))
    np.testing.assert_allclose(guided, model.sample(label, seed, guidance=1.0, steps=(4, 3)), atol=1e-5)


def test_a_causal_prior_tells_a_token_from_those_before_it_alone():
    model = prior(depth=(2, 1))
    rng = np.random.default_rng(0)
    low, condition = rng.integers(32, size=(4, 25)).astype("int32"), model.condition(tf.eye(3)[:1])
    condition = tf.repeat(condition, 4, axis=0)
    logits = model.low_logits(low, condition).numpy()
    changed = low.copy()
    changed[:, 12:] = (low[:, 12:] + 7) % 32
    after = model.low_logits(changed, condition).numpy()
    np.testing.assert_allclose(after[:, :13], logits[:, :13], atol=1e-6)
    assert np.abs(after[:, 13:] - logits[:, 13:]).max() > 1e-3


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.1)])
def test_stepping_through_a_row_gives_what_the_whole_row_gives(precision, tolerance):
    keras.config.set_dtype_policy(precision)
    try:
        network = TokenNetwork(32, 3, 2, causal=True)
        network.build((None, 25, 5), (None, 32))
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.compute_dtype == precision.removeprefix("mixed_")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 25, 5)).astype("float32")
    condition = rng.normal(size=(4, 32)).astype("float32")
    state = network.empty_state(4)
    for position in range(25):
        hidden, state = network.step(vectors[:, position : position + 1], condition, position, state)
        np.testing.assert_allclose(hidden[:, 0], network(vectors, condition)[:, position], atol=tolerance)


def test_hidden_labels_are_the_null_vector_and_not_an_empty_label():
    model = prior()
    label = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    condition = model.condition(label, tf.constant([True, False, False])).numpy()
    embedding = model.condition.embedding.numpy()
    np.testing.assert_allclose(
        condition, [model.condition.null.numpy(), 0 * embedding[0], embedding[0] + embedding[1]], atol=1e-7
    )


def test_what_is_learned_of_a_code_holds_for_its_neighbours():
    """Codes on a line: a gradient step that favours one code raises the codes beside it more than those at the far ends."""
    keras.utils.set_random_seed(0)
    layer = CodeLogits(width=16, codes=33, dim=1)
    codebook = tf.reshape(tf.linspace(-1.0, 1.0, 33), (33, 1))
    hidden = tf.random.stateless_normal((64, 4, 16), [1, 2])
    optimizer = keras.optimizers.Adam(1e-2)
    before = layer(hidden, codebook)
    for _ in range(20):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(layer(hidden, codebook)[..., 24]) + tf.reduce_mean(layer(hidden, codebook))
        optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
    raised = tf.reduce_mean(layer(hidden, codebook) - before, axis=(0, 1)).numpy()
    assert raised[[23, 25]].mean() > raised[[0, 1, 2, 3]].mean()
    assert raised.argmax() == 24


def test_the_prior_learns_what_sets_two_classes_apart():
    """Constant records of two levels: after a short training each class is drawn at its own level."""
    rng = np.random.default_rng(0)
    label = np.eye(2, dtype="float32")[rng.integers(2, size=256)]
    level = np.where(label[:, 0] > 0, 1.0, -1.0)[:, None, None]
    signal = (level + rng.normal(scale=0.05, size=(256, 80, 8))).astype("float32")
    coder = TimeVQVAE(INDEPENDENT_LEADS, 80, 100.0, [1.0] * 8, width=32, depth=1, codes=(16, 16), code_dim=4)
    coder.compile(keras.optimizers.Adam(3e-3))
    coder.start_codebooks(signal)
    data = tf.data.Dataset.from_tensor_slices((signal, label)).batch(64).repeat()
    coder.fit(data, steps_per_epoch=80, verbose=0, shuffle=False)
    model = TokenPrior(coder, ("high", "low"), "rhythm4", width=32, depth=(1, 1), heads=2)
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(data, steps_per_epoch=80, verbose=0, shuffle=False)
    drawn = model.sample(tf.repeat(tf.eye(2), 20, axis=0), tf.constant([0, 0])).numpy().mean(axis=(1, 2))
    assert (drawn[:20] > 0.5).mean() > 0.9
    assert (drawn[20:] < -0.5).mean() > 0.9
