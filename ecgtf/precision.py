"""The precision of networks: Keras's policy for the layers that are built or loaded next."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def set_precision(name: str) -> None:
    """Sets Keras's policy for the layers that are built from now on: `float32`, `bfloat16` or `float16`."""
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; expected one of {', '.join(PRECISIONS)}")
    keras.config.set_dtype_policy(PRECISIONS[name])


def restoring_precision(function: Callable) -> Callable:
    """The function, after which Keras's policy is again what it was: what is built or loaded later does not depend on it."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        before = keras.config.dtype_policy()
        try:
            return function(*args, **kwargs)
        finally:
            keras.config.set_dtype_policy(before)

    return wrapped
