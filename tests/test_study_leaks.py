"""What a study may not learn from: here, records of patients that it tests on."""

import pytest

from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import LeakError
from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_records
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import ReadySource, Recipe, StudyConfig
from ecgtf.studies.leaks import check_sources
from ecgtf.studies.sources import Workshop
from ecgtf.wfdb_io import write_record

CELLS = [Cell("A", 0, "resnet1d", "plain", "more")]


def clinic(root, seed, patients):
    """A data set of records of one clinic, of these patients and splits; an empty name is nobody known."""
    rows = ["record,code,split,patient"]
    for number, record in enumerate(simulate_records(len(patients), seed=seed, rate=100, seconds=10)):
        split, patient = patients[number]
        write_record(root / "clinic", f"s{seed}r{number}", record.signal, LEADS, 100)
        rows.append(f"s{seed}r{number},SR,{split},{patient}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    prepare("wfdb", root / "clinic", root / "set", labels=root / "labels.csv", workers=1)
    return (str(root / "set"),)


@pytest.mark.parametrize(
    ("folds", "theirs", "leaks"),
    [
        (0, ["p9", "", "tested"], "1 of its records .*: patient tested of clinic"),
        (0, ["p9", "", "learnt"], None),  # the collection's own training records are of this patient
        (2, ["p9", "learnt", "tested"], "2 of its records .*: patient learnt of clinic"),
    ],
)
def test_other_records_of_a_patient_that_is_tested_on_are_no_source(tmp_path, folds, theirs, leaks):
    mine = clinic(tmp_path / "a", 1, [("train", "learnt"), ("validation", "p2"), ("test", "tested"), ("test", "")])
    source = ReadySource(clinic(tmp_path / "b", 2, [("train", name) for name in theirs]))
    work = str(tmp_path / "work")
    config = StudyConfig(
        "toy", "superclass", {"A": mine}, {"plain": Recipe()}, folds=folds, work=work, validation=0.5, sources={"more": source}
    )
    if leaks is None:
        check_sources(Workshop(config), CELLS)
        return
    with pytest.raises(LeakError, match=f"source more leaks: {leaks}"):
        check_sources(Workshop(config), CELLS)
