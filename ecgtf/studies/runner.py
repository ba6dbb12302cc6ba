"""Runs a study: cell by cell into one table, from wherever an earlier start left it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ecgtf.augment import Augmentation
from ecgtf.dataset import LeakError, combined_manifest
from ecgtf.ecg import INDEPENDENT_LEADS
from ecgtf.progress import Progress
from ecgtf.quiet import import_tensorflow
from ecgtf.signals import heeding_interrupts
from ecgtf.studies.agreement import asked_for, check_folders, check_same, keep_settings, settings_of
from ecgtf.studies.cells import Cell, part_of, study_cells
from ecgtf.studies.config import StudyConfig
from ecgtf.studies.config_file import config_of
from ecgtf.studies.leaks import check_sources
from ecgtf.studies.page import write_report
from ecgtf.studies.results import Results, Row
from ecgtf.studies.sources import Workshop, check_supply
from ecgtf.studies.trials import Trials
from ecgtf.workers import run_in_turn

CELLS_PER_PROCESS = 24
"""TensorFlow keeps the graphs of past trainings, 20 to 50 MB a cell, as long as its process lives."""


def run_study(
    study: str,
    config: StudyConfig,
    out: str | Path,
    *,
    only: str | None = None,
    collect: Sequence[str | Path] = (),
    retry: bool = False,
    cells_per_process: int = CELLS_PER_PROCESS,
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
        cells_per_process: Cells after which a fresh process goes on, with the memory of the last one free again. GPU memory that
            the calling process holds is not there for it.
        quiet: Show no progress.

    Returns:
        The page.

    Raises:
        LeakError: if a generator or classifier to start from, or a ready source, saw records that the study tests on.
        ValueError: if the folder holds a study of other settings, or a setting is not possible.
        WorkerDied: if a process is killed, as where memory runs out.
    """
    out = Path(out)
    cells = study_cells(study, config)
    mine = part_of(cells, only)
    workshop, asked = check_study(study, config, out, cells)
    keep_settings((out, config.work_folder), asked)
    results = Results(out)
    _bring_in(results, collect, asked)
    if retry:
        names = {cell.name for cell in mine}
        results.forget({row.cell.name for row in results.rows() if row.error} & names)
    done = results.done(config)
    left = [cell for cell in mine if cell.name not in done]
    run = partial(_run_cell, Trials(workshop, study), results)
    with Progress(f"{study} study", len(left), "cells", quiet) as progress:
        for number, _ in enumerate(run_in_turn(run, left, cells_per_process, import_tensorflow), start=1):
            progress.update(number)
    if only is None:
        results.rewrite(cells)
    return write_report(out, study, config, cells)


def check_study(study: str, config: StudyConfig, out: Path, cells: Sequence[Cell]) -> tuple[Workshop, dict[str, Any]]:
    """Refuses what cannot be run, before anything is made; returns where things will be, and what was asked for.

    Raises:
        LeakError: as `run_study`.
        ValueError: as `run_study`.
    """
    asked = asked_for(study, config)
    check_folders(out, config.work_folder, asked)
    workshop = Workshop(config, quiet=True)
    check_sources(workshop, cells)
    check_supply(workshop, study, cells)
    _check_leads(config, cells)
    return workshop, asked


def _check_leads(config: StudyConfig, cells: Sequence[Cell]) -> None:
    """Refuses recipes that augment by what needs other leads than the collections have, and generators that model others."""
    leads = combined_manifest(config.data_sets).leads
    missing = [lead for lead in INDEPENDENT_LEADS if lead not in leads]
    trained = sorted(config.generators.keys() & {source for cell in cells for source in cell.stages})
    if missing and trained:
        raise ValueError(
            f"generators.{trained[0]}: a study's generators model the leads {', '.join(INDEPENDENT_LEADS)}, but the collections lack "
            f"{', '.join(missing)}: prepare them with these leads, or leave generators out of the grids"
        )
    for name in sorted({cell.recipe for cell in cells if cell.recipe}):
        try:
            Augmentation.parse(config.recipes[name].augment).check_leads(leads)
        except ValueError as error:
            raise ValueError(f"recipes.{name}: {error}") from error


def _run_cell(trials: Trials, results: Results, cell: Cell) -> None:
    """Adds a cell to the table, if no other process has: what it gave, or why it failed."""
    with trials.workshop.alone(f"cell-{trials.study}-{cell.name}"):
        if cell.name in results.done(trials.config):
            return
        started = time.monotonic()
        try:
            with heeding_interrupts():
                outcome = trials.run(cell)
        except (LeakError, OSError, MemoryError):  # no result of the cell's: a fault in the settings, or of the machine
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


def _bring_in(results: Results, others: Sequence[str | Path], asked: dict[str, Any]) -> None:
    """Adds the cells of other folders of the same study that `results` does not have; one that failed here gives way.

    Raises:
        ValueError: if a folder holds no study, or one of other settings.
    """
    failed = {row.cell.name: bool(row.error) for row in results.rows()}
    for other in map(Path, others):
        check_same(other, asked, "collect parts of one study")
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
    content = settings_of(Path(out))
    config = config_of(content["settings"])
    return write_report(out, content["study"], config, study_cells(content["study"], config))
