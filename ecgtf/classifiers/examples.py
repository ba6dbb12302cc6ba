"""Labelled records in memory: read, mixed, thinned, and drawn in batches for a classifier's training.

A training split is held as float32: 48 kB for a 10-second 12-lead record at 100 Hz, about 1 GB for all of PTB-XL.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ecgtf.classifiers import MIXINGS
from ecgtf.copies import find_copies
from ecgtf.dataset import Folders, LeakError, combined_manifest, hash_id, load_arrays, read_ids, read_manifests
from ecgtf.manifest import listed
from ecgtf.stream import draw_weights
from ecgtf.tasks import Task
from ecgtf.tf_data import pipeline_options


@dataclass(frozen=True)
class Examples:
    """Labelled records in memory."""

    signals: np.ndarray
    """`(records, time, leads)` float32 in millivolts."""
    labels: np.ndarray
    """`(records, classes)` float32, one-hot or multi-hot."""
    ids: list[str]
    """Ids of the records; those of a synthetic set carry its name in front."""
    sources: list[str]
    """The names of the sets they are of."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Sequence[int] | np.ndarray) -> Examples:
        """The records at these places, in this order."""
        ids, sources = ([names[place] for place in index] for names in (self.ids, self.sources))
        return Examples(self.signals[index], self.labels[index], ids, sources)

    def plus(self, other: Examples) -> Examples:
        """These records, then the others."""
        if not len(other):
            return self
        signals = np.concatenate([self.signals, other.signals])
        labels = np.concatenate([self.labels, other.labels])
        return Examples(signals, labels, self.ids + other.ids, self.sources + other.sources)


def read_examples(folders: Folders, split: str, task: Task) -> Examples:
    """A split of one or several sets, real or synthetic, in memory.

    Raises:
        ValueError: as `load_arrays`.
    """
    arrays = load_arrays(folders, split, task)
    synthetic = {part.name for _, part in read_manifests(folders) if part.synthetic}
    named = zip(arrays.sources, arrays.ids, strict=True)
    ids = [f"{source}/{id_}" if source in synthetic else id_ for source, id_ in named]
    return Examples(arrays.signals, arrays.labels, ids, arrays.sources)


def real_ids(folders: Folders, split: str, task: Task) -> set[str]:
    """Hashed ids of a split's records in the real ones among these sets; their signals are not read."""
    real = [folder for folder, part in read_manifests(folders) if not part.synthetic]
    return {hash_id(id_) for id_ in read_ids(real, split, task)} if real else set()


def read_splits(data: Folders, test_data: Folders | None, task: Task, seed: int) -> tuple[Examples, Examples, Examples]:
    """Training, validation and test records; a tenth of the training records stands in for a missing validation split. An ECG that
    `test_data` tests on is not learnt from `data`."""
    train, validation = (read_examples(data, split, task) for split in ("train", "validation"))
    if test_data is not None:
        check_fit(data, test_data)
        tested = _copies_tested(data, test_data)
        train, validation = (
            part.take([place for place, id_ in enumerate(part.ids) if id_ not in tested]) for part in (train, validation)
        )
    test = read_examples(data if test_data is None else test_data, "test", task)
    if not len(validation) and len(train):
        train, validation = hold_out(train, seed)
    return train, validation, test


def check_untested(others: Folders, tested: Folders, splits: Sequence[str] = ("train", "validation")) -> None:
    """Refuses sets to learn from beside the real ones, of which an ECG in these splits stands in a test split of `tested`, under
    whatever id. What a generator drew is no copy: such sets are not looked at.

    Raises:
        LeakError: naming the first of them.
    """
    real = [folder for folder, part in read_manifests(others) if not part.synthetic]
    copies = sorted(_copies_tested(real, tested, splits)) if real else []
    if copies:
        raise LeakError(
            f"{len(copies)} of the ECGs to learn beside the real ones are tested on, maybe under other ids (the first: {copies[0]}): "
            "leave them out"
        )


def _copies_tested(data: Folders, test_data: Folders, splits: Sequence[str] = ("train", "validation")) -> set[str]:
    """Ids of records in these splits of `data` whose ECG stands in a test split of `test_data`, under whatever id."""
    ours = {folder for folder, _ in read_manifests(data)}
    theirs = {folder for folder, _ in read_manifests(test_data)}
    groups = find_copies([*ours, *(theirs - ours)])
    return {
        place.id
        for group in groups
        if any(place.folder in theirs and place.split == "test" for place in group)
        for place in group
        if place.folder in ours and place.split in splits
    }


def hold_out(train: Examples, seed: int) -> tuple[Examples, Examples]:
    """Training and validation records of a set without a validation split: nine tenths and one tenth, class by class."""
    kept = share(train.labels, 0.9, seed)
    return train.take(kept), train.take(np.setdiff1d(np.arange(len(train)), kept))


def check_fit(data: Folders, others: Folders) -> None:
    """Refuses data sets that differ in sampling rate, length or leads."""
    combined_manifest([*names_of(data), *names_of(others)])


def names_of(folders: Folders | None) -> list[str] | None:
    """Folders as a list of strings, as `config.json` holds them."""
    return None if folders is None else list(map(str, listed(folders)))


def mix(
    real: Examples, synthetic: Examples, ratio: float, multi_label: bool, seed: int, mixing: str = "proportional"
) -> Examples:
    """The synthetic records to add: `ratio` for each real one, dealt to the classes by `mixing`.

    Where a class has too few synthetic records, all of them are taken. Where classes do not exclude each other, records are drawn
    at random: all alike, or, balancing, with the weight 1/n, n the size of their rarest class.

    Raises:
        ValueError: if the ratio is negative or there is no such mixing.
    """
    check_mixing(ratio, mixing)
    rng = np.random.default_rng(seed)
    if multi_label:
        weights = draw_weights(synthetic.labels, float(mixing == "balancing"))
        order = np.argsort(rng.exponential(size=len(synthetic)) / weights)  # draws without replacement, by weight
        return synthetic.take(np.sort(order[: round(ratio * len(real))]))
    order = rng.permutation(len(synthetic))
    chosen = []
    for k, count in enumerate(dealt(real.labels.sum(axis=0), ratio, mixing)):
        chosen.extend(order[synthetic.labels[order, k] > 0][:count])
    return synthetic.take(np.sort(np.array(chosen, dtype=int)))


def dealt(sizes: np.ndarray, ratio: float, mixing: str) -> np.ndarray:
    """Synthetic records of each class `(classes,)` for classes with `sizes` real ones: `ratio` for each real one in all.

    `proportional` gives every class `ratio` times its size; `balancing` deals to the class that is the smallest, real and
    synthetic records together, one after another.

    Raises:
        ValueError: as `mix`.
    """
    check_mixing(ratio, mixing)
    if mixing == "proportional":
        return np.array([round(ratio * float(size)) for size in sizes], dtype=int)
    filled = np.array(sizes, dtype=int)
    for _ in range(round(ratio * float(np.sum(sizes)))):
        filled[filled.argmin()] += 1
    return filled - np.array(sizes, dtype=int)


def check_mixing(ratio: float, mixing: str) -> None:
    """Refuses a ratio of synthetic records, or a way to deal them to the classes, that is not possible."""
    if not 0 <= ratio < np.inf:
        raise ValueError(f"expected a synthetic ratio of at least 0, received {ratio}")
    if mixing not in MIXINGS:
        raise ValueError(f"unknown mixing {mixing!r}; expected one of {', '.join(MIXINGS)}")


def share(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Places, in order, of a stratified share of records: a smaller share of the same seed is a part of a larger one.

    Each record belongs to its rarest class, of which the share is taken; every class keeps at least one record.

    Args:
        labels: `(records, classes)` one-hot or multi-hot.
        fraction: Above 0, up to 1.
        seed: Fixes the order in which records are added.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"expected a fraction above 0 and up to 1, received {fraction}")
    order = np.random.default_rng(seed).permutation(len(labels))
    rarest = strata(labels)
    kept = [order[labels[order, k] > 0][:1] for k in range(labels.shape[1])]
    for k in np.unique(rarest):
        members = order[rarest[order] == k]
        kept.append(members[: max(1, round(fraction * len(members)))])
    return np.unique(np.concatenate(kept)).astype(int)


def strata(labels: np.ndarray) -> np.ndarray:
    """The stratum of each record of labels `(records, classes)`: the rarest class it has, -1 where it has none."""
    rarest = np.where(labels > 0, labels.sum(axis=0), np.inf).argmin(axis=1)
    rarest[~(labels > 0).any(axis=1)] = -1
    return rarest


def counts(labels: np.ndarray, task: Task) -> dict[str, int]:
    """Records of each class."""
    return {name: int(count) for name, count in zip(task.classes, labels.sum(axis=0), strict=True)}


def lineage(folders: Folders) -> set[str]:
    """Hashed ids of the real records that the generators of these sets were trained on; empty for real sets."""
    made = combined_manifest(folders).generator
    return set(made["trained_on"]) if made else set()


def training_batches(
    train: Examples,
    *,
    batch_size: int,
    balance: float = 0.0,
    balance_sources: float = 0.0,
    seed: int = 0,
    start_batch: int = 0,
) -> tf.data.Dataset:
    """Endless batches `(signal, label)` from batch `start_batch` on; what batch s holds is a function of (seed, s) alone.

    Args:
        train: The records; the caller keeps them as long as it draws.
        batch_size: Records a batch.
        balance: 0 shows every record once an epoch, in a new order each; above 0 draws with replacement, each record with the
            weight n^-balance, n the size of its rarest class.
        balance_sources: The same for the sets that the records are of; its weights multiply those of `balance`.
        seed: Fixes the draws.
        start_batch: The first batch.
    """
    if not len(train):
        raise ValueError("expected training records, received none: the split is empty or has no class of the task")

    weights = None
    if balance or balance_sources:
        sets = np.array(train.sources)[:, None] == sorted(set(train.sources))
        weights = draw_weights(train.labels, balance) * draw_weights(sets, balance_sources)

    # TensorFlow keeps this generator as long as the graphs of a training, which is longer than the training.
    kept, records = weakref.ref(train), len(train)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index in _indices(records, weights, batch_size, seed, start_batch):
            if (there := kept()) is None:
                raise RuntimeError("the records of these batches are gone: keep them as long as the batches are drawn")
            batch = there.signals[index], there.labels[index]
            del there
            yield batch

    shapes = [(batch_size, *array.shape[1:]) for array in (train.signals, train.labels)]
    signature = tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes)
    stream = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return stream.prefetch(tf.data.AUTOTUNE).with_options(pipeline_options())


def _indices(records: int, weights: np.ndarray | None, batch_size: int, seed: int, start: int) -> Iterator[np.ndarray]:
    if weights is not None:
        reach = np.cumsum(weights)
        for number in range(start, np.iinfo(np.int64).max):
            draws = np.random.default_rng([seed, number]).random(batch_size)
            yield np.minimum(np.searchsorted(reach, draws * reach[-1], side="right"), records - 1)
    epoch, place = divmod(start * batch_size, records)
    rest = np.random.default_rng([seed, epoch]).permutation(records)[place:]
    while True:
        while len(rest) < batch_size:
            epoch += 1
            rest = np.concatenate([rest, np.random.default_rng([seed, epoch]).permutation(records)])
        yield rest[:batch_size]
        rest = rest[batch_size:]
