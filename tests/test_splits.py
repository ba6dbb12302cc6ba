from collections import Counter
from dataclasses import replace

import pytest

from ecgtf.data_prep.splits import assign_splits
from ecgtf.ecg import Record


def records_of(**counts):
    return [Record(f"{code}{number}", (code,)) for code, count in counts.items() for number in range(count)]


def table(records, splits):
    """`{code: Counter of splits}`."""
    found = {}
    for record, split in zip(records, splits, strict=True):
        for code in record.codes:
            found.setdefault(code, Counter())[split] += 1
    return found


def test_eighty_ten_ten_of_every_code():
    records = records_of(SR=700, AFIB=100, AFLT=10)
    assert table(records, assign_splits(records)) == {
        "SR": {"train": 560, "validation": 70, "test": 70},
        "AFIB": {"train": 80, "validation": 10, "test": 10},
        "AFLT": {"train": 8, "validation": 1, "test": 1},
    }


def test_several_codes_on_a_record():
    records = [Record(f"{n}", ("SR",) if n % 3 else ("AFIB", "LVH") if n % 2 else ("AFIB",)) for n in range(600)]
    found = table(records, assign_splits(records))
    for code, total in (("SR", 400), ("AFIB", 200), ("LVH", 100)):
        assert abs(found[code]["train"] - 0.8 * total) <= 1
        assert abs(found[code]["test"] - 0.1 * total) <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rare_codes_are_in_the_training(count):
    records = records_of(SR=50, PACE=count)
    assert table(records, assign_splits(records))["PACE"]["train"] >= 1
    with_common = [replace(record, codes=(*record.codes, "NORM")) for record in records]
    assert table(records, assign_splits(with_common))["PACE"]["train"] >= 1


def test_the_training_gets_a_code_that_the_source_gave_to_the_test_only_if_it_may():
    given = [Record("t", ("RARE",), split="test"), Record("u", ("RARE",)), *records_of(SR=20)]
    splits = assign_splits(given)
    assert splits[:2] == ["test", "train"]


def test_no_split_is_empty_when_three_records_can_be_spared():
    records = records_of(SR=2, AFIB=2, SB=1)
    splits = assign_splits(records)
    assert set(splits) == {"train", "validation", "test"}
    assert all(found["train"] for found in table(records, splits).values())
    assert set(assign_splits(records_of(A=1, B=1, C=1))) == {"train"}  # each code needs its only record there


def test_records_of_a_patient_stay_together():
    records = [Record(f"{n}", ("SR" if n % 2 else "AFIB",), patient=f"p{n // 5}") for n in range(500)]
    splits = assign_splits(records)
    assert all(len(set(splits[first : first + 5])) == 1 for first in range(0, 500, 5))
    counts = Counter(splits)
    assert all(abs(counts[split] - wanted) <= 5 for split, wanted in (("train", 400), ("validation", 50), ("test", 50)))


def test_splits_of_the_source_stay_and_bind_the_patients_other_records():
    records = [Record("a", patient="p", split="test"), Record("b", patient="p"), Record("c", split="validation")]
    assert assign_splits(records) == ["test", "test", "validation"]
    with pytest.raises(ValueError, match="patient p is in test and train"):
        assign_splits([records[0], replace(records[1], split="train")])


def test_the_order_of_the_records_does_not_matter_and_the_seed_does():
    records = records_of(SR=80, AFIB=20)
    splits = assign_splits(records, seed=1)
    assert splits[::-1] == assign_splits(records[::-1], seed=1)
    assert splits != assign_splits(records, seed=2)


def test_records_without_codes():
    assert Counter(assign_splits([Record(f"{n}") for n in range(30)])) == {"train": 24, "validation": 3, "test": 3}
