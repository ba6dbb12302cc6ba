"""Records that stand in a data set, or in several that are used as one, more than once (no TensorFlow).

Collections contain each other: the PhysioNet/CinC challenges ship PTB-XL's records, Ningbo's and Chapman's. Used together, such
a record would be learnt twice, and tested on after it was learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from pathlib import Path

from scipy.cluster.hierarchy import DisjointSet

from ecgtf.ecg import SPLITS
from ecgtf.fingerprint import copies
from ecgtf.manifest import Folders, read_manifests
from ecgtf.record_table import read_columns


@dataclass(frozen=True)
class Place:
    """Where a record stands."""

    folder: Path
    split: str
    id: str


def find_copies(folders: Folders) -> list[tuple[Place, ...]]:
    """Groups of places that hold the same ECG, by the fingerprints in the tables of records.

    Fingerprints agree by chance too, once in some 10^8 pairs (two simulated tachycardias on a wandering baseline, of 20,000 records):
    records of which the sex or the age is told and differs are no copies.

    A set without a table of records (a synthetic one) has no fingerprints: it takes no part.

    Raises:
        ValueError: as `read_manifests`, or if a table of records is damaged.
    """
    tables = [
        (folder / manifest.table["file"], manifest.table["sha256"])
        for folder, manifest in read_manifests(folders)
        if manifest.table
    ]
    return _groups(tuple(tables))


def left_out(folders: Folders, *, single: bool = False) -> dict[Path, frozenset[str]]:
    """Ids by folder of the records that are not read when several sets are used as one, because they are read elsewhere.

    Of records with the same ECG one is read: one of the test split before one of the validation split before one of the training
    split, so that nothing that is tested on was learnt; of equals that of the set given first. A single set is read as it is unless
    `single` asks for its copies too.

    Raises:
        ValueError: as `find_copies`.
    """
    sets = read_manifests(folders)
    found: dict[Path, set[str]] = {folder: set() for folder, _ in sets}
    if len(sets) > 1 or single:
        for group in find_copies(folders):
            first = max(group, key=lambda place: SPLITS.index(place.split))  # the first of equals
            for place in group:
                if place != first:
                    found[place.folder].add(place.id)
    return {folder: frozenset(ids) for folder, ids in found.items()}


@lru_cache(maxsize=8)
def _groups(tables: Sequence[tuple[Path, str]]) -> list[tuple[Place, ...]]:
    """The groups in these tables; their checksums are only there to know them again."""
    places, prints, persons = [], [], []
    for path, _ in tables:
        columns = read_columns(path, ("split", "id", "fingerprint", "age", "sex"))
        places += [Place(path.parent, split, id_) for split, id_ in zip(columns["split"], columns["id"], strict=True)]
        prints += columns["fingerprint"]
        persons += zip(columns["age"], columns["sex"], strict=True)
    try:
        pairs = [(i, j) for i, j in _pairs(prints, persons) if not _two_persons(persons[i], persons[j])]
    except ValueError as error:
        names = ", ".join(str(path) for path, _ in tables)
        raise ValueError(f"a fingerprint or age in {names} is damaged: {error}") from error
    same = DisjointSet({place for pair in pairs for place in pair})
    for i, j in pairs:
        same.merge(i, j)
    return [tuple(places[member] for member in group) for group in sorted(map(sorted, same.subsets()))]


def _pairs(prints: Sequence[str], persons: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """Places whose fingerprints agree. Of equal ones of the same age and sex each stands with the first; others all with each other,
    for whoever came first may be the odd one out."""
    alike: dict[str, dict[tuple[str, str], int]] = {}
    for place, (text, person) in enumerate(zip(prints, persons, strict=True)):
        first = alike.setdefault(text, {}).setdefault(person, place)
        if first != place:
            yield first, place
    groups = [list(firsts.values()) for firsts in alike.values()]
    for group in groups:
        yield from combinations(group, 2)
    for i, j in copies(list(alike)):
        yield from product(groups[i], groups[j])


def _two_persons(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether (age, sex) of two records contradict each other; ages by more than a year, for sources round them as they like."""
    (age, sex), (other_age, other_sex) = one, other
    if sex and other_sex and sex != other_sex:
        return True
    return bool(age and other_age) and abs(float(age) - float(other_age)) > 1
