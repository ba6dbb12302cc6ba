"""What `ecgtf info` tells of data sets: records by split and class, what a task leaves out, copies, rejected records, quality."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgtf.copies import Place, find_copies, left_out
from ecgtf.dataset import Folders, Manifest, combined_manifest, read_manifests, read_split_codes
from ecgtf.ecg import SPLITS, Rejection
from ecgtf.record_table import COLUMNS, read_columns
from ecgtf.tasks import Task, get_task


def info(folders: Folders, task: Task | str | None = None) -> dict[str, Any]:
    """What `ecgtf info --json` prints of a set, or of several as they are used together.

    Without a task each split has the counts of its diagnosis codes. With one it has `classes` (records of each), `excluded` (how
    many the task leaves out because none of their codes is a code of the task; none of a multi-label task), `excluded_codes`
    (which codes those carry) and `several` (how many have codes of several classes, by those classes). `copies` counts the
    records that stand more than once, and those that are left out of the counts for it; `rejected_reasons` what the preparation
    could not use; `quality` has the median, 95th percentile and largest value of each measure in the table of records.

    Raises:
        ValueError: as `read_labels`.
    """
    sets, manifest = read_manifests(folders), combined_manifest(folders)
    task = None if task is None else get_task(task)
    splits = {}
    for split in SPLITS:
        codes = read_split_codes(folders, split)
        splits[split] = {"records": len(codes), "shards": sum(len(part.shards(split)) for _, part in sets)}
        splits[split] |= {"codes": dict(sorted(_count(codes).items()))} if task is None else _by_class(codes, task)
    return {
        "name": manifest.name,
        "sampling_rate": manifest.sampling_rate,
        "seconds": manifest.seconds,
        "leads": list(manifest.leads),
        "records": sum(split["records"] for split in splits.values()),
        "rejected": manifest.rejected,
        "rejected_reasons": dict(sum((_reasons(folder) for folder, _ in sets), Counter()).most_common()),
        "synthetic": manifest.synthetic,
        "task": None if task is None else {"name": task.name, "rule": task.rule},
        "splits": splits,
        "sources": manifest.sources,
        "copies": _copies(folders),
        "quality": _quality(sets),
    }


def _count(codes: Sequence[tuple[str, ...]]) -> Counter[str]:
    """Records that carry each code."""
    return Counter(code for its in codes for code in set(its) or {"(none)"})


def _by_class(codes: Sequence[tuple[str, ...]], task: Task) -> dict[str, Any]:
    labels = task.labels(codes)
    excluded = [its for its in codes if not task.keeps(its)]
    present = [sorted({task.codes[code] for code in its if code in task.codes}, key=task.classes.index) for its in codes]
    several = Counter(" + ".join(names) for names in present if len(names) > 1)
    return {
        "classes": dict(zip(task.classes, labels.sum(axis=0).astype(int).tolist(), strict=True)),
        "excluded": len(excluded),
        "excluded_codes": dict(_count(excluded).most_common()),
        "several": dict(several.most_common()),
    }


def _reasons(folder: Path) -> Counter[str]:
    """Records that the preparation could not use, by kind of reason; none where it left no list."""
    try:
        with (folder / "rejected.csv").open(encoding="utf-8", newline="") as file:
            return Counter(Rejection(row["id"], row["reason"]).kind for row in csv.DictReader(file))
    except FileNotFoundError:
        return Counter()
    except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{folder / 'rejected.csv'} is damaged: expected the columns id and reason") from error


def _copies(folders: Folders) -> dict[str, Any]:
    """How many ECGs stand more than once, some of them, and how many records are not read for it."""

    def name(place: Place) -> str:
        return f"{place.id} ({place.split} of {place.folder.name})"

    groups = find_copies(folders)
    return {
        "groups": len(groups),
        "across_splits": sum(len({place.split for place in group}) > 1 for group in groups),
        "left_out": sum(len(ids) for ids in left_out(folders).values()),
        "examples": [[name(place) for place in group] for group in groups[:3]],
    }


def _quality(sets: Sequence[tuple[Path, Manifest]]) -> dict[str, dict[str, float]]:
    values: dict[str, list[str]] = {}
    for folder, manifest in sets:
        for name, column in (read_columns(folder / manifest.table["file"]) if manifest.table else {}).items():
            if name not in COLUMNS:
                values.setdefault(name, []).extend(column)
    summary = {}
    for name, column in values.items():
        numbers = np.array([value or "nan" for value in column], float)
        if not np.isnan(numbers).all():
            median, high = np.nanpercentile(numbers, (50, 95))
            summary[name] = {"median": float(median), "p95": float(high), "max": float(np.nanmax(numbers))}
    return summary
