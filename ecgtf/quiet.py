"""Imports TensorFlow without the lines about devices and CPU features that its C++ side prints meanwhile, and without taking all of
a GPU's memory at once."""

from __future__ import annotations

import os
import sys


def import_tensorflow() -> None:
    """Imports TensorFlow with standard error closed for its start-up messages; Python's own errors are raised as ever.

    The messages are written before any log level counts, so only the file descriptor can be turned away.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            import tensorflow as tf

            for gpu in tf.config.list_physical_devices("GPU"):  # looks for them now, and says so
                tf.config.experimental.set_memory_growth(gpu, True)  # others may work on it: the parts of a study
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    tf.get_logger().setLevel("ERROR")
