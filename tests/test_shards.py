import json

import numpy as np
import pytest
from conftest import edit_manifest, toy_record

from ecgtf.dataset import (
    finish_dataset,
    load_arrays,
    read_records,
    shard_names,
    verify,
    write_shard,
)
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, Record
from ecgtf.shards import SHARD_BYTES


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
