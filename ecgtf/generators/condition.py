"""Class labels as vectors that condition a network."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import keras
import numpy as np
from keras import layers, ops

CONDITION_DROP = 0.3
"""Share of training records in which a further condition is made unknown: each by itself, and all together."""


@keras.saving.register_keras_serializable("ecgtf")
class Condition(layers.Layer):
    """Labels `(batch, classes + columns)` times a learned matrix; a learned vector where the label is hidden.

    The classes are one-hot or multi-hot; the columns of further conditions follow them (see `ecgtf.conditions`). The null of
    classifier-free guidance (Ho & Salimans 2022) has a vector of its own because all zeros is a legal multi-hot label.

    Args:
        classes: Number of classes.
        width: Length of a vector.
        columns: Of each further condition.
        spread: Standard deviation of the vectors at the start.
        seed: Of the start.
    """

    def __init__(self, classes: int, width: int, columns: Sequence[int] = (), *, spread: float = 0.02, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.classes, self.columns = classes, tuple(columns)
        self.width, self.spread, self.seed = width, spread, seed

        def normal(seed: int):
            return keras.initializers.RandomNormal(stddev=spread, seed=seed)

        self.embedding = self.add_weight(name="embedding", shape=(classes + sum(columns), width), initializer=normal(seed))
        # With the same seed the null would be the first class's vector.
        self.null = self.add_weight(name="null", shape=(width,), initializer=normal(zlib.crc32(f"{seed}/null".encode())))
        self.built = True

    def fresh(self, name: str, rows: int) -> np.ndarray:
        """`(rows, width)` vectors to start from which depend on the seed and a name, not on a place: at a given place another condition
        of the same seed has the same ones."""
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return rng.normal(0.0, self.spread, (rows, self.width)).astype("float32")

    def call(self, label, hidden=None):
        """`(batch, width)`; `hidden` `(batch,)` tells whose label is not shown."""
        vectors = ops.matmul(ops.cast(label, "float32"), ops.convert_to_tensor(self.embedding))
        return vectors if hidden is None else ops.where(hidden[:, None], ops.convert_to_tensor(self.null), vectors)

    def without_some(self, label, uniform, share: float):
        """The label with conditions made unknown, zeros: each where its column of `uniform` `(batch, conditions + 1)` is below `share`, and
        all where the last one is, because records are mostly asked for without any."""
        if not self.columns:
            return label
        uniform = ops.minimum(uniform[:, :-1], uniform[:, -1:])
        ends = [self.classes, *(self.classes + end for end in np.cumsum(self.columns))]
        parts = [
            label[:, start:end] * ops.cast(uniform[:, k, None] >= share, label.dtype)
            for k, (start, end) in enumerate(pairwise(ends))
        ]
        return ops.concatenate([label[:, : self.classes], *parts], axis=1)

    def with_null(self, label):
        """Vectors `(2 batch, width)`: of the labels, then as many nulls, for guidance in one call."""
        vectors = self(label)
        return ops.concatenate([vectors, ops.broadcast_to(ops.convert_to_tensor(self.null), ops.shape(vectors))], axis=0)


def guide(conditional, unconditional, guidance: float):
    """Classifier-free guidance: u + w (c - u); w = 1 is the conditional model (Ho & Salimans 2022)."""
    return unconditional + guidance * (conditional - unconditional)


class Guided:
    """Labels for a network that is asked with and, unless the weight is 1, also without them: in one call on twice the batch.

    Args:
        condition: Makes vectors of labels.
        label: `(batch, classes + columns)`.
        weight: Of the guidance; 1 is the plain conditional model and costs half.
    """

    def __init__(self, condition: Condition, label, weight: float):
        self.weight = weight
        self.vectors = condition(label) if weight == 1.0 else condition.with_null(label)

    def doubled(self, x):
        """What goes into the call beside the vectors: `x` `(batch, ...)` as often as it is asked."""
        return x if self.weight == 1.0 else ops.concatenate([x, x], axis=0)

    def joined(self, output):
        """What follows, `(batch, ...)`, from the output of the call."""
        return output if self.weight == 1.0 else guide(*ops.split(output, 2, axis=0), self.weight)
