import json

import numpy as np
import pytest
from conftest import edit_manifest

from ecgtf.dataset import (
    finish_dataset,
    load_arrays,
    read_manifest,
    write_shard,
)
from ecgtf.ecg import LEADS, Record


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


def test_the_checksum_is_that_of_the_records(make_dataset):
    sums = {name: read_manifest(make_dataset(name, {"train": 2, "test": 1})).checksum for name in ("one", "other")}
    assert sums["one"] == sums["other"]
    edit_manifest(later := make_dataset("later", {"train": 2, "test": 1}), provenance={"made_by": "another version"})
    assert read_manifest(later).checksum == sums["one"]
    assert read_manifest(make_dataset("more", {"train": 2, "test": 2})).checksum != sums["one"]


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
