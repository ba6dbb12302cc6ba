"""Which records a metric compares: equal sizes, equal classes, halves for intervals and real samples for floors (NumPy only)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FLOORS = 5
"""Real training samples behind a floor."""

HALVES = 20
"""Pairs of half samples behind an interval."""

FEWEST = 5
"""Records of a class under which nothing is said of it; twice as many are needed of a whole set."""


@dataclass(frozen=True)
class Draws:
    """Places of the records to compare; the same number of each class on every side."""

    reference: np.ndarray
    synthetic: np.ndarray
    floors: list[np.ndarray]
    """Of training records; empty where there are too few."""
    halves: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    """Half of each side (reference, synthetic, training), drawn without replacement."""
    per_class: list[int] | None
    """Records of each class; None where classes were not matched."""

    def __len__(self) -> int:
        return len(self.reference)


def matched_draws(
    reference: np.ndarray,
    synthetic: np.ndarray,
    train: np.ndarray,
    *,
    limit: int | None = None,
    fewest: int = 2 * FEWEST,
    seed: int = 0,
) -> Draws:
    """Draws of as many records as all sides have, class by class.

    A generator is asked for classes in other shares than a hospital sees them; without matching, every distance would measure that.

    Args:
        reference: Classes of the held-out real records as whole numbers `(n,)`, -1 for none; all -1 matches nothing but sizes.
        synthetic: Of the synthetic records.
        train: Of the real training records; may be empty, then there are no floors.
        limit: At most about so many records on a side.
        fewest: At least so many.
        seed: Fixes the draws.

    Raises:
        ValueError: if fewer than `fewest` records are left.
    """
    rng = np.random.default_rng(seed)
    sides = [np.asarray(side) for side in ((reference, synthetic, train) if len(train) else (reference, synthetic))]
    classes = np.unique(sides[0])
    counts = np.array([min(int((side == name).sum()) for side in sides) for name in classes])
    if limit is not None and counts.sum() > limit:
        counts = np.maximum((counts > 0).astype(int), counts * limit // counts.sum())
    if counts.sum() < fewest:
        raise ValueError(
            f"only {counts.sum()} records to compare ({len(reference)} held-out real, {len(synthetic)} synthetic, "
            f"{len(train)} training); at least {fewest} are needed"
        )

    def draw(side: np.ndarray) -> np.ndarray:
        chosen = [rng.permutation(np.flatnonzero(side == name))[:count] for name, count in zip(classes, counts, strict=True)]
        return np.concatenate(chosen)

    def half(chosen: np.ndarray, side: np.ndarray) -> np.ndarray:
        order = rng.permutation(chosen)
        order = order[np.argsort(side[order], kind="stable")]  # class by class, shuffled within
        return order[int(rng.integers(2)) :: 2]  # every other one: half of each class

    drawn = [draw(side) for side in sides[:2]]
    floors = [draw(sides[2]) for _ in range(FLOORS)] if len(train) else []
    halves = []
    for number in range(HALVES):
        pair = [half(chosen, side) for chosen, side in zip(drawn, sides, strict=False)]
        third = half(floors[number % FLOORS], sides[2]) if floors else None
        size = min(len(part) for part in (*pair, *([third] if floors else [])))
        halves.append((pair[0][:size], pair[1][:size], third[:size] if floors else None))
    matched = None if (classes < 0).all() else [int(counts[classes == name].sum()) for name in range(int(classes.max()) + 1)]
    return Draws(drawn[0], drawn[1], floors, halves, matched)


def compare(
    metric: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    draws: Draws,
    reference: np.ndarray,
    synthetic: np.ndarray,
    train: np.ndarray,
) -> dict[str, dict[str, float | None]]:
    """Values, floors and 95 % intervals of one or several metrics that are computed together.

    `value` compares the synthetic with the held-out real records, `floor` (a mean over `FLOORS` samples) as many real training
    records with them. Intervals are 1.96 standard deviations between half samples to either side: a half sample without
    replacement varies about the whole as the whole does about the truth (Shao & Tu 1995, delete-half jackknife).

    Args:
        metric: From two sets of records (the held-out real ones first) to named numbers.
        draws: Which records.
        reference: Whatever the metric takes of the held-out real records, first axis records.
        synthetic: Of the synthetic ones.
        train: Of the training records.

    Returns:
        By name, `value`, `low`, `high`, `floor`, `floor_low`, `floor_high`; None where a number is not finite or there is no floor.
    """
    value = metric(reference[draws.reference], synthetic[draws.synthetic])
    floors = [metric(reference[draws.reference], train[places]) for places in draws.floors]
    halves, floor_halves = [], []
    for real, made, trained in draws.halves:
        halves.append(metric(reference[real], synthetic[made]))
        if trained is not None:
            floor_halves.append(metric(reference[real], train[trained]))
    result = {}
    for name, number in value.items():
        floor = float(np.mean([part[name] for part in floors])) if floors else None
        result[name] = _entry("", number, [part[name] for part in halves])
        result[name] |= _entry("floor", floor, [part[name] for part in floor_halves])
    return result


def _entry(prefix: str, value: float | None, halves: list[float]) -> dict[str, float | None]:
    """A number and its interval under their keys: `value`, `low`, `high`, or `floor`, `floor_low`, `floor_high`."""
    first, low, high = ("floor", "floor_low", "floor_high") if prefix else ("value", "low", "high")
    if value is None or not np.isfinite(value):
        return {first: None, low: None, high: None}
    known = np.array(halves)[np.isfinite(halves)]
    if len(known) < HALVES // 2:
        return {first: float(value), low: None, high: None}
    spread = 1.96 * float(known.std(ddof=1))
    return {first: float(value), low: float(value) - spread, high: float(value) + spread}
