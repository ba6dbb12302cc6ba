"""InceptionTime, the network of Ismail Fawaz et al. 2020: convolutions of several lengths side by side."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from ecgtf.classifiers.parts import batch_norm, check_options, normalised_input, strided_stem, with_head

PRESETS = {
    "tiny": {"width": 4, "depth": 3, "kernel": 8, "stride": 8},
    "small": {"width": 16, "kernel": 20, "stride": 4, "dropout": 0.2},
    "base": {"width": 32, "kernel": 40, "stride": 2, "dropout": 0.2},
    "paper": {"width": 32, "depth": 6, "kernel": 40, "stride": 1, "dropout": 0.0},
}
"""Sizes from a demo's to the paper's: `small` is for two CPU cores, `base` for a GPU."""


def inception_time(
    input_shape: tuple[int, int],
    classes: Sequence[str],
    multi_label: bool,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    width: int = 32,
    depth: int = 6,
    kernel: int = 40,
    stride: int = 1,
    dropout: float = 0.0,
    name: str = "inception_time",
) -> keras.Model:
    """Inception modules from mV to logits: convolutions of three lengths and a max-pool side by side, then a mean over time.

    By default it is the network of Ismail Fawaz et al., "InceptionTime: Finding AlexNet for Time Series Classification" (Data
    Mining and Knowledge Discovery 34, 2020), section 3.1, as in its published code: six modules of 32 filters 40, 20 and 10
    samples long, and a shortcut over every three modules. Its batch normalisation follows the batches faster than the
    published one (momentum 0.9 in place of 0.99, epsilon 1e-5 in place of 1e-3). The paper calls the mean of five such
    networks, started from different weights, InceptionTime; this is one of them: train five runs with five seeds for the
    ensemble. A stride puts a strided convolution in front, which makes everything behind it `stride` times cheaper.

    Args:
        input_shape: `(time, leads)`.
        classes: Names of the classes.
        multi_label: Whether the classes are independent (sigmoid) or exclude each other (softmax).
        mean: Mean of each lead over the training split, in millivolts.
        std: Standard deviation of each lead over the training split, in millivolts.
        width: Filters of each convolution, and channels that the bottleneck leaves.
        depth: Inception modules; a shortcut follows every third one.
        kernel: Length of the longest convolutions, in samples (behind the stride); the others have a half and a quarter of it.
        stride: Step of the convolution in front of the modules; 1 leaves it out.
        dropout: Share of the pooled features dropped in training.

    Returns:
        A model from `(batch, time, leads)` mV to logits `(batch, classes)`; its layer `features` gives the pooled features
        `(batch, 4 * width)`, its layer `logits` is a `LogitsHead`.

    Raises:
        ValueError: if the statistics do not fit the leads or an option is out of range.
    """
    check_options(dropout, width=width, depth=depth, kernel=kernel, stride=stride)
    if kernel < 4:
        raise ValueError(f"expected a kernel of at least 4 samples, to have a quarter, received {kernel}")
    inputs, x = normalised_input(input_shape, mean, std)
    x = before = strided_stem(x, width, stride)
    for number in range(1, depth + 1):
        x = _inception_module(x, width, kernel, f"module{number}")
        if number % 3 == 0:
            x = before = _add_shortcut(x, before, f"module{number}")
    x = layers.GlobalAveragePooling1D(name="features", dtype="float32")(x)
    return with_head(inputs, x, classes, multi_label, dropout=dropout, name=name)


def _inception_module(x, width: int, kernel: int, name: str):
    """Three convolutions of a bottleneck and one of the max-pool, `(batch, time, 4 * width)` together (figure 2 of the paper)."""
    narrow = _convolution(x, width, 1, f"{name}_bottleneck") if x.shape[-1] > 1 else x
    branches = [_convolution(narrow, width, kernel // part, f"{name}_conv{part}") for part in (1, 2, 4)]
    pooled = layers.MaxPooling1D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches.append(_convolution(pooled, width, 1, f"{name}_pool_conv"))
    x = layers.Concatenate(name=f"{name}_concat")(branches)
    return layers.Activation("relu", name=f"{name}_relu")(batch_norm(f"{name}_norm")(x))


def _add_shortcut(x, before, name: str):
    """The output of three modules plus a linear map of their input."""
    shortcut = batch_norm(f"{name}_shortcut_norm")(_convolution(before, x.shape[-1], 1, f"{name}_shortcut"))
    return layers.Activation("relu", name=f"{name}_add_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _convolution(x, filters: int, kernel: int, name: str):
    return layers.Conv1D(filters, kernel, padding="same", use_bias=False, name=name)(x)
