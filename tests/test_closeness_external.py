"""Synthetic ECGs from elsewhere: npz files and WFDB folders are read as data sets are, and what does not fit is told."""

import numpy as np
import pytest

from ecgtf.closeness.evaluate import evaluate
from ecgtf.closeness.external import is_external, read_external
from ecgtf.dataset import load_arrays, read_manifest
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, select_leads
from ecgtf.generators.simulator import simulate_collection
from ecgtf.tasks import get_task

TASK = get_task("rhythm7")


@pytest.fixture(scope="module")
def drawn(small_dataset):
    """Signals and labels of the toy records."""
    arrays = load_arrays(small_dataset, "train", TASK)
    return arrays.signals, arrays.labels


@pytest.fixture
def manifest(small_dataset):
    return read_manifest(small_dataset)


@pytest.fixture
def npz(tmp_path, drawn):
    """Writes an npz file of the toy records with these changes; None leaves an entry out."""

    def write(**changes):
        content = {"signals": drawn[0], "labels": drawn[1], "classes": TASK.classes, "leads": LEADS, "sampling_rate": 100.0}
        content = {name: value for name, value in (content | changes).items() if value is not None}
        np.savez(tmp_path / "theirs.npz", **content)
        return tmp_path / "theirs.npz"

    return write


def test_an_npz_file_is_read_as_it_is(npz, manifest, drawn):
    part, about = read_external(npz(), manifest, TASK)
    np.testing.assert_array_equal(part.signals, drawn[0])
    np.testing.assert_array_equal(part.labels, drawn[1])
    assert about == {"name": "theirs.npz", "records": 28, "generator": None, "provenance": "external", "rejected": 0}


def test_leads_go_by_name_and_missing_limb_leads_are_derived(npz, manifest, drawn):
    turned = LEADS[::-1]
    part, _ = read_external(npz(signals=select_leads(drawn[0], LEADS, turned), leads=turned), manifest, TASK)
    np.testing.assert_array_equal(part.signals, drawn[0])
    eight = select_leads(drawn[0], LEADS, INDEPENDENT_LEADS)
    part, _ = read_external(npz(signals=eight, leads=INDEPENDENT_LEADS), manifest, TASK)
    np.testing.assert_allclose(part.signals, drawn[0], atol=2e-3)  # the toy leads are rounded to microvolts


def test_classes_go_by_name_in_any_form(npz, manifest, drawn):
    names = np.array(TASK.classes)[drawn[1].argmax(axis=1)]
    for changes in ({"labels": names, "classes": None}, {"labels": drawn[1][:, ::-1], "classes": TASK.classes[::-1]}):
        part, _ = read_external(npz(**changes), manifest, TASK)
        np.testing.assert_array_equal(part.labels, drawn[1])
    assert read_external(npz(labels=None), manifest, TASK)[0].labels is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_rate": None}, "lacks sampling_rate; expected signals"),
        ({"signals": None}, "lacks signals"),
        ({"sampling_rate": 250.0}, r"expected signals \(records, 1000, 12\) at 100 Hz.*at 250 Hz"),
        ({"signals": np.zeros((3, 500, 12))}, r"received shape \(3, 500, 12\)"),
        ({"signals": np.zeros((3, 1000, 2)), "leads": ("I", "V1")}, "the real set has I, II, III"),
        ({"leads": ("I", "I", *LEADS[2:])}, "more than once"),
        ({"labels": np.array(["SR"] * 27 + ["PACE"]), "classes": None}, "class PACE is not of the task rhythm7"),
        ({"classes": None}, "labels without classes"),
        ({"sampling_rate": np.array([100.0, 500.0])}, "expected sampling_rate to be a number"),
        ({"sampling_rate": np.array("fast")}, "expected sampling_rate to be a number"),
        ({"labels": np.ones((28, 7))}, "at most one 1 in each row"),
        ({"labels": np.full((28, 7), np.nan)}, "expected labels of at most one 1"),
        ({"labels": np.zeros((3, 7))}, r"expected labels \(28, 7\), received shape \(3, 7\)"),
    ],
)
def test_what_does_not_fit_is_told(npz, manifest, changes, message):
    with pytest.raises(ValueError, match=message):
        read_external(npz(**changes), manifest, TASK)


def test_records_without_a_class_are_left_out_and_counted(npz, manifest, drawn):
    labels = drawn[1].copy()
    labels[:5] = 0
    part, about = read_external(npz(labels=labels), manifest, TASK)
    assert len(part) == about["records"] == 23
    assert about["rejected"] == 5


def test_one_external_set_at_a_time(npz, small_dataset):
    with pytest.raises(ValueError, match="expected one npz file"):
        evaluate(small_dataset, [npz(), npz()], groups=["temporal"])


def test_records_with_missing_samples_are_named(npz, manifest, drawn):
    signals = drawn[0].copy()
    signals[[3, 20], 500, 4] = np.nan
    with pytest.raises(ValueError, match=r"2 of 28 records hold NaN or infinity \(records 3, 20\)"):
        read_external(npz(signals=signals), manifest, TASK)


def test_a_broken_file_is_told(tmp_path, manifest):
    np.savez_compressed(tmp_path / "theirs.npz", signals=np.zeros((2, 1000, 12), np.float32), sampling_rate=100.0)
    whole = (tmp_path / "theirs.npz").read_bytes()
    data = whole.index(b"signals.npy") + len("signals.npy") + 20  # behind the size in 64 bits
    for broken in (b"PK\x03\x04 not really", whole[:data] + b"\xff" * 8 + whole[data + 8 :]):
        (tmp_path / "theirs.npz").write_bytes(broken)
        with pytest.raises(ValueError, match="no readable npz file"):
            read_external(tmp_path / "theirs.npz", manifest, TASK)


def test_a_wfdb_folder_is_converted_to_the_rate_and_leads_of_the_real_set(tmp_path, manifest):
    folder = simulate_collection(tmp_path / "theirs", 14, seed=3, rate=250.0, seconds=12.0)
    assert is_external(folder)
    part, about = read_external(folder, manifest, TASK)
    assert part.signals.shape == (14, 1000, 12)
    assert part.labels.sum(axis=0).tolist() == [2.0] * 7
    assert about["provenance"] == "external"


def without_codes(headers):
    for header in headers:
        header.write_text("\n".join(line for line in header.read_text().splitlines() if "Dx" not in line) + "\n")


def test_wfdb_records_without_a_class_are_left_out_and_counted(tmp_path, manifest):
    folder = simulate_collection(tmp_path / "theirs", 14, seed=3, rate=100.0)
    without_codes(sorted(folder.rglob("*.hea"))[:3])
    part, about = read_external(folder, manifest, TASK)
    assert (len(part), about["records"], about["rejected"]) == (11, 11, 3)


def test_a_wfdb_folder_without_classes_is_compared_without_them(tmp_path, manifest, small_dataset):
    folder = simulate_collection(tmp_path / "theirs", 12, seed=3, rate=100.0)
    without_codes(folder.rglob("*.hea"))
    for task in (TASK, get_task("superclass")):
        part, about = read_external(folder, manifest, task)
        assert part.labels is None
        assert (about["records"], about["rejected"]) == (12, 0)
    metrics = evaluate(small_dataset, folder, groups=["physiology", "utility"], preset="tiny")["metrics"]
    assert metrics["heart_rate_distance"]["value"] > 0
    assert metrics["tstr_macro_auroc"]["reason"] == "the synthetic records have no labels"


def test_a_data_set_is_not_external(small_dataset, tmp_path):
    assert not is_external(small_dataset)
    assert not is_external(tmp_path)
