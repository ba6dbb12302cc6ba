import os
import re
from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.challenge import SOURCE, read_challenge
from ecgtf.ecg import LEADS, Record, Rejection
from ecgtf.tasks import TASKS
from ecgtf.wfdb_io import read_record, write_record

CPSC = Path(__file__).parents[2] / "shared" / "data" / "cpsc2018"


def put(folder, name, *comments, record_line=None, leads=LEADS, rate=500):
    """A record as the challenges ship it: 16-bit samples behind the head of a MATLAB v4 matrix. Sample i of lead k is i + k."""
    samples = np.arange(8)[:, None] + np.arange(len(leads))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mat").write_bytes(bytes(24) + samples.astype("<i2").tobytes())
    lines = [record_line or f"{name} {len(leads)} {rate} {len(samples)} 05-Feb-2020 11:39:16"]
    lines += [f"{name}.mat 16+24 1000/mV 16 0 0 0 0 {lead}" for lead in leads]
    (folder / f"{name}.hea").write_text("\n".join(lines + [f"#{comment}" for comment in comments]) + "\n")


def test_a_nested_tree_in_order_of_the_paths(tmp_path):
    put(tmp_path / "georgia" / "g1", "E00001", "Age: 61", "Sex: Female", "Dx: 426783006,164889003", "Rx: Unknown")
    put(tmp_path, "A0001", "Age: NaN", "Sex: Unknown", "Dx: 59118001", "Sx: Unknows")
    first, second = read_challenge(tmp_path)
    assert first == Record("challenge/A0001", ("59118001",), sampling_rate=500.0, path=tmp_path / "A0001")
    assert second == Record(
        "challenge/georgia/g1/E00001",
        ("426783006", "164889003"),
        sampling_rate=500.0,
        path=tmp_path / "georgia" / "g1" / "E00001",
        age=61.0,
        sex="female",
    )
    signal, leads, rate = read_record(second.path)
    assert (signal.shape, leads, rate) == ((8, 12), LEADS, 500.0)
    np.testing.assert_allclose(signal[3], (3 + np.arange(12)) / 1000, rtol=1e-6)


def test_record_lines_that_name_the_signal_file(tmp_path):
    put(tmp_path, "E00001", "Dx: 426177001", record_line="E00001.mat 12 500 8")
    (record,) = read_challenge(tmp_path)
    assert (record.id, record.codes, record.leads) == ("challenge/E00001", ("426177001",), LEADS)
    assert read_record(record.path)[0].shape == (8, 12)


def test_the_class_words_of_cpsc_2018_are_kept_as_written(tmp_path):
    words = ("AF", "I-AVB", "LBBB", "Normal", "PAC", "PVC", "RBBB", "STD", "STE")
    for number, word in enumerate(words):
        put(tmp_path, f"A{number:04d}", f"Dx: {word}")
    records = list(read_challenge(tmp_path))
    assert [record.codes for record in records] == [(word,) for word in words]
    rhythms = {"AF": "AFIB", "Normal": "SR"}
    for record in records:
        label = TASKS["rhythm7"].labels([record.codes])[0]
        assert TASKS["rhythm7"].code_of(label) == tuple(f"rhythm7:{rhythms[code]}" for code in record.codes if code in rhythms)


@pytest.mark.parametrize("comment", ["Dx: 59118001,AF", "# Dx: 59118001, AF", "dx:59118001 ,AF,Unknown", " DX: 59118001,AF,AF"])
def test_the_rhythm_may_stand_anywhere_among_the_codes(tmp_path, comment):
    put(tmp_path, "A0001", comment)
    (record,) = read_challenge(tmp_path)
    assert record.codes == ("59118001", "AF")
    assert TASKS["rhythm4"].labels([record.codes])[0].argmax() == TASKS["rhythm4"].classes.index("AFIB")


def test_leads_in_any_case_and_order_and_other_rates(tmp_path):
    put(tmp_path, "I0001", "Dx: 426783006", leads=("v1", "AVR", "i"), rate=257)
    (record,) = read_challenge(tmp_path)
    assert (record.leads, record.sampling_rate, record.patient, record.split) == (("V1", "aVR", "I"), 257.0, None, None)


def test_faulty_headers_and_links_out_of_the_folder_are_rejected_alone(tmp_path):
    root = tmp_path / "root"
    put(root, "A0001", "Dx: AF")
    put(root, "A0002", "Dx: AF", record_line="A0002 13 500 8")
    put(tmp_path, "A0003", "Dx: AF")
    (root / ".hea").write_text("a header without a name\n")
    os.symlink(tmp_path / "A0003.hea", root / "A0003.hea")
    os.symlink(tmp_path, root / "again")  # a link to a folder is not followed
    good, bad, link = read_challenge(root)
    assert good.codes == ("AF",)
    assert bad == Rejection("challenge/A0002", "A0002.hea: expected 13 signal lines, found 12")
    assert link == Rejection("challenge/A0003", "the header lies outside the folder; refused")


def test_no_folder_and_no_records_are_errors_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder of challenge records .*nothing is no folder; unpack"):
        read_challenge(tmp_path / "nothing")
    (tmp_path / "A0001.mat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"there is no WFDB record \(\*\.hea\) below .*; unpack the collection") as caught:
        read_challenge(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_other_wfdb_records_serve_too(tmp_path):
    path = write_record(tmp_path / "S", "S0001", np.zeros((10, 12)), comments=["Dx: 427084000"])
    assert list(read_challenge(tmp_path)) == [Record("challenge/S/S0001", ("427084000",), sampling_rate=500.0, path=path)]
    assert set(SOURCE) == {"name", "licence", "citation"}


@pytest.mark.skipif(not CPSC.is_dir(), reason="the CPSC 2018 part is not here")
def test_real_part():
    headers = [path.read_text(encoding="utf-8") for path in CPSC.rglob("*.hea")]
    fibrillation = sum(bool(re.search(r"^#\s*Dx:.*\b(AF|164889003)\b", text, re.MULTILINE)) for text in headers)
    normal = sum(bool(re.search(r"^#\s*Dx:.*\b(Normal|426783006)\b", text, re.MULTILINE)) for text in headers)
    assert (len(headers), fibrillation, normal) == (154, 26, 20)

    records = list(read_challenge(CPSC))
    assert len(records) == 154
    assert all(isinstance(record, Record) and record.leads == LEADS and record.sampling_rate == 500 for record in records)
    labels = TASKS["native"].labels([record.codes for record in records])
    counts = dict(zip(TASKS["native"].classes, labels.sum(axis=0).astype(int), strict=True))
    assert (counts["AFIB"], counts["SR"]) == (fibrillation, normal)
    assert len(read_record(records[0].path)[0]) == int(headers_of(records[0])[3])


def headers_of(record):
    """The fields of a record's first line."""
    return record.path.with_name(record.path.name + ".hea").read_text().split("\n")[0].split()
