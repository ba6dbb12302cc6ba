"""Augmentations of batches of ECGs, as pure functions of the batch and a seed.

Each takes signals `(batch, time, leads)` in millivolts and a `(2,)` int32 or int64 seed for `tf.random.stateless_*`, treats every
record differently, keeps shape and dtype, and changes nothing at strength 0. Noise arises at the electrodes and everything else acts
on all leads of a record alike, so that the relations between the limb leads stay exact; only a lost lead breaks them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import tensorflow as tf

from ecgtf.ecg import DOWER, ELECTRODES, ELECTRODES_TO_LEADS, INDEPENDENT_LEADS, LEADS, lead_matrix

WANDER_BAND = (0.05, 0.5)
"""Hz: where baseline wander lies."""

_WANDERERS = 5  # sinusoids that make up the wander of a record

_MOST = {  # what an augmentation may be at most, and in which unit
    "gain": (2.0, ""),
    "shift_seconds": (86_400.0, " s"),
    "axis": (180.0, " degrees"),
    "wander": (5.0, " mV"),
    "noise": (5.0, " mV"),
    "lead_dropout": (1.0, ""),
    "mixup": (100.0, ""),
}


@dataclass(frozen=True)
class Augmentation:
    """How strongly a stream is augmented; 0 leaves a kind out.

    Raises:
        ValueError: if a strength is negative, not a number, or beyond what makes sense.
    """

    gain: float = 0.0
    """SD of the logarithm of a record's gain; see `random_gain`."""
    shift_seconds: float = 0.0
    """The furthest shift in time, from a sample to a quarter of the record; see `random_shift`."""
    axis: float = 0.0
    """SD of the turns of the heart's axis in degrees; see `random_axis`."""
    wander: float = 0.0
    """SD of baseline wander in mV; see `random_wander`."""
    noise: float = 0.0
    """SD of muscle noise in mV; see `random_noise`."""
    lead_dropout: float = 0.0
    """Probability of each lead to be lost; see `random_lead_dropout`."""
    mixup: float = 0.0
    """The alpha of `mixup`."""

    def __post_init__(self):
        for name, (most, unit) in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"expected {name} from 0 to {most:g}{unit}, received {getattr(self, name)}")

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """The augmentation of a text such as `gain=0.2,noise=0.02`; what is not named is off, and `none` is nothing at all.

        Raises:
            ValueError: if a name is unknown or stands twice, or a value is not possible.
        """
        names, values = [field.name for field in fields(cls)], {}
        for part in [] if text.strip() in ("", "none") else text.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in names:
                raise ValueError(f"unknown augmentation {name!r}; expected NAME=STRENGTH,... with names of {', '.join(names)}")
            if name in values:
                raise ValueError(f"augmentation {name} is named more than once in {text!r}")
            try:
                values[name] = float(value)
            except ValueError:
                raise ValueError(f"expected a number for {name}, as in {name}=0.1, received {value!r}") from None
        return cls(**values)

    def check_leads(self, leads: Sequence[str]) -> None:
        """Refuses what records of these leads cannot be augmented by, before anything is made.

        Raises:
            ValueError: as `random_axis`.
        """
        if self.axis and tuple(leads) != LEADS:
            raise ValueError(f"axis needs the leads {', '.join(LEADS)}, received {', '.join(leads)}")

    def __str__(self) -> str:
        """What `parse` reads."""
        return ",".join(f"{name}={getattr(self, name)}" for name in _MOST if getattr(self, name)) or "none"


def random_gain(signal, seed, sd: float = 0.2):
    """Multiplies each record by a log-normal factor, exp(N(0, sd^2))."""
    factor = tf.exp(sd * tf.random.stateless_normal((tf.shape(signal)[0], 1, 1), seed))
    return signal * tf.cast(factor, signal.dtype)


def random_shift(signal, seed, rate: float, seconds: float):
    """Moves each record in time by up to `seconds`, at most a quarter of it, either way, and lets it go on where it ends.

    A record goes on as it did after the earlier place that is most like its end (before its start: the same, in reverse), so that
    beats follow each other there as they do elsewhere. Joining the two ends instead would put a beat at a random distance from the
    one before into every record, and a generator learns that irregular beat.
    """
    batch, time = tf.shape(signal)[0], signal.shape[1]
    most = min(math.ceil(seconds * rate - 1e-6), time // 4)
    draws = _split(seed, 2)
    shift = tf.random.stateless_uniform((batch,), draws[0], 0, most + 1, tf.int32)
    reverse = (tf.random.stateless_uniform((batch, 1, 1), draws[1]) < 0.5) & (shift > 0)[:, None, None]
    signal = tf.where(reverse, signal[:, ::-1], signal)
    lag = _lag_of_end(tf.cast(signal, tf.float32), shift, rate)
    index = tf.range(time)[None] + shift[:, None]
    beyond = tf.maximum(index - time + 1, 0)
    moved = tf.gather(signal, tf.where(beyond > 0, index - lag[:, None], index), batch_dims=1)
    # what is left of a step where the baselines differ fades with a time constant of a second
    step = signal[:, -1:] - tf.gather(signal, time - 1 - lag, batch_dims=1)[:, None]
    fade = tf.where(beyond > 0, tf.exp(-1 / rate * tf.cast(beyond, tf.float32)), 0.0)[..., None]
    moved += step * tf.cast(fade, signal.dtype)
    return tf.where(reverse, moved[:, ::-1], moved)


def _lag_of_end(signal, shift, rate: float):
    """`(batch,)` samples between each record's end and the earlier end of as long a stretch that is most like it.

    The stretch, of two seconds, holds a beat at 30 beats/min; likeness is the squared difference of slopes over all leads, which a
    drifting baseline hardly changes. The lag is at least the shift, which many samples are to follow, and 0.3 s: a smooth signal is like
    itself a moment ago.
    """
    time, reach = signal.shape[1], max(1, round(0.04 * rate))
    signal = tf.pad(signal[:, reach:] - signal[:, :-reach], [[0, 0], [reach, 0], [0, 0]])
    stretch = min(round(2 * rate), time // 2)
    leads_first = tf.transpose(signal, (0, 2, 1))
    end = tf.signal.rfft(leads_first[..., -stretch:], [2 * time])
    products = tf.signal.irfft(tf.reduce_sum(tf.signal.rfft(leads_first, [2 * time]) * tf.math.conj(end), axis=1), [2 * time])
    power = tf.cumsum(tf.pad(tf.reduce_sum(signal**2, axis=-1), [[0, 0], [1, 0]]), axis=1)
    difference = power[:, stretch:] - power[:, :-stretch] - 2 * products[:, : time - stretch + 1]
    lag = time - stretch - tf.range(time - stretch + 1)
    least = tf.maximum(shift, min(round(0.3 * rate), time // 4))
    return tf.gather(lag, tf.argmin(tf.where(lag[None] >= least[:, None], difference, np.inf), axis=1))


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
    return signal + tf.matmul(signal, tf.cast(change, signal.dtype), transpose_b=True)


def random_wander(signal, seed, rate: float, leads: Sequence[str], mv: float):
    """Adds baseline wander: a few sinusoids of random frequencies, log-uniform in `WANDER_BAND`, amplitudes and phases.

    The frequencies are a record's, amplitudes and phases each electrode's. The size of a record is half-normal, so that quiet ones
    remain. Over records, the SD is `mv` in I, II and III, and by electrodes' arithmetic 0.87 mv in aVR, aVL, aVF and 0.82 mv in V1-V6.

    Args:
        signal: `(batch, time, leads)` mV.
        seed: `(2,)`.
        rate: samples per second.
        leads: names of the signal's leads.
        mv: SD in millivolts.
    """
    of_size, of_frequency, of_amplitude = _split(seed, 3)
    batch, time = tf.shape(signal)[0], tf.shape(signal)[1]
    low, high = WANDER_BAND
    frequency = low * (high / low) ** tf.random.stateless_uniform((batch, 1, _WANDERERS), of_frequency)
    turn = 2 * np.pi * frequency * tf.cast(tf.range(time), tf.float32)[None, :, None] / rate  # (batch, time, wanderers)
    # normal weights of sine and cosine are a random amplitude and phase
    weights = tf.random.stateless_normal((batch, 2 * _WANDERERS, len(ELECTRODES)), of_amplitude) / _WANDERERS**0.5
    wander = tf.concat([tf.sin(turn), tf.cos(turn)], axis=-1) @ (weights @ _to_leads(signal, leads))
    return signal + tf.cast(_sizes(batch, of_size, mv) * wander, signal.dtype)


def random_noise(signal, seed, leads: Sequence[str], mv: float):
    """Adds muscle noise: Gaussian at each electrode, neighbouring samples of a record correlated by up to 0.4 either way.

    The size of a record is half-normal, so that quiet ones remain; the SD over records is that of `random_wander`.

    Args:
        signal: `(batch, time, leads)` mV.
        seed: `(2,)`.
        leads: names of the signal's leads.
        mv: SD in millivolts.
    """
    of_size, of_colour, of_noise = _split(seed, 3)
    batch, time = tf.shape(signal)[0], tf.shape(signal)[1]
    colour = tf.random.stateless_uniform((batch, 1, 1), of_colour, -0.5, 0.5)
    white = tf.random.stateless_normal((batch, time + 1, len(ELECTRODES)), of_noise) @ _to_leads(signal, leads)
    noise = (white[:, 1:] + colour * white[:, :-1]) / tf.sqrt(1 + colour**2)
    return signal + tf.cast(_sizes(batch, of_size, mv) * noise, signal.dtype)


def random_lead_dropout(signal, seed, probability: float):
    """Sets each lead of each record to 0 with this probability, as if its electrode was lost; one lead always remains.

    Leads are lost one by one: the limb leads that remain are what they were, so their relations hold only among themselves.
    """
    chance = tf.random.stateless_uniform((tf.shape(signal)[0], 1, tf.shape(signal)[2]), seed)
    lost = chance < tf.minimum(probability, tf.reduce_max(chance, axis=-1, keepdims=True))  # the largest is never below itself
    return tf.where(lost, tf.zeros((), signal.dtype), signal)


def mixup(signal, label, seed, alpha: float):
    """Mixes each record and its label with another of the batch, the weights drawn from Beta(alpha, alpha) (Zhang et al. 2018).

    The partners are the batch rolled by a random number of places. Labels become soft: what was one-hot still sums to 1.

    Raises:
        ValueError: if the labels are not floating-point numbers.
    """
    if not tf.as_dtype(label.dtype).is_floating:
        raise ValueError(
            f"mixup needs labels (batch, classes) of floating-point numbers, received {tf.as_dtype(label.dtype).name}"
        )
    if alpha == 0:  # the limit: whole records
        return signal, label
    of_gamma, of_uniform, of_roll = _split(seed, 3)
    batch = tf.shape(signal)[0]
    # gamma(alpha) is gamma(alpha + 1) u^(1 / alpha): in logarithms nothing underflows, however small alpha is
    gamma = tf.math.log(tf.random.stateless_gamma((2, batch), of_gamma, alpha + 1))
    gamma += tf.math.log1p(-tf.random.stateless_uniform((2, batch), of_uniform)) / alpha
    weight = tf.sigmoid(gamma[0] - gamma[1])
    places = tf.random.stateless_uniform((), of_roll, 1, tf.maximum(batch, 2), tf.int32)

    def mixed(values, weight):
        weight = tf.cast(weight, values.dtype)
        return weight * values + (1 - weight) * tf.roll(values, places, axis=0)

    return mixed(signal, weight[:, None, None]), mixed(label, weight[:, None])


def augment(signal, label, seed, how: Augmentation, *, rate: float, leads: Sequence[str] = LEADS):
    """A batch's signal `(batch, time, leads)` in mV and label `(batch, classes)`, augmented.

    What changes the heart comes first, then `mixup`, then what changes the recording.

    Raises:
        ValueError: if the leads are not those of the signal, or not the 12 standard ones for `axis`.
    """
    seeds = _split(seed, 7)
    if how.gain:
        signal = random_gain(signal, seeds[0], how.gain)
    if how.shift_seconds:
        signal = random_shift(signal, seeds[1], rate, how.shift_seconds)
    if how.axis:
        signal = random_axis(signal, seeds[2], leads, how.axis)
    if how.mixup:
        signal, label = mixup(signal, label, seeds[6], how.mixup)
    if how.wander:
        signal = random_wander(signal, seeds[3], rate, leads, how.wander)
    if how.noise:
        signal = random_noise(signal, seeds[4], leads, how.noise)
    if how.lead_dropout:
        signal = random_lead_dropout(signal, seeds[5], how.lead_dropout)
    return signal, label


def augmented(
    stream: tf.data.Dataset,
    seed: int,
    first_batch: int,
    augmentation: Augmentation,
    *,
    rate: float,
    leads: Sequence[str] = LEADS,
) -> tf.data.Dataset:
    """A stream of (signal, label) batches changed by `augment`, each batch's draws a function of (seed, its number).

    Args:
        stream: batches `(signal (batch, time, leads) mV, label (batch, classes))`, the first of which is number `first_batch`.
        seed: fixes the draws.
        first_batch: number of the stream's first batch: a stream entered late has the draws of one read from the start.
        augmentation: how strongly.
        rate: samples per second.
        leads: names of the signal's leads.

    Raises:
        ValueError: if the leads are not those of the signal, or not the 12 standard ones for `axis`.
    """

    @tf.autograph.experimental.do_not_convert  # errors stay as they are raised
    def apply(number, batch):
        return augment(*batch, tf.stack([tf.constant(seed, tf.int64), number]), augmentation, rate=rate, leads=leads)

    numbers = tf.data.Dataset.counter(start=first_batch)
    return tf.data.Dataset.zip((numbers, stream)).map(apply, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _split(seed, parts: int) -> list[tf.Tensor]:
    # unlike `stateless_split`, gives the same for int32 and int64
    return [tf.random.experimental.stateless_fold_in(seed, part) for part in range(parts)]


def _sizes(batch, seed, mv: float):
    """Half-normal sizes `(batch, 1, 1)` in mV whose mean square is mv^2."""
    return mv * tf.abs(tf.random.stateless_normal((batch, 1, 1), seed))


def _to_leads(signal, leads: Sequence[str]):
    """The matrix `(electrodes, leads)` that takes independent noise of SD 1 at the electrodes to leads, with SD 1 in I, II and III.

    Raises:
        ValueError: if the signal has another number of leads than are named.
    """
    if signal.shape[-1] != len(leads):
        raise ValueError(
            f"expected signals with the {len(leads)} leads {', '.join(leads)}, received shape {tuple(signal.shape)}"
        )
    matrix = ELECTRODES_TO_LEADS @ lead_matrix(INDEPENDENT_LEADS, leads)
    return tf.constant(matrix / np.sqrt(2), tf.float32)  # limb leads are differences of two electrodes
