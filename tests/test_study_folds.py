"""Folds of a study: patients never cross them, classes are spread, shares are nested, nothing is lost."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from conftest import toy_record, write_toy_dataset

from ecgtf.dataset import LeakError, finish_dataset, load_arrays, read_manifest, read_records, write_split
from ecgtf.ecg import LEADS, SPLITS
from ecgtf.fingerprint import fingerprint
from ecgtf.record_table import COLUMNS, join_rows, write_rows
from ecgtf.studies.config import Grid, Recipe, StudyConfig
from ecgtf.studies.folds import make_folds, write_fold

FOLDS = 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    per_class = {"train": 8, "validation": 3, "test": 4}
    a = write_toy_dataset(root / "a", per_class, name="a")
    b = write_toy_dataset(root / "b", dict.fromkeys(per_class, 3), name="b")
    rewritten(b, b, lambda split, records: [replace(record, id=f"b/{record.id}") for record in records])  # another source
    return StudyConfig("toy", "rhythm4", {"A": (str(a),), "B": (str(b),)}, {"plain": Recipe()}, merge=True, folds=FOLDS)


def rewritten(source, folder, change):
    """The data set with a change to its records: what `change` makes of a split's name and its list of records."""
    manifest, summaries = read_manifest(source), []
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        records = change(split, list(read_records(source, split, manifest)))
        summaries += write_split(folder, split, records, len(records), manifest.leads, manifest.samples)
    about = {"name": folder.name, "sampling_rate": manifest.sampling_rate, "seconds": manifest.seconds, "leads": manifest.leads}
    finish_dataset(folder, about, summaries)
    return str(folder)


def patients(config):
    """The source and patient of each record that has one, by id."""
    return {
        record.id: (record.id.split("/")[0], record.patient)
        for folders in config.collections.values()
        for folder in folders
        for split in SPLITS
        for record in read_records(folder, split)
        if record.patient
    }


def test_each_record_is_tested_once_and_no_patient_stands_on_two_sides(settings):
    folds = make_folds(settings)
    tested = Counter(member.id for fold in range(FOLDS) for member in folds.of("A+B", fold, "test"))
    assert tested == Counter(member.id for member in folds.members)
    for fold in range(FOLDS):
        sides = defaultdict(set)
        for id_, patient in patients(settings).items():
            sides[patient].add(folds.splits[fold][id_])
        assert all(len(splits) == 1 for splits in sides.values())
        merged = {member.id for member in folds.of("A+B", fold, "train")}
        assert merged == {member.id for name in "AB" for member in folds.of(name, fold, "train")}


def with_table(folder, records):
    """A data set of records by split with a table of them, as `prepare` writes it."""
    folder.mkdir()
    summaries = []
    for split in SPLITS:
        mine = [record for record in records if record.split == split]
        summaries += write_split(folder, split, mine, len(mine), LEADS, 1000)
    rows = [
        {
            "id": record.id,
            "split": record.split,
            "patient": record.patient,
            "fingerprint": fingerprint(record.signal, LEADS, 100.0),
        }
        for record in records
    ]
    write_rows(folder / "rows", rows, COLUMNS)
    table = {"file": "records.csv", "sha256": join_rows(folder / "records.csv", [folder / "rows"], COLUMNS)}
    about = {"name": folder.name, "sampling_rate": 100.0, "seconds": 10.0, "leads": LEADS, "table": table}
    finish_dataset(folder, about, summaries)
    return str(folder)


def test_a_copy_that_names_no_patient_stays_with_the_other_records_of_its_patient(settings, tmp_path):
    """As those of PTB-XL in the challenges: of the copies, the one that is read is that of the test split."""
    rhythms = ("SR", "SB", "AFIB", "SVT")
    ecgs = [replace(toy_record(number, name, "train"), age=None, sex=None) for number in range(16) for name in rhythms]
    own = [replace(ecg, id=f"ptbxl/{number}", patient=f"p{number % 32}") for number, ecg in enumerate(ecgs)]  # two each
    copies = [replace(ecg, id=f"challenge/{number}", patient=None, split="test") for number, ecg in enumerate(ecgs[:32])]
    folders = with_table(tmp_path / "own", own), with_table(tmp_path / "copies", copies)
    folds = make_folds(replace(settings, collections={"A": folders}, merge=False))
    assert sum(member.id.startswith("challenge/") for member in folds.members) == 32
    for splits in folds.splits:
        sides = defaultdict(set)
        for id_, split in splits.items():
            sides[int(id_.split("/")[1]) % 32].add(split)
        assert all(len(each) == 1 for each in sides.values())
    with pytest.raises(LeakError, match=r"patient p\d+ of ptbxl has records on two sides of a fold"):
        make_folds(replace(settings, collections={"A": folders}, merge=False, folds=0))


def test_patients_in_two_data_sets_stay_together_and_in_two_collections_are_refused(settings, tmp_path):
    (whole,) = settings.collections["A"]

    def every_other(first):
        def change(split, records):
            shared = [replace(record, patient=f"p{number // 4}") for number, record in enumerate(records)]
            return shared[first::2]

        return change

    one, two = (rewritten(whole, tmp_path / name, every_other(first)) for first, name in enumerate(("one", "two")))
    together = replace(settings, collections={"A": (one, two)}, merge=False)
    folds = make_folds(together)
    for fold in range(FOLDS):
        sides = defaultdict(set)
        for id_, patient in patients(together).items():
            sides[patient].add(folds.splits[fold][id_])
        assert all(len(splits) == 1 for splits in sides.values())
    with pytest.raises(
        LeakError, match=r"patient p\d+ of toy has records on two sides of a fold, toy/.* of A \(.*\) and toy/.* of B"
    ):
        make_folds(replace(settings, collections={"A": (one,), "B": (two,)}))
    with pytest.raises(LeakError, match="on two sides of a fold"):
        make_folds(replace(together, folds=0))  # the sets' own splits have some of them on two sides


def test_classes_are_spread_evenly(settings):
    folds = make_folds(settings)
    sizes = np.array([np.sum([member.label for member in folds.of("A", fold, "test")], axis=0) for fold in range(FOLDS)])
    assert (np.ptp(sizes, axis=0) <= 3).all()
    assert (np.sum([member.label for member in folds.of("A", 0, "validation")], axis=0) > 0).all()


def test_a_fold_is_a_data_set_whose_shares_are_nested_and_whose_test_is_whole(settings, tmp_path):
    folds = make_folds(settings)
    sets = {part: write_fold(folds, "A", 1, part, tmp_path / f"real{part:g}") for part in (0.2, 0.5, 1.0)}
    ids = {(part, split): set(load_arrays(sets[part], split).ids) for part in sets for split in ("train", "validation", "test")}
    for split in ("train", "validation"):
        assert ids[0.2, split] < ids[0.5, split] < ids[1.0, split]
    assert ids[0.2, "test"] == ids[1.0, "test"] == {member.id for member in folds.of("A", 1, "test")}
    assert (load_arrays(sets[0.2], "train", "rhythm4").labels.sum(axis=0) >= 1).all()
    before = (sets[0.2] / "dataset.json").read_bytes()
    assert write_fold(folds, "A", 1, 0.2, sets[0.2]) == sets[0.2]
    assert (sets[0.2] / "dataset.json").read_bytes() == before
    assert read_manifest(sets[0.5]).provenance["real_fraction"] == 0.5


def test_signals_arrive_as_they_were(settings, tmp_path):
    folds = make_folds(settings)
    written = load_arrays(write_fold(folds, "A+B", 0, 1.0, tmp_path / "fold"), "train")
    there = {}
    for folder in (settings.collections["A"][0], settings.collections["B"][0]):
        for split in ("train", "validation", "test"):
            arrays = load_arrays(folder, split)
            there |= dict(zip(arrays.ids, arrays.signals, strict=True))
    assert len(written) > 20
    for name, signal in zip(written.ids, written.signals, strict=True):
        np.testing.assert_array_equal(signal, there[name])


def test_without_folds_the_splits_are_those_of_the_data_sets(settings, tmp_path):
    def apart(split, records):
        return [replace(record, patient=record.patient and f"{split} {record.patient}") for record in records]

    (whole,) = settings.collections["A"]
    config = replace(settings, folds=0, merge=False, collections={"A": (rewritten(whole, tmp_path / "apart", apart),)})
    folds = make_folds(config)
    given = set(load_arrays(whole, "validation").ids)
    assert {member.id for member in folds.of("A", 0, "validation")} == given


def test_a_class_that_a_fold_would_not_learn_is_named(settings, tmp_path):
    records = [toy_record(number, rhythm, "train") for rhythm in ("SR", "AFIB", "ST") for number in range(20)]
    records.append(toy_record(0, "SB", "train"))  # a person who is tested on in one fold cannot be learnt from there
    manifest, few = read_manifest(settings.collections["A"][0]), tmp_path / "few"
    few.mkdir()
    about = {"name": "few", "sampling_rate": manifest.sampling_rate, "seconds": manifest.seconds, "leads": manifest.leads}
    finish_dataset(few, about, write_split(few, "train", records, len(records), manifest.leads, manifest.samples))
    wanted = replace(
        settings, collections={"A": (str(few),)}, merge=False, grids={"transfer": (Grid(recipes=("plain",)),)}, folds=2
    )
    with pytest.raises(ValueError, match=r"A has no training record of SB in fold [01]; expected each class"):
        make_folds(wanted)
    make_folds(replace(wanted, grids={}))  # nothing is trained on it


def test_collections_that_share_records_or_are_synthetic_are_refused(settings, tmp_path):
    twin = write_toy_dataset(tmp_path / "twin", {"train": 1, "validation": 1, "test": 1})
    with pytest.raises(ValueError, match="stands in two data sets"):
        make_folds(replace(settings, collections={"A": settings.collections["A"], "C": (str(twin),)}))
    made = write_toy_dataset(tmp_path / "made", {"train": 1, "validation": 1, "test": 1}, generator={"trained_on": []})
    with pytest.raises(ValueError, match="is synthetic"):
        make_folds(replace(settings, collections={"A": (str(made),)}, merge=False))
