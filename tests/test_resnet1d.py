import keras
import pytest

from ecgtf.classifiers.resnet1d import PRESETS, resnet1d


def _small(**options):
    return resnet1d((200, 3), ("SR", "AFIB"), False, [0.0] * 3, [1.0] * 3, width=4, **options)


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


def test_a_stride_of_nothing_is_refused():
    with pytest.raises(ValueError, match="stride as a whole number >= 1, received 0"):
        _small(stride=0)
