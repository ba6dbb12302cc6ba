import csv
import json
import pickle
from ast import literal_eval
from pathlib import Path

import numpy as np
import pytest

from ecgtf.tasks import TASKS, get_task

DATA = Path(__file__).parents[2] / "shared" / "data"


def names(task: str, *records: list[str]) -> list[list[str]]:
    """The classes that each record's codes give."""
    task = get_task(task)
    return [[name for name, value in zip(task.classes, row, strict=True) if value] for row in task.labels(records)]


def test_classes_of_each_task():
    assert TASKS["rhythm4"].classes == ("SB", "AFIB", "GSVT", "SR")
    assert TASKS["rhythm7"].classes == ("SR", "SB", "ST", "SA", "AFIB", "AFLT", "SVT")
    assert " ".join(TASKS["rhythm12"].classes) == "SR AFIB STACH SARRH SBRAD PACE SVARR BIGU AFLT SVTAC PSVT TRIGU"
    assert TASKS["superclass"].classes == ("NORM", "MI", "STTC", "CD", "HYP")
    assert [task.multi_label for task in TASKS.values()] == [False, False, True, True, True]


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_table_and_precedence_cover_the_classes(task):
    assert set(task.codes.values()) == set(task.classes)
    assert sorted(task.precedence) == ([] if task.multi_label else sorted(task.classes))
    assert all(name in task.rule for name in task.precedence)
    assert pickle.loads(pickle.dumps(task)) == task


@pytest.mark.parametrize(
    ("rhythm7", "rhythm4", "codes"),
    [
        ("SR", "SR", "426783006 SR Normal NSR"),
        ("SB", "SB", "426177001 SBRAD"),
        ("ST", "GSVT", "427084000 STACH"),
        ("SA", "SR", "427393009 SARRH"),
        ("AFIB", "AFIB", "164889003 AFIB AF"),
        ("AFLT", "AFIB", "164890007 AFLT AFL"),
        ("SVT", "GSVT", "SVTAC PSVT 426761007 67198005 713422000 251166008 233896004 233897008"),
        (None, "GSVT", "17366009 195101003"),
        (None, None, "NORM 10370003 PACE 59118001 RBBB 428750005 164917005 SVARR BIGU"),
    ],
)
def test_rhythm_codes(rhythm7, rhythm4, codes):
    for task, expected in (("rhythm7", rhythm7), ("rhythm4", rhythm4)):
        found = names(task, *([code] for code in codes.split()))
        assert found == [[expected] if expected else []] * len(codes.split())


def test_one_rhythm_of_several_by_precedence_wherever_it_stands():
    assert names(
        "rhythm7", ["SR", "AFIB"], ["SBRAD", "SARRH"], ["428750005", "426761007", "427084000"], ["AFLT", "164889003"]
    ) == [
        ["AFIB"],
        ["SB"],
        ["SVT"],
        ["AFIB"],
    ]
    assert names("rhythm4", ["SR", "SBRAD"], ["STACH", "SBRAD"], ["STACH", "AFLT"]) == [["SB"], ["GSVT"], ["AFIB"]]


def test_rhythm4_is_rhythm7_merged():
    merged = {"SR": "SR", "SA": "SR", "SB": "SB", "ST": "GSVT", "SVT": "GSVT", "AFIB": "AFIB", "AFLT": "AFIB"}
    rng = np.random.default_rng(0)
    codes = [code for code in TASKS["rhythm7"].codes if ":" not in code and code in TASKS["rhythm4"].codes]
    records = [list(rng.choice(codes, size=rng.integers(1, 5))) for _ in range(200)]
    # `AFIB` and `SR` name classes of both tasks, so every code here has a class in both
    for seven, four in zip(names("rhythm7", *records), names("rhythm4", *records), strict=True):
        assert [merged[name] for name in seven] == four


def test_no_class_gives_a_row_of_zeros_and_no_record_no_rows():
    labels = TASKS["rhythm7"].labels([["LAD"], [], ["SR"]])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, [[0] * 7, [0] * 7, [1] + [0] * 6])
    assert TASKS["rhythm7"].labels([]).shape == (0, 7)


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_a_task_keeps_what_it_has_a_label_for_or_all_where_classes_may_be_none(task):
    for codes in ((), ("NORM",), ("AFIB", "nothing"), ("nothing",), *((code,) for code in task.codes)):
        assert task.keeps(codes) == bool(task.multi_label or task.labels([codes]).any())


def test_multi_label_tasks_keep_every_class():
    assert names("superclass", ["IMI", "LVH", "SR", "1AVB", "ASMI"], ["NORM"], ["SR"]) == [["MI", "CD", "HYP"], ["NORM"], []]
    assert names("rhythm12", ["SR", "BIGU"], ["10370003"], ["251180001", "AFLT"]) == [
        ["SR", "BIGU"],
        ["PACE"],
        ["AFLT", "TRIGU"],
    ]


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_stored_code_of_a_label_gives_the_label_back(task):
    rows = np.eye(len(task.classes), dtype=np.float32)
    if task.multi_label:
        rows = np.concatenate([rows, np.zeros_like(rows[:1]), np.ones_like(rows[:1])])
    np.testing.assert_array_equal(task.labels([task.code_of(row) for row in rows]), rows)


def test_synthetic_codes_count_in_other_tasks_only_where_they_are_certain():
    assert TASKS["rhythm4"].code_of([1, 0, 0, 0]) == ("rhythm4:SB",)
    assert names("rhythm7", ["rhythm4:SB"], ["rhythm4:AFIB"], ["rhythm4:SR"], ["rhythm4:GSVT"]) == [["SB"], [], [], []]
    sevens = [[f"rhythm7:{name}"] for name in TASKS["rhythm7"].classes]
    assert names("rhythm4", *sevens) == [["SR"], ["SB"], ["GSVT"], ["SR"], ["AFIB"], ["AFIB"], ["GSVT"]]
    assert names("rhythm12", ["rhythm7:AFLT"], ["rhythm7:SVT"]) == [["AFLT"], []]
    assert names("superclass", ["rhythm7:SR"]) == [[]]


def test_errors_name_the_choices():
    with pytest.raises(ValueError, match="'rhythm5'; expected one of rhythm4, rhythm7, rhythm12, native, superclass"):
        get_task("rhythm5")
    with pytest.raises(ValueError, match=r"shape \(4,\) for task rhythm4, received \(7,\)"):
        TASKS["rhythm4"].code_of(np.zeros(7))


def test_superclass_table_is_ptb_xls():
    path = DATA / "ptb-xl" / "scp_statements.csv"
    if not path.exists():
        pytest.skip(f"no PTB-XL statements at {path}")
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["diagnostic"] == "1.0"]
    assert len(rows) == 44
    assert {row[""]: row["diagnostic_class"] for row in rows} == {
        code: name for code, name in TASKS["superclass"].codes.items() if ":" not in code and code in {row[""] for row in rows}
    }
    extra = {code for code in TASKS["superclass"].codes if ":" not in code} - {row[""] for row in rows}
    assert extra == {"MI", "STTC", "CD", "HYP"}  # the classes themselves


def test_rhythm_tables_agree_with_the_challenges_and_chapmans():
    challenge = DATA / "snomed"
    if not challenge.exists():
        pytest.skip(f"no code tables at {challenge}")
    words = {}
    for name in ("dx_mapping_scored.csv", "dx_mapping_unscored.csv"):
        with (challenge / name).open(encoding="utf-8-sig") as file:
            words |= {row["Abbreviation"]: row["SNOMEDCTCode"] for row in csv.DictReader(file)}
    for task in ("rhythm4", "rhythm7", "rhythm12"):
        codes = TASKS[task].codes
        # an abbreviation and its SNOMED CT code say the same
        both = [(codes.get(word), codes.get(code)) for word, code in words.items() if word in codes]
        assert len(both) >= 7
        assert all(by_word == by_code for by_word, by_code in both)


def test_ptb_xl_rhythms_as_counted():
    path = DATA / "ptb-xl" / "ptbxl_database.csv"
    if not path.exists():
        pytest.skip(f"no PTB-XL table at {path}")
    with path.open(encoding="utf-8") as file:
        records = [list(literal_eval(row["scp_codes"])) for row in csv.DictReader(file)]
    counts = dict(
        zip(TASKS["rhythm12"].classes, TASKS["rhythm12"].labels(records).sum(axis=0).astype(int).tolist(), strict=True)
    )
    expected = {"SR": 779, "AFIB": 49, "SARRH": 30, "STACH": 25, "SBRAD": 17, "AFLT": 9, "PACE": 4}
    assert {name: counts[name] for name in expected} == expected


TOML = """
name = "af"
precedence = ["AF", "SR"]

[classes]
SR = ["426783006", "SR"]
AF = ["164889003", "AFIB"]
"""


def test_a_task_of_ones_own_from_toml_csv_and_its_own_reference(tmp_path):
    (tmp_path / "af.toml").write_text(TOML, encoding="utf-8")
    (tmp_path / "af.csv").write_text("\ufeffcode,class\nAFIB,AF\n164889003,AF\nSR,SR\n426783006,SR\n", encoding="utf-8")
    for file in ("af.toml", "af.csv"):
        task = get_task(tmp_path / file)
        assert (task.name, task.multi_label, task.precedence) == ("af", False, ("AF", "SR"))
        assert names(task, ["SR", "AFIB"], ["426783006"], ["LAD"], ["af:AF"]) == [["AF"], ["SR"], [], ["AF"]]
        assert get_task(json.loads(json.dumps(task.reference))) == task
    assert get_task(str(tmp_path / "af.toml")).classes == ("SR", "AF")  # as the file lists them
    (tmp_path / "blank.toml").write_text(TOML.replace('"AFIB"', '" AFIB "'), encoding="utf-8")
    assert names(get_task(tmp_path / "blank.toml"), ["AFIB"]) == [["AF"]]
    (tmp_path / "many.toml").write_text('multi_label = true\n[classes]\nA = ["1"]\nB = ["2"]\n', encoding="utf-8")
    assert names(get_task(tmp_path / "many.toml"), ["2", "1"], []) == [["A", "B"], []]
    assert TASKS["rhythm4"].reference == "rhythm4"
    (tmp_path / "numbers.toml").write_text('precedence = [2, 1]\n[classes]\n1 = ["a"]\n2 = ["b"]\n', encoding="utf-8")
    assert names(get_task(tmp_path / "numbers.toml"), ["a", "b"], ["a"]) == [["2"], ["1"]]


def test_records_of_built_in_tasks_count_in_a_task_of_ones_own_that_merges_their_classes(tmp_path):
    codes = [code for code in TASKS["rhythm4"].codes if TASKS["rhythm4"].codes[code] == "AFIB" and ":" not in code]
    lines = [f"{code},fast" for code in codes] + ["SBRAD,slow"]
    (tmp_path / "pace.csv").write_text("code,class\n" + "\n".join(lines) + "\n", encoding="utf-8")
    task = get_task(tmp_path / "pace.csv")
    assert names(task, ["rhythm4:AFIB"], ["rhythm7:AFLT"], ["rhythm4:SB"]) == [
        ["fast"],
        ["fast"],
        [],
    ]  # of SB only one code is there


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[classes]\nA = [1]\nB = ['2']\n", "list of codes, each a text in quotes, for class 'A'"),
        ("[classes]\nA = ['1']\n", "at least two classes"),
        ("classes = 3\n", "at least two classes"),
        ("[classes]\nA = ['1']\nB = ['1']\n", "code '1' has two classes, A and B"),
        ("precedence = ['A']\n[classes]\nA = ['1']\nB = ['2']\n", "expected precedence to name each class once"),
        ("precedence = 3\n[classes]\nA = ['1']\nB = ['2']\n", "expected precedence to name each class once"),
        ("multi_label = true\nprecedence = ['A', 'B']\n[classes]\nA = ['1']\nB = ['2']\n", "name no class"),
        ("name = 'rhythm4'\n[classes]\nA = ['1']\nB = ['2']\n", "a name of its own"),
        ("colour = 'red'\n[classes]\nA = ['1']\nB = ['2']\n", "found colour"),
        ("multi_label = 1\n[classes]\nA = ['1']\nB = ['2']\n", "true or false"),
        ("[classes\n", "own.toml: "),
    ],
)
def test_a_broken_task_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "own.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        get_task(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_table_of_a_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="it is not there"):
        get_task(tmp_path / "none.csv")
    for content, message in (("a,b\n1,2\n", "columns code and class, found a, b"), ("code,class\n1,\n2,B\n", "for class ''")):
        (tmp_path / "own.csv").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            get_task(tmp_path / "own.csv")
