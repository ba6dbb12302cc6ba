import json

import numpy as np
import pytest

from ecgtf.dataset import (
    finish_dataset,
    write_shard,
)
from ecgtf.ecg import LEADS, Record
from ecgtf.info import info
from ecgtf.tasks import TASKS


def test_records_by_split_and_class(small_dataset):
    about = info(small_dataset, "rhythm4")
    assert about["splits"]["train"] == {
        "records": 28,
        "shards": 2,
        "classes": {"SB": 4, "AFIB": 8, "GSVT": 8, "SR": 8},
        "excluded": 0,
        "excluded_codes": {},
        "several": {},
    }
    assert (about["records"], about["rejected"], about["sampling_rate"], about["leads"]) == (56, 0, 100, list(LEADS))
    assert about["task"] == {"name": "rhythm4", "rule": TASKS["rhythm4"].rule}
    assert info(small_dataset)["splits"]["test"]["codes"]["426783006"] == 2
    assert json.loads(json.dumps(about)) == about
    superclass = info(small_dataset, "superclass")["splits"]["train"]
    assert (superclass["classes"], superclass["excluded"]) == (dict.fromkeys(TASKS["superclass"].classes, 0), 0)


def test_what_a_task_leaves_out_and_what_has_several_classes(tmp_path):
    signal = np.zeros((10, 12), np.float32)
    codes = [("SR",), ("NORM",), (), ("NORM", "PACE"), ("SR", "AFIB"), ("AFIB", "AFLT", "SR"), ("SARRH", "SR")]
    records = [Record(str(number), its, signal) for number, its in enumerate(codes)]
    summary = write_shard(tmp_path / "train.tfrecord-00000-of-00001", records, LEADS, 10)
    finish_dataset(tmp_path, {"name": "x", "sampling_rate": 10, "seconds": 1.0, "leads": LEADS}, [summary])
    train = info(tmp_path, "rhythm4")["splits"]["train"]
    assert (train["records"], train["classes"]) == (7, {"SB": 0, "AFIB": 2, "GSVT": 0, "SR": 2})
    assert (train["excluded"], train["excluded_codes"]) == (3, {"NORM": 2, "(none)": 1, "PACE": 1})
    assert train["several"] == {"AFIB + SR": 2}
    many = info(tmp_path, "rhythm12")["splits"]["train"]
    assert (many["excluded"], many["several"]) == (0, {"SR + AFIB": 1, "SR + AFIB + AFLT": 1, "SR + SARRH": 1})


def test_rejected_records_by_kind_of_reason(make_dataset):
    folder = make_dataset()
    reasons = [
        "flat lead V1 (spans less than 0.01 mV)",
        "flat lead V2, V3 (spans less than 0.01 mV)",
        "lasts 6 s, shorter than 10 s",
    ]
    rows = [f'r{number},"{reason}"' for number, reason in enumerate(reasons)]
    (folder / "rejected.csv").write_text("id,reason\n" + "\n".join(rows) + "\n")
    assert info(folder)["rejected_reasons"] == {"flat lead": 2, "lasts N s, shorter than N s": 1}
    (folder / "rejected.csv").write_text("what\n1\n")
    with pytest.raises(ValueError, match="expected the columns id and reason"):
        info(folder)
