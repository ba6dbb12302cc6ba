"""Training, validation and test records where the source does not say: by patient, balanced over diagnosis codes, seeded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from ecgtf.ecg import SPLITS, Record

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def assign_splits(records: Sequence[Record], seed: int = 0) -> list[str]:
    """The split of each record: the source's own where it gives one, else about `FRACTIONS` of every diagnosis code.

    Records of one patient stay together (a record without patient is a patient of its own). Patients are dealt out one by one,
    those with the rarest codes first, each to the split that lacks most of its rarest code, as in iterative stratification
    (Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011); their order is a hash of seed and name, so
    that it depends on nothing else. A code of which there is too little for all splits goes to the training first, and every
    code has at least one record there. A validation or test split that none came to gets a patient whose codes others in the
    training have too, if there is one.

    Raises:
        ValueError: if the source gives two records of one patient different splits.
    """
    patients: dict[str, list[Record]] = {}
    for record in records:
        patients.setdefault(_key(record), []).append(record)
    splits, codes = {}, {}
    for key, group in patients.items():
        given = {record.split for record in group if record.split}
        if len(given) > 1:
            raise ValueError(
                f"patient {group[0].patient} is in {' and '.join(sorted(given))}; expected one split for each patient"
            )
        splits[key] = given.pop() if given else None
        codes[key] = Counter(code for record in group for code in set(record.codes) or {""})
    free = {key for key, split in splits.items() if split is None}
    if free:
        frequency = sum((codes[key] for key in free), Counter())
        rarest = {key: min(codes[key], key=lambda code: (frequency[code], code)) for key in free}
        order = sorted(free, key=lambda key: (frequency[rarest[key]], rarest[key], _hash(seed, key)))
        lack = {split: {code: part * count for code, count in frequency.items()} for split, part in FRACTIONS.items()}
        total = {split: part * sum(frequency.values()) for split, part in FRACTIONS.items()}
        for key in order:
            splits[key] = max(SPLITS, key=lambda split: (lack[split][rarest[key]], total[split]))
            total[splits[key]] -= codes[key].total()
            for code, count in codes[key].items():
                lack[splits[key]][code] -= count
        _fill_training(order, splits, codes)
        _fill_empty_splits(order, splits, codes)
    return [splits[_key(record)] for record in records]


def _fill_training(order: list[str], splits: dict[str, str], codes: dict[str, Counter]) -> None:
    """Moves a patient to the training for each code that it lacks; this takes no code away from it."""
    trained = {code for key, split in splits.items() if split == "train" for code in codes[key]}
    for key in order:
        if not trained.issuperset(codes[key]):
            splits[key] = "train"
            trained.update(codes[key])


def _fill_empty_splits(order: list[str], splits: dict[str, str], codes: dict[str, Counter]) -> None:
    """Moves one patient to a validation or test split that has none, if the training keeps a patient of each of its codes."""
    carriers = Counter(code for key, split in splits.items() if split == "train" for code in codes[key])
    for split in SPLITS[1:]:
        if split in splits.values():
            continue
        spare = [key for key in reversed(order) if splits[key] == "train" and all(carriers[code] > 1 for code in codes[key])]
        if spare:
            splits[spare[0]] = split
            carriers.subtract(set(codes[spare[0]]))


def _key(record: Record) -> str:
    return f"patient {record.patient}" if record.patient else f"record {record.id}"


def _hash(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()
