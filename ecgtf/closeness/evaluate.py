"""How close, how useful and how private synthetic ECGs are: every metric with its floor and interval, as numbers and as a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from ecgtf.atomic import check_free, remove_folder, write_json
from ecgtf.closeness.external import is_external
from ecgtf.closeness.loading import compare_arrays, compare_folders
from ecgtf.closeness.metrics import GROUPS, METRICS, Metric, is_worse
from ecgtf.ecg import LEADS
from ecgtf.manifest import listed, read_manifests
from ecgtf.progress import Progress
from ecgtf.signals import heeding_interrupts
from ecgtf.tasks import Task, get_task

if TYPE_CHECKING:
    from ecgtf.closeness.comparison import Comparison
    from ecgtf.closeness.results import Results

UNFINISHED = "unfinished.json"
"""Holds the groups that are done while an evaluation goes on."""


def evaluate(
    real: str | Path | list | np.ndarray,
    synthetic: str | Path | list | np.ndarray,
    *,
    task: str | Task | None = None,
    groups: str | Sequence[str] | None = None,
    extractor: str | Path | None = None,
    preset: str = "small",
    out: str | Path | None = None,
    overwrite: bool = False,
    max_records: int | None = None,
    rate: float = 100.0,
    leads: Sequence[str] = LEADS,
    seed: int = 0,
    quiet: bool = True,
) -> dict:
    """Compares synthetic with held-out real ECGs.

    A metric that cannot be computed says why and takes nothing from the others. With `out`, each group is kept when it is done:
    an evaluation that is stopped goes on from there when it is called again in the same way.

    Args:
        real: Folder(s) of real data sets, or an array `(records, time, leads)` in millivolts.
        synthetic: Folder(s) of synthetic data sets, an npz file or a folder of WFDB records that others made, or an array.
        task: What the classes are; by default the task of the generator, else rhythm7.
        groups: Which of `GROUPS` to compute (a sequence, or names with commas between them); all by default.
        extractor: Run folder of a classifier whose features the distribution group compares; by default one is trained on half of
            the real training people, with the budget of `preset`, and kept in `out`; the others give the floor.
        preset: Budget of the classifiers of the distribution and utility groups.
        out: Report folder: `closeness.json` and `index.html`.
        overwrite: Replace the report that is there.
        max_records: At most this many records of each part, drawn at random.
        rate, leads: Of arrays (data sets know theirs).
        seed: Of draws and classifiers.
        quiet: Show no progress.

    Returns:
        The content of `closeness.json` (see docs/formats.md); a metric that cannot be computed has the value None and a `reason`.

    Raises:
        ValueError: if the sets do not fit together, the generator or the extractor was trained on held-out records, or there is no
            such task, group or preset.
    """
    groups = GROUPS if groups is None else tuple(groups.split(",") if isinstance(groups, str) else groups)
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"unknown group {', '.join(unknown)}; expected some of {', '.join(GROUPS)}")
    if max_records is not None and max_records < 4:
        raise ValueError(f"expected a max_records of at least 4, received {max_records}")
    _check_preset(preset)
    if extractor is not None:
        _check_extractor(Path(extractor), out)
    if isinstance(real, np.ndarray) and isinstance(synthetic, np.ndarray):
        if task is not None:
            raise ValueError("arrays have no labels for a task; evaluate data sets, or an npz file, to compare classes")
        comparison = compare_arrays(real, synthetic, rate=rate, leads=tuple(leads), max_records=max_records, seed=seed)
    else:
        chosen = get_task(task or ("rhythm7" if isinstance(synthetic, np.ndarray) else _task_of(synthetic)))
        comparison = compare_folders(real, synthetic, chosen, max_records=max_records, seed=seed)
    if extractor is not None:
        _check_fits(Path(extractor), comparison)
    if out is not None:
        _make_folder(Path(out), overwrite)

    from ecgtf.closeness.contents import content, provenance, write
    from ecgtf.closeness.results import Results

    with TemporaryDirectory() as scratch:
        folder = Path(out or scratch)
        results = Results(comparison, folder, preset, None if extractor is None else Path(extractor), quiet)
        metrics = compute_metrics(results, groups, folder / UNFINISHED, provenance(results), quiet)
        found = content(results, metrics)
        if out is not None:
            write(results, found)
            (folder / UNFINISHED).unlink(missing_ok=True)
    return found


def compute_metrics(results: Results, groups: Sequence[str], kept: Path, settings: dict, quiet: bool) -> dict[str, dict]:
    """The metrics of all groups; those of groups that are done are kept in the file `kept` and taken from there."""
    done = _read_kept(kept, settings)
    write_json(kept, {"settings": settings, "groups": done})
    total = sum(len(METRICS[group]) for group in groups)
    with Progress("evaluating", total, "metrics", quiet) as progress:
        number = 0
        for group in groups:
            if group not in done:
                entries = {}
                for name, metric in METRICS[group].items():
                    progress.update(number + len(entries), name)
                    entries[name] = metric_entry(results, metric) | {"group": group}
                done[group] = entries
                write_json(kept, {"settings": settings, "groups": done})
            number += len(METRICS[group])
            progress.update(number, group)
    return {name: entry for group in groups for name, entry in done[group].items()}


def _read_kept(kept: Path, settings: dict) -> dict[str, dict]:
    """The groups in an unfinished report of the same settings.

    Raises:
        ValueError: if it is of other settings: the classifiers beside it are of those, too.
    """
    if not kept.exists():
        return {}
    try:
        content = json.loads(kept.read_text())
    except json.JSONDecodeError:
        content = {}
    there, asked = content.get("settings", {}), json.loads(json.dumps(settings))
    other = sorted(name for name in asked if there.get(name) != asked[name])
    if other:
        raise ValueError(
            f"{kept.parent} holds an unfinished report of other records or settings ({', '.join(other)}); "
            "use --overwrite to replace it, or name another --out"
        )
    return content["groups"]


def metric_entry(results: Results, metric: Metric) -> dict:
    """What is written of a metric: its numbers, or the reason why there are none."""
    about = {"unit": metric.unit, "better": metric.better, "label": metric.label}
    nothing = dict.fromkeys(("value", "floor", "low", "high", "gap_low", "gap_high"))
    try:
        with heeding_interrupts():
            found = metric.compute(results)
    except ValueError as error:
        return nothing | about | {"worse": None, "reason": str(error)}
    except Exception as error:  # a long evaluation is not lost for one number
        return nothing | about | {"worse": None, "reason": f"failed with {type(error).__name__}: {error}"}
    # JSON knows no NaN
    entry = nothing | {
        key: float(number) if number is not None and math.isfinite(number) else None for key, number in found.items()
    }
    for end in ("low", "high"):  # an interval from a spread may leave what is possible
        entry[end] = None if entry[end] is None else min(max(entry[end], metric.least), metric.most)
    entry |= about | {"worse": is_worse(entry, metric.better, metric.resolution)}
    return entry if entry["value"] is not None else entry | {"reason": "no record has what is measured"}


def _check_preset(preset: str) -> None:
    """Refuses a budget that does not exist before a report is replaced; the metrics would only say why they are missing."""
    from ecgtf.classifiers.networks import check_kind

    check_kind("resnet1d", preset)


def _check_extractor(extractor: Path, out: str | Path | None) -> None:
    """Refuses what is no classifier, and one that would be replaced with the report that it lies in."""
    from ecgtf.classifiers.networks import classifier_run

    classifier_run(extractor)
    if out is not None and Path(out).resolve() in extractor.resolve().parents:
        raise ValueError(f"the extractor {extractor} lies in the report folder {out} itself; name another --out")


def _check_fits(extractor: Path, comparison: Comparison) -> None:
    """Refuses an extractor that was trained on reference records or takes other signals, before a report is replaced."""
    from ecgtf.closeness.utility import load_extractor

    load_extractor(extractor, comparison)


def _make_folder(out: Path, overwrite: bool) -> None:
    """Makes the report folder; what an interrupted evaluation left in it is used again, unless `overwrite`.

    Raises:
        ValueError: if it holds a report (unless `overwrite`) or something else.
    """
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    finished = "closeness.json" in names and UNFINISHED not in names
    ours = finished or bool(names & {UNFINISHED, "extractor", "trained_on_real"})
    check_free(out, "report", lambda: ours, overwrite or not finished)
    if overwrite and names:
        remove_folder(out)
    out.resolve().mkdir(parents=True, exist_ok=True)  # also where a link leads to nothing


def _task_of(synthetic: str | Path | list) -> str:
    """The task of the generator behind a synthetic set."""
    folders = listed(synthetic)
    if is_external(folders[0]):
        return "rhythm7"
    made = read_manifests(folders)[0][1].generator
    return (made or {}).get("task", "rhythm7")
