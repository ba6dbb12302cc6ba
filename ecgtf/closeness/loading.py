"""Reads what is compared: folders of data sets, sets that others made, or plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecgtf.closeness.comparison import Comparison, Part, joined, part_of
from ecgtf.closeness.external import is_external, read_external
from ecgtf.dataset import check_no_leak, combined_manifest, load_arrays, read_manifests
from ecgtf.ecg import SPLITS
from ecgtf.manifest import listed
from ecgtf.tasks import Task

LEAST_TEST_RECORDS = 100
"""With fewer test records the validation records are added to the reference."""


def compare_folders(
    real: str | Path | list, synthetic: str | Path | list, task: Task, *, max_records: int | None = None, seed: int = 0
) -> Comparison:
    """A comparison of data sets in folders.

    Args:
        real: Folder (or a list of them) of real sets.
        synthetic: Folder (or a list) of synthetic sets, an npz file, or a folder of WFDB records (see `read_external`).
        task: What the classes are.
        max_records: At most this many records of each part, drawn at random.
        seed: Of the draws.

    Raises:
        ValueError: if they differ in rate, seconds or leads, a part is empty, or the generator was trained on held-out records.
    """
    if isinstance(real, np.ndarray) or isinstance(synthetic, np.ndarray):
        raise ValueError("give two arrays or two data sets, not one of each")
    real, synthetic = map(listed, (real, synthetic))
    for folder, described in read_manifests(real):
        if described.synthetic:
            raise ValueError(f"{folder} is a synthetic set; expected a real one to compare with (are the two swapped?)")
    manifest = combined_manifest(real)
    train, test = (part_of(load_arrays(real, split, task)) for split in ("train", "test"))
    held_out, reference = ["test"], test
    if len(test) < LEAST_TEST_RECORDS:
        held_out, reference = ["validation", "test"], joined([part_of(load_arrays(real, "validation", task)), test])
    if len(synthetic) > 1 and any(is_external(path) for path in synthetic):
        raise ValueError("expected one npz file or folder of WFDB records, or data sets; received several of them")
    if is_external(synthetic[0]):
        (made, about_made), seen = read_external(synthetic[0], manifest, task), None
    else:
        made, about_made, seen = _read_synthetic(real, synthetic, task, reference)
    for name, part in (("training", train), ("held-out", reference), ("synthetic", made)):
        if len(part) < 2:
            raise ValueError(f"expected at least 2 {name} records with a class of task {task.name}, received {len(part)}")
    about_made["without_records_of"] = _missing(train, reference, made, task)
    about = {
        "real": {"name": manifest.name, "train": len(train), "reference": len(reference), "reference_splits": held_out},
        "synthetic": about_made,
        "task": task.name,
        "sampling": _sampling_rule(max_records, classes=made.labels is not None),
    }
    parts = [_limited(part, max_records, seed) for part in (train, reference, made)]
    return Comparison(*parts, manifest.sampling_rate, tuple(manifest.leads), task.classes, task, about, seed, seen)


def compare_arrays(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    rate: float,
    leads: tuple[str, ...],
    max_records: int | None = None,
    seed: int = 0,
) -> Comparison:
    """A comparison of plain arrays `(records, time, leads)` in millivolts: half of the real ones stand for the held-out set.

    Raises:
        ValueError: if the arrays do not fit together, hold NaN or infinity, or have fewer than 4 records.
    """
    real, synthetic = (np.asarray(part, np.float32) for part in (real, synthetic))
    for name, part in (("real", real), ("synthetic", synthetic)):
        if part.ndim != 3 or part.shape[2] != len(leads) or len(part) < 4:
            raise ValueError(f"expected at least 4 {name} signals (records, time, {len(leads)}), received shape {part.shape}")
        if not np.isfinite(part).all():
            raise ValueError(f"expected finite {name} signals, received NaN or infinity")
    if real.shape[1:] != synthetic.shape[1:]:
        raise ValueError(f"expected signals of one shape (time, leads), received {real.shape[1:]} and {synthetic.shape[1:]}")
    order = np.random.default_rng(seed).permutation(len(real))
    halves = [Part(real[rows], None, [str(row) for row in rows]) for rows in np.array_split(order, 2)]
    made = Part(synthetic, None, [str(row) for row in range(len(synthetic))])
    about = {
        "real": {"name": "array", "train": len(halves[0]), "reference": len(halves[1]), "reference_splits": ["half"]},
        "synthetic": {"name": "array", "records": len(made), "generator": None, "without_records_of": []},
        "task": None,
        "sampling": _sampling_rule(max_records, classes=False),
    }
    parts = [_limited(part, max_records, seed) for part in (*halves, made)]
    return Comparison(*parts, rate, tuple(leads), (), None, about, seed)


def _read_synthetic(real: list, synthetic: list, task: Task, reference: Part) -> tuple[Part, dict, frozenset[str] | None]:
    """The records, what is said of them, and the hashed ids that their generator was trained on, where it says."""
    read_manifests([*real, *synthetic])  # they fit together
    manifest = combined_manifest(synthetic)
    seen = manifest.generator["trained_on"] if manifest.generator else []
    check_no_leak(seen, reference.ids)
    part = joined([part_of(load_arrays(synthetic, split, task)) for split in SPLITS])
    about = {"name": manifest.name, "records": len(part), "generator": _without_ids(manifest.generator)}
    return part, about, frozenset(seen) or None


def _sampling_rule(max_records: int | None, classes: bool) -> str:
    rule = "equally many records of each part, drawn at random without replacement"
    if classes:
        rule = f"of each class as many records as the smallest of the three parts has: {rule}"
    return rule if max_records is None else f"at most {max_records} records of each part, drawn at random; then {rule}"


def _missing(train: Part, reference: Part, made: Part, task: Task) -> list[str]:
    """Classes with real records on both sides, but no synthetic ones: draws leave them out."""
    if made.labels is None:
        return []
    wanted = (train.labels.sum(axis=0) > 0) & (reference.labels.sum(axis=0) > 0) & (made.labels.sum(axis=0) == 0)
    return [name for name, lacking in zip(task.classes, wanted, strict=True) if lacking]


def _limited(part: Part, most: int | None, seed: int) -> Part:
    if most is None or len(part) <= most:
        return part
    return part.take(np.sort(np.random.default_rng(seed).permutation(len(part))[:most]))


def _without_ids(generator: dict | None) -> dict | None:
    """What is worth printing of a generator: not the thousands of hashed ids."""
    if generator is None:
        return None
    return {name: value for name, value in generator.items() if name != "trained_on"} | {
        "trained_on": len(generator["trained_on"])
    }
