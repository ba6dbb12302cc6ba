"""Augmentations of batches of ECGs, as pure functions of the batch and a seed.

Each takes signals `(batch, time, leads)` in millivolts and a `(2,)` int32 seed for `tf.random.stateless_*`, treats every record
differently and all leads of a record alike, so that the relations between the limb leads stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ecgtf.ecg import DOWER, INDEPENDENT_LEADS, LEADS, lead_matrix


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


def random_axis(signal, seed, leads: Sequence[str], degrees: float):
    """Turns the heart's electrical axis of each record: its dipolar part by a random rotation, the rest stays.

    The dipole is the least-squares heart vector of the 8 independent leads under Dower's lead field; it is turned about the three body
    axes by angles N(0, degrees^2). All waves of a record turn alike, so beats stay alike, and the limb leads stay consistent.

    Raises:
        ValueError: if the signal does not have the 12 standard leads in their order.
    """
    if tuple(leads) != LEADS:
        raise ValueError(f"random_axis needs the leads {', '.join(LEADS)}, received {', '.join(leads)}")
    field = tf.constant(lead_matrix(INDEPENDENT_LEADS, LEADS).T @ DOWER, tf.float32)  # (12, 3)
    # the dipole of the independent leads alone: the other four carry nothing new
    to_dipole = tf.constant(np.linalg.pinv(DOWER) @ lead_matrix(LEADS, INDEPENDENT_LEADS).T, tf.float32)  # (3, 12)
    batch = tf.shape(signal)[0]
    x, y, z = tf.unstack(tf.random.stateless_normal((batch, 3), seed) * (degrees * np.pi / 180), axis=1)
    zero = tf.zeros((batch,))
    # exponential of the antisymmetric matrix: a rotation by exactly |(x, y, z)|
    turn = tf.linalg.expm(tf.reshape(tf.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1), (-1, 3, 3)))
    change = field @ (turn - tf.eye(3)) @ to_dipole  # (batch, 12, 12)
    return signal + tf.matmul(signal, change, transpose_b=True)


def augmented(
    stream: tf.data.Dataset,
    seed: int,
    first_batch: int,
    *,
    gain: float = 0.2,
    shift: int = 0,
    axis: float = 0.0,
    leads: Sequence[str] = LEADS,
) -> tf.data.Dataset:
    """A stream of (signal, label) batches with gain, shift and turned axis, each batch's draws a function of (seed, its number)."""

    def apply(number, batch):
        signal, label = batch
        place = tf.stack([tf.constant(seed, tf.int64), number])
        if gain > 0:
            signal = random_gain(signal, tf.random.experimental.stateless_fold_in(place, 0), gain)
        if shift > 0:
            signal = random_shift(signal, tf.random.experimental.stateless_fold_in(place, 1), shift)
        if axis > 0:
            signal = random_axis(signal, tf.random.experimental.stateless_fold_in(place, 2), leads, axis)
        return signal, label

    numbers = tf.data.Dataset.counter(start=first_batch)
    return tf.data.Dataset.zip((numbers, stream)).map(apply, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
