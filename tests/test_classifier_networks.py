"""What every kind of classifier must do; what is special to one is in its own test file."""

import keras
import numpy as np
import pytest

from ecgtf.classifiers import KINDS
from ecgtf.classifiers.networks import BUILDERS, PRESETS, features, training_preset
from ecgtf.classifiers.parts import LogitsHead
from ecgtf.classifiers.transfer import replace_head
from ecgtf.tasks import get_task

LEADS = 3
MEAN, STD = [0.1, -0.2, 0.0], [0.5, 1.0, 0.2]
FEATURES = {"resnet1d": 16, "inception_time": 16, "xresnet1d": 64}
"""Pooled features of the tiny networks."""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def tiny(kind, samples=200, multi_label=False, leads=LEADS, **options):
    builder, presets = BUILDERS[kind]
    statistics = (MEAN, STD) if leads == LEADS else ([0.0] * leads, [1.0] * leads)
    return builder((samples, leads), ("SR", "AFIB"), multi_label, *statistics, **(presets["tiny"] | options))


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_the_names_for_the_command_line_are_those_of_the_builders():
    assert tuple(BUILDERS) == KINDS
    assert all(presets.keys() == PRESETS.keys() for _, presets in BUILDERS.values())


def test_a_kind_may_have_learning_rates_of_its_own():
    assert training_preset("resnet1d", "small") == PRESETS["small"]
    assert training_preset("xresnet1d", "paper") == PRESETS["paper"] | {"learning_rate": 1e-2}  # that of the benchmark
    assert training_preset("xresnet1d", "tiny") == PRESETS["tiny"]


@pytest.mark.parametrize("samples", [97, 1000, 5000])
@pytest.mark.parametrize("leads", [8, 12])
def test_signals_of_any_length_give_a_logit_for_each_class(kind, samples, leads):
    model = tiny(kind, samples, leads=leads)
    logits = model.predict(noise(2, samples, leads), verbose=0)
    assert logits.shape == (2, 2)
    assert np.isfinite(logits).all()


def test_millivolts_are_normalised_inside_the_model(kind):
    signal = noise(2, 200, LEADS)
    expected = (signal - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(tiny(kind).get_layer("normalise")(signal), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_save_and_load_give_the_same_logits_and_names(tmp_path, kind, multi_label):
    model = tiny(kind, multi_label=multi_label, dropout=0.3)
    signal = noise(2, 200, LEADS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(signal, verbose=0), loaded.predict(signal, verbose=0))
    head = loaded.get_layer("logits")
    assert (head.classes, head.multi_label) == (("SR", "AFIB"), multi_label)
    assert features(loaded, signal).shape == (2, FEATURES[kind])


def test_a_replaced_head_stands_on_the_same_features(kind):
    model, task = tiny(kind), get_task("rhythm7")
    signal = noise(2, 200, LEADS)
    moved = replace_head(model, task)
    assert moved.predict(signal, verbose=0).shape == (2, 7)
    assert moved.get_layer("logits").classes == task.classes
    np.testing.assert_array_equal(features(moved, signal), features(model, signal))


def test_probabilities_sum_to_one_only_where_classes_exclude_each_other():
    logits = np.array([[1.0, -1.0]], dtype="float32")
    np.testing.assert_allclose(LogitsHead("ab", False).probabilities(logits), [[0.880797, 0.119203]], rtol=1e-5)
    np.testing.assert_allclose(LogitsHead("ab", True).probabilities(logits), [[0.731059, 0.268941]], rtol=1e-5)


def test_features_and_logits_stay_float32_under_bfloat16(kind):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny(kind)
    finally:
        keras.config.set_dtype_policy(policy)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv1D)]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert model.output.dtype == "float32"
    assert features(model, noise(2, 200, LEADS)).dtype == np.float32


def test_a_few_steps_lower_the_loss(kind):
    labels = np.eye(2, dtype="float32")[np.arange(32) % 2]
    wave = np.sin(np.arange(200)[None, :, None] * np.where(labels[:, :1, None] > 0, 0.2, 0.5))
    signals = (wave + 0.1 * noise(32, 200, LEADS)).astype("float32")
    keras.utils.set_random_seed(0)
    model = tiny(kind)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = model.fit(signals, labels, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.0] * 2}, "each of the 3 leads, received 2 and 3"),
        ({"std": [1.0] * 4}, "each of the 3 leads, received 3 and 4"),
        ({"dropout": 1.0}, "dropout < 1, received 1.0"),
        ({"dropout": -0.1}, "dropout"),
        ({"width": 0}, "width as a whole number >= 1, received 0"),
        ({"width": 2.5}, "width as a whole number"),
    ],
)
def test_faults_are_refused_in_words(kind, options, message):
    builder, _ = BUILDERS[kind]
    with pytest.raises(ValueError, match=message):
        builder((200, LEADS), "ab", False, **({"mean": MEAN, "std": STD} | options))
