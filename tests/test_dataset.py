import json
import sys
from subprocess import run

import numpy as np
import pytest
from conftest import toy_record

from ecgtf.dataset import (
    check_no_leak,
    combined_manifest,
    finish_dataset,
    hash_id,
    info,
    load,
    load_arrays,
    load_dataset,
    read_labels,
    read_manifest,
    read_manifests,
    read_records,
    shard_names,
    verify,
    write_shard,
)
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, Record
from ecgtf.shards import SHARD_BYTES
from ecgtf.tasks import TASKS, Task


def edit_manifest(folder, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# writing


def test_records_come_back_as_they_were(make_dataset):
    for record in read_records(make_dataset(), "train"):
        rhythm, number = record.id.split("/")[-1][:-3], int(record.id[-3:])
        made = toy_record(number, rhythm, "train")
        assert (record.codes, record.patient, record.age, record.sex) == (made.codes, made.patient, made.age, made.sex)
        assert (record.leads, record.sampling_rate, record.split) == (LEADS, 100, "train")
        np.testing.assert_allclose(record.signal, made.signal, rtol=1e-6)  # whole microvolts lose nothing


def test_quantisation_is_within_half_a_microvolt(tmp_path):
    signal = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    signal[0, 0], signal[1, 0] = 32.767, -32.767
    summary = write_shard(tmp_path / "train.tfrecord-00000-of-00001", [Record("a", signal=signal)], LEADS, 50)
    finish_dataset(tmp_path, {"name": "a", "sampling_rate": 50, "seconds": 1, "leads": LEADS}, [summary])
    (record,) = read_records(tmp_path, "train")
    assert np.abs(record.signal - signal).max() <= 0.000502


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (np.nan, "received NaN"),
        (np.inf, "received NaN or infinity"),
        (32.768, "at most 32.767 mV, received 32.768 mV"),
        (-40, "received 40"),
    ],
)
def test_values_that_do_not_fit_leave_no_file(tmp_path, value, fault):
    signal = np.zeros((10, 12))
    records = [Record("good", signal=signal), Record("x", signal=signal.copy())]
    records[1].signal[3, 4] = value
    with pytest.raises(ValueError, match=f"record x: .*{fault}"):
        write_shard(tmp_path / "train.tfrecord-00000-of-00001", records, LEADS, 10)
    assert not list(tmp_path.iterdir())


def test_wrong_records_are_refused(tmp_path):
    path, good = tmp_path / "train.tfrecord-00000-of-00001", np.zeros((10, 12), np.float32)
    for records, fault in (
        ([Record("x")], "record x: expected a signal, received none"),
        ([Record("x", signal=good[:9])], r"expected a signal of shape \(10, 12\), received \(9, 12\)"),
        ([Record("x", signal=good[:, :8], leads=LEADS[4:])], "leads I, II, III, aVR are missing"),
        ([Record("x", signal=good), Record("x", signal=good)], "received x twice"),
        ([Record("x", signal=good, sex="M")], "expected sex male, female or None, received 'M'"),
    ):
        with pytest.raises(ValueError, match=fault):
            write_shard(path, records, LEADS, 10)


def test_missing_limb_leads_are_derived_and_leads_reordered(tmp_path):
    signal = np.random.default_rng(1).normal(size=(10, 8)).round(2).astype(np.float32)
    leads = ("V1", "aVF", "I")
    summary = write_shard(
        tmp_path / "train.tfrecord-00000-of-00001", [Record("a", signal=signal, leads=INDEPENDENT_LEADS)], leads, 10
    )
    finish_dataset(tmp_path, {"name": "a", "sampling_rate": 10, "seconds": 1.0, "leads": leads}, [summary])
    arrays = load_arrays(tmp_path, "train")
    assert arrays.manifest.leads == leads
    expected = np.stack([signal[:, 2], signal[:, 1] - signal[:, 0] / 2, signal[:, 0]], axis=1)
    np.testing.assert_allclose(arrays.signals[0], expected, atol=1e-6)


def test_same_records_same_bytes(make_dataset):
    one, other = make_dataset("one"), make_dataset("other")
    for path in one.glob("*.tfrecord*"):
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_shard_names():
    assert shard_names("test", 0, 1000, 12) == ["test.tfrecord-00000-of-00001"]
    per_shard = SHARD_BYTES // (1000 * 12 * 2)
    assert len(shard_names("train", per_shard, 1000, 12)) == 1
    assert shard_names("train", per_shard + 1, 1000, 12) == ["train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002"]


# the manifest


def test_manifest_counts_statistics_and_comes_back(small_dataset):
    manifest = read_manifest(small_dataset)
    assert (manifest.leads, manifest.samples, manifest.records, manifest.synthetic) == (LEADS, 1000, 56, False)
    assert {split: manifest.records_in(split) for split in manifest.splits} == {"train": 28, "validation": 14, "test": 14}
    assert manifest.splits["train"]["codes"]["164889003"] == 4
    assert manifest.splits["train"]["codes"]["428750005"] == 14
    assert manifest.shards("train") == ["train.tfrecord-00000-of-00002", "train.tfrecord-00001-of-00002"]
    signals = load_arrays(small_dataset, "train").signals.astype(np.float64)
    np.testing.assert_allclose(manifest.statistics["mean"], signals.mean(axis=(0, 1)), atol=1e-7)
    np.testing.assert_allclose(manifest.statistics["std"], signals.std(axis=(0, 1)), rtol=1e-6)


def test_statistics_do_not_depend_on_the_shards(make_dataset):
    one, three = (read_manifest(make_dataset(str(n), {"train": 3, "test": 1}, shards=n)) for n in (1, 3))
    assert len(three.shards("train")) == 3
    assert one.statistics == three.statistics


def test_training_statistics_leave_the_other_splits_out(make_dataset):
    alone = read_manifest(make_dataset("alone", {"train": 2, "validation": 0, "test": 0}))
    assert read_manifest(make_dataset("all", {"train": 2, "validation": 1, "test": 3})).statistics == alone.statistics
    only_test = read_manifest(make_dataset("test", {"train": 0, "test": 2}))
    assert all(std > 0 for std in only_test.statistics["std"])


def test_unfinished_missing_and_foreign_folders_say_so(make_dataset, tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no data set: dataset\.json is missing"):
        read_manifest(tmp_path / "empty")
    folder = make_dataset()
    (folder / "dataset.json").unlink()
    with pytest.raises(ValueError, match="holds an unfinished data set"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema": 2}', '{"schema": 1}', "\ufeff{}", '{"schema": 1, "name": "x"}']
)
def test_broken_manifests_are_one_line_errors(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"dataset\.json") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling_rate": 0},
        {"sampling_rate": "100"},
        {"seconds": None},
        {"leads": []},
        {"leads": ["I", "X"]},
        {"leads": "I"},
        {"splits": []},
        {"splits": {}},
        {"splits": {"train": 3, "validation": 3, "test": 3}},
        {"statistics": {"mean": [0.0], "std": [1.0]}},
        {"statistics": None},
        {"sources": {}},
        {"generator": {"run": "x"}},
        {"generator": {"trained_on": "all"}},
        {"resolution_mv": float("nan")},
        {"rejected": "none"},
        {"statistics": {"mean": [0.0] * 12, "std": [1e308] * 12}},
    ],
    ids=str,
)
def test_manifests_with_wrong_fields_are_one_line_errors(make_dataset, changes):
    folder = make_dataset(per_class={"train": 1})
    edit_manifest(folder, **changes)
    with pytest.raises(ValueError, match=r"dataset\.json is broken") as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "a/b", "..", "", 7, "a\\b"])
def test_shards_outside_the_folder_are_refused(make_dataset, file):
    folder = make_dataset(per_class={"train": 1})
    splits = json.loads((folder / "dataset.json").read_text())["splits"]
    splits["train"]["shards"][0]["file"] = file
    edit_manifest(folder, splits=splits)
    with pytest.raises(ValueError, match="expected a plain file name inside the folder"):
        read_manifest(folder)


def test_finish_refuses_what_is_no_data_set(tmp_path):
    about = {"name": "a", "sampling_rate": 10, "seconds": 1.0, "leads": LEADS}
    name = "train.tfrecord-00000-of-00001"
    empty = write_shard(tmp_path / name, [], LEADS, 10)
    with pytest.raises(ValueError, match="no record is left"):
        finish_dataset(tmp_path, about, [empty])
    full = write_shard(tmp_path / name, [Record("a", signal=np.zeros((10, 12), np.float32))], LEADS, 10)
    for fields, summaries, fault in (
        (about, [full, full], "each shard .* once"),
        (about | {"colour": "red"}, [full], "colour"),
        ({"name": "a"}, [full], "sampling_rate"),
        (about | {"seconds": -1.0}, [full], "above 0 for seconds"),
    ):
        with pytest.raises(ValueError, match=fault):
            finish_dataset(tmp_path, fields, summaries)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="but it is not there"):
        finish_dataset(tmp_path, about, [full])
    assert not (tmp_path / "dataset.json").exists()


# verify


def test_a_whole_set_has_no_faults(small_dataset):
    assert verify(small_dataset) == []


def test_faults_are_found_and_named(make_dataset):
    folder = make_dataset(per_class={"train": 2, "validation": 1, "test": 1}, shards=2)
    first, second = (folder / f"train.tfrecord-0000{n}-of-00002" for n in (0, 1))
    whole = first.read_bytes()
    first.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    second.unlink()
    (folder / "train.tfrecord-00007-of-00002").touch()
    faults = verify(folder)
    assert len(faults) == 4
    assert faults[0] == f"{first.name}: SHA-256 differs from the manifest"
    assert f"{first}: record 6 is damaged" in faults[1]
    assert faults[2] == f"{second.name}: the shard is missing"
    assert faults[3] == "train.tfrecord-00007-of-00002: the manifest does not list this shard"


def test_wrong_counts_and_repeated_records_are_found(make_dataset):
    folder = make_dataset(per_class={"train": 1, "validation": 1, "test": 1})
    splits = json.loads((folder / "dataset.json").read_text())["splits"]
    splits["train"]["records"] = splits["train"]["shards"][0]["records"] = 6
    edit_manifest(folder, splits=splits)
    assert verify(folder) == ["train.tfrecord-00000-of-00001: holds 7 records, the manifest says 6"]

    splits["train"]["records"] = splits["train"]["shards"][0]["records"] = 7
    splits["train"]["codes"]["164889003"] = 2
    edit_manifest(folder, splits=splits)
    assert verify(folder) == ["split train: the manifest's counts of codes differ from the records'"]

    splits["train"]["codes"]["164889003"] = 1
    splits["test"] = splits["train"]
    edit_manifest(folder, splits=splits)
    assert sum("stands twice" in fault for fault in verify(folder)) == 7


# arrays


def test_arrays_by_task(small_dataset):
    arrays = load_arrays(small_dataset, "test", "rhythm4")
    assert arrays.signals.shape == (14, 1000, 12)
    assert arrays.signals.dtype == arrays.labels.dtype == np.float32
    assert arrays.labels.sum(axis=0).tolist() == [2, 4, 4, 4]
    np.testing.assert_array_equal(arrays.labels, TASKS["rhythm4"].labels(arrays.codes))
    assert len(arrays) == len(set(arrays.ids)) == len(arrays.patients) == len(arrays.ages) == len(arrays.sexes) == 14
    assert load_arrays(small_dataset, "test").labels is None


def test_arrays_leave_out_what_the_task_cannot_name(make_dataset):
    folder = make_dataset(per_class={"train": 2})
    assert len(load_arrays(folder, "train")) == 14
    assert len(load_arrays(folder, "train", "superclass")) == 14
    partly = Task("two", ("SR", "SB"), {"426783006": "SR", "426177001": "SB"}, False, ("SB", "SR"), "")
    arrays = load_arrays(folder, "train", partly)
    assert [name.split("/")[-1][:2] for name in arrays.ids] == ["SR", "SB"] * 2
    assert len(load_arrays(folder, "train", partly, limit=3)) == 3
    assert load_arrays(folder, "test", partly).labels.shape == (0, 2)
    with pytest.raises(ValueError, match="no split 'training'; expected one of train, validation, test"):
        load_arrays(folder, "training")


def test_several_sets_as_one(make_dataset):
    folders = [make_dataset("a", {"train": 2, "test": 1}), make_dataset("b", {"train": 3}, rejected=4)]
    manifest = combined_manifest(folders)
    assert (manifest.name, manifest.records, manifest.rejected, len(manifest.sources)) == ("a+b", 42, 4, 1)
    arrays = load_arrays(folders, "train", "rhythm7")
    assert len(arrays) == 35
    signals = arrays.signals.astype(np.float64)
    np.testing.assert_allclose(manifest.statistics["mean"], signals.mean(axis=(0, 1)), atol=1e-7)
    np.testing.assert_allclose(manifest.statistics["std"], signals.std(axis=(0, 1)), rtol=1e-6)
    assert combined_manifest(folders[:1]) == read_manifest(folders[0])


def test_sets_that_do_not_fit_together(make_dataset):
    folders = [make_dataset("a"), make_dataset("b")]
    edit_manifest(folders[1], sampling_rate=500)
    with pytest.raises(ValueError, match=r"agree on sampling_rate: .*b has 500, .*a has 100"):
        read_manifests(folders)
    with pytest.raises(ValueError, match="received one twice"):
        read_manifests([folders[0], folders[0] / ".." / "a"])
    with pytest.raises(ValueError, match="at least one data set"):
        read_manifests([])


def test_labels_and_info(small_dataset):
    np.testing.assert_array_equal(read_labels(small_dataset, "test", "rhythm7").sum(axis=0), [2] * 7)
    about = info(small_dataset, "rhythm4")
    assert about["splits"]["train"] == {
        "records": 28,
        "shards": 2,
        "classes": {"SB": 4, "AFIB": 8, "GSVT": 8, "SR": 8},
        "excluded": 0,
    }
    assert (about["records"], about["rejected"], about["sampling_rate"], about["leads"]) == (56, 0, 100, list(LEADS))
    assert info(small_dataset)["splits"]["test"]["codes"]["426783006"] == 2
    assert json.loads(json.dumps(about)) == about
    superclass = info(small_dataset, "superclass")["splits"]["train"]
    assert (superclass["classes"], superclass["excluded"]) == (dict.fromkeys(TASKS["superclass"].classes, 0), 0)


def test_info_counts_the_excluded(tmp_path):
    signal = np.zeros((10, 12), np.float32)
    records = [Record("a", ("SR",), signal), Record("b", ("NORM",), signal), Record("c", (), signal)]
    summary = write_shard(tmp_path / "train.tfrecord-00000-of-00001", records, LEADS, 10)
    finish_dataset(tmp_path, {"name": "x", "sampling_rate": 10, "seconds": 1.0, "leads": LEADS}, [summary])
    train = info(tmp_path, "rhythm4")["splits"]["train"]
    assert (train["records"], train["classes"]["SR"], train["excluded"]) == (3, 1, 2)


def test_python_api(small_dataset):
    data = load_dataset(small_dataset, task="rhythm7")
    assert data.train is data.train
    assert data.test.signals.shape == (14, 1000, 12)
    signal, label = next(iter(data.batches("validation", 4)))
    assert (signal.shape, label.shape) == ((4, 1000, 12), (4, 7))
    with pytest.raises(ValueError, match="expected a task"):
        load_dataset(small_dataset).batches("train", 4)


def test_arrays_need_no_tensorflow(small_dataset):
    code = (
        "import sys; from ecgtf.dataset import *; "
        f"load_arrays({str(small_dataset)!r}, 'test', 'rhythm7'); verify({str(small_dataset)!r}); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


# leaks


def test_leaks_are_refused():
    trained_on = [hash_id(f"record{n}") for n in range(10)]
    assert all(len(hashed) == 16 and int(hashed, 16) >= 0 for hashed in trained_on)
    assert len(set(trained_on)) == 10
    check_no_leak(trained_on, ["record10", "record11"])
    with pytest.raises(ValueError, match=r"2 of 3 test records were used in training \(the first: record3\)"):
        check_no_leak(trained_on, ["record3", "record10", "record9"])


def test_what_the_generators_saw_stays_known_in_a_union(make_dataset):
    made = [
        make_dataset(name, {"train": 1}, generator={"run": name, "settings": {}, "trained_on": ids})
        for name, ids in (("a", ["1", "2"]), ("b", ["2", "3"]))
    ]
    assert read_manifest(made[0]).synthetic
    union = combined_manifest([*made, make_dataset("real", {"train": 1})])
    assert union.synthetic
    assert union.generator["trained_on"] == ["1", "2", "3"]


# tf.data


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


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_labels_in_the_graph_are_the_tasks(task):
    import tensorflow as tf

    from ecgtf.stream import labeller

    rng = np.random.default_rng(0)
    pool = [*task.codes, "428750005", "LAD", "other:CLASS", "", "naïve"]
    codes = [[str(code) for code in rng.choice(pool, size=rng.integers(0, 6))] for _ in range(300)]
    made = tf.function(labeller(task))(tf.ragged.constant(codes, dtype=tf.string, ragged_rank=1))
    np.testing.assert_array_equal(made, task.labels(codes))
    assert labeller(task)(tf.ragged.constant([[], []], dtype=tf.string, ragged_rank=1)).numpy().sum() == 0


@pytest.fixture(params=["in memory", "from shards"])
def make_stream(request, small_dataset):
    """`load`, over memory that holds the split, or only 9 of its 28 records."""
    from ecgtf.stream import stream
    from ecgtf.tasks import get_task

    settings = {
        "shuffle": False,
        "balance": 0.0,
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


def test_balanced_draws_need_the_split_in_memory(make_stream, request):
    if request.node.callspec.params["make_stream"] == "in memory":
        assert collect(make_stream(shuffle=True, balance=1.0))[1].shape == (28, 7)
    else:
        with pytest.raises(ValueError, match="balance needs the split in memory: its 28 records are more than the 9 that fit"):
            make_stream(shuffle=True, balance=1.0)


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
