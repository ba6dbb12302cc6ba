"""Sets with a known defect, made of real records: what shows which metric sees what.

Each defect takes real records that are as good as records can be, spoils one thing, and leaves the rest as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ecgtf.closeness.comparison import Part

MODES = 2
"""Records of each class that a collapsed generator still draws."""

_SHIFT = 20  # samples
_NOISE = 0.01  # mV: so that the draws of a mode are no exact copies of each other


def none(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """The records as they are: real ones, of other people."""
    return good


def white_noise(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Noise with the mean and spread of each lead."""
    mean, spread = good.signals.mean(axis=(0, 1)), good.signals.std(axis=(0, 1))
    return _with(good, rng.normal(mean, spread, good.signals.shape))


def time_reversed(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Every record backwards: spectra and amplitudes stay."""
    return _with(good, good.signals[:, ::-1])


def leads_shuffled(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Every lead under the name of another, the same way in all records."""
    leads = good.signals.shape[2]
    return _with(good, good.signals[..., np.roll(np.arange(leads), 1)])


def amplitude_doubled(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Twice the millivolts: all shapes and times stay."""
    return _with(good, 2.0 * good.signals)


def classes_swapped(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Good records under the label of another class."""
    return replace(good, labels=np.roll(good.labels, 1, axis=1))


def mode_collapsed(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Draws of `MODES` records of each class, over and over."""
    label = good.labels.argmax(axis=1)
    rows = np.array([rng.choice(np.flatnonzero(label == k)[:MODES]) for k in label])
    signals = good.signals[rows]
    return _with(good, signals + rng.normal(0, _NOISE, signals.shape))


def memorised(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Training records with a little noise, moved a little in time."""
    time = np.arange(train.signals.shape[1])
    shifts = rng.integers(-_SHIFT, _SHIFT + 1, len(train))
    signals = np.stack(
        [signal[np.clip(time + shift, 0, time[-1])] for signal, shift in zip(train.signals, shifts, strict=True)]
    )
    return _with(train, signals + rng.normal(0, _NOISE, signals.shape))


DEFECTS: Mapping[str, Callable[[Part, Part, np.random.Generator], Part]] = {
    "none": none,
    "white noise": white_noise,
    "time reversed": time_reversed,
    "leads shuffled": leads_shuffled,
    "amplitude doubled": amplitude_doubled,
    "classes swapped": classes_swapped,
    "mode collapsed": mode_collapsed,
    "memorised": memorised,
}


def halves_by_person(part: Part, seed: int = 0) -> tuple[Part, Part]:
    """Two sets of about equally many records of different people, such as training records and ones that are as good."""
    people = part.of_whom()
    chosen = np.isin(people, np.random.default_rng(seed).permutation(np.unique(people))[::2])
    return part.take(np.flatnonzero(chosen)), part.take(np.flatnonzero(~chosen))


def _with(part: Part, signals: np.ndarray) -> Part:
    return replace(part, signals=np.ascontiguousarray(signals, dtype=np.float32))
