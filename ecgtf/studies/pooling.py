"""The predictions of a study's arms, the folds of each put together; which recipe an arm takes.

An arm is a cell without its fold and seed. It is there for a seed when all its folds are: each record stands in the test of one of
them, so together they are predictions of the whole collection, each by a classifier that never saw the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecgtf.studies.cells import Cell
from ecgtf.studies.config import FOREST, SCRATCH, StudyConfig
from ecgtf.studies.results import Results

TUNED = "(tuned)"
"""The recipe of an arm that takes, fold by fold, the recipe that is best on the validation records."""

PLAIN = "plain"
"""Recipe of that name, if there is one, is what plain training is; otherwise the first one of the settings is."""


@dataclass(frozen=True)
class Pool:
    """What an arm made of the records of a collection."""

    seeds: tuple[int, ...]
    ids: np.ndarray
    """In ascending order."""
    labels: np.ndarray
    """`(records, classes)`"""
    probabilities: np.ndarray
    """`(seeds, records, classes)`"""
    folds: np.ndarray
    """`(records,)`, the fold that tested on each: one classifier gave the scores of a fold."""


@dataclass(frozen=True)
class Standing:
    """How far a study is."""

    planned: int
    done: int
    failed: Mapping[str, str]
    """Names of cells and why they failed."""


def arm_of(cell: Cell) -> Cell:
    """The cell without its fold and seed."""
    return replace(cell, fold=0, seed=0)


class Pools:
    """The arms of a study and their predictions.

    Args:
        results: The study's results.
        cells: The cells that were planned; lines of other cells are passed over.
        config: The study's settings.
    """

    def __init__(self, results: Results, cells: Sequence[Cell], config: StudyConfig):
        self.results, self.config = results, config
        self.folds = range(config.folds or 1)
        planned = {cell.name: cell for cell in cells}
        failed: dict[str, str] = {}
        self._rows = {}
        for row in results.rows():
            # By name, for numbers in the table have six digits.
            if (name := row.cell.name) in planned and row.error:
                failed.setdefault(name, row.error)
            elif name in planned:
                self._rows[name, row.test_on] = row
        done = {name for name, _ in self._rows}
        self.progress = Standing(len(planned), len(done), {name: why for name, why in failed.items() if name not in done})
        self._seeds: dict[Cell, list[int]] = {}
        for cell in cells:
            seeds = self._seeds.setdefault(arm_of(cell), [])
            seeds += [] if cell.seed in seeds else [cell.seed]

    @property
    def arms(self) -> list[Cell]:
        """The planned arms, in the order of the settings."""
        return list(self._seeds)

    @property
    def tests(self) -> list[str]:
        """The collections that were tested on, in the order of the settings."""
        there = {test_on for _, test_on in self._rows}
        return [name for name in self.config.all_collections if name in there]

    def recipes(self, arm: Cell) -> list[str]:
        """The recipes planned for an arm, in the order of the settings."""
        order = list(self.config.recipes)
        names = [other.recipe for other in self._seeds if replace(other, recipe=arm.recipe) == arm]
        return sorted(names, key=lambda name: order.index(name) if name in order else -1)

    def seeds(self, arm: Cell, test_on: str) -> tuple[int, ...]:
        """The seeds of which all folds are done."""
        if arm.recipe == TUNED:
            chosen = set(self.choice(arm, test_on).values())
            whole = [set(self.seeds(replace(arm, recipe=recipe), test_on)) for recipe in chosen]
            return tuple(sorted(set.intersection(*whole))) if whole else ()
        return tuple(
            seed
            for seed in sorted(self._seeds.get(arm, ()))
            if all((replace(arm, fold=fold, seed=seed).name, test_on) in self._rows for fold in self.folds)
        )

    def choice(self, arm: Cell, test_on: str) -> dict[int, str]:
        """The recipe of each fold: the one of the best mean validation score over its seeds; test records have no say.

        Only recipes of which all folds of a seed are done take part; where none is, nothing is chosen. Of equal ones, the first. Without
        real records there are no scores: the first recipe of the settings stands, done or not.
        """
        candidates = {}
        for recipe in self.recipes(arm)[: None if arm.fraction else 1]:
            seeds = self.seeds(replace(arm, recipe=recipe), test_on)
            if seeds:
                candidates[recipe] = seeds
        if not candidates:
            return {}

        def score(recipe: str, fold: int) -> float:
            cells = [replace(arm, recipe=recipe, fold=fold, seed=seed) for seed in candidates[recipe]]
            scores = [self._rows[cell.name, test_on].validation_score for cell in cells]
            return -np.inf if None in scores else float(np.mean(scores))

        return {fold: max(candidates, key=lambda recipe: score(recipe, fold)) for fold in self.folds}

    def pool(self, arm: Cell, test_on: str) -> Pool | None:
        """The predictions of an arm on a collection; None where no seed has all its folds.

        Raises:
            ValueError: if predictions are missing, or the seeds did not test on the same records.
        """
        seeds = self.seeds(arm, test_on)
        choice = self.choice(arm, test_on) if arm.recipe == TUNED else dict.fromkeys(self.folds, arm.recipe)
        pooled: list[np.ndarray] = []
        ids = labels = folds = None
        for seed in seeds:
            cells = [replace(arm, recipe=recipe, fold=fold, seed=seed) for fold, recipe in choice.items()]
            parts = [self.results.predictions(cell, test_on) for cell in cells]
            names = np.concatenate([part.ids for part in parts])
            order = np.argsort(names, kind="stable")
            if ids is not None and not np.array_equal(ids, names[order]):
                raise ValueError(f"the seeds of {arm.name} were tested on different records of {test_on}; run them again")
            ids, labels = names[order], np.concatenate([part.labels for part in parts])[order]
            folds = np.repeat(list(choice), [len(part.ids) for part in parts])[order]
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f"a record of {test_on} stands in two folds of {arm.name}; run them again")
            pooled.append(np.concatenate([part.probabilities for part in parts])[order])
        return None if ids is None else Pool(seeds, ids, labels, np.stack(pooled), folds)

    def plain(self, arm: Cell) -> str:
        """The recipe that plain training has: `plain`, or the first of those that the classifier was trained with from scratch."""
        recipes = self.recipes(replace(arm, source=SCRATCH, ratio=0.0, mixing="", seen=1.0))
        return PLAIN if PLAIN in recipes or not recipes else recipes[0]

    def learned(self, arm: Cell) -> bool:
        """Whether the arm has records of a generator that learnt from real ones."""
        return any(stage in self.config.generators for stage in arm.stages)

    def saw(self, arm: Cell) -> str:
        """What the arm's generator saw of the real records: `same`, the share that the arm has, or `all`; nothing without a generator."""
        return "" if not self.learned(arm) else "same" if arm.seen < 1 else "all"


def scratch_of(arm: Cell, recipe: str) -> Cell:
    """The arm that has nothing but the same real records, trained by `recipe`."""
    return replace(arm, recipe=recipe, source=SCRATCH, ratio=0.0, mixing="", seen=1.0)


def forest_of(arm: Cell) -> Cell:
    """The feature forest on the same real records."""
    return replace(scratch_of(arm, ""), classifier=FOREST)


def ready_of(arm: Cell, name: str) -> Cell:
    """The arm that has records of a ready source, such as the simulator, where this one has those of its source; tuned."""
    return replace(arm, recipe=TUNED, source=name, seen=1.0)
