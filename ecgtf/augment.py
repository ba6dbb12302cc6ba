"""Augmentations of batches of ECGs, as pure functions of the batch and a seed.

Each takes signals `(batch, time, leads)` in millivolts and a `(2,)` int32 seed for `tf.random.stateless_*`, treats every record
differently and all leads of a record alike, so that the relations between the limb leads stay exact.
"""

from __future__ import annotations

import tensorflow as tf


def random_gain(signal, seed, sd: float = 0.2):
    """Multiplies each record by a log-normal factor, exp(N(0, sd^2))."""
    factor = tf.exp(sd * tf.random.stateless_normal((tf.shape(signal)[0], 1, 1), seed))
    return signal * factor


def random_shift(signal, seed, most: int):
    """Moves each record in time by up to `most` samples either way; what leaves at one end comes in at the other."""
    batch, time = tf.shape(signal)[0], tf.shape(signal)[1]
    shift = tf.random.stateless_uniform((batch, 1), seed, -most, most + 1, tf.int32)
    index = tf.math.floormod(tf.range(time)[None] + shift, time)
    return tf.gather(signal, index, axis=1, batch_dims=1)


def augmented(stream: tf.data.Dataset, seed: int, first_batch: int, *, gain: float = 0.2, shift: int = 0) -> tf.data.Dataset:
    """A stream of (signal, label) batches with gain and shift, each batch's draws a function of (seed, its number)."""

    def apply(number, batch):
        signal, label = batch
        place = tf.stack([tf.constant(seed, tf.int64), number])
        if gain > 0:
            signal = random_gain(signal, tf.random.experimental.stateless_fold_in(place, 0), gain)
        if shift > 0:
            signal = random_shift(signal, tf.random.experimental.stateless_fold_in(place, 1), shift)
        return signal, label

    numbers = tf.data.Dataset.counter(start=first_batch)
    return tf.data.Dataset.zip((numbers, stream)).map(apply, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
