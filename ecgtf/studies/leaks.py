"""The guard of a study: nothing that classifiers learn from may be, or have seen, a record to test on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecgtf.copies import find_copies
from ecgtf.dataset import LeakError, check_no_leak, combined_manifest, hash_id, read_ids, read_manifests
from ecgtf.ecg import SPLITS
from ecgtf.record_table import read_columns
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import StudyConfig
from ecgtf.studies.folds import group_of, one_person
from ecgtf.studies.sources import Workshop
from ecgtf.train_generator import start_run


def check_sources(workshop: Workshop, cells: Sequence[Cell]) -> None:
    """Refuses sources of the cells, and runs that generators start from, which are or saw records that the study may test on, or hold
    others of the same patients.

    Raises:
        LeakError: naming the first of them.
    """
    config, used = workshop.config, {stage for cell in cells for stage in cell.stages}
    members = [member for member in workshop.folds.members if config.folds or member.split == "test"]
    tested, groups = ({getattr(member, name) for member in members} for name in ("id", "group"))
    same = one_person(config.data_sets)
    for name in sorted(used & config.sources.keys()):
        data = config.sources[name].data
        made = combined_manifest(data).generator
        own = [hash_id(id_) for split in SPLITS for id_ in read_ids(data, split)]
        _refuse(f"source {name}", [*own, *(made["trained_on"] if made else ())], tested)
        _refuse_copies(f"source {name}", data, config)
        _refuse_patients(f"source {name}", data, groups, same)
    for name in sorted(used & config.generators.keys()):
        plan = config.generators[name]
        if plan.start is not None:
            _refuse(f"generator {name}, which starts from {plan.start},", start_run(plan.start, plan.kind).trained_on(), tested)


def _refuse(what: str, trained_on: Sequence[str], tested: set[str]) -> None:
    try:
        check_no_leak(trained_on, sorted(tested))
    except LeakError as error:
        raise LeakError(f"{what} leaks: {error}") from error


def _refuse_patients(what: str, data: Sequence[str], tested: set[str], same: dict[str, str]) -> None:
    """Refuses real records of patients that are tested on; what a generator drew, and what was simulated, tells of no patient."""
    for folder, manifest in read_manifests(data):
        if manifest.synthetic or not manifest.table:
            continue
        columns = read_columns(folder / manifest.table["file"], ("id", "patient"))
        groups = [group_of(id_, patient) for id_, patient in zip(columns["id"], columns["patient"], strict=True)]
        shared = [group for group in groups if same.get(group, group) in tested]
        if shared:
            raise LeakError(
                f"{what} leaks: {len(shared)} of its records are of patients that the study tests on (the first: {shared[0]}); "
                "leave them out"
            )


def _refuse_copies(what: str, data: Sequence[str], config: StudyConfig) -> None:
    collections = set(map(Path, config.data_sets))
    shared = [
        group
        for group in find_copies([*map(str, collections), *data])
        if {place.folder for place in group} & collections and {place.folder for place in group} - collections
    ]
    if shared:
        first = next(place.id for place in shared[0] if place.folder not in collections)
        raise LeakError(
            f"{what} leaks: {len(shared)} of its ECGs stand in the collections too (the first: {first}); leave them out"
        )
