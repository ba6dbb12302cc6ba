import numpy as np
import pytest

from ecgtf.classifiers.classifier import train_classifier
from ecgtf.classifiers.examples import read_splits
from ecgtf.classifiers.transfer import finetune
from ecgtf.cli.options import say_copies
from ecgtf.copies import find_copies, left_out
from ecgtf.data_prep.prepare import prepare
from ecgtf.dataset import LeakError, load, load_arrays, read_labels
from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_records
from ecgtf.info import info
from ecgtf.tasks import get_task
from ecgtf.wfdb_io import write_record

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """`a` with the simulated ECGs 0 to 11 at 500 Hz, `b` with 8 to 19, its copies at twice the gain steps and in other splits."""
    root = tmp_path_factory.mktemp("copies")
    records = list(simulate_records(20, seed=5, rate=500, seconds=10))
    for name, chosen in (("a", range(12)), ("b", range(8, 20))):
        rows = ["record,code,split"]
        for place, number in enumerate(chosen):
            signal = records[number].signal if name == "a" else np.round(records[number].signal, 2)
            write_record(root / "wfdb" / name, f"{name}{number:02d}", signal, LEADS, 500)
            rows.append(f"{name}{number:02d},SR,{SPLITS[place % 3]}")
        (root / f"{name}.csv").write_text("\n".join(rows) + "\n")
        prepare("wfdb", root / "wfdb" / name, root / name, labels=root / f"{name}.csv", workers=1)
    return [root / "a", root / "b"]


def test_copies_are_found_in_spite_of_rounding(two_sets):
    groups = [[place.id for place in group] for group in find_copies(two_sets)]
    assert sorted(groups) == [[f"a/a{number:02d}", f"b/b{number:02d}"] for number in (8, 9, 10, 11)]
    assert find_copies(two_sets[:1]) == []
    assert left_out(two_sets[:1]) == {two_sets[0]: frozenset()}


def test_copies_are_found_in_spite_of_filters(two_sets, tmp_path):
    source = two_sets[0].parent / "wfdb" / "a"
    for band in ((0.5, 40.0), (0.05, None)):
        prepare("wfdb", source, tmp_path / f"{band}", band=band, mains=50.0, workers=1)
        assert len(find_copies([two_sets[0], tmp_path / f"{band}"])) == 12


def test_one_wrong_age_does_not_hide_the_copies_among_the_others(tmp_path):
    (ecg,) = simulate_records(1, seed=5, rate=500, seconds=10)
    for name, age in (("r0", 50), ("r1", 60), ("r2", 60)):
        write_record(tmp_path / "wfdb", name, ecg.signal, LEADS, 500, ["Dx: 426783006", f"Age: {age}"])
    prepare("wfdb", tmp_path / "wfdb", tmp_path / "set", workers=1)
    assert [[place.id for place in group] for group in find_copies([tmp_path / "set"])] == [["wfdb/r1", "wfdb/r2"]]


@pytest.mark.parametrize(
    ("told", "same"),
    [
        ({}, True),
        ({"Age": "50"}, True),
        ({"Age": "51", "Sex": "Male"}, True),  # sources round ages as they like
        ({"Age": "53"}, False),
        ({"Sex": "Female"}, False),
    ],
)
def test_an_ecg_of_another_person_is_no_copy(tmp_path, told, same):
    (ecg,) = simulate_records(1, seed=5, rate=500, seconds=10)
    for name, comments in (("one", {"Age": "50", "Sex": "Male"}), ("two", told)):
        lines = ["Dx: 426783006", *(f"{key}: {value}" for key, value in comments.items())]
        write_record(tmp_path / "wfdb", name, ecg.signal, LEADS, 500, lines)
    prepare("wfdb", tmp_path / "wfdb", tmp_path / "set", workers=1)
    assert len(find_copies([tmp_path / "set"])) == same


def test_a_copy_is_read_once_and_never_learnt_if_it_is_tested_on(two_sets):
    # a: 8 test, 9 train, 10 validation, 11 test; b: 8 train, 9 validation, 10 test, 11 train
    assert left_out(two_sets) == {two_sets[0]: {"a/a09", "a/a10"}, two_sets[1]: {"b/b08", "b/b11"}}
    read = {split: load_arrays(two_sets, split).ids for split in SPLITS}
    everything = [name.split("/")[1][1:] for ids in read.values() for name in ids]
    assert sorted(everything) == [f"{number:02d}" for number in range(20)]
    assert not {"a/a09", "b/b08", "b/b11"} & set(read["train"])
    assert {"a/a08", "b/b10", "a/a11"} <= set(read["test"])
    for split in SPLITS:
        assert len(read_labels(two_sets, split, "rhythm4")) == len(read[split])
        batches = list(load(two_sets, split, "rhythm4", batch_size=3).as_numpy_iterator())
        streamed = np.concatenate([signal for signal, _ in batches])
        np.testing.assert_array_equal(streamed, load_arrays(two_sets, split).signals)


def test_what_another_set_tests_on_is_not_learnt(two_sets):
    task = {"name": "sinus", "classes": {"sinus": ["SR"], "none": ["-"]}}
    for data, test_data, copies in (
        (two_sets[0], two_sets[1], {"a/a10"}),
        (two_sets[1], two_sets[0], {"b/b08", "b/b11"}),
    ):
        splits = read_splits(data, test_data, get_task(task), 0)
        whole = read_splits(data, None, get_task(task), 0)
        for part, all_of_it in zip(splits[:2], whole[:2], strict=True):
            assert part.ids == [id_ for id_ in all_of_it.ids if id_ not in copies]
        assert splits[2].ids == read_splits(test_data, None, get_task(task), 0)[2].ids


def test_of_equals_the_one_in_the_set_given_first_is_read(two_sets):
    same = left_out([two_sets[1], two_sets[0]])
    assert same == left_out(two_sets)  # here the splits decide
    assert load_arrays(two_sets, "train").sources == ["a"] * 3 + ["b"] * 2


def test_info_reports_them(two_sets):
    about = info(two_sets, "rhythm4")
    assert about["copies"]["groups"] == about["copies"]["across_splits"] == about["copies"]["left_out"] == 4
    assert ["a/a09 (train of a)", "b/b09 (validation of b)"] in about["copies"]["examples"]
    assert about["records"] == 20
    assert sum(sum(split["classes"].values()) for split in about["splits"].values()) == 20


def test_a_damaged_fingerprint_is_one_line(two_sets, tmp_path):
    import shutil

    damaged = tmp_path / "a"
    shutil.copytree(two_sets[0], damaged)
    text = (damaged / "records.csv").read_text()
    row = text.splitlines()[1].split(",")
    (damaged / "records.csv").write_text(text.replace(row[9], "xyz"))
    with pytest.raises(ValueError, match=r"a fingerprint or age in .*records\.csv is damaged"):
        find_copies([damaged])


def test_commands_say_how_many_are_left_out(two_sets, capsys):
    for given, quiet, told in (
        (two_sets, False, "several of these sets: 4 records left out"),
        (two_sets, True, ""),
        (two_sets[:1], False, ""),
    ):
        say_copies(given, quiet)
        printed = capsys.readouterr().out
        assert told in printed if told else not printed


def test_a_copy_of_a_tested_ecg_is_not_learnt_beside_the_real_records(two_sets, tmp_path):
    """Copies stand in the test split of `a` and in the training split of `b`: 8 and 11; vice versa: 10 in a validation split."""
    a, b = two_sets
    options = {"out": tmp_path / "run", "preset": "tiny", "steps": 1, "allow_empty": True, "bootstrap": 0, "quiet": True}
    for learn in (
        lambda **sets: train_classifier("resnet1d", a, **sets, **options),
        lambda **sets: finetune(a, **sets, **options),
    ):
        with pytest.raises(
            LeakError, match=r"^2 of the ECGs to learn beside the real ones are tested on, .* b/b08\): leave them out"
        ):
            learn(synthetic=b)
    with pytest.raises(LeakError, match=r"^2 of the ECGs"):
        finetune(a, rehearse=b, **options)
    with pytest.raises(LeakError, match=r"^1 of the ECGs .* a/a10\)"):
        finetune(b, synthetic=a, **options)
    assert not (tmp_path / "run").exists()
    train_classifier("resnet1d", b, synthetic=a, **options)  # whose validation split is not learnt
