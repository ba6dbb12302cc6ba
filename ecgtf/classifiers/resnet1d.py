"""The residual network for time series of Wang, Yan & Oates 2017, and the head that every classifier here ends in."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

PRESETS = {
    "tiny": {"width": 8, "stride": 8},
    "small": {"width": 32, "stride": 4, "dropout": 0.2},
    "base": {"width": 64, "stride": 2, "dropout": 0.2},
    "paper": {"width": 64, "stride": 1, "dropout": 0.0},
}
"""Sizes from a demo's to the paper's: `small` is for two CPU cores, `base` for a GPU."""


@keras.saving.register_keras_serializable(package="ecgtf")
class LogitsHead(layers.Dense):
    """The last layer of a classifier: a logit for each class, and what they mean, saved with the model.

    Args:
        classes: Names of the classes, in the order of the logits.
        multi_label: Whether each logit stands by itself (sigmoid) or all compete (softmax).

    Call arguments:
        features: `(batch, features)`. Returns float32 logits `(batch, classes)` under any precision policy.
    """

    def __init__(self, classes: Sequence[str], multi_label: bool, name: str = "logits", **kwargs):
        kwargs.pop("units", None)  # the saved configuration of `Dense` holds it; it is the number of classes
        super().__init__(len(classes), name=name, **{"dtype": "float32", **kwargs})
        self.classes = tuple(classes)
        self.multi_label = bool(multi_label)

    def probabilities(self, logits):
        """Probabilities of logits `(batch, classes)`: sigmoid for multi-label tasks, softmax otherwise."""
        return ops.sigmoid(logits) if self.multi_label else ops.softmax(logits, axis=-1)

    def get_config(self) -> dict:
        """What `from_config` needs."""
        return super().get_config() | {"classes": list(self.classes), "multi_label": self.multi_label}


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
    _, leads = input_shape
    if len(mean) != leads or len(std) != leads:
        raise ValueError(f"expected a mean and a std for each of the {leads} leads, received {len(mean)} and {len(std)}")
    if width < 1 or stride < 1 or not 0 <= dropout < 1:
        raise ValueError(f"expected width and stride >= 1 and 0 <= dropout < 1, received {width}, {stride} and {dropout}")

    inputs = keras.Input(input_shape, name="signal")
    x = layers.Normalization(mean=list(mean), variance=[s * s for s in std], name="normalise")(inputs)
    if stride > 1:
        x = layers.Conv1D(width, 2 * stride, strides=stride, padding="same", use_bias=False, name="stem")(x)
        x = layers.Activation("relu", name="stem_relu")(_batch_norm("stem_norm")(x))
    for number, filters in enumerate((width, 2 * width, 2 * width), start=1):
        x = _residual_block(x, filters, f"block{number}")
    x = layers.GlobalAveragePooling1D(name="features", dtype="float32")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, LogitsHead(classes, multi_label)(x), name=name)


def _residual_block(x, filters: int, name: str):
    """Three convolutions with batch normalisation, added to the block's input (equation 3 of the paper)."""
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = layers.Conv1D(filters, 1, padding="same", use_bias=False, name=f"{name}_shortcut")(x)
    shortcut = _batch_norm(f"{name}_shortcut_norm")(shortcut)
    for step, kernel in enumerate((8, 5, 3), start=1):
        x = layers.Conv1D(filters, kernel, padding="same", use_bias=False, name=f"{name}_conv{step}")(x)
        x = _batch_norm(f"{name}_norm{step}")(x)
        if step < 3:
            x = layers.Activation("relu", name=f"{name}_relu{step}")(x)
    return layers.Activation("relu", name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _batch_norm(name: str) -> layers.Layer:
    # 0.9 rather than Keras's 0.99: a run on a few hundred records has too few steps for slow averages to settle.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)
