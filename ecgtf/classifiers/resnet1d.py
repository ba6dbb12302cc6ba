"""The residual network for time series of Wang, Yan & Oates 2017."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from ecgtf.classifiers.parts import batch_norm, check_options, normalised_input, strided_stem, with_head

PRESETS = {
    "tiny": {"width": 8, "stride": 8},
    "small": {"width": 32, "stride": 4, "dropout": 0.2},
    "base": {"width": 64, "stride": 2, "dropout": 0.2},
    "paper": {"width": 64, "stride": 1, "dropout": 0.0},
}
"""Sizes from a demo's to the paper's: `small` is for two CPU cores, `base` for a GPU."""


def resnet1d(
    input_shape: tuple[int, int],
    classes: Sequence[str],
    multi_label: bool,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    width: int = 64,
    stride: int = 1,
    dropout: float = 0.0,
    name: str = "resnet1d",
) -> keras.Model:
    """A residual network from mV to logits: three blocks of convolutions 8, 5 and 3 samples long, then a mean over time.

    With `stride` 1 and `width` 64 it is the ResNet of Wang, Yan & Oates, "Time Series Classification from Scratch with Deep
    Neural Networks: A Strong Baseline" (IJCNN 2017), section III-C: filters 64, 128, 128. A stride puts a strided convolution
    in front, which makes everything behind it `stride` times cheaper.

    Args:
        input_shape: `(time, leads)`.
        classes: Names of the classes.
        multi_label: Whether the classes are independent (sigmoid) or exclude each other (softmax).
        mean: Mean of each lead over the training split, in millivolts.
        std: Standard deviation of each lead over the training split, in millivolts.
        width: Filters of the first block; the others have twice as many.
        stride: Step of the convolution in front of the blocks; 1 leaves it out.
        dropout: Share of the pooled features dropped in training.

    Returns:
        A model from `(batch, time, leads)` mV to logits `(batch, classes)`; its layer `features` gives the pooled features
        `(batch, 2 * width)`, its layer `logits` is a `LogitsHead`.

    Raises:
        ValueError: if the statistics do not fit the leads or an option is out of range.
    """
    check_options(dropout, width=width, stride=stride)
    inputs, x = normalised_input(input_shape, mean, std)
    x = strided_stem(x, width, stride)
    for number, filters in enumerate((width, 2 * width, 2 * width), start=1):
        x = _residual_block(x, filters, f"block{number}")
    x = layers.GlobalAveragePooling1D(name="features", dtype="float32")(x)
    return with_head(inputs, x, classes, multi_label, dropout=dropout, name=name)


def _residual_block(x, filters: int, name: str):
    """Three convolutions with batch normalisation, added to the block's input (equation 3 of the paper)."""
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = layers.Conv1D(filters, 1, padding="same", use_bias=False, name=f"{name}_shortcut")(x)
    shortcut = batch_norm(f"{name}_shortcut_norm")(shortcut)
    for step, kernel in enumerate((8, 5, 3), start=1):
        x = layers.Conv1D(filters, kernel, padding="same", use_bias=False, name=f"{name}_conv{step}")(x)
        x = batch_norm(f"{name}_norm{step}")(x)
        if step < 3:
            x = layers.Activation("relu", name=f"{name}_relu{step}")(x)
    return layers.Activation("relu", name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([x, shortcut]))
