import keras
import numpy as np
import pytest

from ecgtf.classifiers.xresnet1d import PRESETS, xresnet1d


def _network(samples=200, leads=12, **options):
    return xresnet1d((samples, leads), list("abcd"), False, [0.0] * leads, [1.0] * leads, **options)


@pytest.mark.parametrize(("preset", "blocks"), [("base", 3 + 4 + 6 + 3), ("paper", 3 + 4 + 23 + 3)])
def test_the_large_presets_are_xresnet1d50_and_xresnet1d101_of_the_benchmark(preset, blocks):
    model = _network(**PRESETS[preset])
    stem = 5 * (12 * 32 + 32 * 32 + 32 * 64) + 4 * (32 + 32 + 64)
    first = 64 * 64 - 256 * 64 + 64 * 256 + 4 * 256  # it sees 64 channels, not 256, and has a convolution in its shortcut
    block = 256 * 64 + 5 * 64 * 64 + 64 * 256 + 4 * (64 + 64 + 256)
    head = 4 * 512 + 512 * 128 + 128 + 4 * 128 + 128 * 4 + 4  # batch normalisation before each of two layers
    assert model.count_params() == stem + first + blocks * block + head


def test_the_stem_and_each_stage_but_the_first_halve_the_length():
    model = _network(samples=97, width=4, blocks=(1, 2, 1))
    lengths = [
        model.get_layer(name).output.shape[1] for name in ("stem1", "stem_pool", "stage1_block1_add", "stage2_block2_add")
    ]
    assert lengths == [49, 25, 25, 13]
    assert model.get_layer("stage3_block1_add").output.shape == (None, 7, 16)


def test_blocks_start_as_their_shortcut():
    model = _network(width=4, blocks=(1, 2))
    block = keras.Model(model.get_layer("stage2_block1_relu").output, model.get_layer("stage2_block2_relu").output)
    x = np.abs(np.random.default_rng(0).normal(size=(2, 25, 16))).astype("float32")
    np.testing.assert_array_equal(block(x), x)


def test_a_shortcut_takes_the_mean_of_two_samples_where_the_length_is_halved():
    model = _network(samples=72, width=4, blocks=(1, 1))
    pool = model.get_layer("stage2_block1_shortcut_pool")
    x = np.arange(9, dtype="float32").reshape(1, 9, 1)
    np.testing.assert_array_equal(np.ravel(pool(x)), [0.5, 2.5, 4.5, 6.5, 8.0])  # the last one stands alone
    assert "stage2_block1_shortcut" not in {layer.name for layer in model.layers}  # as many channels as before


def test_features_are_the_largest_and_the_mean_value_of_each_channel():
    model = _network(width=4, blocks=(1,))
    channels = keras.Model(model.input, [model.get_layer(name).output for name in ("stage1_block1_relu", "features")])
    x, features = (np.array(y) for y in channels(np.random.default_rng(0).normal(size=(2, 200, 12)).astype("float32")))
    np.testing.assert_allclose(features, np.concatenate([x.max(axis=1), x.mean(axis=1)], axis=1), rtol=1e-5)


@pytest.mark.parametrize(("hidden", "dropouts"), [(0, {"dropout": 0.4}), (6, {"features_dropout": 0.2, "dropout": 0.4})])
def test_a_hidden_layer_takes_half_of_the_dropout_before_it(tmp_path, hidden, dropouts):
    model = _network(width=4, blocks=(1,), hidden=hidden, dropout=0.4)
    assert {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == dropouts
    assert model.get_layer("logits").input.shape == (None, hidden or 32)
    signal = np.random.default_rng(0).normal(size=(2, 200, 12)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(signal, verbose=0), loaded.predict(signal, verbose=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 5}, "an even width and hidden >= 0, received 5 and 0"),
        ({"hidden": -1}, "hidden >= 0"),
        ({"blocks": ()}, "blocks as a whole number >= 1, received 0"),
        ({"blocks": (2, 0)}, "blocks as a whole number >= 1, received 0"),
    ],
)
def test_faults_are_refused_in_words(options, message):
    with pytest.raises(ValueError, match=message):
        _network(**options)
