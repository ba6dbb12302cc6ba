"""The records that are compared, and how a metric gets its value, its floor and its interval.

The reference is held-out real data. The value of a metric compares it with synthetic records, its floor with as many real training
records; all sides are drawn with the same number of each class, so that a different class mix is not mistaken for a different form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

import numpy as np
from scipy.stats import t as student_t

from ecgtf.dataset import Arrays, hash_id
from ecgtf.tasks import Task

DRAWS = 5
"""Draws behind a value and its floor."""

HALVES = 12
"""Half-samples behind an interval."""

PARTS = ("train", "reference", "synthetic")


@dataclass(frozen=True)
class Part:
    """Some records."""

    signals: np.ndarray
    """`(n, time, leads)` in millivolts."""
    labels: np.ndarray | None
    """`(n, classes)`, or None where they are not known."""
    ids: list[str]
    people: list[str] | None = None
    """Whose records they are; None takes each for another person's."""

    def __len__(self) -> int:
        return len(self.signals)

    def take(self, rows: np.ndarray) -> Part:
        """These rows."""
        labels = None if self.labels is None else self.labels[rows]
        people = None if self.people is None else [self.people[row] for row in rows]
        return Part(self.signals[rows], labels, [self.ids[row] for row in rows], people)

    def plus(self, other: Part) -> Part:
        """These records, then the others."""
        return joined([self, other])

    def of_whom(self) -> np.ndarray:
        """The person of each record; records of unknown people are each of a person."""
        return np.array(self.ids if self.people is None else self.people)

    def split_people(self, share: float, rng: np.random.Generator) -> tuple[Part, Part]:
        """The records of this share of the people, and those of the others."""
        people = self.of_whom()
        names = rng.permutation(np.unique(people))
        chosen = np.isin(people, names[: round(share * len(names))])
        return self.take(np.flatnonzero(chosen)), self.take(np.flatnonzero(~chosen))

    def digest(self) -> str:
        """32 hexadecimal digits that change with any sample, label or id."""
        found = hashlib.blake2b("\n".join(self.ids).encode(), digest_size=16)
        for record in self.signals:
            found.update(np.ascontiguousarray(record))
        found.update(b"" if self.labels is None else np.ascontiguousarray(self.labels))
        return found.hexdigest()


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
    seen: frozenset[str] | None = None
    """Hashed ids of the records that the generator was trained on, where they are known."""

    @cached_property
    def learnt(self) -> Part:
        """The training records that the generator was trained on; all of them where it does not say.

        Raises:
            ValueError: if there are none.
        """
        if self.seen is None:
            return self.train
        learnt = np.flatnonzero([hash_id(name) in self.seen for name in self.train.ids])
        if len(learnt) < 2:
            raise ValueError("the generator was not trained on these real records: give those that it was trained on")
        return self.train.take(learnt)

    @cached_property
    def _strata(self) -> list[dict[str, np.ndarray]]:
        """For each label of the reference, the rows of the three parts that have it; one stratum of all where labels are missing."""
        parts = self.parts()
        if any(part.labels is None for part in parts.values()):
            return [{name: np.arange(len(part)) for name, part in parts.items()}]
        return [
            {name: np.flatnonzero((part.labels == label).all(axis=1)) for name, part in parts.items()}
            for label in np.unique(self.reference.labels, axis=0)
        ]

    def stratum(self, part: str) -> np.ndarray:
        """Number of the class of each record of a part; 0 where records have no class, or several at a time."""
        labels = getattr(self, part).labels
        if self.task is None or self.task.multi_label or self.synthetic.labels is None:
            return np.zeros(len(getattr(self, part)))
        return labels.argmax(axis=1)

    def drawn(self, draw: int, part: float = 1.0) -> dict[str, np.ndarray]:
        """Rows of the three parts, drawn without replacement: of each label as many as the smallest of the parts has.

        Args:
            draw: Number of the draw.
            part: Share of those rows to keep.

        Raises:
            ValueError: if no class has records in all parts.
        """
        if not any(all(len(members) for members in stratum.values()) for stratum in self._strata):
            raise ValueError("no class has training, held-out and synthetic records")
        rng = np.random.default_rng([self.seed, draw])
        rows: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
        for stratum in self._strata:
            size = min(len(members) for members in stratum.values())
            size = int(part * size + rng.random())  # half of one record is one record in half of the draws
            for name, members in stratum.items():
                rows[name].append(rng.permutation(members)[:size])
        return {name: np.concatenate(drawn) for name, drawn in rows.items()}

    def metric(self, function: Callable[[np.ndarray, np.ndarray], float], values: Mapping[str, np.ndarray]) -> dict:
        """`metrics` of a function that gives one number."""
        return self.metrics(lambda real, other: {"": function(real, other)}, values)[""]

    def metrics(
        self, function: Callable[[np.ndarray, np.ndarray], Mapping[str, float]], values: Mapping[str, np.ndarray]
    ) -> dict[str, dict]:
        """Value, floor and intervals of each number in `function(reference, other)`.

        Value and floor are means over draws. `low` to `high` is a 95 % interval about the value by the SD of half-samples of both
        sides: the deviation between halves drawn without replacement estimates the standard error of the whole (and more where a
        side has more records than a draw takes). `gap_low` to `gap_high` is the same for value minus floor, both taken on the same
        half of the reference.

        Args:
            function: Distances of two sets.
            values: What it compares, row by row: of `train`, `reference` and `synthetic`.
        """

        def measured(rows: dict[str, np.ndarray], other: str) -> Mapping[str, float]:
            return function(values["reference"][rows["reference"]], values[other][rows[other]])

        draws, halves = (
            [
                (measured(rows, "synthetic"), measured(rows, "train"))
                for rows in map(self.drawn, range(first, last), repeat(part))
            ]
            for first, last, part in ((0, DRAWS, 1.0), (DRAWS, DRAWS + HALVES, 0.5))
        )
        return {name: summary(*([(a[name], b[name]) for a, b in pairs] for pairs in (draws, halves))) for name in draws[0][0]}

    def parts(self) -> dict[str, Part]:
        """The three parts by name."""
        return {name: getattr(self, name) for name in PARTS}

    def signals(self) -> dict[str, np.ndarray]:
        """The signals of the three parts, as `metric` takes them."""
        return {name: part.signals for name, part in self.parts().items()}

    def by_class(self) -> list[tuple[str, dict[str, np.ndarray]]]:
        """Each class with the rows of its records in every part; one class of all where a part has no labels."""
        parts = self.parts()
        if any(part.labels is None for part in parts.values()):
            return [("all", {name: np.arange(len(part)) for name, part in parts.items()})]
        return [
            (label, {name: np.flatnonzero(part.labels[:, k] > 0) for name, part in parts.items()})
            for k, label in enumerate(self.classes)
        ]


def summary(draws: list[tuple[float, float]], halves: list[tuple[float, float]]) -> dict:
    """The entry of a metric from its (value, floor) in draws and in half-samples; draws without a number are left out."""
    draws, halves = (np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2) for pairs in (draws, halves))
    if not len(draws):
        raise ValueError("no number in any draw: no record, or too few, has what is measured")
    value, floor = draws.mean(axis=0)
    return (
        {"value": value, "floor": floor}
        | interval(value, halves[:, 0])
        | interval(value - floor, np.diff(-halves)[:, 0], "gap_")
    )


def interval(value: float, halves: np.ndarray, prefix: str = "") -> dict[str, float | None]:
    """`low` and `high` of a 95 % interval about `value` by the SD of half-samples (Student's t); None with fewer than 3 of them."""
    if len(halves) < 3:
        return {f"{prefix}low": None, f"{prefix}high": None}
    half = student_t.ppf(0.975, len(halves) - 1) * np.std(halves, ddof=1)
    return {f"{prefix}low": value - half, f"{prefix}high": value + half}


def part_of(arrays: Arrays) -> Part:
    """The records of a data set's split."""
    people = [patient or f"record {id_}" for patient, id_ in zip(arrays.patients, arrays.ids, strict=True)]
    return Part(arrays.signals, arrays.labels, arrays.ids, people)


def joined(parts: Sequence[Part]) -> Part:
    """The records of all parts, one after the other; without labels where one has none."""
    filled = [part for part in parts if len(part)] or parts[:1]
    if len(filled) == 1:
        return filled[0]  # signals are large
    labels, people = ([getattr(part, name) for part in filled] for name in ("labels", "people"))
    return Part(
        np.concatenate([part.signals for part in filled]),
        None if any(part is None for part in labels) else np.concatenate(labels),
        [name for part in filled for name in part.ids],
        None if any(part is None for part in people) else [name for part in people for name in part],
    )
