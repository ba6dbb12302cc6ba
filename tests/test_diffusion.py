"""Diffusion and flow models: any signal, saving with other than default arguments, conditional draws, what the loss weighs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.ecg import INDEPENDENT_LEADS, LEADS
from ecgtf.generators.base import Generator
from ecgtf.generators.diffusion import Diffusion
from ecgtf.generators.flow import FlowMatching

CLASSES = ("SR", "AFIB", "SB")
NETWORKS = {
    "diffwave": {"width": 16, "depth": 3, "cycle": 3, "condition_width": 8},
    "timediffusion": {"width": 16, "multipliers": (1, 2)},
}


def model(build=Diffusion, network="diffwave", samples=90, leads=LEADS, classes=CLASSES, **options) -> Generator:
    defaults = {"classes": classes, "task": "rhythm4", "network_options": NETWORKS[network], "noise_levels": 40, "seed": 1}
    return build(leads, samples, 100.0, np.linspace(0.1, 0.3, len(leads)), network=network, **(defaults | options))


def waken(generator: Generator) -> Generator:
    """Random last weights: DiffWave's start at zero, by which every output would be the same."""
    generator.network.leave.kernel.assign(np.random.default_rng(0).normal(0, 0.3, generator.network.leave.kernel.shape))
    return generator


def one_step(generator: Generator, signal: np.ndarray, label: np.ndarray) -> dict[str, float]:
    data = tf.data.Dataset.from_tensors((signal, label))
    return {name: values[0] for name, values in generator.fit(data, verbose=0, shuffle=False).history.items()}


@pytest.mark.parametrize(
    ("build", "network", "samples", "leads", "options"),
    [
        (Diffusion, "diffwave", 1000, LEADS, {}),
        (FlowMatching, "diffwave", 97, INDEPENDENT_LEADS, {"patch": 4}),
        (Diffusion, "diffwave", 5000, LEADS, {"patch": 8}),
        (FlowMatching, "timediffusion", 1000, LEADS, {"patch": 2, "prefix": 0.5}),
        (Diffusion, "timediffusion", 97, LEADS, {"model_leads": "all"}),
        (Diffusion, "timediffusion", 5000, INDEPENDENT_LEADS, {"patch": 8}),
    ],
)
def test_signals_of_any_length_and_leads_are_learnt_and_drawn(build, network, samples, leads, options):
    generator = model(build, network, samples, leads, **options)
    generator.compile(keras.optimizers.Adam(1e-3))
    signal = np.random.default_rng(0).normal(scale=0.3, size=(3, samples, len(leads))).astype("float32")
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], "float32")  # one-hot, multi-hot, none
    terms = one_step(generator, signal, labels)
    assert terms.keys() == {*generator.term_names, "gradient_norm"}
    assert all(np.isfinite(value) for value in terms.values())
    drawn = generator.sample(tf.constant(labels), tf.constant([1, 2]), steps=2, guidance=2.0)
    assert drawn.shape == signal.shape
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize("network", ["diffwave", "timediffusion"])
def test_gradient_checkpointing_takes_the_same_steps(network):
    def trained(checkpointing: bool) -> tuple[Generator, list[np.ndarray]]:
        keras.utils.set_random_seed(0)
        generator = waken(model(Diffusion, network, 200, LEADS, patch=4, gradient_checkpointing=checkpointing))
        generator.compile(keras.optimizers.SGD(0.1))
        signal = np.random.default_rng(1).normal(size=(4, 200, len(LEADS))).astype("float32")
        for _ in range(3):
            one_step(generator, signal, np.eye(3, dtype="float32")[[0, 1, 2, 0]])
        return generator, generator.get_weights()

    (_, plain), (generator, checkpointed) = trained(False), trained(True)
    for one, other in zip(plain, checkpointed, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert "gradient_checkpointing" not in generator.get_config()  # a model that is loaded to draw has no use for it


SAVED = [
    (
        Diffusion,
        {"schedule": "zero_terminal_snr", "schedule_options": {"last": 0.05}, "prediction": "x0", "loss": "l1", "min_snr": 3.0},
    ),
    (
        Diffusion,
        {
            "schedule": "linear",
            "prediction": "eps",
            "network": "timediffusion",
            "patch": 3,
            "label_drop": 0.3,
            "clip_norm": 2.0,
        },
    ),
    (Diffusion, {"prediction": "x0", "v_limit": 5.0}),
    (FlowMatching, {"prediction": "x0", "v_limit": 5.0}),
    (FlowMatching, {"times": "uniform", "network": "timediffusion", "model_leads": "all", "noise_levels": 30}),
]


@pytest.mark.parametrize(("build", "options"), SAVED)
def test_a_saved_model_draws_the_same_samples_for_the_same_seed(tmp_path, build, options):
    generator = waken(model(build, **options))
    generator.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == generator.get_config()
    label, seed = tf.eye(3), tf.constant([5, 0])
    drawn = generator.sample(label, seed, guidance=1.5, steps=4)
    np.testing.assert_array_equal(drawn, loaded.sample(label, seed, guidance=1.5, steps=4))
    assert np.abs(drawn - generator.sample(label, tf.constant([6, 0]), guidance=1.5, steps=4)).max() > 0


@pytest.mark.parametrize("build", [Diffusion, FlowMatching])
def test_guidance_of_one_is_the_conditional_model(build):
    generator = waken(model(build))
    label, seed = tf.eye(3), tf.constant([5, 0])
    # 1 + 1e-7 goes through the guided path, with the null label in the same batch
    guided = generator.sample(label, seed, guidance=1.0 + 1e-7, steps=6)
    plain = generator.sample(label, seed, guidance=1.0, steps=6)
    np.testing.assert_allclose(guided, plain, atol=1e-5)
    assert np.abs(generator.sample(label, seed, guidance=3.0, steps=6) - plain).max() > 1e-3


def test_a_sampling_run_looks_at_the_network_once_a_step_and_at_both_labels_in_one_call():
    generator, calls = model(), []
    predict = generator.predict_with_network
    generator.predict_with_network = lambda x, *others: calls.append(x.shape) or predict(x, *others)
    draw = tf.function(lambda label, seed: generator.sample(label, seed, guidance=2.0, steps=20))
    for seed in ([1, 0], [1, 1]):
        draw(tf.eye(3), tf.constant(seed))
    assert calls == [(6, 90, 8)]  # traced once, for all steps and batches


def test_losses_by_noise_level_make_up_the_loss():
    generator = model(min_snr=None)
    signal = np.random.default_rng(0).normal(scale=0.3, size=(8, 90, 12)).astype("float32")
    terms = generator.loss_terms(tf.constant(signal), tf.eye(8, 3), tf.constant([1, 2]), training=True)
    sums, numbers = zip(*(terms[f"loss_level_{k}"] for k in range(1, 5)), strict=True)
    assert numbers == (2, 2, 2, 2)  # one draw in each eighth of the noise levels
    np.testing.assert_allclose(np.sum(sums) / 8, terms["loss"], rtol=1e-5)


def test_a_noise_level_that_a_batch_has_no_record_of_leaves_its_mean_as_it_was():
    generator = model(FlowMatching)
    generator.compile(keras.optimizers.SGD(0.0))
    signal = np.random.default_rng(0).normal(scale=0.3, size=(2, 90, 12)).astype("float32")
    data = tf.data.Dataset.from_tensors((signal, np.eye(2, 3, dtype="float32"))).repeat(12)
    seen = generator.fit(data, verbose=0, shuffle=False).history
    for level in range(1, 5):  # without a trained network the loss is 1 + the signal's variance, at every level
        assert seen[f"loss_level_{level}"][0] == pytest.approx(seen["loss"][0], rel=0.2)


def test_a_perfect_network_has_no_loss():
    for build, options in (
        (Diffusion, {"prediction": "x0"}),
        (Diffusion, {"prediction": "eps"}),
        (Diffusion, {}),
        (FlowMatching, {}),
        (FlowMatching, {"prediction": "x0", "v_limit": 5.0}),
    ):
        generator = model(build, **options)
        values, noise = (tf.random.stateless_normal((5, 90, 8), [0, k]) for k in (1, 2))
        place = tf.constant([0.0, 0.2, 0.4, 0.6, 0.8])

        def perfect(x, step, *_, generator=generator, values=values, noise=noise, place=place):
            if isinstance(generator, FlowMatching):
                return values if generator.prediction == "x0" else noise - values
            share = tf.gather(tf.constant(generator.schedule.alpha_bar, tf.float32), tf.cast(step, tf.int32))[:, None, None]
            np.testing.assert_allclose(x, tf.sqrt(share) * values + tf.sqrt(1 - share) * noise, atol=1e-5)
            v = tf.sqrt(share) * noise - tf.sqrt(1 - share) * values
            return {"x0": values, "eps": noise, "v": v}[generator.prediction]

        generator.predict_with_network = perfect
        losses, _ = generator.losses(values, noise, place, None)
        np.testing.assert_allclose(losses, 0.0, atol=1e-9)


def test_a_place_that_rounds_to_one_is_the_last_step():
    generator = model()
    values, noise = (tf.random.stateless_normal((2, 90, 8), [0, k]) for k in (1, 2))
    losses, _ = generator.losses(values, noise, tf.constant([1.0 - 1e-6, 1.0]), generator.condition(tf.eye(2, 3)))
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("build", [Diffusion, FlowMatching])
def test_what_is_known_has_no_noise_and_no_loss(build):
    generator = waken(model(build, prefix=0.5))
    values, noise, other = (tf.random.stateless_normal((2, 90, 8), [0, k]) for k in (1, 2, 3))
    place, condition = tf.constant([0.3, 0.7]), generator.condition(tf.eye(2, 3))
    known = generator.known_until(tf.constant([0.0, 0.5]))
    np.testing.assert_array_equal(tf.reduce_sum(known, axis=(1, 2)), [0, 45])
    one, _ = generator.losses(values, noise, place, condition, known)
    two, _ = generator.losses(values, tf.where(known > 0, other, noise), place, condition, known)
    np.testing.assert_allclose(one, two, rtol=1e-5)
    changed = tf.where(tf.range(90)[None, :, None] < 45, other, values)
    assert abs(generator.losses(changed, noise, place, condition, known)[0][1] - one[1]) > 1e-4  # but it is seen


@pytest.mark.parametrize(
    ("build", "options"), [(Diffusion, {"prediction": "x0", "schedule": "log_linear"}), (FlowMatching, {})]
)
def test_parts_follow_from_those_before(build, options):
    """Records that are one standard normal number at every time, and the network that knows it: where anything is known, all is."""
    generator = model(build, prefix=0.5, **options)

    def predict(x, step, _, known, clean):
        if isinstance(generator, FlowMatching):
            time = tf.reshape(step / 39, (-1, 1, 1))
            alpha, variance = 1 - time, time**2
        else:
            share = tf.gather(tf.constant(generator.schedule.alpha_bar, tf.float32), tf.cast(step, tf.int32))[:, None, None]
            alpha, variance = tf.sqrt(share), 1 - share
        seen = tf.reduce_sum(x, axis=1, keepdims=True) * alpha / (90 * alpha**2 + variance)  # the mean given what is noisy
        told = tf.reduce_sum(clean * known, axis=1, keepdims=True) / tf.maximum(tf.reduce_sum(known), 1.0)
        x0 = tf.broadcast_to(tf.where(tf.reduce_any(known > 0), told, seen), tf.shape(x))
        return (x - x0) / tf.maximum(tf.reshape(step / 39, (-1, 1, 1)), 1e-6) if isinstance(generator, FlowMatching) else x0

    generator.predict_with_network = predict
    drawn = generator.to_model(generator.sample(tf.eye(200, 3), tf.constant([1, 2]), steps=40, parts=3)).numpy()
    np.testing.assert_allclose(drawn[:, 30:], np.broadcast_to(drawn[:, 30:31], drawn[:, 30:].shape), atol=1e-3)
    np.testing.assert_allclose(drawn[:, 30], drawn[:, :30].mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(drawn[:, 30].std(), 1.0, atol=0.1)


def test_min_snr_weighs_every_prediction_alike_in_terms_of_x0():
    """Hang et al. 2023, section 3.4: min(SNR, gamma) for x0, over SNR for eps, over SNR + 1 for v."""
    ratio = np.exp(model().schedule.log_snr)
    for prediction, expected in (
        ("x0", np.minimum(ratio, 5)),
        ("eps", np.minimum(ratio, 5) / ratio),
        ("v", np.minimum(ratio, 5) / (ratio + 1)),
    ):
        np.testing.assert_allclose(model(prediction=prediction, min_snr=5.0).loss_weights(), expected, rtol=1e-9)
    np.testing.assert_array_equal(model().loss_weights(), 1.0)


def test_a_limit_on_the_loss_of_v_weighs_every_prediction_alike_and_keeps_much_noise():
    ratio = np.exp(model().schedule.log_snr)
    limited = np.minimum(ratio + 1, 5)  # of the squared error of x0; that of v is SNR + 1 times it
    for prediction, expected in (("x0", limited), ("eps", limited / ratio), ("v", limited / (ratio + 1))):
        np.testing.assert_allclose(model(prediction=prediction, v_limit=5.0).loss_weights(), expected, rtol=1e-9)
    assert limited.min() >= 1
    with pytest.raises(ValueError, match="give min_snr or v_limit, not both"):
        model(min_snr=5.0, v_limit=5.0)


@pytest.mark.parametrize(("network", "precision"), [("diffwave", "mixed_float16"), ("timediffusion", "mixed_bfloat16")])
def test_half_precision_learns_and_draws_near_float32(network, precision):
    signal = np.random.default_rng(0).normal(scale=0.3, size=(4, 90, 12)).astype("float32")
    drawn, terms = {}, {}
    for policy in ("float32", precision):
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(0)
            generator = waken(model(network=network))
            generator.compile(keras.optimizers.Adam(1e-3))
        finally:
            keras.config.set_dtype_policy("float32")
        terms[policy] = generator.loss_terms(tf.constant(signal), tf.eye(4, 3), tf.constant([1, 2]), training=True)["loss"]
        drawn[policy] = generator.sample(tf.eye(3), tf.constant([1, 2]), steps=5).numpy()
        assert np.isfinite(one_step(generator, signal, np.eye(4, 3, dtype="float32"))["gradient_norm"])
    assert drawn[precision].dtype == np.float32
    np.testing.assert_allclose(terms[precision], terms["float32"], rtol=0.05)
    assert np.abs(drawn[precision] - drawn["float32"]).mean() < 0.1 * np.abs(drawn["float32"]).mean()


@pytest.mark.parametrize(
    ("build", "network", "options"),
    [
        (Diffusion, "diffwave", {}),
        (FlowMatching, "timediffusion", {}),
        (FlowMatching, "timediffusion", {"prediction": "x0", "v_limit": 5.0}),
    ],
)
def test_the_model_learns_what_sets_two_classes_apart(build, network, options):
    """Slow and fast sines of random phase: each class is drawn at its own frequency, at about its own amplitude."""
    rng = np.random.default_rng(0)
    label = np.eye(2, dtype="float32")[rng.integers(2, size=512)]
    cycles = np.where(label[:, :1] > 0, 2.0, 8.0)
    sine = np.sin(2 * np.pi * (cycles * np.arange(64) / 64 + rng.uniform(size=(512, 1))))
    signal = np.repeat(sine[..., None], 8, axis=-1).astype("float32")
    generator = build(
        INDEPENDENT_LEADS,
        64,
        100.0,
        [1.0] * 8,
        classes=("slow", "fast"),
        task="rhythm4",
        network=network,
        network_options={
            "diffwave": {"width": 32, "depth": 8, "cycle": 5, "last_frequency": 1e-4},
            "timediffusion": {"width": 16, "multipliers": (1, 2)},
        }[network],
        noise_levels=200,
        patch=2,
        **options,
    )
    generator.compile(keras.optimizers.Adam(3e-3))
    data = tf.data.Dataset.from_tensor_slices((signal, label)).batch(32).repeat()
    generator.fit(data, steps_per_epoch=250, verbose=0, shuffle=False)
    drawn = generator.sample(tf.repeat(tf.eye(2), 20, axis=0), tf.constant([0, 0]), steps=20).numpy().mean(axis=2)
    strongest = np.abs(np.fft.rfft(drawn, axis=1)).argmax(axis=1)
    assert (np.abs(strongest[:20] - 2) <= 1).mean() > 0.9
    assert (np.abs(strongest[20:] - 8) <= 1).mean() > 0.9
    assert 0.5 < drawn.std() < 0.9  # a sine's is 0.71


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "quadratic"}, "unknown schedule 'quadratic'; expected one of linear, cosine"),
        ({"schedule": [1]}, r"unknown schedule \[1\]; expected one of linear, cosine"),
        ({"prediction": "score"}, "unknown prediction 'score'; expected one of eps, x0, v"),
        ({"build": FlowMatching, "prediction": "v"}, "unknown prediction 'v' of flow matching; expected velocity or x0"),
        ({"build": FlowMatching, "v_limit": 5.0}, "v_limit is for prediction x0"),
        ({"loss": "huber"}, "unknown loss 'huber'; expected l1 or l2"),
        ({"schedule": "zero_terminal_snr", "prediction": "eps"}, "predict x0 or v"),
        ({"schedule_options": {"lats": 0.1}}, r"expected options of the schedule cosine, received {'lats': 0.1}: .*'lats'"),
        ({"schedule_options": [1]}, r"expected options of the schedule cosine, received \[1\]: "),
        ({"label_drop": 2.0}, "expected label_drop from 0 to 1, received 2.0"),
        ({"label_drop": "some"}, "expected label_drop from 0 to 1, received 'some'"),
        ({"prefix": "half"}, "expected prefix from 0 to 1, received 'half'"),
        ({"prefix": True}, "expected prefix from 0 to 1, received True"),
        ({"patch": 0}, "expected patch as a whole number >= 1, received 0"),
        ({"patch": 2.0}, "expected patch as a whole number >= 1, received 2.0"),
        ({"noise_levels": -3}, "expected noise_levels as a whole number >= 1, received -3"),
        ({"min_snr": -3.0}, "expected min_snr above 0, received -3.0"),
        ({"v_limit": 0}, "expected v_limit above 0, received 0"),
        ({"build": FlowMatching, "prediction": "x0", "v_limit": np.nan}, "expected v_limit above 0, received nan"),
        ({"network_options": {"width": 2}}, "expected width as a whole number >= 4, received 2"),
        ({"network_options": {"depth": 0}}, "expected depth as a whole number >= 1, received 0"),
        ({"network_options": {"cycle": 0}}, "expected cycle as a whole number >= 1, received 0"),
        ({"network_options": {"condition_width": -1}}, "expected condition_width as a whole number >= 0, received -1"),
        ({"network_options": {"last_frequency": 0.0}}, "expected last_frequency above 0, received 0.0"),
        ({"network_options": {"blocks": True}}, "expected blocks as a whole number >= 0, received True"),
        ({"network": "timediffusion", "network_options": {"width": 3}}, "expected width as a whole number >= 4, received 3"),
        ({"network": "timediffusion", "network_options": {"width": 9}}, "expected an even width, .* received 9"),
        (
            {"network": "timediffusion", "network_options": {"multipliers": []}},
            r"expected multipliers as whole numbers >= 1, received \[\]",
        ),
        ({"network": "timediffusion", "network_options": {"multipliers": "1,2"}}, "expected multipliers .* received '1,2'"),
        (
            {"network": "timediffusion", "network_options": {"depth": 2}},
            "timediffusion has no network option 'depth'; expected one of width, multipliers, conditional, blocks",
        ),
        (
            {"network_options": {"steps": 2}},
            "diffwave has no network option 'steps'; expected one of width, depth, cycle, condition_width, last_frequency, blocks",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as told:
        model(**options)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (Diffusion, {"sampler": "heun"}, "unknown sampler 'heun'; expected one of ddpm, ddim, dpmpp, fast"),
        (Diffusion, {"steps": 41}, "expected 1 to 40 sampling steps"),
        (Diffusion, {"steps": 0}, "expected one number of sampling steps, 1 or more"),
        (Diffusion, {"steps": (3, 4)}, "expected one number of sampling steps"),
        (Diffusion, {"eta": 0.5}, "of 0 for other samplers than ddim"),
        (Diffusion, {"temperature": 1.0}, "no sampling option temperature=1.0; it has guidance, sampler, steps, eta, parts"),
        (Diffusion, {"parts": 2}, "expected 1 part, or up to 90 of a generator that was trained with a prefix, received 2"),
        (Diffusion, {"guidance": -1.0}, "guidance weight of 0 or more"),
        (Diffusion, {"sampler": "fast", "steps": 7}, "the sampler fast takes 6 steps"),
        (Diffusion, {"sampler": "fast"}, "the sampler fast is for DiffWave's own linear schedule: use dpmpp"),
        (FlowMatching, {"sampler": "ddim"}, "unknown sampler 'ddim' of flow matching; expected one of euler, heun"),
        (FlowMatching, {"eta": 1.0}, "no sampling option eta"),
    ],
)
def test_what_cannot_be_drawn_is_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        model(build).check_sampling(options)
