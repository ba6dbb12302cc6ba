"""What the classifiers' networks share: the input in millivolts, batch normalisation, a strided stem, the head with its classes."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops


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


def normalised_input(input_shape: tuple[int, int], mean: Sequence[float], std: Sequence[float]):
    """The input `(batch, time, leads)` in millivolts, and the same with each lead less its mean, in standard deviations.

    Args:
        input_shape: `(time, leads)`.
        mean: Mean of each lead, in millivolts.
        std: Standard deviation of each lead, in millivolts.

    Raises:
        ValueError: if the statistics do not fit the leads.
    """
    _, leads = input_shape
    if len(mean) != leads or len(std) != leads:
        raise ValueError(f"expected a mean and a std for each of the {leads} leads, received {len(mean)} and {len(std)}")
    inputs = keras.Input(input_shape, name="signal")
    return inputs, layers.Normalization(mean=list(mean), variance=[s * s for s in std], name="normalise")(inputs)


def strided_stem(x, filters: int, stride: int):
    """A convolution that makes `(batch, time, channels)` `stride` times shorter; with a stride of 1, `x` as it is."""
    if stride == 1:
        return x
    x = layers.Conv1D(filters, 2 * stride, strides=stride, padding="same", use_bias=False, name="stem")(x)
    return layers.Activation("relu", name="stem_relu")(batch_norm("stem_norm")(x))


def batch_norm(name: str, **options) -> layers.Layer:
    """Batch normalisation; `options` are those of the Keras layer."""
    # 0.9 rather than Keras's 0.99: a run on a few hundred records has too few steps for slow averages to settle.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name, **options)


def with_head(
    inputs, features, classes: Sequence[str], multi_label: bool, *, dropout: float = 0.0, name: str | None = None
) -> keras.Model:
    """The classifier from `inputs` by its last features `(batch, d)`, a share of them dropped in training, to logits."""
    if dropout:
        features = layers.Dropout(dropout, name="dropout")(features)
    return keras.Model(inputs, LogitsHead(classes, multi_label)(features), name=name)


def check_options(dropout: float, **sizes: int) -> None:
    """Refuses a share to drop outside [0, 1), and sizes, given by name, that are no whole number of at least 1."""
    for name, size in sizes.items():
        if size != int(size) or size < 1:
            raise ValueError(f"expected {name} as a whole number >= 1, received {size}")
    if not 0 <= dropout < 1:
        raise ValueError(f"expected 0 <= dropout < 1, received {dropout}")
