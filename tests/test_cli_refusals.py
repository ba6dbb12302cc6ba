"""What the command line says of what it cannot use, in a folder where nothing was made: one line, exit code 2, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import call, refused

from ecgtf.ecg import LEADS, derive_leads, select_leads
from ecgtf.wfdb_io import write_record


def test_several_candidates_are_listed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        assert call("prepare", "--limit", 14, "--out", f"data/{name}", "--quiet")[0] == 0
    several = "error: several real data sets fit (data/a, data/b): choose one "
    for words, choose in (
        (["info"], "by its folder"),
        (["plot"], "by its folder"),
        (["evaluate"], "with --real"),
        (["train-generator"], "with --data"),
        (["finetune", "--scratch"], "with --data"),
    ):
        assert refused(*words) == several + choose
    assert call("info", "data/a")[0] == 0
    (tmp_path / "data" / "b").rename(tmp_path / "data" / ".b.12.deleted.tmp")  # as a killed process leaves it
    assert call("info")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bogus"], "error: No such command 'bogus'. See: ecgtf --help"),
        (["--bogus"], "error: No such option: --bogus. See: ecgtf --help"),
        (["--version=3"], "error: Option '--version' does not take a value. See: ecgtf --help"),
        (["info"], "data: name one by its folder, or make one with: ecgtf prepare"),
        (["plot"], "data: name one by its folder, or make one with: ecgtf prepare"),
        (["evaluate"], "data: name one with --real, or make one with: ecgtf prepare"),
        (["train-generator"], "data: name one with --data, or make one with: ecgtf prepare"),
        (["generate"], "no finished run of train-generator"),
        (["generate", "--run", "nowhere"], "nowhere is not a run folder"),
        (["generate", "--pretrained", "--guidance", "nan"], "guidance weight of 0 or more, received nan"),
        (["generate", "--pretrained", "--guidance", "inf"], "guidance weight of 0 or more, received inf"),
        (["generate", "--pretrained", "--heart-rate", "9999"], "a heart rate of 40 to 200 beats/min, which is what generators"),
        (["generate", "--pretrained", "--heart-rate", "nan"], "beats/min, which is what generators tell apart; received nan"),
        (
            ["generate", "--pretrained", "--age", "-5"],
            "an age of 0 to 100 years, which is what generators tell apart; received -5",
        ),
        (["finetune", "--data", "nowhere"], "ecgtf generate"),
        (["finetune", "--data", "nowhere", "--scratch"], "nowhere"),
        (["prepare", "wfdb", "nowhere"], "nowhere"),
        (["prepare", "mitbih", "."], "ptbxl, chapman, challenge, ludb, wfdb"),
        (
            ["prepare", "--beam-args", "it's"],
            'error: --beam-args takes options as on a command line; received "it\'s" (No closing',
        ),
        (["prepare", "--leads", "I,II,X9"], "unknown lead name 'X9'"),
        (["train-generator", "gan"], "expected one of vqvae"),
        (["train-generator", "vqvae", "--augment", "gain=9"], "expected gain from 0 to 2, received 9.0"),
        (["train-generator", "vqvae", "--steps", "many"], "such as 600,900"),
        (["plot", "nowhere"], "nowhere"),
        (["report"], "reports: name one by its folder, or make one with: ecgtf evaluate"),
        (["info", "--wrong"], ". See: ecgtf info --help"),
        (["evaluate", "--max-records", "3"], "See: ecgtf evaluate --help"),
    ],
)
def test_bad_words_are_refused_in_an_empty_folder(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[:2] == ["train-generator", "vqvae"]:
        words = [*words, "--data", "nowhere"]
    assert says in refused(*words)
    assert not list(tmp_path.rglob("dataset.json"))


@pytest.mark.parametrize(
    "words",
    [
        ["simulate"],
        ["prepare", "--out"],
        ["train-generator", "vqvae", "--out"],
        ["train-classifier", "--out"],
        ["finetune", "--out"],
        ["evaluate", "--out"],
        ["demo", "--out"],
    ],
)
def test_a_file_is_never_taken_for_a_folder_to_write(words, tmp_path):
    (tmp_path / "taken").write_text("precious")
    assert "is a file" in refused(*words, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "precious"


def noise(seed: int) -> np.ndarray:
    """12 leads whose limb leads agree."""
    return derive_leads(np.random.default_rng(seed).normal(0, 0.3, (5000, 8)))


def record(folder: Path, name: str, signal: np.ndarray | None = None, leads=LEADS, comments=("Dx: 426783006",)) -> Path:
    signal = select_leads(noise(len(name)), LEADS, leads) if signal is None else signal
    write_record(folder, name, signal.astype("float32"), leads, 500, comments)
    return folder


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--band", "40,0.5"], "expected the low corner below the high one, received 40 and 0.5 Hz"),
        (["--band", ",-1"], "expected a high corner above 0, received -1 Hz"),
        (["--band", "nan,"], "expected a low corner above 0, received nan Hz"),
        (["--band", ","], "expected a low or a high corner frequency for the band-pass, received none"),
        (["--mains", "-50"], "expected a mains frequency above 0, received -50 Hz"),
        (["--mains", "inf"], "expected a mains frequency above 0, received inf Hz"),
    ],
)
def test_filters_that_cannot_be_are_refused_before_any_record_is_read(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("prepare", "wfdb", "nowhere", *words) == f"error: {says}"  # the folder is not even looked for
    assert not list(tmp_path.iterdir())


def test_filters_beyond_the_rate_of_simulated_records_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "above 0 and below 50 Hz, half the record's rate, received 50 Hz"
    assert f"mains frequency {said}; a slower record holds no mains hum" in refused("prepare", "--mains", 50)
    assert f"high corner {said}" in refused("prepare", "--band", "0.5,50")
    assert not list(tmp_path.iterdir())


def test_folders_without_a_usable_record_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("prepare", "wfdb", "empty")
    (record(tmp_path / "gone", "r1") / "r1.dat").unlink()
    assert "r1.dat" in refused("prepare", "wfdb", "gone")
    cut = record(tmp_path / "cut", "r1") / "r1.dat"
    cut.write_bytes(cut.read_bytes()[:1000])
    assert "1000" in refused("prepare", "wfdb", "cut")
    header = record(tmp_path / "odd", "r1") / "r1.hea"
    header.write_text(header.read_text().replace(" V6", " QQ"))
    assert "QQ" in refused("prepare", "wfdb", "odd")
    record(tmp_path / "few", "r1", leads=LEADS[:8])
    assert "V3" in refused("prepare", "wfdb", "few")


def test_bad_records_are_rejected_and_fatal_only_when_strict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = record(tmp_path / "source", "good")
    flat = noise(0)
    flat[:, 7] = 0.0
    record(source, "flat", flat)
    missing = noise(1)
    missing[100:200, 3] = np.nan
    record(source, "missing", missing)
    code, out, _ = call("prepare", "wfdb", "source", "--out", "data/a")
    assert code == 0
    assert "2 rejected" in out
    listed = (tmp_path / "data/a/rejected.csv").read_text()
    assert "flat" in listed
    assert "missing" in listed
    line = refused("prepare", "wfdb", "source", "--out", "data/b", "--strict")  # the shard that is done first speaks
    assert "flat" in line or "missing samples in aVR" in line
    assert not (tmp_path / "data/b/dataset.json").exists()


def test_a_set_without_a_diagnosis_is_not_sent_to_be_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "bare", "r1", comments=())
    record(tmp_path / "told", "r1")
    assert "; next: ecgtf train-generator vqvae" in call("prepare", "wfdb", "told", "--out", "data/told")[1]
    code, out, _ = call("prepare", "wfdb", "bare", "--out", "data/bare")
    assert code == 0
    assert "none carries a diagnosis code" in out
    assert "--labels" in out
    assert "next:" not in out


def test_a_record_that_is_not_there_is_named_with_one_that_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (record(tmp_path / "some", "r1") / "labels.csv").write_text("record,code,split\nr1,SR,test\n")
    assert call("prepare", "wfdb", "some", "--labels", "some/labels.csv", "--out", "data/some", "--quiet")[0] == 0
    assert "has no record 'r2'; ids look like 'some/r1'" in refused("plot", "data/some", "--record", "r2")


def test_a_damaged_shard_is_found_and_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert call("prepare", "--limit", 21, "--quiet")[0] == 0
    shard = next(Path("data/simulated").glob("train*"))
    content = bytearray(shard.read_bytes())
    content[5000] ^= 4
    shard.write_bytes(content)
    assert shard.name in refused("info", "--verify")
    assert shard.name in refused("train-generator", "vqvae", "--preset", "tiny")


def test_an_error_shows_its_traceback_with_debug(tmp_path):
    words = [sys.executable, "-m", "ecgtf.cli.main", "info", "nowhere"]
    plain = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (plain.returncode, plain.stderr.count("\n")) == (2, 1)
    told = subprocess.run([*words, "--debug"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert told.returncode == 2
    assert "Traceback" in told.stderr
