"""Folds of a study's collections as data sets of their own: patients never cross them, and classes are spread evenly."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from sklearn.model_selection import StratifiedGroupKFold

from ecgtf.atomic import replacing_folder
from ecgtf.classifiers.examples import share, strata
from ecgtf.copies import find_copies, left_out
from ecgtf.dataset import Folders, LeakError, combined_manifest, finish_dataset, read_manifests, read_records, write_split
from ecgtf.ecg import SPLITS, Record
from ecgtf.record_table import read_columns
from ecgtf.studies.config import StudyConfig


@dataclass(frozen=True)
class Member:
    """A record of a collection and what decides on its fold."""

    collection: str
    folder: Path
    split: str
    """In the data set that it is of."""
    id: str
    group: str
    """Patient, by this record or by a copy of it, or, where none is known, record."""
    label: tuple[float, ...]


@dataclass(frozen=True)
class Folds:
    """Where each record of each collection stands, fold by fold."""

    config: StudyConfig
    members: tuple[Member, ...]
    splits: tuple[dict[str, str], ...]
    """For each fold, the split of each record's id."""

    def of(self, collection: str, fold: int, split: str) -> list[Member]:
        """The members of a split of a collection (or of the merged one) in a fold."""
        names = self.config.collections if collection == self.config.merged else (collection,)
        return [member for member in self.members if member.collection in names and self.splits[fold][member.id] == split]


def make_folds(config: StudyConfig) -> Folds:
    """Deals the records of all collections to folds.

    Each fold tests on its share of every collection; of the rest, a share (`config.validation`) is for validation. Records that
    stand in several collections are read once.

    Raises:
        LeakError: if a patient stands in two collections, or in two splits of the data sets' own.
        ValueError: if a data set is missing or synthetic, sets do not fit together, an id stands twice, or a class of a collection
            that is trained on is missing in a fold's training records.
    """
    members = tuple(_members(config))
    names = [member.id for member in members]
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"record {double} stands in two data sets; expected collections that share no record")
    if not config.folds:
        return _checked(Folds(config, members, ({member.id: member.split for member in members},)))
    splits: list[dict[str, str]] = [{} for _ in range(config.folds)]
    for collection in config.collections:
        mine = [member for member in members if member.collection == collection]
        for fold, (rest, test) in enumerate(_split(mine, config.folds, config.seed)):
            others = [mine[place] for place in rest]
            kept, held_out = next(_split(others, max(2, round(1 / config.validation)), config.seed))
            splits[fold] |= {mine[place].id: "test" for place in test}
            splits[fold] |= {others[place].id: "train" for place in kept}
            splits[fold] |= {others[place].id: "validation" for place in held_out}
    return _checked(Folds(config, members, tuple(splits)))


def _checked(folds: Folds) -> Folds:
    """The folds, if no patient is on two sides of one, and each has training records of every class where classes exclude each
    other: nothing can be trained otherwise."""
    config = folds.config
    for splits in folds.splits:
        side: dict[str, Member] = {}
        for member in folds.members:
            other = side.setdefault(member.group, member)
            if splits[member.id] != splits[other.id]:
                raise LeakError(
                    f"{member.group} has records on two sides of a fold, {other.id} of {other.collection} ({splits[other.id]}) and "
                    f"{member.id} of {member.collection} ({splits[member.id]}); "
                    "expected all on one: put them into one collection, and take folds above 0"
                )
    trained = dict.fromkeys(
        name for grids in config.grids.values() for grid in grids for name in grid.collections or config.all_collections
    )
    for collection in trained if not config.the_task.multi_label else ():
        for fold in range(len(folds.splits)):
            labels = np.array([member.label for member in folds.of(collection, fold, "train")])
            missing = [name for k, name in enumerate(config.the_task.classes) if not len(labels) or not labels[:, k].any()]
            if missing:
                raise ValueError(
                    f"{collection} has no training record of {', '.join(missing)} in fold {fold}; expected each class in every "
                    "fold: take fewer folds, more records, or another task"
                )
    return folds


def _members(config: StudyConfig) -> Iterator[Member]:
    sets, same = dict(read_manifests(config.data_sets)), one_person(config.data_sets)
    skipped, task = left_out(config.data_sets, single=True), config.the_task
    for collection, names in config.collections.items():
        for folder in map(Path, names):
            manifest = sets[folder]
            if manifest.synthetic:
                raise ValueError(f"{folder} is synthetic; collections are real: name it under [sources]")
            for split in SPLITS:
                for record in read_records(folder, split, manifest):
                    if record.id not in skipped[folder]:
                        label = tuple(task.labels([record.codes])[0].tolist())
                        group = group_of(record.id, record.patient)
                        yield Member(collection, folder, split, record.id, same.get(group, group), label)


def group_of(id_: str, patient: str | None) -> str:
    """What must not be divided: the patient, known by the source in the record's id (a collection may lie in several data sets) or,
    where none is known, the record."""
    return f"patient {patient} of {id_.split('/')[0]}" if patient else f"record {id_}"


def one_person(folders: Folders) -> dict[str, str]:
    """Groups that are one person's, each with the name of all: copies of an ECG name its patient in their own ways, or not at all."""
    patients: dict[tuple[Path, str], str] = {}
    for folder, manifest in read_manifests(folders):
        if manifest.table:
            columns = read_columns(folder / manifest.table["file"], ("id", "patient"))
            patients |= {(folder, id_): patient for id_, patient in zip(columns["id"], columns["patient"], strict=True)}
    same: DisjointSet[str] = DisjointSet()
    for copies in find_copies(folders):
        groups = [group_of(place.id, patients[place.folder, place.id]) for place in copies]
        for group in groups:
            same.add(group)
            same.merge(groups[0], group)
    return {group: min(subset) for subset in same.subsets() for group in subset}  # a patient's name before a record's


def _split(members: Sequence[Member], folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of the rest and of each fold; a record counts as one of its rarest class."""
    groups = [member.group for member in members]
    if len(set(groups)) < folds:
        raise ValueError(f"expected at least {folds} patients for {folds} folds, received {len(set(groups))}")
    classes = strata(np.array([member.label for member in members]))
    if (most := np.unique(classes, return_counts=True)[1].max()) < folds:
        raise ValueError(f"expected at least {folds} records of some class for {folds} parts, received {most}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        yield from StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(classes, classes, groups)


def write_fold(folds: Folds, collection: str, fold: int, fraction: float, folder: Path) -> Path:
    """A fold of a collection as a data set, with a stratified share of its training and validation records; the test records are whole.

    A share of the validation records alone goes with that of the training records: what saves labels saves them there too. Shares of the
    same study are nested. What is there already is left as it is.

    Raises:
        ValueError: if the fold has no training records.
    """
    if (folder / "dataset.json").is_file():
        return folder
    config = folds.config
    chosen = {split: folds.of(collection, fold, split) for split in SPLITS}
    if not chosen["train"]:
        raise ValueError(f"fold {fold} of {collection} has no training records")
    for split in ("train", "validation"):
        members = chosen[split]
        if fraction < 1 and members:
            labels = np.array([member.label for member in members])
            chosen[split] = [members[place] for place in share(labels, fraction, config.seed)]
    sets = {member.folder for members in chosen.values() for member in members}
    manifest = combined_manifest(sorted(sets))
    description = {
        "name": folder.name,
        "sampling_rate": manifest.sampling_rate,
        "seconds": manifest.seconds,
        "leads": manifest.leads,
        "sources": manifest.sources,
        "provenance": {"command": "study", "collection": collection, "fold": fold, "real_fraction": fraction},
    }
    with replacing_folder(folder) as unfinished:
        summaries = []
        for split, kept in chosen.items():
            summaries += write_split(unfinished, split, _records(kept), len(kept), manifest.leads, manifest.samples)
        finish_dataset(unfinished, description, summaries)
    return folder


def _records(members: Iterable[Member]) -> Iterator[Record]:
    """The members' records, read set by set; nothing but the current one is in memory."""
    wanted: dict[tuple[Path, str], set[str]] = {}
    for member in members:
        wanted.setdefault((member.folder, member.split), set()).add(member.id)
    for (folder, split), names in wanted.items():
        for record in read_records(folder, split):
            if record.id in names:
                yield replace(record, split=None)
