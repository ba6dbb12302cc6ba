import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.ptbxl import read_ptbxl
from ecgtf.ecg import Record, Rejection
from ecgtf.wfdb_io import write_record

PTBXL = Path(__file__).parents[2] / "shared" / "data" / "ptb-xl"
COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")


def row(number, **changes):
    return {
        "ecg_id": number,
        "patient_id": f"{100 + number}.0",
        "age": "61.0",
        "sex": "1",
        "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
        "strat_fold": "3",
        "filename_lr": f"records100/{number:05d}_lr",
        "filename_hr": f"records500/{number:05d}_hr",
    } | changes


def tree(root, rows, low=None, high=()):
    """A PTB-XL of these rows; by default the low-rate files exist and the high-rate ones do not."""
    for names, kind, rate in ((low, "lr", 100), (high, "hr", 500)):
        for number in [item["ecg_id"] for item in rows] if names is None else names:
            write_record(root / f"records{rate}", f"{number:05d}_{kind}", np.ones((rate, 12)), rate=rate)
    with (root / "ptbxl_database.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_a_row_becomes_a_record_without_its_signal(tmp_path):
    (record,) = read_ptbxl(tree(tmp_path, [row(7)]))
    assert record == Record(
        id="ptb-xl/records100/00007_lr",
        codes=("NORM", "SR"),  # a likelihood of 0 counts
        path=tmp_path / "records100/00007_lr",
        patient="107",
        age=61.0,
        sex="female",
        split="train",
    )


@pytest.mark.parametrize(
    ("column", "cells", "field", "values"),
    [
        ("strat_fold", ("1", "8.0", "9", "10"), "split", ("train", "train", "validation", "test")),
        ("sex", ("0", "1", "0.0", ""), "sex", ("male", "female", "male", None)),
        ("age", ("89", "300.0", "", "-1", "nan"), "age", (89.0, 90.0, None, None, None)),
        ("patient_id", ("15709.0", "15709", "", "P1"), "patient", ("15709", "15709", None, "P1")),
        ("scp_codes", ("{}", "{'AFIB': 0.0}"), "codes", ((), ("AFIB",))),
    ],
)
def test_cells(tmp_path, column, cells, field, values):
    rows = [row(number, **{column: cell}) for number, cell in enumerate(cells)]
    assert tuple(getattr(record, field) for record in read_ptbxl(tree(tmp_path, rows))) == values


def test_the_file_goes_with_the_rate_asked_for(tmp_path):
    root = tree(tmp_path, [row(1), row(2), row(3), row(4)], low=[1, 2], high=[2, 3])
    missing = Rejection(
        "ptb-xl/records100/00004_lr", "the record's files are missing (records100/00004_lr, records500/00004_hr)"
    )

    def ids(rate):
        return [item.id.removeprefix("ptb-xl/") if isinstance(item, Record) else item for item in read_ptbxl(root, rate)]

    assert ids(100) == ["records100/00001_lr", "records100/00002_lr", "records500/00003_hr", missing]
    assert ids(50) == ids(100)
    low_only = Rejection("ptb-xl/records100/00001_lr", "only its 100 Hz file is there, 250 Hz are asked for")
    assert ids(250)[:3] == [low_only, "records500/00002_hr", "records500/00003_hr"]
    assert isinstance(ids(250)[3], Rejection)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scp_codes": "__import__('os').system('touch /tmp/owned')"}, "scp_codes: expected a table"),
        ({"scp_codes": "{'SR': __import__('os').getcwd()}"}, "scp_codes: expected a table"),
        ({"scp_codes": "['SR']"}, "scp_codes: expected a table"),
        ({"scp_codes": "{1: 0.0}"}, "scp_codes: expected a table"),
        ({"scp_codes": "(" * 5000}, "scp_codes: expected a table"),
        ({"scp_codes": "'" + "a" * 20000}, "scp_codes: expected a table"),
        ({"scp_codes": ""}, "scp_codes: expected a table"),
        ({"strat_fold": ""}, "strat_fold: expected 1 to 10"),
        ({"strat_fold": "11"}, "strat_fold: expected 1 to 10"),
        ({"filename_lr": "../../etc/00001_lr"}, "lies outside the folder"),
        ({"filename_lr": "/etc/00001_lr"}, "lies outside the folder"),
        ({"filename_lr": "", "filename_hr": ""}, "none is named"),
        ({"ecg_id": 0}, "stands twice"),
    ],
)
def test_a_faulty_row_is_rejected_alone(tmp_path, changes, reason):
    items = list(read_ptbxl(tree(tmp_path, [row(0), row(1) | changes, row(2)], low=[0, 1, 2])))
    assert [type(item) for item in items] == [Record, Rejection, Record]
    assert reason in items[1].reason
    assert len(items[1].reason.splitlines()) == 1


def test_no_table_or_another_one_is_an_error_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"expected PTB-XL's ptbxl_database\.csv"):
        read_ptbxl(tmp_path)
    (tmp_path / "ptbxl_database.csv").write_text("ecg_id,age\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns patient_id, sex, scp_codes"):
        read_ptbxl(tmp_path)
    (tmp_path / "ptbxl_database.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no readable CSV"):
        read_ptbxl(tmp_path)


@pytest.mark.skipif(not PTBXL.is_dir(), reason="the PTB-XL part is not here")
class TestRealPart:
    def test_every_row_is_kept_at_100_hz_and_accounted_for_at_500(self):
        assert all(isinstance(item, Record) for item in read_ptbxl(PTBXL))
        assert len(list(read_ptbxl(PTBXL))) == 968
        kinds = Counter(type(item) for item in read_ptbxl(PTBXL, 500))
        assert kinds == {Record: 260, Rejection: 708}

    def test_rhythms_and_folds(self):
        records = list(read_ptbxl(PTBXL))
        codes = Counter(code for record in records for code in record.codes)
        known = {"SR": 779, "AFIB": 49, "SARRH": 30, "STACH": 25, "SBRAD": 17, "AFLT": 9, "PACE": 4}
        assert {code: codes[code] for code in known} == known
        assert sum(record.patient is None for record in records) == 288
        splits = {}
        for record in records:
            if record.patient:
                splits.setdefault(record.patient, set()).add(record.split)
        assert all(len(split) == 1 for split in splits.values())
