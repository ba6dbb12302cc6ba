import subprocess
import sys

import numpy as np
import pytest

from ecgtf.dataset import (
    finish_dataset,
    load,
    load_arrays,
    write_shard,
)
from ecgtf.ecg import LEADS, Record
from ecgtf.info import info
from ecgtf.tasks import Task


def collect(data) -> tuple[np.ndarray, np.ndarray]:
    signals, labels = zip(*data.as_numpy_iterator(), strict=True)
    return np.concatenate(signals), np.concatenate(labels)


def test_batches_are_the_arrays(small_dataset):
    data = load(small_dataset, "train", "rhythm7", batch_size=8)
    assert [spec.shape.as_list() for spec in data.element_spec] == [[None, 1000, 12], [None, 7]]
    assert int(data.cardinality()) == 4
    signals, labels = collect(data)
    arrays = load_arrays(small_dataset, "train", "rhythm7")
    np.testing.assert_array_equal(signals, arrays.signals)
    np.testing.assert_array_equal(labels, arrays.labels)


def test_without_a_task_labels_have_no_classes(small_dataset):
    signals, labels = collect(load(small_dataset, "test", None, batch_size=5))
    assert (signals.shape, labels.shape) == ((14, 1000, 12), (14, 0))


def test_remainder_limit_and_empty_split(make_dataset):
    folder = make_dataset(per_class={"train": 2, "test": 0})
    full = load(folder, "train", "rhythm7", batch_size=4, drop_remainder=True)
    assert full.element_spec[0].shape.as_list() == [4, 1000, 12]
    assert [len(signal) for signal, _ in full] == [4, 4, 4]
    assert [len(signal) for signal, _ in load(folder, "train", "rhythm7", batch_size=4, limit=5)] == [4, 1]
    assert [len(signal) for signal, _ in load(folder, "train", "rhythm7", batch_size=4, start_batch=2)] == [4, 2]
    assert list(load(folder, "test", "rhythm7", batch_size=4)) == []
    with pytest.raises(ValueError, match=r"split test of .* has no record"):
        load(folder, "test", "rhythm7", batch_size=4, repeat=True)
    with pytest.raises(ValueError, match="batch_size of at least 1, received 0"):
        load(folder, "train", "rhythm7", batch_size=0)


@pytest.fixture(params=["in memory", "from shards"])
def make_stream(request, small_dataset):
    """`load`, over memory that holds the split, or only 9 of its 28 records."""
    from ecgtf.stream import stream
    from ecgtf.tasks import get_task

    settings = {
        "shuffle": False,
        "balance": 0.0,
        "balance_sources": 0.0,
        "seed": 0,
        "repeat": False,
        "start_batch": 0,
        "drop_remainder": False,
        "limit": None,
    }
    memory = 2**30 if request.param == "in memory" else 9 * 24_000

    def make(task="rhythm7", **options):
        task = get_task(task) if task else None
        return stream(small_dataset, "train", task, memory_bytes=memory, **settings | {"batch_size": 5} | options)

    return make


def records_of(signals: np.ndarray) -> list[int]:
    return [hash(signal.tobytes()) for signal in signals]


def test_order_without_shuffle_is_the_files(make_stream, small_dataset):
    for options in ({}, {"limit": 12}, {"start_batch": 2}):
        signals, _ = collect(make_stream(**options))
        whole = load_arrays(small_dataset, "train").signals
        np.testing.assert_array_equal(signals, whole[options.get("start_batch", 0) * 5 : options.get("limit")])


def test_no_thread_tunes_a_stream(make_stream):
    assert (
        not make_stream(shuffle=True, repeat=True).options().autotune.enabled
    )  # an iterator that ends would wait for it, asleep for seconds


def test_each_epoch_shows_every_record_once_in_an_order_of_its_own(make_stream):
    order = records_of(collect(make_stream(shuffle=True, repeat=True, seed=1, batch_size=7).take(12))[0])
    epochs = [order[start : start + 28] for start in (0, 28, 56)]
    assert all(len(set(epoch)) == 28 for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    assert records_of(collect(make_stream(shuffle=True, seed=1))[0]) == epochs[0]
    assert records_of(collect(make_stream(shuffle=True, seed=2))[0]) != epochs[0]


def test_order_does_not_depend_on_global_seeds(make_stream):
    import tensorflow as tf

    tf.random.set_seed(3)
    first, _ = collect(make_stream(shuffle=True, seed=1))
    tf.random.set_seed(4)
    np.testing.assert_array_equal(collect(make_stream(shuffle=True, seed=1))[0], first)


def test_stream_entered_late_is_the_rest_of_the_stream(make_stream):
    whole = list(make_stream(shuffle=True, repeat=True, seed=5).take(24).as_numpy_iterator())  # 4.3 epochs
    assert all(len(signal) == 5 for signal, _ in whole)
    for start in (1, 5, 6, 17):
        late = list(make_stream(shuffle=True, repeat=True, seed=5, start_batch=start).take(24 - start).as_numpy_iterator())
        for (signal, label), (late_signal, late_label) in zip(whole[start:], late, strict=True):
            np.testing.assert_array_equal(late_signal, signal)
            np.testing.assert_array_equal(late_label, label)


def test_records_without_a_class_are_left_out(make_stream, small_dataset):
    partly = Task("two", ("SR", "SB"), {"426783006": "SR", "426177001": "SB"}, False, ("SB", "SR"), "")
    signals, labels = collect(make_stream(partly, shuffle=True, repeat=True, batch_size=8).take(2))
    np.testing.assert_array_equal(labels.sum(axis=0), [8, 8])
    kept = records_of(load_arrays(small_dataset, "train", partly).signals)
    assert sorted(records_of(signals)) == sorted(kept * 2)
    assert int(make_stream(partly).cardinality()) == 2
    assert len(collect(make_stream("superclass"))[0]) == len(collect(make_stream(None))[0]) == 28


def test_balanced_draws_show_rare_classes_as_often(tmp_path):
    samples = 10
    codes = ["SR"] * 90 + ["SBRAD"] * 10
    records = [Record(str(n), (code,), np.full((samples, 12), n / 1000)) for n, code in enumerate(codes)]
    summary = write_shard(tmp_path / "train.tfrecord-00000-of-00001", records, LEADS, samples)
    finish_dataset(tmp_path, {"name": "x", "sampling_rate": 10, "seconds": 1.0, "leads": LEADS}, [summary])

    def share(balance: float) -> float:
        data = load(tmp_path, "train", "rhythm4", batch_size=100, shuffle=True, balance=balance, repeat=True)
        return collect(data.take(40))[1].mean(axis=0)[0]

    assert share(0.0) == pytest.approx(0.1, abs=1e-6)
    assert share(0.5) == pytest.approx(0.25, abs=0.03)  # 10 / sqrt(10) against 90 / sqrt(90)
    assert share(1.0) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="0 without shuffle"):
        load(tmp_path, "train", "rhythm4", batch_size=4, balance=1.0)
    with pytest.raises(ValueError, match="balance of at least 0"):
        load(tmp_path, "train", "rhythm4", batch_size=4, balance=-1.0, shuffle=True)
    with pytest.raises(ValueError, match="balance needs a task"):
        load(tmp_path, "train", None, batch_size=4, balance=1.0, shuffle=True)


def test_balanced_draws_are_the_same_from_memory_and_from_the_shards(small_dataset, make_stream):
    held = load(small_dataset, "train", "rhythm7", batch_size=5, shuffle=True, balance=1.0)
    np.testing.assert_array_equal(collect(make_stream(shuffle=True, balance=1.0))[0], collect(held)[0])


def test_sets_of_different_size_can_be_shown_equally_often(make_dataset):
    small, large = make_dataset("small", {"train": 1}), make_dataset("large", {"train": 9})
    few = records_of(load_arrays(small, "train").signals)

    def share(balance_sources: float) -> float:
        data = load(
            [large, small],
            "train",
            "rhythm7",
            batch_size=70,
            shuffle=True,
            balance_sources=balance_sources,
            seed=2,
            repeat=True,
        )
        drawn = records_of(collect(data.take(30))[0])
        return sum(record in few for record in drawn) / len(drawn)

    # the records of the small set are in the large one too, so they are drawn as records of both
    assert share(0.0) == pytest.approx(2 * 7 / 70, abs=1e-6)
    assert share(1.0) == pytest.approx(0.5 + 0.5 / 9, abs=0.03)


TWO_REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
from ecgtf.stream import stream
from ecgtf.training import make_strategy

strategy = make_strategy(2)
same = {"shuffle": True, "balance": 0.0, "balance_sources": 0.0, "seed": 3, "repeat": True, "start_batch": 2, "limit": None}
for memory in (2**30, 0):
    data = stream(sys.argv[1], "train", None, batch_size=6, drop_remainder=False, memory_bytes=memory, **same)
    shared = iter(strategy.experimental_distribute_dataset(data))
    for whole, _ in data.take(9):
        parts = strategy.experimental_local_results(next(shared)[0])
        assert [len(part) for part in parts] == [3, 3]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
"""


def test_replicas_share_each_batch_of_the_one_stream(small_dataset):
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS, str(small_dataset)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_damaged_shard_stops_the_stream_by_name(make_dataset):
    folder = make_dataset(per_class={"train": 1})
    path = folder / "train.tfrecord-00000-of-00001"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)
    for read in (
        lambda: load(folder, "train", "rhythm7", batch_size=2),
        lambda: load_arrays(folder, "train"),
        lambda: info(folder, "rhythm7"),
    ):
        with pytest.raises(ValueError, match=r"train\.tfrecord-00000-of-00001: record 3 is damaged"):
            read()
    path.unlink()
    for read in (
        lambda: load(folder, "train", "rhythm7", batch_size=2),
        lambda: load_arrays(folder, "train"),
        lambda: info(folder, "rhythm7"),
    ):
        with pytest.raises(ValueError, match=r"expected shard train\.tfrecord-00000-of-00001"):
            read()
