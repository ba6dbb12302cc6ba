"""xresnet1d, the residual network with the "bag of tricks" that leads the PTB-XL benchmark of Strodthoff et al. 2021."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from ecgtf.classifiers.parts import batch_norm, check_options, normalised_input, with_head

PRESETS = {
    "tiny": {"width": 8, "blocks": (1, 1, 1)},
    "small": {"width": 32, "blocks": (1, 2, 2, 2), "dropout": 0.5},
    "base": {"width": 64, "blocks": (3, 4, 6, 3), "hidden": 128, "dropout": 0.5},
    "paper": {"width": 64, "blocks": (3, 4, 23, 3), "hidden": 128, "dropout": 0.5},
}
"""Sizes from a demo's to the paper's xresnet1d101: `small` is for two CPU cores, `base` (xresnet1d50) for a GPU."""

KERNEL = 5
"""Length of the convolutions in samples."""
EXPANSION = 4
"""Channels that leave a block, as a multiple of its width."""


def xresnet1d(
    input_shape: tuple[int, int],
    classes: Sequence[str],
    multi_label: bool,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    width: int = 64,
    blocks: Sequence[int] = (3, 4, 23, 3),
    hidden: int = 0,
    dropout: float = 0.0,
    name: str = "xresnet1d",
) -> keras.Model:
    """A deep residual network from mV to logits: a stem of three convolutions, stages of bottleneck blocks, two kinds of pooling.

    With the preset `paper` it is the xresnet1d101 of Strodthoff, Wagner, Schaeffter & Samek, "Deep Learning for ECG Analysis:
    Benchmarks and Insights from PTB-XL" (IEEE Journal of Biomedical and Health Informatics 25, 2021), after He et al., "Bag of
    Tricks for Image Classification with Convolutional Neural Networks" (CVPR 2019), section 4: the stem of ResNet-C, the
    shortcuts of ResNet-D, and blocks that start as the identity. As in the benchmark's code, and unlike in networks for images,
    all stages are equally wide. Its 2.5-second crops are no part of the network.

    Differences from the benchmark's code: its trainings set the last scale of each block back to 1, here it starts at 0 as He
    et al. advise; its strided convolutions and its max-pool pad both ends alike, here they start a sample later where the length
    is even, as is Keras's way; its logits start from He's draw, here from Glorot's as those of every classifier; its head
    normalises the features also without a hidden layer.

    Args:
        input_shape: `(time, leads)`.
        classes: Names of the classes.
        multi_label: Whether the classes are independent (sigmoid) or exclude each other (softmax).
        mean: Mean of each lead over the training split, in millivolts.
        std: Standard deviation of each lead over the training split, in millivolts.
        width: Channels inside a block, even; blocks give four times as many.
        blocks: Blocks of each stage: 3, 4, 6, 3 for xresnet1d50, 3, 4, 23, 3 for xresnet1d101. Each stage but the first halves
            the length.
        hidden: Units of a layer between features and logits; 0 leaves it out.
        dropout: Share of the hidden layer dropped in training, and half of it of the features; without a hidden layer, the
            share of the features.

    Returns:
        A model from `(batch, time, leads)` mV to logits `(batch, classes)`; its layer `features` gives the largest and the mean
        value over time of each channel, `(batch, 8 * width)`, its layer `logits` is a `LogitsHead`.

    Raises:
        ValueError: if the statistics do not fit the leads or an option is out of range.
    """
    check_options(dropout, width=width, blocks=min(blocks, default=0))
    if width % 2 or hidden < 0:
        raise ValueError(f"expected an even width and hidden >= 0, received {width} and {hidden}")
    inputs, x = normalised_input(input_shape, mean, std)
    for number, filters in enumerate((width // 2, width // 2, width), start=1):
        x = _convolution(x, filters, KERNEL, f"stem{number}", stride=2 if number == 1 else 1)
    x = layers.MaxPooling1D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, number in enumerate(blocks, start=1):
        for block in range(1, number + 1):
            x = _bottleneck_block(x, width, 2 if stage > 1 and block == 1 else 1, f"stage{stage}_block{block}")
    pools = (layers.GlobalMaxPooling1D, "features_max"), (layers.GlobalAveragePooling1D, "features_mean")
    x = layers.Concatenate(name="features", dtype="float32")([pool(name=name, dtype="float32")(x) for pool, name in pools])
    if hidden:
        x = _hidden_layer(x, hidden, dropout / 2)
    return with_head(inputs, x, classes, multi_label, dropout=dropout, name=name)


def _bottleneck_block(x, width: int, stride: int, name: str):
    """Convolutions 1, 5 and 1 long, added to the block's input (ResNet-D: figure 2c of He et al.)."""
    shortcut = x
    if stride > 1:
        shortcut = layers.AveragePooling1D(stride, padding="same", name=f"{name}_shortcut_pool")(shortcut)
    if x.shape[-1] != EXPANSION * width:
        shortcut = _convolution(shortcut, EXPANSION * width, 1, f"{name}_shortcut", relu=False)
    x = _convolution(x, width, 1, f"{name}_conv1")
    x = _convolution(x, width, KERNEL, f"{name}_conv2", stride=stride)
    x = _convolution(x, EXPANSION * width, 1, f"{name}_conv3", relu=False, gamma_initializer="zeros")
    return layers.Activation("relu", name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _convolution(x, filters: int, kernel: int, name: str, *, stride: int = 1, relu: bool = True, **norm_options):
    """A convolution, batch normalisation and ReLU."""
    x = layers.Conv1D(
        filters, kernel, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    x = batch_norm(f"{name}_norm", **norm_options)(x)
    return layers.Activation("relu", name=f"{name}_relu")(x) if relu else x


def _hidden_layer(x, units: int, dropout: float):
    """Batch normalisation, dropout, a layer of `units` with ReLU, and batch normalisation: the benchmark's head up to its logits."""
    x = batch_norm("features_norm")(x)
    if dropout:
        x = layers.Dropout(dropout, name="features_dropout")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="hidden")(x)
    return batch_norm("hidden_norm")(x)
