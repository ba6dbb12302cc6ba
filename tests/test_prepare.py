import csv
import os
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest
from small_collection import collection, content, ecg

from ecgtf.data_prep.prepare import prepare
from ecgtf.data_prep.signals import resample
from ecgtf.dataset import load_arrays, read_labels, read_manifest, read_records, verify
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, SPLITS, select_leads
from ecgtf.generators.simulator import RHYTHMS, simulate_records
from ecgtf.wfdb_io import read_record, write_record

DATA = Path(__file__).parents[2] / "shared" / "data"


def rejected(folder):
    with (folder / "rejected.csv").open(newline="") as file:
        return {row["id"]: row["reason"] for row in csv.DictReader(file)}


def test_a_collection_becomes_a_data_set(tmp_path):
    root = collection(tmp_path / "ecgs")
    manifest = prepare("wfdb", root, tmp_path / "out", seconds=2, workers=1)
    assert (manifest.name, manifest.sampling_rate, manifest.seconds, manifest.leads) == ("ecgs", 100, 2, LEADS)
    assert (manifest.records, manifest.rejected, manifest.synthetic) == (24, 0, False)
    assert manifest == read_manifest(tmp_path / "out")
    assert verify(tmp_path / "out") == []
    assert sorted(content(tmp_path / "out")) == [
        "dataset.json", "records.csv", "rejected.csv", *[f"{split}.tfrecord-00000-of-00001" for split in sorted(SPLITS)]
    ]  # fmt: skip
    records = {record.id: record for split in SPLITS for record in read_records(tmp_path / "out", split)}
    assert sorted(records) == sorted(f"ecgs/{number % 2}/r{number:03d}" for number in range(24))
    record = records["ecgs/1/r003"]
    np.testing.assert_allclose(record.signal, ecg(3), atol=0.501e-3)
    assert (record.codes, record.age, record.sex, record.patient) == (("426783006",), 50.0, None, None)


def test_rate_length_leads_and_window(tmp_path):
    root = tmp_path / "ecgs"
    leads = ("V6", "II", "I")
    write_record(root, "a", ecg(0, 1500)[:, :3], leads, 500)
    for window, first in (("first", 0), ("centre", 250)):
        out = tmp_path / window
        manifest = prepare("wfdb", root, out, seconds=2, leads=("II", "iii", "v6"), window=window, workers=1)
        assert manifest.leads == ("II", "III", "V6")
        stored = read_record(root / "a")[0]
        derived = np.stack([stored[:, 1], stored[:, 1] - stored[:, 2], stored[:, 0]], axis=1)
        expected = resample(derived[first : first + 1000], 500, 100)
        np.testing.assert_allclose(load_arrays(out, "train").signals[0], expected, atol=0.501e-3)


def faulty_collection(root):
    """Two good records, and one for each fault; the faults' reasons by id."""
    collection(root, 2)
    bad = {}

    def add(name, reason, signal=None, leads=LEADS, rate=100):
        write_record(root, name, ecg(9) if signal is None else signal, leads, rate)
        bad[f"ecgs/{name}"] = reason

    add("missing", "missing.hea: signal file 'missing.dat' is missing")
    (root / "missing.dat").unlink()
    add("truncated", "truncated.hea: signal file 'truncated.dat' is truncated: expected 4800 bytes, found 4799")
    (root / "truncated.dat").write_bytes((root / "truncated.dat").read_bytes()[:-1])
    add("nan", "missing samples in V3 (2 of 200 in V3)", np.where(np.arange(2400).reshape(200, 12) % 1200 == 8, np.nan, ecg(9)))
    add("flat", "flat lead V6 (spans less than 0.01 mV)", np.where(np.arange(12) == 11, 0.5, ecg(9)))
    add("lacking", f"leads V6 are missing; the signal has {', '.join(LEADS[:11])}", ecg(9, leads=11), LEADS[:11])
    add("unknown", f"leads V6 are missing; the signal has {', '.join(LEADS[:11])}, Y", ecg(9), (*LEADS[:11], "Y"))
    add("twice", "lead V5 stands more than once in the record", np.hstack([ecg(9), ecg(9)[:, :1]]), (*LEADS, "v5"))
    add("short", "lasts 1.99 s, shorter than the 2 s asked for", ecg(9, 199))
    add("slow", "sampled at 50 Hz, 100 Hz are asked for", rate=50)
    add("huge", "amplitude of 40 mV in II (more than 32.767 mV)")
    (root / "huge.hea").write_text((root / "huge.hea").read_text().replace("1000(0)/mV", "100(0)/mV"))
    digital = np.round(ecg(9) * 100).astype("<i2")
    digital[7, 1] = -4000
    (root / "huge.dat").write_bytes(digital.tobytes())
    add("empty", "empty.hea: the header has no record line")
    (root / "empty.hea").write_text("")
    add("outside", "outside.hea: signal file '../x.dat' lies outside the record's folder; refused")
    (root / "outside.hea").write_text((root / "outside.hea").read_text().replace("outside.dat", "../x.dat"))
    add("chunks", "chunks.hea: a multi-segment record; expected a record of one segment")
    (root / "chunks.hea").write_text((root / "chunks.hea").read_text().replace("chunks 12", "chunks/2 12"))
    return bad


def test_faulty_records_are_left_out_counted_and_listed(tmp_path):
    bad = faulty_collection(tmp_path / "ecgs")
    manifest = prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", seconds=2, workers=1)
    assert rejected(tmp_path / "out") == bad
    assert (manifest.records, manifest.rejected) == (2, len(bad))
    assert verify(tmp_path / "out") == []


def test_strict_names_the_first_and_leaves_nothing_finished(tmp_path):
    faulty_collection(tmp_path / "ecgs")
    with pytest.raises(ValueError, match=r"^strict: ecgs/chunks: .*; ecgs/empty: .*no record line$"):
        prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", seconds=2, workers=1, strict=True)
    for name in ("chunks", "empty"):
        (tmp_path / "ecgs" / f"{name}.hea").unlink()
    with pytest.raises(ValueError, match=r"^strict: ecgs/flat: flat lead V6 .*; and 6 more$"):
        prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", seconds=2, workers=1, strict=True)
    assert not (tmp_path / "out" / "dataset.json").exists()
    prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", seconds=2, workers=1)  # nothing stands in the way of a lenient one


def test_nothing_left_says_why_and_leaves_an_empty_folder(tmp_path):
    collection(tmp_path / "ecgs", 5)
    with pytest.raises(
        ValueError, match=r"no record is left of 5: 5 x lasts N s, shorter than the N s asked for \(the first: ecgs/0/r002"
    ):
        prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", seconds=3, workers=1)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_bytes_do_not_depend_on_the_number_of_workers_or_on_the_place(tmp_path):
    root = collection(tmp_path / "ecgs")
    prepare("wfdb", root, tmp_path / "one", seconds=2, workers=1, shard_bytes=20_000)
    os.rename(tmp_path / "ecgs", tmp_path / "x")
    os.mkdir(tmp_path / "elsewhere")
    os.rename(tmp_path / "x", tmp_path / "elsewhere" / "ecgs")
    prepare("wfdb", tmp_path / "elsewhere" / "ecgs", tmp_path / "three", seconds=2, workers=3, shard_bytes=20_000)
    assert len(read_manifest(tmp_path / "one").shards("train")) == 5
    assert content(tmp_path / "one") == content(tmp_path / "three")
    for text in (str(tmp_path), "workers", "elsewhere"):
        assert all(text.encode() not in data for data in content(tmp_path / "three").values())


def test_the_bytes_do_not_depend_on_the_order_of_sums(tmp_path):
    """OpenBLAS has another on each processor; on x86 it can be told to act as on an old one."""
    call = "from ecgtf.data_prep.prepare import prepare; prepare(None, None, {!r}, limit=200, workers=1)"
    for name, kernel in (("new", {}), ("old", {"OPENBLAS_CORETYPE": "Nehalem"})):
        subprocess.run([sys.executable, "-c", call.format(str(tmp_path / name))], env=os.environ | kernel, check=True)
    assert content(tmp_path / "new") == content(tmp_path / "old")


def test_workers_do_not_import_tensorflow():
    code = "import sys, ecgtf.data_prep.prepare\nprint('tensorflow' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"


def test_limit_takes_the_first_records(tmp_path):
    root = collection(tmp_path / "ecgs")
    manifest = prepare("wfdb", root, tmp_path / "out", seconds=2, workers=1, limit=5)
    ids = {record.id for split in SPLITS for record in read_records(tmp_path / "out", split)}
    assert manifest.records == 5
    assert ids == {f"ecgs/0/r{number:03d}" for number in (0, 2, 4, 6, 8)}


def test_progress_counts_records(tmp_path):
    calls = []
    root = collection(tmp_path / "ecgs")
    prepare("wfdb", root, tmp_path / "o", seconds=2, workers=1, shard_bytes=30_000, progress=lambda *call: calls.append(call))
    assert calls[0] == (0, 24)
    assert calls[-1] == (24, 24)
    assert calls == sorted(calls)
    assert len(calls) > 3


def test_without_a_source_the_simulator_is_the_source(tmp_path):
    manifest = prepare(None, None, tmp_path / "out", limit=42, seconds=4, workers=1, seed=3)
    assert manifest.rejected == 0
    assert not manifest.synthetic  # no generator was trained for it
    splits = {split: list(read_records(tmp_path / "out", split)) for split in SPLITS}
    assert all(splits.values())
    assert {record.codes[0] for record in splits["train"]} == set(RHYTHMS.values())
    records = sorted((record for part in splits.values() for record in part), key=lambda record: record.id)
    assert [record.id for record in records] == [f"simulated/seed3/S{index:06d}" for index in range(42)]
    for index, made in enumerate(simulate_records(42, seed=3, rate=100, seconds=4)):
        np.testing.assert_allclose(records[index].signal, made.signal, atol=1e-6)
        assert (records[index].codes, records[index].age, records[index].sex) == (made.codes, made.age, made.sex)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"source": "physionet"}, "unknown source 'physionet'; expected one of ptbxl"),
        ({"root": None}, "needs the folder"),
        ({"root": "nowhere"}, "is no folder"),
        ({"rate": 0}, "above 0 for rate"),
        ({"seconds": float("inf")}, "above 0 for seconds"),
        ({"seconds": 0.005}, "expected a whole number"),
        ({"seconds": 1e9}, r"are 1e\+11 samples; expected a whole number from 1 to 16777215"),
        ({"leads": ["I", "x"]}, "unknown lead name 'x'"),
        ({"leads": ["I", "i"]}, "named more than once"),
        ({"leads": []}, "at least one lead"),
        ({"window": "last"}, "unknown window 'last'"),
        ({"workers": 0}, "at least 1 for workers"),
        ({"limit": 0}, "at least 1 for limit"),
        ({"seed": -1}, "at least 0 for seed"),
        ({"source": "ptbxl", "labels": "x.csv"}, "goes with the source wfdb only"),
    ],
)
def test_arguments_that_make_no_sense_touch_nothing(tmp_path, arguments, match):
    collection(tmp_path / "ecgs", 2)
    arguments = {"source": "wfdb", "root": tmp_path / "ecgs", "seconds": 2, "workers": 1} | arguments
    with pytest.raises(ValueError, match=match):
        prepare(out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the real records are not here")
class TestRealRecords:
    def test_ptbxl(self, tmp_path):
        manifest = prepare("ptbxl", DATA / "ptb-xl", tmp_path / "out", workers=1)
        assert manifest.records + manifest.rejected == 968
        assert {split: part["records"] for split, part in manifest.splits.items()} == {
            "train": 758,
            "validation": 143,
            "test": 67,
        }
        labels = sum(load_arrays(tmp_path / "out", split, "rhythm12").labels.sum(axis=0) for split in SPLITS)
        assert labels.tolist() == [
            779,
            49,
            25,
            30,
            17,
            4,
            0,
            2,
            9,
            2,
            0,
            1,
        ]  # SR AFIB STACH SARRH SBRAD PACE SVARR BIGU AFLT ...

    def test_chapman(self, tmp_path):
        manifest = prepare("wfdb", DATA / "chapman-shaoxing", tmp_path / "out", workers=1)
        assert manifest.records == 79
        reasons = rejected(tmp_path / "out")
        assert len(reasons) == 6
        assert all(reason.startswith("flat lead") for reason in reasons.values())


def table(folder):
    with (folder / "records.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_windows_of_long_records_and_padded_short_ones(tmp_path):
    root = tmp_path / "ecgs"
    for name, samples in (("long", 1250), ("short", 150), ("fits", 500)):
        write_record(root, name, ecg(len(name), samples), LEADS, 100, ["Dx: 426783006"])
    manifest = prepare("wfdb", root, tmp_path / "all", seconds=5, window="all", short="pad", workers=1)
    rows = {row["id"]: row for row in table(tmp_path / "all")}
    assert sorted(rows) == ["ecgs/fits@0s", "ecgs/long@0s", "ecgs/long@5s", "ecgs/short@0s"]
    assert len({row["split"] for name, row in rows.items() if "long" in name}) == 1  # windows of a record stay together
    assert [float(rows[f"ecgs/{name}@0s"]["padded_seconds"]) for name in ("long", "short", "fits")] == [0, 3.5, 0]
    assert [float(rows[f"ecgs/{name}@0s"]["source_seconds"]) for name in ("long", "short", "fits")] == [12.5, 1.5, 5]
    assert (manifest.records, manifest.provenance["source_records"], manifest.provenance["padded"]) == (4, 3, 1)
    stored = {record.id: record.signal for split in SPLITS for record in read_records(tmp_path / "all", split)}
    np.testing.assert_allclose(stored["ecgs/long@5s"], ecg(4, 1250)[500:1000], atol=0.501e-3)
    np.testing.assert_array_equal(stored["ecgs/short@0s"][150:], np.broadcast_to(stored["ecgs/short@0s"][149], (350, 12)))

    manifest = prepare("wfdb", root, tmp_path / "first", seconds=5, workers=1)
    assert (manifest.records, manifest.rejected, manifest.provenance["padded"]) == (2, 1, 0)
    assert rejected(tmp_path / "first") == {"ecgs/short": "lasts 1.5 s, shorter than the 5 s asked for"}


def test_filters_work_at_the_rate_of_the_source(tmp_path):
    time = np.arange(5000)[:, None] / 500
    everywhere = select_leads(np.ones((1, 8)), INDEPENDENT_LEADS, LEADS)
    hum, wander = 0.3 * np.sin(2 * np.pi * 50 * time) * everywhere, np.sin(2 * np.pi * 0.1 * time) * everywhere
    record = next(simulate_records(1, seed=3, rate=500, seconds=10))
    write_record(tmp_path / "ecgs", "a", record.signal + hum + wander, LEADS, 500)
    write_record(tmp_path / "clean", "a", record.signal, LEADS, 500)
    options = {"band": (0.5, 40), "mains": 50, "workers": 1}
    prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", **options)
    prepare("wfdb", tmp_path / "clean", tmp_path / "ref", **options)
    dirty, clean = (load_arrays(tmp_path / name, "train").signals[0] for name in ("out", "ref"))
    assert np.abs(dirty - clean)[200:-200].max() < 0.05
    assert np.abs(dirty).max() < np.abs(record.signal + hum + wander).max()
    with pytest.raises(ValueError, match="leave the notch out"):
        prepare("wfdb", tmp_path / "ecgs", tmp_path / "none", mains=300, workers=1)
    with pytest.raises(ValueError, match="low corner below the high one"):
        prepare("wfdb", tmp_path / "ecgs", tmp_path / "none", band=(40, 0.5), workers=1)


def test_poor_records_are_left_out_or_kept_and_the_table_says_how_poor(tmp_path):
    signal = next(simulate_records(1, seed=3, rate=100, seconds=10)).signal.copy()
    write_record(tmp_path / "ecgs", "good", signal, LEADS, 100)
    signal[300:700, 8] = 0.1
    write_record(tmp_path / "ecgs", "poor", signal, LEADS, 100)
    prepare("wfdb", tmp_path / "ecgs", tmp_path / "out", workers=1)
    assert list(rejected(tmp_path / "out")) == ["ecgs/poor"]
    assert rejected(tmp_path / "out")["ecgs/poor"].startswith("a lead is disconnected for ")
    kept = prepare("wfdb", tmp_path / "ecgs", tmp_path / "all", checks=False, workers=1)
    assert kept.records == 2
    still = {row["id"]: float(row["disconnected_s"]) for row in table(tmp_path / "all")}
    assert still["ecgs/poor"] > 3 > still["ecgs/good"]


def test_a_changed_or_missing_table_of_records_is_found(tmp_path):
    prepare("wfdb", collection(tmp_path / "ecgs"), tmp_path / "out", seconds=2, workers=1)
    path = tmp_path / "out" / "records.csv"
    path.write_text(path.read_text().replace("train", "test", 1))
    assert verify(tmp_path / "out") == ["records.csv: SHA-256 differs from the manifest"]
    path.unlink()
    assert verify(tmp_path / "out") == ["records.csv: the table of records is missing"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short": "drop"}, "unknown short 'drop'; expected one of refuse, pad"),
        ({"window": "last"}, "unknown window 'last'; expected one of first, centre, all"),
        ({"runner": "spark"}, "unknown runner 'spark'; expected one of local, beam"),
        ({"beam_args": ["--x"]}, "go with the runner beam only"),
    ],
)
def test_unknown_choices_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare("wfdb", collection(tmp_path / "ecgs", 2), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


FOLDERS = {"ptbxl": "ptb-xl", "chapman": "chapman-shaoxing", "challenge": "cpsc2018", "ludb": "ludb"}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real records in ../shared/data")
def test_every_source_is_accounted_for_and_all_are_used_as_one(tmp_path):
    headers = {source: len(list((DATA / folder).rglob("*.hea"))) for source, folder in FOLDERS.items()}
    with (DATA / "ptb-xl" / "ptbxl_database.csv").open(encoding="utf-8-sig") as file:
        headers["ptbxl"] = sum(1 for _ in csv.DictReader(file))
    for source, folder in FOLDERS.items():
        manifest = prepare(source, DATA / folder, tmp_path / source)
        assert manifest.records + manifest.rejected == headers[source] == len(table(tmp_path / source)) + manifest.rejected
        assert len(rejected(tmp_path / source)) == manifest.rejected
        assert verify(tmp_path / source) == []
    sets = [tmp_path / source for source in FOLDERS]
    merged = [load_arrays(sets, split) for split in SPLITS]
    assert sum(len(part) for part in merged) == sum(read_manifest(folder).records for folder in sets)  # no copies among them
    # a plain count of the codes, from headers and table, of the records that were kept
    counts = np.array([read_labels(sets, split, "rhythm4").sum(axis=0) for split in SPLITS]).sum(axis=0)
    rarer = ["67198005", "251166008", "233896004", "233897008", "17366009", "195101003"]
    words = {
        "AFIB": {"AFIB", "AFLT", "164889003", "164890007", "AF", "Atrial fibrillation", "Atrial flutter, typical"},
        "GSVT": {"STACH", "SVTAC", "PSVT", "427084000", "426761007", "713422000", "Sinus tachycardia"} | set(rarer),
        "SB": {"SBRAD", "426177001", "Sinus bradycardia"},
        "SR": {"SR", "SARRH", "426783006", "427393009", "Normal", "Sinus rhythm", "Sinus arrhythmia"},
    }
    expected = dict.fromkeys(words, 0)
    for codes in _codes_in_the_files({row["id"] for folder in sets for row in table(folder)}):
        first = next((name for name, its in words.items() if its & codes), None)
        if first:
            expected[first] += 1
    assert dict(zip(("SB", "AFIB", "GSVT", "SR"), counts.astype(int).tolist(), strict=True)) == expected


def _codes_in_the_files(kept):
    with (DATA / "ptb-xl" / "ptbxl_database.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            if {f"ptb-xl/{row['filename_lr']}", f"ptb-xl/{row['filename_hr']}"} & kept:
                yield set(literal_eval(row["scp_codes"]))
    for source in ("chapman", "challenge", "ludb"):
        root = DATA / FOLDERS[source]
        for header in root.rglob("*.hea"):
            if f"{source}/{header.relative_to(root).with_suffix('').as_posix()}" in kept:
                text = header.read_text(encoding="utf-8", errors="replace")
                dx = re.search(r"#\s*Dx:(.*)", text)
                rhythm = re.search(r"#\s*Rhythm:\s*(.*?)\.?\s*$", text, re.MULTILINE)
                yield {code.strip() for code in dx[1].split(",")} if dx else {rhythm[1]} if rhythm else set()
