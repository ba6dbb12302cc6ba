"""A split as `tf.data`: an order that is a function of (seed, epoch), and a stream that can be entered anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from ecgtf.copies import left_out
from ecgtf.manifest import Folders, Manifest, read_manifests
from ecgtf.shards import read_codes, read_id, shard_paths
from ecgtf.tasks import Task
from ecgtf.tfrecord import RECORD_FRAME, RECORD_HEAD, read_tfrecord

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
    total = sum(part.records_in(split) for _, part in sets)
    held = min(total, limit or total) * 2 * manifest.samples * len(manifest.leads) <= memory_bytes
    scan = _scan(folders, split, task, limit, keep_data=held)
    records = len(scan.places)
    if repeat and not records:
        where = ", ".join(str(folder) for folder, _ in sets)
        raise ValueError(f"split {split} of {where} has no record" + (f" with a class of task {task.name}" if task else ""))
    weights = (
        draw_weights(scan.labels, balance) * draw_weights(scan.sources, balance_sources) if balance or balance_sources else None
    )
    epoch = _epoch(records, shuffle, seed, weights)
    parse = parser(manifest, task)
    fetch = _from_memory(scan.data) if held else _from_shards(scan)
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
    batches = batches.map(lambda numbers: parse(fetch(numbers)), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    options = tf.data.Options()
    # every worker reads all shards and takes its share of each batch, so that the stream stays one stream
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.apply(tf.data.experimental.assert_cardinality(cardinality)).prefetch(tf.data.AUTOTUNE).with_options(options)


def parser(manifest: Manifest, task: Task | None) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function from serialised Examples `(batch,)` to signals `(batch, time, leads)` float32 mV and labels."""
    shape = (manifest.samples, len(manifest.leads))
    make_labels = labeller(task) if task else lambda codes: tf.zeros((codes.nrows(), 0))
    classes = len(task.classes) if task else 0

    def parse(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        spec = {"signal": tf.io.FixedLenFeature([], tf.string), "codes": tf.io.RaggedFeature(tf.string)}
        features = tf.io.parse_example(examples, spec)
        steps = tf.io.decode_raw(features["signal"], tf.int16, little_endian=True)
        signal = tf.cast(tf.reshape(steps, (-1, *shape)), tf.float32) * np.float32(manifest.resolution_mv)
        batch = examples.shape[0]
        label = make_labels(features["codes"])
        return tf.ensure_shape(signal, (batch, *shape)), tf.ensure_shape(label, (batch, classes))

    return parse


def labeller(task: Task) -> Callable[[tf.RaggedTensor], tf.Tensor]:
    """`Task.labels` as a function of ragged codes `(batch, None)` inside a graph; the results are equal.

    Codes are compared with the task's own table: some fifty strings, so that no lookup table has to be kept and initialised.
    """
    table = list(task.codes)
    membership = np.zeros((len(table), len(task.classes)), np.float32)
    for row, code in zip(membership, table, strict=True):
        row[task.classes.index(task.codes[code])] = 1.0
    order = [task.classes.index(name) for name in task.precedence]

    def labels(codes: tf.RaggedTensor) -> tf.Tensor:
        hits = tf.cast(codes.values[:, None] == tf.constant(table, tf.string), tf.float32)
        present = tf.math.unsorted_segment_sum(hits @ membership, codes.value_rowids(), codes.nrows())
        present = tf.cast(present > 0, tf.float32)
        if task.multi_label:
            return present
        ranked = tf.gather(present, order, axis=1)
        first = tf.gather(tf.constant(order), tf.argmax(ranked, axis=1))  # argmax takes the first of equals
        return tf.one_hot(first, len(task.classes)) * tf.reduce_max(present, axis=1, keepdims=True)

    return labels


@dataclass(frozen=True)
class _Scan:
    """The records of a split that a task keeps, in order."""

    paths: list[Path]
    places: np.ndarray
    """`(records, 3)` int64: number of the shard, first byte of the serialised Example, its length."""
    labels: np.ndarray
    """`(records, classes)`; no classes without a task."""
    sources: np.ndarray
    """`(records, sets)`, one-hot: the set that a record is of."""
    data: list[bytes]
    """The serialised Examples, if they are to be held."""


def _scan(folders: Folders, split: str, task: Task | None, limit: int | None, keep_data: bool) -> _Scan:
    """Reads a split once: where its records are. What the task leaves out, or another set holds too, is not among them."""
    sets = read_manifests(folders)
    paths = [(place, path) for place, (folder, part) in enumerate(sets) for path in shard_paths(folder, part, split)]
    skipped = left_out(folders)
    skipped_by_set = [skipped[folder] for folder, _ in sets]
    places, codes, sources, data = [], [], [], []
    for file, source, first, example in islice(_examples(paths, task, skipped_by_set), limit):
        places.append((file, first, len(example)))
        codes.append(read_codes(example))
        sources.append(source)
        if keep_data:
            data.append(example)
    labels = task.labels(codes) if task else np.zeros((len(codes), 0), np.float32)
    one_hot = np.eye(len(sets), dtype=np.float32)[np.array(sources, int)]
    return _Scan([path for _, path in paths], np.array(places, np.int64).reshape(-1, 3), labels, one_hot, data)


def _examples(
    paths: list[tuple[int, Path]], task: Task | None, skipped: list[frozenset[str]]
) -> Iterator[tuple[int, int, int, bytes]]:
    """`(number of the file, of the set, first byte, serialised Example)` of each record to read, in order."""
    for file, (source, path) in enumerate(paths):
        first = RECORD_HEAD
        for example in read_tfrecord(path):
            wanted = task is None or task.multi_label or any(code in task.codes for code in read_codes(example))
            if wanted and not (skipped[source] and read_id(example) in skipped[source]):
                yield file, source, first, example
            first += len(example) + RECORD_FRAME


def _from_memory(data: list[bytes]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from record numbers `(batch,)` to serialised Examples `(batch,)` that are held."""
    memory = tf.constant(np.array(data, object), tf.string)  # as objects: fifty times faster than a list of bytes
    return lambda numbers: tf.gather(memory, numbers)


def _from_shards(scan: _Scan) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from record numbers `(batch,)` to serialised Examples `(batch,)` read from their shards."""
    files = [np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8) for path in scan.paths]

    def read(numbers: np.ndarray) -> np.ndarray:
        places = scan.places[numbers].tolist()
        return np.array([files[file][first : first + length].tobytes() for file, first, length in places], object)

    def fetch(numbers: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(read, [numbers], tf.string), numbers.shape)

    return fetch


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
