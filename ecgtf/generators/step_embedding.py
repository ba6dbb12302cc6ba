"""Where a signal stands between data and noise, as a vector that networks can read."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops


def sinusoids(steps: np.ndarray, size: int, last_frequency: float) -> np.ndarray:
    """Sines, then cosines of `steps` `(n,)` at frequencies in geometric order from 1 to the last: `(n, size)` float64.

    DiffWave's last frequency is 10 000 radians a step (Kong et al. 2021, eq. 8), that of DDPM and transformers 1 / 10 000.
    """
    frequencies = last_frequency ** (np.arange(size // 2) / (size // 2 - 1))
    angles = np.asarray(steps, np.float64)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


@keras.saving.register_keras_serializable("ecgtf")
class StepEmbedding(layers.Layer):
    """Rows of a table for steps `(batch,)` from 0 to `steps` - 1; between whole steps, what lies between their rows.

    The table is made in float64: at the highest of DiffWave's frequencies the angles are beyond what float32 tells apart.

    Args:
        steps: Number of steps.
        size: Length of a vector; even.
        last_frequency: See `sinusoids`.
    """

    def __init__(self, steps: int, size: int, last_frequency: float, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.steps, self.size, self.last_frequency = steps, size, last_frequency
        self.table = sinusoids(np.arange(steps), size, last_frequency).astype(np.float32)
        self.built = True

    def call(self, step):
        """`(batch,)` to `(batch, size)`."""
        step = ops.clip(ops.cast(step, "float32"), 0.0, self.steps - 1.0)
        below = ops.floor(step)
        share = (step - below)[:, None]
        row = ops.cast(below, "int32")
        table = ops.convert_to_tensor(self.table)
        return (1.0 - share) * ops.take(table, row, axis=0) + share * ops.take(
            table, ops.minimum(row + 1, self.steps - 1), axis=0
        )

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {"steps": self.steps, "size": self.size, "last_frequency": self.last_frequency}
