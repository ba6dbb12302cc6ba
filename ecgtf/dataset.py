"""Data sets: a folder of TFRecord shards with a manifest. Open them here, as `tf.data` or as NumPy arrays.

Everything a caller needs of a data set is in this module's namespace; what lies behind it is in `manifest.py` (`dataset.json`),
`shards.py` (records on disk) and `stream.py` (`tf.data`). TensorFlow is imported by `load` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgtf.copies import left_out
from ecgtf.ecg import Record
from ecgtf.manifest import (
    Folders,
    LeakError,
    Manifest,
    ShardSummary,
    check_no_leak,
    combined_manifest,
    finish_dataset,
    hash_id,
    read_manifest,
    read_manifests,
)
from ecgtf.shards import read_example, read_records, read_shard, shard_names, shard_paths, verify, write_shard, write_split
from ecgtf.tasks import Task, get_task

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "Arrays",
    "Dataset",
    "Folders",
    "LeakError",
    "Manifest",
    "ShardSummary",
    "check_no_leak",
    "combined_manifest",
    "finish_dataset",
    "hash_id",
    "load",
    "load_arrays",
    "load_dataset",
    "read_ids",
    "read_labels",
    "read_manifest",
    "read_manifests",
    "read_records",
    "read_split_codes",
    "records_of",
    "shard_names",
    "verify",
    "write_shard",
    "write_split",
]


@dataclass
class Arrays:
    """A split in memory."""

    signals: np.ndarray
    """`(n, time, leads)` float32 in millivolts."""
    labels: np.ndarray | None
    """`(n, classes)` float32, or None without a task."""
    ids: list[str]
    codes: list[tuple[str, ...]]
    manifest: Manifest
    """Of the set, or the combined one of several."""
    patients: list[str | None]
    ages: list[float | None]
    sexes: list[str | None]
    sources: list[str]
    """The name of the set that each record is of."""

    def __len__(self) -> int:
        return len(self.ids)


def load(
    folders: Folders,
    split: str,
    task: Task | str | None,
    *,
    batch_size: int,
    shuffle: bool = False,
    balance: float = 0.0,
    balance_sources: float = 0.0,
    seed: int = 0,
    repeat: bool = False,
    start_batch: int = 0,
    drop_remainder: bool = False,
    limit: int | None = None,
    more: np.ndarray | None = None,
) -> tf.data.Dataset:
    """A split of one or several sets as batches `(signal (batch, time, leads) float32 mV, label (batch, classes) float32)`.

    Records without a class of a single-label task are left out. The order is deterministic; see `ecgtf.stream.stream`.

    Args:
        folders: a data set's folder, or several that agree on sampling rate, seconds and leads.
        split: `train`, `validation` or `test`.
        task: what the labels are; None keeps every record, with labels of no classes.
        batch_size: records per batch.
        shuffle: whether each epoch has an order of its own, a function of `seed` and the epoch's number.
        balance: with `shuffle`, 0 shows each record once an epoch; above 0 an epoch draws as many records with replacement,
            each with a weight of its rarest class's count to the power -balance, so that 1 shows all classes equally often.
        balance_sources: the same for the sets: 1 shows all sets equally often. Its weights multiply those of `balance`.
        seed: fixes the orders.
        repeat: whether the stream is endless; its batches are all full and cross the border of epochs.
        start_batch: how many batches to leave out at the start: an interrupted training continues its stream exactly.
        drop_remainder: whether to leave out a last batch that is not full.
        limit: at most this many records (the first ones).
        more: `(records, columns)` that follow the label of each record, in the order of `load_arrays`, such as conditions.

    Raises:
        ValueError: if a folder holds no data set, the sets do not fit together, the split, task or a number is not possible, or
            an endless stream has no records.
    """
    from ecgtf.stream import stream

    return stream(
        folders,
        split,
        None if task is None else get_task(task),
        batch_size=batch_size,
        shuffle=shuffle,
        balance=balance,
        balance_sources=balance_sources,
        seed=seed,
        repeat=repeat,
        start_batch=start_batch,
        drop_remainder=drop_remainder,
        limit=limit,
        more=more,
    )


def load_arrays(folders: Folders, split: str, task: Task | str | None = None, *, limit: int | None = None) -> Arrays:
    """A split of one or several sets in memory, without TensorFlow; checksums verified.

    Args:
        folders: a data set's folder, or several that agree on sampling rate, seconds and leads.
        split: `train`, `validation` or `test`.
        task: what the labels are; records without a class of a single-label task are left out. None keeps every record.
        limit: at most this many records (the first ones).

    Raises:
        ValueError: if a folder holds no data set, the sets do not fit together, the split or task is unknown, or a shard is
            damaged.
    """
    task = None if task is None else get_task(task)
    manifest = combined_manifest(folders)
    if limit is not None and limit < 0:
        raise ValueError(f"expected a limit of at least 0, received {limit}")
    most = sum(part.records_in(split) for _, part in read_manifests(folders))
    most = most if limit is None else min(most, limit)
    signals = np.empty((most, manifest.samples, len(manifest.leads)), np.float32)
    kept, sources = [], []
    for source, record in islice(records_of(folders, split, task), most):
        signals[len(kept)] = record.signal
        record.signal = None
        kept.append(record)
        sources.append(source)
    return Arrays(
        signals=signals[: len(kept)],
        labels=task.labels([record.codes for record in kept]) if task else None,
        ids=[record.id for record in kept],
        codes=[record.codes for record in kept],
        manifest=manifest,
        patients=[record.patient for record in kept],
        ages=[record.age for record in kept],
        sexes=[record.sex for record in kept],
        sources=sources,
    )


def records_of(folders: Folders, split: str, task: Task | str | None = None) -> Iterator[tuple[str, Record]]:
    """The records that `load_arrays` gives, in order, one at a time, each after the name of its set.

    Raises:
        ValueError: as `load_arrays`.
    """
    task = None if task is None else get_task(task)
    skipped = left_out(folders)
    for folder, part in read_manifests(folders):
        for record in read_records(folder, split, part):
            if (task is None or task.keeps(record.codes)) and record.id not in skipped[folder]:
                yield part.name, record


def read_split_codes(folders: Folders, split: str) -> list[tuple[str, ...]]:
    """The diagnosis codes of every record of a split, in order, without their signals.

    Raises:
        ValueError: as `load_arrays`.
    """
    return [codes for _, codes in _names_and_codes(folders, split)]


def read_ids(folders: Folders, split: str, task: Task | str | None = None) -> list[str]:
    """The ids of the records that `load_arrays` gives, in order, without their signals.

    Raises:
        ValueError: as `load_arrays`.
    """
    task = None if task is None else get_task(task)
    return [name for name, codes in _names_and_codes(folders, split) if task is None or task.keeps(codes)]


def _names_and_codes(folders: Folders, split: str) -> list[tuple[str, tuple[str, ...]]]:
    found, skipped = [], left_out(folders)
    for folder, manifest in read_manifests(folders):
        for path in shard_paths(folder, manifest, split):
            found += [(name, codes) for name, codes, _ in read_shard(path, read_example) if name not in skipped[folder]]
    return found


def read_labels(folders: Folders, split: str, task: Task | str) -> np.ndarray:
    """Labels `(records, classes)` float32 of every record of a split, in order, without their signals.

    A record without a class of a single-label task has a row of zeros here (`load` and `load_arrays` leave it out).

    Raises:
        ValueError: as `load_arrays`.
    """
    return get_task(task).labels(read_split_codes(folders, split))


class Dataset:
    """A data set opened for use from Python: NumPy arrays by split, or `tf.data` batches."""

    def __init__(self, folders: Folders, task: Task | str | None = None):
        self.folders = folders
        self.task = None if task is None else get_task(task)
        self.manifest = combined_manifest(folders)

    @cached_property
    def train(self) -> Arrays:
        """The training split."""
        return load_arrays(self.folders, "train", self.task)

    @cached_property
    def validation(self) -> Arrays:
        """The validation split."""
        return load_arrays(self.folders, "validation", self.task)

    @cached_property
    def test(self) -> Arrays:
        """The test split."""
        return load_arrays(self.folders, "test", self.task)

    def batches(self, split: str, batch_size: int, **options: Any) -> tf.data.Dataset:
        """`load` of this set: batches of signals and labels.

        Raises:
            ValueError: if the set was opened without a task, or as `load`.
        """
        if self.task is None:
            raise ValueError("expected a task for labels: open the set as load_dataset(path, task='rhythm7')")
        return load(self.folders, split, self.task, batch_size=batch_size, **options)


def load_dataset(path: Folders, task: Task | str | None = None) -> Dataset:
    """Opens a data set (or several as one) for use from Python.

    >>> data = load_dataset("data/ptbxl", task="rhythm7")  # doctest: +SKIP
    >>> data.train.signals.shape  # doctest: +SKIP
    (17418, 1000, 12)

    Raises:
        ValueError: if a folder holds no finished data set, or the task is unknown.
    """
    return Dataset(path, task)
