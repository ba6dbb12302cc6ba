import sys
from subprocess import run

import numpy as np
import pytest
from conftest import edit_manifest

from ecgtf.dataset import (
    check_no_leak,
    combined_manifest,
    hash_id,
    load_arrays,
    load_dataset,
    read_ids,
    read_labels,
    read_manifest,
    read_manifests,
)
from ecgtf.tasks import TASKS, Task
from ecgtf.tfrecord import encode_example, frame


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
    for task in (None, partly, "superclass"):
        assert read_ids(folder, "train", task) == load_arrays(folder, "train", task).ids
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


def test_labels_of_a_split(small_dataset):
    np.testing.assert_array_equal(read_labels(small_dataset, "test", "rhythm7").sum(axis=0), [2] * 7)


def test_what_is_no_record_is_named_by_whatever_reads_it(make_dataset):
    folder = make_dataset(per_class={"train": 1})
    path = folder / "train.tfrecord-00000-of-00001"
    path.write_bytes(frame(encode_example({"id": [b"x"], "codes": []})) + path.read_bytes())
    for read in (load_arrays, read_labels, read_ids):
        with pytest.raises(ValueError, match=r"train\.tfrecord-00000-of-00001: record 0 is damaged \(.*signal"):
            read(folder, "train", "rhythm7")


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
