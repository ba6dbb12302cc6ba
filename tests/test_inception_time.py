import keras
import pytest

from ecgtf.classifiers.inception_time import PRESETS, inception_time


def _network(samples=100, leads=12, **options):
    return inception_time((samples, leads), list("abcd"), False, [0.0] * leads, [1.0] * leads, **options)


@pytest.mark.parametrize("leads", [1, 8, 12])
def test_the_paper_preset_is_the_network_of_ismail_fawaz_2020(leads):
    model = _network(leads=leads, **PRESETS["paper"])
    inputs = [leads] + 5 * [128]  # channels that each of the six modules sees: four branches of 32 filters behind the first
    bottlenecks = sum(c * 32 for c in inputs if c > 1)
    long = sum((32 if c > 1 else c) * 32 * (40 + 20 + 10) for c in inputs)
    pooled = sum(c * 32 for c in inputs)
    shortcuts = leads * 128 + 128 * 128  # behind the third and the sixth module
    norms = 4 * 128 * (6 + 2)  # scale, shift and two averages, of each module and shortcut
    assert model.count_params() == bottlenecks + long + pooled + shortcuts + norms + 128 * 4 + 4


def test_convolutions_of_three_lengths_stand_beside_the_pooled_signal():
    model = _network(**PRESETS["paper"])
    concatenated = model.get_layer("module2_concat").input
    assert [tensor.shape for tensor in concatenated] == [(None, 100, 32)] * 4
    kernels = [model.get_layer(f"module2_conv{part}").kernel_size for part in (1, 2, 4)]
    assert kernels == [(40,), (20,), (10,)]
    biased = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv1D) and layer.use_bias]
    assert biased == []


def test_a_shortcut_spans_every_three_modules():
    model = _network(width=2, depth=7, kernel=4)
    assert model.get_layer("module3_shortcut").input is model.get_layer("normalise").output
    assert model.get_layer("module6_shortcut").input is model.get_layer("module3_add_relu").output
    assert model.get_layer("features").input is model.get_layer("module7_relu").output


def test_a_stride_shortens_what_the_modules_see():
    model = _network(width=2, depth=1, kernel=4, stride=4)
    assert model.get_layer("module1_concat").output.shape == (None, 25, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 3}, "at least 4 samples, .* received 3"),
        ({"depth": 0}, "depth as a whole number >= 1, received 0"),
        ({"stride": 0}, "stride as a whole number"),
    ],
)
def test_faults_are_refused_in_words(options, message):
    with pytest.raises(ValueError, match=message):
        _network(**options)
