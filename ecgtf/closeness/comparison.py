"""The records that are compared, and how a metric gets its value, its floor and its interval.

The reference is held-out real data. The value of a metric compares it with synthetic records, its floor with as many real training
records; all sides are drawn with the same number of each class, so that a different class mix is not mistaken for a different form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ecgtf.dataset import Arrays, check_no_leak, load_arrays, read_manifests
from ecgtf.tasks import Task

LEAST_TEST_RECORDS = 100
"""With fewer test records the validation records are added to the reference."""

DRAWS = 5
"""Draws behind a value and its floor."""

HALVES = 12
"""Half-samples behind an interval."""

PARTS = ("train", "reference", "synthetic")


@dataclass(frozen=True)
class Part:
    """Some records: signals `(n, time, leads)` in millivolts, labels `(n, classes)` or None, ids."""

    signals: np.ndarray
    labels: np.ndarray | None
    ids: list[str]

    def __len__(self) -> int:
        return len(self.signals)

    def take(self, rows: np.ndarray) -> Part:
        """These rows."""
        return Part(self.signals[rows], None if self.labels is None else self.labels[rows], [self.ids[row] for row in rows])


@dataclass(frozen=True)
class Comparison:
    """Real training records, held-out real records and synthetic ones, of one rate, length and lead set."""

    train: Part
    reference: Part
    synthetic: Part
    rate: float
    leads: tuple[str, ...]
    classes: tuple[str, ...]
    task: Task | None
    about: dict
    """What is said of the sets in the results."""
    seed: int = 0

    @cached_property
    def _strata(self) -> list[dict[str, np.ndarray]]:
        """For each label of the reference, the rows of the three parts that have it; one stratum of all where labels are missing."""
        parts = {name: getattr(self, name) for name in PARTS}
        if any(part.labels is None for part in parts.values()):
            return [{name: np.arange(len(part)) for name, part in parts.items()}]
        return [
            {name: np.flatnonzero((part.labels == label).all(axis=1)) for name, part in parts.items()}
            for label in np.unique(self.reference.labels, axis=0)
        ]

    def drawn(self, draw: int, part: float = 1.0) -> dict[str, np.ndarray]:
        """Rows of the three parts, drawn without replacement: of each label as many as the smallest of the parts has.

        Args:
            draw: Number of the draw.
            part: Share of those rows to keep.
        """
        rng = np.random.default_rng([self.seed, draw])
        rows: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
        for stratum in self._strata:
            size = min(len(members) for members in stratum.values())
            size = size if part == 1.0 else max(1, round(part * size)) if size else 0
            for name, members in stratum.items():
                rows[name].append(rng.permutation(members)[:size])
        return {name: np.concatenate(drawn) for name, drawn in rows.items()}

    def metric(self, function: Callable[[np.ndarray, np.ndarray], float], values: dict[str, np.ndarray]) -> dict:
        """Value, floor and interval of `function(reference, other)`.

        Value and floor are means over draws. The interval is 1.96 SD of half-samples of both sides about the value: the deviation
        between halves drawn without replacement estimates the standard error of the whole.

        Args:
            function: Distance of two sets.
            values: What it compares, row by row: of `train`, `reference` and `synthetic`.
        """
        found: dict[str, list[float]] = {"synthetic": [], "train": []}
        for draw in range(DRAWS):
            rows = self.drawn(draw)
            for other, numbers in found.items():
                numbers.append(function(values["reference"][rows["reference"]], values[other][rows[other]]))
        halves = []
        for draw in range(HALVES):
            rows = self.drawn(DRAWS + draw, part=0.5)
            halves.append(function(values["reference"][rows["reference"]], values["synthetic"][rows["synthetic"]]))
        value, spread = float(np.mean(found["synthetic"])), float(np.std(halves, ddof=1))
        return {
            "value": value,
            "floor": float(np.mean(found["train"])),
            "low": value - 1.96 * spread,
            "high": value + 1.96 * spread,
        }

    def signals(self) -> dict[str, np.ndarray]:
        """The signals of the three parts, as `metric` takes them."""
        return {name: getattr(self, name).signals for name in PARTS}


def compare_folders(
    real: str | Path | list, synthetic: str | Path | list, task: Task, *, max_records: int | None = None, seed: int = 0
) -> Comparison:
    """A comparison of data sets in folders.

    Args:
        real, synthetic: Folders (or lists of them) of real and of synthetic sets.
        task: What the classes are.
        max_records: At most this many records of each part, drawn at random.
        seed: Of the draws.

    Raises:
        ValueError: if they differ in rate, seconds or leads, a part is empty, or the generator was trained on held-out records.
    """
    if isinstance(real, np.ndarray) or isinstance(synthetic, np.ndarray):
        raise ValueError("give two arrays or two data sets, not one of each")
    lists = [[folder] if isinstance(folder, str | Path) else list(folder) for folder in (real, synthetic)]
    read_manifests([*lists[0], *lists[1]])
    for folder, described in read_manifests(lists[0]):
        if described.synthetic:
            raise ValueError(f"{folder} is a synthetic set; expected a real one to compare with (are the two swapped?)")
    splits = {split: load_arrays(lists[0], split, task) for split in ("train", "validation", "test")}
    made = [load_arrays(lists[1], split, task) for split in ("train", "validation", "test")]
    manifest, other = splits["train"].manifest, made[0].manifest
    held_out = ["test"] if len(splits["test"]) >= LEAST_TEST_RECORDS else ["validation", "test"]
    reference = _joined([splits[name] for name in held_out])
    train, drawn = _joined([splits["train"]]), _joined(made)
    for name, part in (("training", train), ("held-out", reference), ("synthetic", drawn)):
        if len(part) < 2:
            raise ValueError(f"expected at least 2 {name} records with a class of task {task.name}, received {len(part)}")
    if other.generator:
        check_no_leak(other.generator["trained_on"], reference.ids)
    about = {
        "real": {"name": manifest.name, "train": len(train), "reference": len(reference), "reference_splits": held_out},
        "synthetic": {"name": other.name, "records": len(drawn), "generator": _without_ids(other.generator)},
        "task": task.name,
        "sampling": "of each class as many records as the smallest of the three parts has, drawn at random without replacement",
    }
    parts = [_limited(part, max_records, seed) for part in (train, reference, drawn)]
    return Comparison(*parts, manifest.sampling_rate, tuple(manifest.leads), task.classes, task, about, seed)


def compare_arrays(
    real: np.ndarray, synthetic: np.ndarray, *, rate: float, leads: tuple[str, ...], seed: int = 0
) -> Comparison:
    """A comparison of plain arrays `(records, time, leads)` in millivolts: half of the real ones stand for the held-out set."""
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
    drawn = Part(synthetic, None, [str(row) for row in range(len(synthetic))])
    about = {
        "real": {"name": "array", "train": len(halves[0]), "reference": len(halves[1]), "reference_splits": ["half"]},
        "synthetic": {"name": "array", "records": len(drawn), "generator": None},
        "task": None,
        "sampling": "drawn at random",
    }
    return Comparison(*halves, drawn, rate, tuple(leads), (), None, about, seed)


def _joined(parts: list[Arrays]) -> Part:
    return Part(
        np.concatenate([part.signals for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [name for part in parts for name in part.ids],
    )


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
