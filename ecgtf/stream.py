"""A split as `tf.data`: an order that is a function of (seed, epoch), and a stream that can be entered anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from ecgtf.manifest import Folders, Manifest, read_manifests
from ecgtf.shards import read_codes, shard_paths
from ecgtf.tasks import Task
from ecgtf.tfrecord import read_tfrecord

MEMORY_BYTES = 2**30
"""A split of up to this size is held in memory; of a larger one, this much is shuffled at a time."""

_FILTERED_AT_ONCE = 64


def stream(
    folders: Folders,
    split: str,
    task: Task | None,
    *,
    batch_size: int,
    shuffle: bool,
    balance: float,
    seed: int,
    repeat: bool,
    start_batch: int,
    drop_remainder: bool,
    limit: int | None,
    memory_bytes: int = MEMORY_BYTES,
) -> tf.data.Dataset:
    """`ecgtf.dataset.load`, whose arguments these are.

    A split that fits in `memory_bytes` is read once, and each epoch is a permutation of all its records, so that entering the
    stream late costs nothing. A larger one is read from its shards, which are permuted, as are the records within windows of
    `memory_bytes`; entering late reads over the records before. The shuffles are stateless: neither global seeds nor other
    data sets change them.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("start_batch", start_batch, 0), ("limit", limit, 1)):
        if value is not None and value < least:
            raise ValueError(f"expected a {name} of at least {least}, received {value}")
    if not balance >= 0 or (balance and not shuffle):
        raise ValueError(
            f"expected a balance of at least 0, and of 0 without shuffle, received {balance} with shuffle={shuffle}"
        )
    sets = read_manifests(folders)
    manifest = sets[0][1]
    paths = [path for folder, part in sets for path in shard_paths(folder, part, split)]
    parse = parser(manifest, task)
    in_memory = max(1, memory_bytes // (2 * manifest.samples * len(manifest.leads)))  # records that fit
    total = sum(part.records_in(split) for _, part in sets)
    kept = _kept(paths, task, limit)
    if min(total, limit or total) <= in_memory:
        held = np.array(list(kept), object)  # as objects: TensorFlow takes them fifty times faster than a list of bytes
        records = len(held)
        memory = tf.constant(held, tf.string)
        weights = class_weights(held, task, balance) if balance else None
        epoch = _epoch_in_memory(records, shuffle, seed, weights)

        def to_batch(order):
            return parse(tf.gather(memory, order))
    else:
        if balance:
            raise ValueError(f"balance needs the split in memory: its {total} records are more than the {in_memory} that fit")
        records = sum(1 for _ in kept)
        epoch = _epoch_from_shards(paths, task, limit, in_memory, shuffle, seed)
        to_batch = parse
    if repeat and not records:
        where = ", ".join(str(folder) for folder, _ in sets)
        raise ValueError(f"split {split} of {where} has no record" + (f" with a class of task {task.name}" if task else ""))
    start = start_batch * batch_size
    if repeat:
        first = start // records  # leave out whole epochs without making them
        examples = tf.data.Dataset.range(first, np.iinfo(np.int64).max).flat_map(epoch).skip(start - first * records)
        cardinality = tf.data.INFINITE_CARDINALITY
    else:
        examples = epoch(tf.constant(0, tf.int64)).skip(start)
        left = max(0, records - start)
        cardinality = left // batch_size if drop_remainder else -(-left // batch_size)
    batches = examples.batch(batch_size, drop_remainder=drop_remainder or repeat)
    batches = batches.map(to_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
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


def _kept(paths: list[Path], task: Task | None, limit: int | None) -> Iterator[bytes]:
    """The first `limit` serialised Examples that have a class of the task, in order; a multi-label task keeps all."""
    every = (data for path in paths for data in read_tfrecord(path))
    if task and not task.multi_label:
        every = (data for data in every if any(code in task.codes for code in read_codes(data)))
    return islice(every, limit)


def class_weights(examples: Sequence[bytes], task: Task | None, balance: float) -> np.ndarray:
    """How often each serialised Example is drawn, relative to the others: (count of its rarest class) ** -balance.

    Raises:
        ValueError: without a task, for then there are no classes.
    """
    if task is None:
        raise ValueError("balance needs a task: without one there are no classes")
    labels = task.labels([read_codes(data) for data in examples])
    counts = np.maximum(labels.sum(axis=0), 1.0)
    rarest = np.where(labels > 0, counts, np.inf).min(axis=1)
    return np.where(np.isfinite(rarest), rarest, len(examples)) ** -balance


def _epoch_in_memory(
    records: int, shuffle: bool, seed: int, weights: np.ndarray | None = None
) -> Callable[[tf.Tensor], tf.data.Dataset]:
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


def _epoch_from_shards(
    paths: list[Path], task: Task | None, limit: int | None, window: int, shuffle: bool, seed: int
) -> Callable[[tf.Tensor], tf.data.Dataset]:
    """A function from the epoch's number to the serialised Examples, read from the shards."""
    make_labels = labeller(task) if task else None

    def keep(examples: tf.Tensor) -> tf.Tensor:
        codes = tf.io.parse_example(examples, {"codes": tf.io.RaggedFeature(tf.string)})["codes"]
        return tf.boolean_mask(examples, tf.reduce_any(make_labels(codes) > 0, axis=1))

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        files = tf.constant([str(path) for path in paths])
        epoch_seed = _epoch_seed(seed, number)
        if shuffle and limit is None:  # the first `limit` records are those of the unshuffled shards
            files = tf.random.experimental.stateless_shuffle(files, seed=epoch_seed)
        examples = tf.data.TFRecordDataset(files)
        if task and not task.multi_label:
            examples = examples.batch(_FILTERED_AT_ONCE).map(keep, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
        if limit is not None:
            examples = examples.take(limit)
        if not shuffle:
            return examples

        def shuffled(place: tf.Tensor, examples: tf.Tensor) -> tf.data.Dataset:
            order = tf.range(tf.size(examples))
            order = tf.random.experimental.stateless_shuffle(order, seed=tf.random.fold_in(epoch_seed, place))
            return tf.data.Dataset.from_tensor_slices(order).map(lambda row: examples[row])

        return examples.batch(window).enumerate().prefetch(1).flat_map(shuffled)

    return epoch


def _epoch_seed(seed: int, number: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed % 2**63, tf.int64), number])
