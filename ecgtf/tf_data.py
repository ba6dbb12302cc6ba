"""How the package runs its `tf.data` pipelines."""

from __future__ import annotations

import tensorflow as tf


def pipeline_options() -> tf.data.Options:
    """The options of every pipeline; set once anywhere in it, they hold for the whole of it.

    Autotune stays off: at its end, an iterator waits for the thread that tunes it, which sleeps for up to as long as it ran (at most a
    minute). Without it `tf.data.AUTOTUNE` stands for as many parallel calls as there are cores (at most 16), and for a prefetch buffer
    that grows while batches are waited for.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # every worker makes all batches and takes its share of each, so that the stream stays one stream
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
