import keras
import numpy as np
import pytest

from ecgtf.classifiers.resnet1d import PRESETS, LogitsHead, resnet1d

MEAN, STD = [0.1, -0.2, 0.0], [0.5, 1.0, 0.2]


def _small(**options):
    return resnet1d((200, 3), ("SR", "AFIB"), False, MEAN, STD, **{"width": 4, "stride": 2, **options})


def test_the_paper_preset_is_the_network_of_wang_2017():
    model = resnet1d((100, 12), list("abcd"), False, [0.0] * 12, [1.0] * 12, **PRESETS["paper"])
    convolutions = [
        (layer.kernel_size[0], layer.filters)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv1D) and "shortcut" not in layer.name
    ]
    assert convolutions == [(k, f) for f in (64, 128, 128) for k in (8, 5, 3)]
    kernels = 12 * 64 * 8 + 64 * 64 * 8 + 64 * 128 * 8 + 128 * 128 * 8 + 128 * 128 * 16  # 8, 5 and 3 of each block
    shortcuts = 12 * 64 + 64 * 128
    norms = 4 * (4 * 64 + 8 * 128)  # three in each block and one on each shortcut
    assert model.count_params() == kernels + shortcuts + norms + 128 * 4 + 4


def test_a_stride_shortens_what_the_blocks_see():
    assert _small(stride=4).get_layer("block1_add").output.shape == (None, 50, 4)
    assert _small(stride=1).get_layer("block1_add").output.shape == (None, 200, 4)


def test_millivolts_are_normalised_inside_the_model():
    signal = np.random.default_rng(0).normal(size=(2, 200, 3)).astype("float32")
    normalise = _small().get_layer("normalise")
    expected = (signal - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(normalise(signal), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_save_and_load_give_the_same_logits_and_names(tmp_path, multi_label):
    model = resnet1d((200, 3), ("SR", "AFIB"), multi_label, MEAN, STD, width=4, stride=2, dropout=0.3)
    signal = np.random.default_rng(1).normal(size=(2, 200, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(signal, verbose=0), loaded.predict(signal, verbose=0))
    head = loaded.get_layer("logits")
    assert (head.classes, head.multi_label) == (("SR", "AFIB"), multi_label)
    assert loaded.get_layer("features").output.shape == (None, 8)


def test_probabilities_sum_to_one_only_where_classes_exclude_each_other():
    logits = np.array([[1.0, -1.0]], dtype="float32")
    np.testing.assert_allclose(LogitsHead("ab", False).probabilities(logits), [[0.880797, 0.119203]], rtol=1e-5)
    np.testing.assert_allclose(LogitsHead("ab", True).probabilities(logits), [[0.731059, 0.268941]], rtol=1e-5)


def test_logits_stay_float32_under_bfloat16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = _small()
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"


def test_a_few_steps_lower_the_loss():
    rng = np.random.default_rng(2)
    labels = np.eye(2, dtype="float32")[np.arange(32) % 2]
    wave = np.sin(np.arange(200)[None, :, None] * np.where(labels[:, :1, None] > 0, 0.2, 0.5))
    signals = (wave + 0.1 * rng.normal(size=(32, 200, 3))).astype("float32")
    keras.utils.set_random_seed(0)
    model = _small()
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = model.fit(signals, labels, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("mean", "std", "options", "message"),
    [
        ([0.0] * 2, STD, {}, "each of the 3 leads"),
        (MEAN, STD, {"dropout": 1.0}, "dropout"),
        (MEAN, STD, {"stride": 0}, "stride"),
    ],
)
def test_faults_are_refused_in_words(mean, std, options, message):
    with pytest.raises(ValueError, match=message):
        resnet1d((200, 3), "ab", False, mean, std, **options)
