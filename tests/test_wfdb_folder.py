import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.wfdb_folder import read_wfdb
from ecgtf.ecg import LEADS, Record, Rejection
from ecgtf.wfdb_io import write_record

DATA = Path(__file__).parents[2] / "shared" / "data"


def put(folder, name, comments=(), leads=LEADS):
    return write_record(folder, name, np.zeros((10, len(leads))), leads, 500, comments)


def test_a_tree_is_read_in_order_of_the_paths(tmp_path):
    root = tmp_path / "collection"
    for folder, name in (("b", "2"), ("b/deep", "1"), ("", "z"), ("a", "3")):
        put(root / folder, name)
    records = list(read_wfdb(root))
    assert [record.id for record in records] == [f"collection/{name}" for name in ("a/3", "b/2", "b/deep/1", "z")]
    assert [record.path for record in records] == [root / name for name in ("a/3", "b/2", "b/deep/1", "z")]
    assert next(read_wfdb(root, name="mine")).id == "mine/a/3"


def test_what_the_header_says(tmp_path):
    put(tmp_path, "a", ["Age: 61", "Sex: Female", "Dx: 426783006,164889003"], leads=("ii", "V1"))
    (record,) = read_wfdb(tmp_path, name="x")
    assert record == Record(
        "x/a", ("426783006", "164889003"), leads=("II", "V1"), sampling_rate=500.0, path=tmp_path / "a", age=61.0, sex="female"
    )


@pytest.mark.parametrize(
    ("comments", "codes", "age", "sex"),
    [
        (["Dx: AF, RBBB ,Normal", "AGE: 7", "SEX: M"], ("AF", "RBBB", "Normal"), 7.0, "male"),
        ([" dx:1", "DX: 2,1", "<age>: 51", "<sex>: F"], ("1", "2"), 51.0, "female"),
        (["Dx: Unknown", "Age: NaN", "Sex: Unknown"], (), None, None),
        (["Dx:", "Age: -1", "Sex: x"], (), None, None),
        (["Age: >89", "gender: male"], (), 90.0, "male"),
        (["Age: 300"], (), 90.0, None),
        (["Age: 999", "Rx: 5", "no colon"], (), None, None),
    ],
)
def test_comments_in_any_case(tmp_path, comments, codes, age, sex):
    put(tmp_path, "a", comments)
    (record,) = read_wfdb(tmp_path)
    assert (record.codes, record.age, record.sex) == (codes, age, sex)


def test_broken_headers_and_links_out_of_the_folder_are_rejected_alone(tmp_path):
    root = tmp_path / "root"
    put(root, "good")
    (root / "bad.hea").write_text("bad 12 500\n")
    put(tmp_path, "outside")
    os.symlink(tmp_path / "outside.hea", root / "link.hea")
    items = {item.id: item for item in read_wfdb(root)}
    assert isinstance(items["root/good"], Record)
    assert items["root/bad"] == Rejection("root/bad", "bad.hea: expected 12 signal lines, found 0")
    assert items["root/link"] == Rejection("root/link", "the header lies outside the folder; refused")


def test_no_folder_and_no_records_are_errors_at_once(tmp_path):
    with pytest.raises(ValueError, match="is no folder"):
        read_wfdb(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no WFDB record"):
        read_wfdb(tmp_path)


class TestLabelsFile:
    def read(self, root, text):
        (root.parent / "labels.csv").write_text(text, encoding="utf-8")
        return list(read_wfdb(root, root.parent / "labels.csv", name="x"))

    @pytest.fixture
    def root(self, tmp_path):
        for folder, name in (("a", "1"), ("a", "2"), ("b", "2")):
            put(tmp_path / "root" / folder, name, ["Dx: 5"])
        return tmp_path / "root"

    def test_codes_patient_and_split(self, root):
        text = "\ufeffRecord,codes,patient,split\n1,AF; SB,p1,test\na/2.hea,,p2,\n"
        first, second, third = self.read(root, text)
        assert (first.id, first.codes, first.patient, first.split) == ("x/a/1", ("AF", "SB"), "p1", "test")
        assert (second.codes, second.patient, second.split) == ((), "p2", None)
        assert (third.codes, third.patient, third.split) == (("5",), None, None)  # not listed: what the header says

    def test_several_columns_of_codes(self, root):
        assert self.read(root, "record,code1,code2,note\na/1,AF,SB;AF,hm\n")[0].codes == ("AF", "SB")

    def test_a_row_without_a_record_is_a_rejection(self, root):
        for name in ("c/9", "2"):  # the name 2 alone could be either of two records
            assert self.read(root, f"record,codes\n{name},AF\n")[-1] == Rejection(
                f"x/{name}", "is in the labels file, but not in the folder"
            )

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("name,codes\n1,AF\n", "expected a column 'record'"),
            ("record,diagnosis\n1,AF\n", "expected a column 'record' and one or more 'code...'"),
            ("", "expected a column 'record'"),
            ("record,codes\n1,AF\na/1,SB\n", "line 3: record 'a/1' is listed twice"),
            ("record,code,code\n1,AF,RBBB\n", "a column is named twice in record, code, code"),
            ("record,code,Code \n1,AF,RBBB\n", "a column is named twice in record, code, Code"),
            ("record,codes,split\n1,AF,training\n", "line 2: expected a split of train, validation, test, found 'training'"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_an_error_at_once(self, root, text, match):
        with pytest.raises(ValueError, match=match):
            self.read(root, text)

    def test_a_missing_file(self, root):
        with pytest.raises(ValueError, match="expected a labels file"):
            read_wfdb(root, root / "labels.csv")


@pytest.mark.skipif(not DATA.is_dir(), reason="the real records are not here")
@pytest.mark.parametrize(
    ("folder", "count", "codes"),
    [
        ("chapman-shaoxing", 85, {"426177001": 25, "427084000": 22, "426783006": 14, "164890007": 8, "164889003": 2}),
        ("cpsc2018", 154, {"RBBB": 29}),
        ("ludb", 200, {}),
    ],
)
def test_real_collections(folder, count, codes):
    records = list(read_wfdb(DATA / folder))
    assert len(records) == count
    assert all(isinstance(record, Record) and record.leads == LEADS and record.sampling_rate == 500 for record in records)
    found = Counter(code for record in records for code in record.codes)
    assert {code: found[code] for code in codes} == codes
    assert all(record.sex in ("male", "female") for record in records)
