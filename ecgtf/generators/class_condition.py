"""Class labels as vectors that condition a network."""

from __future__ import annotations

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("ecgtf")
class ClassCondition(layers.Layer):
    """Labels `(batch, classes)`, one-hot or multi-hot, times a learned matrix; a learned vector where the label is hidden.

    The null of classifier-free guidance (Ho & Salimans 2022) has a vector of its own because all zeros is a legal multi-hot label.

    Args:
        classes: Number of classes.
        width: Length of a vector.
        spread: Standard deviation of the vectors at the start.
        seed: Of the start.
    """

    def __init__(self, classes: int, width: int, spread: float = 0.02, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        initializer = keras.initializers.RandomNormal(stddev=spread, seed=seed)
        self.embedding = self.add_weight(name="embedding", shape=(classes, width), initializer=initializer)
        self.null = self.add_weight(name="null", shape=(width,), initializer=initializer)
        self.built = True

    def call(self, label, hidden=None):
        """`(batch, width)`; `hidden` `(batch,)` tells whose label is not shown."""
        vectors = ops.matmul(ops.cast(label, "float32"), ops.convert_to_tensor(self.embedding))
        return vectors if hidden is None else ops.where(hidden[:, None], ops.convert_to_tensor(self.null), vectors)

    def with_null(self, label):
        """Vectors `(2 batch, width)`: of the labels, then as many nulls, for guidance in one call."""
        vectors = self(label)
        return ops.concatenate([vectors, ops.broadcast_to(ops.convert_to_tensor(self.null), ops.shape(vectors))], axis=0)


def guide(conditional, unconditional, guidance: float):
    """Classifier-free guidance: u + w (c - u); w = 1 is the conditional model (Ho & Salimans 2022)."""
    return unconditional + guidance * (conditional - unconditional)
