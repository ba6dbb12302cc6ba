"""Runs a study: cell by cell into one table, from wherever an earlier start left it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecgtf.atomic import sha256, write_json
from ecgtf.copies import find_copies
from ecgtf.dataset import LeakError, check_no_leak, combined_manifest, hash_id, read_ids
from ecgtf.ecg import SPLITS
from ecgtf.progress import Progress
from ecgtf.run_folder import versions
from ecgtf.studies.cells import Cell, part_of, study_cells
from ecgtf.studies.config import StudyConfig, config_of
from ecgtf.studies.page import write_report
from ecgtf.studies.results import TABLE, Results, Row
from ecgtf.studies.sources import Workshop
from ecgtf.studies.trials import Trials
from ecgtf.train_generator import start_run

SETTINGS = "study.json"


def run_study(
    study: str,
    config: StudyConfig,
    out: str | Path,
    *,
    only: str | None = None,
    collect: Sequence[str | Path] = (),
    retry: bool = False,
    quiet: bool = False,
) -> Path:
    """Runs the cells that are not done yet, and writes tables, figures and the page of what is there.

    Args:
        study: `augmentation` or `transfer`.
        config: The study's settings.
        out: Report folder; a study of the same settings that is there goes on.
        only: `I/N` runs the I-th of N parts; parts may write to the same folder at the same time, or to folders of their own.
        collect: Such folders, whose cells are brought in first.
        retry: Run cells again that failed before.
        quiet: Show no progress.

    Returns:
        The page.

    Raises:
        LeakError: if a generator or classifier to start from, or a ready source, saw records that the study tests on.
        ValueError: if the folder holds a study of other settings, or a setting is not possible.
    """
    out = Path(out)
    cells = study_cells(study, config)
    mine = part_of(cells, only)
    asked = _asked(study, config)
    _check_folders(out, config.work_folder, asked)
    workshop = Workshop(config, quiet=True)
    check_sources(workshop, cells)
    for folder in (out, config.work_folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, asked | {"versions": versions()})
    results = Results(out)
    _bring_in(results, collect, asked)
    if retry:
        names = {cell.name for cell in mine}
        results.forget({row.cell.name for row in results.rows() if row.error} & names)
    done = results.done(config)
    left = [cell for cell in mine if cell.name not in done]
    trials = Trials(workshop, study)
    with Progress(f"{study} study", len(left), "cells", quiet) as progress:
        for number, cell in enumerate(left, start=1):
            _run_cell(trials, cell, results)
            progress.update(number)
    if only is None:
        results.rewrite(cells)
    return write_report(out, study, config, cells)


def _run_cell(trials: Trials, cell: Cell, results: Results) -> None:
    """Adds a cell to the table, if no other process has: what it gave, or why it failed."""
    with trials.workshop.alone(f"cell-{trials.study}-{cell.name}"):
        if cell.name in results.done(trials.config):
            return
        started = time.monotonic()
        try:
            outcome = trials.run(cell)
        except (LeakError, OSError):  # no result of the cell's: a fault in the settings, or of the machine
            raise
        except Exception as error:  # TensorFlow's errors share no other base class
            results.append([Row(cell, cell.collection, error=_one_line(error))])
            return
        for row, predictions in outcome:
            results.save_predictions(cell, row.test_on, predictions)
        results.append([row for row, _ in outcome])
        results.note_seconds(cell, time.monotonic() - started)


def _one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def check_sources(workshop: Workshop, cells: Sequence[Cell]) -> None:
    """Refuses sources of the cells, and runs that generators start from, which are or saw records that the study may test on.

    Raises:
        LeakError: naming the first of them.
    """
    config, used = workshop.config, {stage for cell in cells for stage in cell.stages}
    tested = {member.id for member in workshop.folds.members}
    if not config.folds:
        tested = {member.id for member in workshop.folds.members if member.split == "test"}
    for name in sorted(used & config.sources.keys()):
        data = config.sources[name].data
        made = combined_manifest(data).generator
        own = [hash_id(id_) for split in SPLITS for id_ in read_ids(data, split)]
        _refuse(f"source {name}", [*own, *(made["trained_on"] if made else ())], tested)
        _refuse_copies(f"source {name}", data, config)
    for name in sorted(used & config.generators.keys()):
        plan = config.generators[name]
        if plan.start is not None:
            _refuse(f"generator {name}, which starts from {plan.start},", start_run(plan.start, plan.kind).trained_on(), tested)


def _refuse(what: str, trained_on: Sequence[str], tested: set[str]) -> None:
    try:
        check_no_leak(trained_on, sorted(tested))
    except LeakError as error:
        raise LeakError(f"{what} leaks: {error}") from error


def _refuse_copies(what: str, data: Sequence[str], config: StudyConfig) -> None:
    collections = {Path(folder) for folders in config.collections.values() for folder in folders}
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


def _asked(study: str, config: StudyConfig) -> dict[str, Any]:
    """What results depend on: the study, its settings, and its data sets by the checksums of their manifests."""
    folders = [folder for folders in config.collections.values() for folder in folders]
    folders += [folder for source in config.sources.values() for folder in source.data]
    sums = {str(folder): sha256(Path(folder) / "dataset.json") for folder in folders if Path(folder, "dataset.json").is_file()}
    return json.loads(json.dumps({"study": study, "settings": config.as_dict(), "data": sums}))


def _check_folders(out: Path, work: Path, asked: dict[str, Any]) -> None:
    """Refuses folders that hold something else than what was asked for; what has no results yet may be of other settings.

    Raises:
        ValueError: if one does.
    """
    if (out / TABLE).is_file():
        _check_same(out, asked, "name another --out")
    elif out.exists() and any(path.name != SETTINGS for path in out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no study; name another --out")
    if (work / SETTINGS).is_file() and (work / "folds").is_dir():
        _check_same(
            work, asked | {"study": _settings_of(work)["study"]}, "name another folder by the setting work, or delete it"
        )


def _check_same(folder: Path, asked: dict[str, Any], advice: str) -> None:
    """Refuses a folder whose cells depend on other settings than those asked for; grids may differ.

    Raises:
        ValueError: naming the first of them.
    """
    there = _settings_of(folder)
    for name in ("study", "task", "collections", "merge", "folds", "validation", "seed", "pool_per_class"):
        old, new = (content["settings"].get(name, content.get(name)) for content in (there, asked))
        if old != new:
            raise ValueError(f"{folder} holds a study of another {name} ({old} there, {new} now): {advice}")
    for name in ("recipes", "sources", "generators"):
        old, new = there["settings"].get(name, {}), asked["settings"][name]
        changed = [part for part in old if part in new and old[part] != new[part]]
        if changed:
            raise ValueError(
                f"{folder} holds a study with other {name}: {changed[0]} was {old[changed[0]]}, is {new[changed[0]]}: "
                f"give it another name, or {advice}"
            )
    for data, checksum in asked["data"].items():
        if there.get("data", {}).get(data, checksum) != checksum:
            raise ValueError(f"{folder} holds a study of other records: {data} was prepared anew since: {advice}")


def _bring_in(results: Results, others: Sequence[str | Path], asked: dict[str, Any]) -> None:
    """Adds the cells of other folders of the same study that `results` does not have; one that failed here gives way.

    Raises:
        ValueError: if a folder holds no study, or one of other settings.
    """
    failed = {row.cell.name: bool(row.error) for row in results.rows()}
    for other in map(Path, others):
        _check_same(other, asked, "collect parts of one study")
        there = Results(other)
        by_cell: dict[Cell, list[Row]] = {}
        for row in there.rows():
            by_cell.setdefault(row.cell, []).append(row)
        for cell, rows in by_cell.items():
            fails = any(row.error for row in rows)
            if cell.name in failed and (fails or not failed[cell.name]):
                continue
            results.forget({cell.name} & failed.keys())
            for row in rows:
                if not row.error:
                    results.save_predictions(cell, row.test_on, there.predictions(cell, row.test_on))
            results.append(rows)
            failed[cell.name] = fails


def rebuild(out: str | Path) -> Path:
    """Writes the tables, figures and page of a study again from its results; returns the page.

    Raises:
        ValueError: if the folder holds no study, or its results are damaged.
    """
    content = _settings_of(Path(out))
    config = config_of(content["settings"])
    return write_report(out, content["study"], config, study_cells(content["study"], config))


def _settings_of(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"{folder} holds no study: {SETTINGS} is missing")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): take it from another part of the study, or name another --out"
        ) from error
