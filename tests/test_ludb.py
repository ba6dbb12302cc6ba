import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.ludb import read_ludb
from ecgtf.ecg import LEADS, Record, Rejection
from ecgtf.tasks import TASKS
from ecgtf.wfdb_io import read_record, write_record

LUDB = Path(__file__).parents[2] / "shared" / "data" / "ludb"


def put(folder, name, *findings):
    comments = ["<age>: 51", "<sex>: F", "<diagnoses>:", *findings]
    return write_record(folder, name, np.zeros((10, 12)), [lead.lower() for lead in LEADS], 500, comments)


def test_a_header_of_sentences(tmp_path):
    findings = [
        "Rhythm: Sinus bradycardia.",
        "Electric axis of the heart: left axis deviation. ",
        "Left ventricular hypertrophy. ",
    ]
    path = put(tmp_path / "data", "1", *findings)
    (record,) = read_ludb(tmp_path)
    assert record == Record(
        id="ludb/data/1",
        codes=("426177001", "Electric axis of the heart: left axis deviation", "Left ventricular hypertrophy"),
        leads=LEADS,
        sampling_rate=500.0,
        path=path,
        age=51.0,
        sex="female",
    )


def test_the_folder_of_the_records_serves_too(tmp_path):
    put(tmp_path, "8", "Rhythm: Atrial fibrillation.")
    assert [record.id for record in read_ludb(tmp_path)] == ["ludb/8"]


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("Sinus rhythm", "426783006"),
        ("Sinus bradycardia", "426177001"),
        ("Sinus tachycardia", "427084000"),
        ("Sinus arrhythmia", "427393009"),
        ("Atrial fibrillation", "164889003"),
        ("Atrial flutter, typical", "164890007"),
        ("Atrial flutter", "164890007"),
        ("Irregular sinus rhythm", "Irregular sinus rhythm"),  # the database tells it from sinus arrhythmia
        ("Idioventricular rhythm", "Idioventricular rhythm"),
    ],
)
@pytest.mark.parametrize("pattern", ["Rhythm: {}.", "rhythm:{}", "RHYTHM :  {} . "])
def test_rhythm_sentences(tmp_path, sentence, code, pattern):
    put(tmp_path, "1", pattern.format(sentence))
    put(tmp_path, "2", pattern.format(code if code == sentence else sentence.upper()))
    assert [record.codes for record in read_ludb(tmp_path)] == [(code,), (code,)]


def test_findings_beside_the_rhythm_do_not_change_it(tmp_path):
    put(tmp_path, "1", "Rhythm: Sinus bradycardia.", "Wandering atrial pacemaker. ", "P-synchrony. ", "P-synchrony. ", ".")
    (record,) = read_ludb(tmp_path)
    assert record.codes == ("426177001", "Wandering atrial pacemaker", "P-synchrony")
    assert TASKS["rhythm4"].classes[TASKS["rhythm4"].labels([record.codes])[0].argmax()] == "SB"


def test_gains_and_baselines_of_each_lead(tmp_path):
    (tmp_path / "1.dat").write_bytes(np.array([[-120, 25], [6, 2]], "<i2").tobytes())
    (tmp_path / "1.hea").write_text("1 2 500 2\n1.dat 16 1716(6)/mV 0 0 -120 0 0 i\n1.dat 16 1206(2)/mV 0 0 25 0 0 avr\n")
    (record,) = read_ludb(tmp_path)
    assert (record.codes, record.leads) == ((), ("I", "aVR"))
    np.testing.assert_allclose(read_record(record.path)[0], [[-126 / 1716, 23 / 1206], [0, 0]], rtol=1e-6)


def test_faulty_headers_and_links_out_of_the_folder_are_rejected_alone(tmp_path):
    put(tmp_path / "root", "1", "Rhythm: Sinus rhythm.")
    put(tmp_path, "2")
    (tmp_path / "root" / "3.hea").write_text("3 twelve 500\n")
    os.symlink(tmp_path / "2.hea", tmp_path / "root" / "2.hea")
    good, link, bad = read_ludb(tmp_path / "root")
    assert good.codes == ("426783006",)
    assert link == Rejection("ludb/2", "the header lies outside the folder; refused")
    assert bad.id == "ludb/3"
    assert "expected a record line" in bad.reason


def test_no_folder_and_no_records_are_errors_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"expected LUDB's folder \(data/\*\.hea\), but .*nothing is no folder; unpack"):
        read_ludb(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"there is no WFDB record \(\*\.hea\) below .*; unpack the collection"):
        read_ludb(tmp_path)


@pytest.mark.skipif(not LUDB.is_dir(), reason="LUDB is not here")
def test_real_collection():
    texts = [path.read_text(encoding="utf-8") for path in LUDB.rglob("*.hea")]
    sentences = Counter(sentence for text in texts for sentence in re.findall(r"^#Rhythm: (.*?)\.?\s*$", text, re.MULTILINE))
    classes = {
        "SR": "Sinus rhythm",
        "SBRAD": "Sinus bradycardia",
        "AFIB": "Atrial fibrillation",
        "SARRH": "Sinus arrhythmia",
        "STACH": "Sinus tachycardia",
        "AFLT": "Atrial flutter, typical",
    }
    counted = {name: sentences[sentence] for name, sentence in classes.items()}
    assert counted == {"SR": 143, "SBRAD": 25, "AFIB": 15, "SARRH": 8, "STACH": 4, "AFLT": 3}
    assert set(sentences) - set(classes.values()) == {"Irregular sinus rhythm"}

    records = list(read_ludb(LUDB))
    assert len(records) == 200
    assert all(isinstance(record, Record) and record.leads == LEADS and record.sampling_rate == 500 for record in records)
    assert all(record.sex and record.age is not None for record in records)
    task = TASKS["native"]
    labels = task.labels([record.codes for record in records])
    found = {name: int(count) for name, count in zip(task.classes, labels.sum(axis=0), strict=True) if count}
    assert found == counted
    codes = Counter(code for record in records for code in record.codes)
    for finding in ("Irregular sinus rhythm", "Wandering atrial pacemaker", "Left ventricular hypertrophy"):
        assert codes[finding] == sum(bool(re.search(rf"^#(Rhythm: )?{finding}\.", text, re.MULTILINE)) for text in texts) > 0
    assert sum(codes.values()) == sum(len(re.findall(r"^#[^<\s]", text, re.MULTILINE)) for text in texts)
