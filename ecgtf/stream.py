"""A split as `tf.data`: an order that is a function of (seed, epoch), and a stream that can be entered anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from ecgtf.copies import left_out
from ecgtf.manifest import Folders, read_manifests
from ecgtf.shards import read_example, read_shard, shard_paths
from ecgtf.tasks import Task
from ecgtf.tf_data import pipeline_options
from ecgtf.tfrecord import RECORD_FRAME, RECORD_HEAD

MEMORY_BYTES = 2**30
"""A split of up to this size is held in memory; a larger one is read from its shards."""


def stream(
    folders: Folders,
    split: str,
    task: Task | None,
    *,
    batch_size: int,
    shuffle: bool,
    balance: float,
    balance_sources: float,
    seed: int,
    repeat: bool,
    start_batch: int,
    drop_remainder: bool,
    limit: int | None,
    more: np.ndarray | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> tf.data.Dataset:
    """`ecgtf.dataset.load`, whose arguments these are.

    The split is read once, its checksums verified, and each epoch is an order of all its records, so that entering the stream
    late costs nothing. A split that fits in `memory_bytes` is held; of a larger one only the places of its records are, and the
    records are read from the shards as they come, through the system's cache. The orders are stateless: neither global seeds nor
    other data sets change them.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("start_batch", start_batch, 0), ("limit", limit, 1)):
        if value is not None and value < least:
            raise ValueError(f"expected a {name} of at least {least}, received {value}")
    for name, value in (("balance", balance), ("balance_sources", balance_sources)):
        if not value >= 0 or (value and not shuffle):
            raise ValueError(
                f"expected a {name} of at least 0, and of 0 without shuffle, received {value} with shuffle={shuffle}"
            )
    if balance and task is None:
        raise ValueError("balance needs a task: without one there are no classes")
    sets = read_manifests(folders)
    manifest = sets[0][1]
    shape = (manifest.samples, len(manifest.leads))
    total = sum(part.records_in(split) for _, part in sets)
    most = min(total, limit or total)
    held = most * 2 * math.prod(shape) <= memory_bytes
    scan = _scan(folders, split, task, limit, shape, np.empty((most, *shape), np.int16) if held else None)
    records = len(scan.labels)
    if repeat and not records:
        where = ", ".join(str(folder) for folder, _ in sets)
        raise ValueError(f"split {split} of {where} has no record" + (f" with a class of task {task.name}" if task else ""))
    weights = (
        draw_weights(scan.labels, balance) * draw_weights(scan.sources, balance_sources) if balance or balance_sources else None
    )
    epoch = _epoch(records, shuffle, seed, weights)
    fetch = _from_memory(scan.steps) if held else _from_shards(scan, shape)
    if more is not None and len(more) != records:
        raise ValueError(f"expected {records} rows of columns that follow the labels, one a record, received {len(more)}")
    all_labels = tf.constant(scan.labels if more is None else np.concatenate([scan.labels, more], axis=1, dtype=np.float32))

    def read(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        signals = tf.cast(fetch(numbers), tf.float32) * np.float32(manifest.resolution_mv)
        return tf.ensure_shape(signals, (numbers.shape[0], *shape)), tf.gather(all_labels, numbers)

    start = start_batch * batch_size
    if repeat:
        first = start // records  # leave out whole epochs without making them
        order = tf.data.Dataset.range(first, np.iinfo(np.int64).max).flat_map(epoch).skip(start - first * records)
        cardinality = tf.data.INFINITE_CARDINALITY
    else:
        order = epoch(tf.constant(0, tf.int64)).skip(start)
        left = max(0, records - start)
        cardinality = left // batch_size if drop_remainder else -(-left // batch_size)
    batches = order.batch(batch_size, drop_remainder=drop_remainder or repeat)
    batches = batches.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = batches.apply(tf.data.experimental.assert_cardinality(cardinality)).prefetch(tf.data.AUTOTUNE)
    return batches.with_options(pipeline_options())


@dataclass(frozen=True)
class _Scan:
    """The records of a split that a task keeps, in order."""

    labels: np.ndarray
    """`(records, classes)` float32; no classes without a task."""
    sources: np.ndarray
    """`(records, sets)`, one-hot: the set that a record is of."""
    steps: np.ndarray | None
    """`(records, samples, leads)` int16, if the signals are to be held."""
    paths: list[Path]
    places: np.ndarray
    """`(records, 2)` int64: the number of a path and the first byte of the signal in its file."""


def _scan(
    folders: Folders, split: str, task: Task | None, limit: int | None, shape: tuple[int, int], steps: np.ndarray | None
) -> _Scan:
    """Reads a split once, its signals into `steps`. What the task leaves out, or another set holds too, is not among them.

    Raises:
        ValueError: if a shard is missing or damaged.
    """
    sets = read_manifests(folders)
    skipped = left_out(folders)
    files = [
        (source, skipped[folder], path)
        for source, (folder, part) in enumerate(sets)
        for path in shard_paths(folder, part, split)
    ]
    places, codes, sources = [], [], []
    for file, first, its_codes, signal in islice(_examples(files, task, math.prod(shape)), limit):
        if steps is not None:
            steps[len(codes)] = np.frombuffer(signal, "<i2").reshape(shape)
        places.append((file, first))
        codes.append(its_codes)
        sources.append(files[file][0])
    return _Scan(
        labels=task.labels(codes) if task else np.zeros((len(codes), 0), np.float32),
        sources=np.eye(len(sets), dtype=np.float32)[np.array(sources, int)],
        steps=None if steps is None else steps[: len(codes)],
        paths=[path for _, _, path in files],
        places=np.array(places, np.int64).reshape(-1, 2),
    )


def _examples(
    files: list[tuple[int, frozenset[str], Path]], task: Task | None, values: int
) -> Iterator[tuple[int, int, tuple[str, ...], bytes]]:
    """`(number of the file, first byte of the signal, codes, signal)` of each record to read, in order."""
    for file, (_, skipped, path) in enumerate(files):
        start = RECORD_HEAD
        for name, codes, signal, first, size in read_shard(path, partial(_example, values=values)):
            if (task is None or task.keeps(codes)) and name not in skipped:
                yield file, start + first, codes, signal
            start += size + RECORD_FRAME


def _example(data: bytes, values: int) -> tuple[str, tuple[str, ...], bytes, int, int]:
    """Id, codes and signal of an encoded record, the place of the signal's first byte and the record's length."""
    name, codes, signal = read_example(data)
    if len(signal) != 2 * values:
        raise ValueError(f"expected a signal of {2 * values} bytes, found {len(signal)}")
    return name, codes, signal, data.rfind(signal), len(data)


def _from_memory(steps: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from record numbers `(batch,)` to signals `(batch, samples, leads)` int16 that are held."""
    memory = tf.constant(steps)
    return lambda numbers: tf.gather(memory, numbers)


def _from_shards(scan: _Scan, shape: tuple[int, int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from record numbers `(batch,)` to signals `(batch, samples, leads)` int16 read from their shards."""
    # as plain arrays: cutting a memmap is several times as slow
    files = [
        np.asarray(np.memmap(path, np.uint8, "r")) if path.stat().st_size else np.empty(0, np.uint8) for path in scan.paths
    ]
    size = 2 * math.prod(shape)

    def read(numbers: np.ndarray) -> np.ndarray:
        signals = np.empty((len(numbers), size), np.uint8)
        for signal, (file, first) in zip(signals, scan.places[numbers].tolist(), strict=True):
            signal[:] = files[file][first : first + size]
        return signals.view("<i2").reshape(-1, *shape).astype(np.int16, copy=False)

    return lambda numbers: tf.numpy_function(read, [numbers], tf.int16)


def draw_weights(groups: np.ndarray, balance: float) -> np.ndarray:
    """How often each record is drawn, relative to the others: (size of its smallest group) ** -balance.

    Args:
        groups: `(records, groups)` one-hot or multi-hot: classes, or sets. A record of no group counts as one of the whole.
        balance: 0 draws all alike, 1 draws groups alike.
    """
    sizes = np.where(groups > 0, np.maximum(groups.sum(axis=0), 1.0), np.inf).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(sizes), sizes, max(1, len(groups))) ** -balance


def _epoch(records: int, shuffle: bool, seed: int, weights: np.ndarray | None) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function from the epoch's number to the order of record numbers; with weights, to draws with replacement."""
    cumulated = None if weights is None else np.cumsum(weights / weights.sum()).astype(np.float32)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(records, dtype=tf.int64)
        if cumulated is not None:
            uniform = tf.random.stateless_uniform((records,), _epoch_seed(seed, number))
            order = tf.minimum(tf.searchsorted(cumulated, uniform, side="right", out_type=tf.int64), records - 1)
        elif shuffle:
            order = tf.random.experimental.stateless_shuffle(order, seed=_epoch_seed(seed, number))
        return tf.data.Dataset.from_tensor_slices(order)

    return epoch


def _epoch_seed(seed: int, number: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed % 2**63, tf.int64), number])
