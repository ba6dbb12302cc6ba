"""The rows of a study's tables: which arms they show, in what order, and the cells that all tables have."""

from __future__ import annotations

from collections.abc import Sequence

from ecgtf.classifiers.metrics import FEW_POSITIVES
from ecgtf.studies import words
from ecgtf.studies.analysis import Analysis, Comparison
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import SCRATCH
from ecgtf.studies.pooling import TUNED
from ecgtf.studies.tables import Column, Value

INTERVALS = "Intervals: 95 %, over resampled test records (paired) and seeds"
P_VALUES = (
    f"{INTERVALS}; p-values two-sided, Holm's for all comparisons of this table. Within folds: the difference of AUROC over pairs of "
    "records of the same fold, in which one classifier scored both"
)
WITH_REAL = "+: learnt together with the real records, in one training; without it, before them"
TUNING = "Tuned: in each fold the recipe of the best validation score, test records have no say"
AUROC, F1, ACCURACY, SEEDS = (
    Column("macro-AUROC", "estimate"),
    Column("macro-F1", "number"),
    Column("accuracy", "number"),
    "seeds",
)
LEARNT = Column("generator saw")


def shown_arms(analysis: Analysis, collection: str) -> list[Cell]:
    """The arms trained on a collection; a tuned one only where there was a choice."""
    arms = [arm for arm in analysis.arms if arm.collection == collection]
    shown = [arm for arm in arms if arm.recipe != TUNED or len(analysis.pools.recipes(arm)) > 1]
    first = {}
    for arm in analysis.pools.arms:
        first.setdefault((arm.classifier, arm.source, arm.ratio, arm.mixing, arm.seen), len(first))
    key = lambda arm: first.get((arm.classifier, arm.source, arm.ratio, arm.mixing, arm.seen), len(first))  # noqa: E731
    return sorted(shown, key=lambda arm: (arm.source != SCRATCH, key(arm)))


def present_classes(analysis: Analysis, arms: Sequence[Cell], test_on: str) -> dict[str, int]:
    """The classes that have positives (and negatives) among the test records of a collection, and how many."""
    scores = [score for arm in arms if (score := analysis.score(arm, test_on)) is not None]
    return {name: entry.n for name, entry in scores[0].per_class.items() if entry.auroc is not None} if scores else {}


def learning_rows(analysis: Analysis, collection: str) -> dict[tuple, dict[float, Cell]]:
    """The rows of a table of growing shares of real records: share to arm, by source, classifier, recipe and what generators saw.

    On all real records a generator that saw the same share saw all of them: the arm stands in both rows.
    """
    arms = shown_arms(analysis, collection)
    rows: dict[tuple, dict[float, Cell]] = {}
    for arm in sorted(arms, key=lambda arm: arm.fraction == 1):
        keys = [(arm.source, arm.classifier, arm.recipe, analysis.pools.saw(arm))]
        if arm.fraction == 1 and analysis.pools.learned(arm):
            both = [(*keys[0][:3], kind) for kind in ("all", "same")]
            keys = [key for key in both if key in rows] or keys
        for key in keys:
            rows.setdefault(key, {})[arm.fraction] = arm
    order = {(arm.source, arm.classifier, arm.recipe): place for place, arm in reversed(list(enumerate(arms)))}
    return dict(sorted(rows.items(), key=lambda item: (order[item[0][:3]], item[0][3])))


def trained_on(analysis: Analysis) -> list[str]:
    """The collections trained on, in the order of the settings."""
    there = {arm.collection for arm in analysis.pools.arms}
    return [name for name in analysis.config.all_collections if name in there]


def arm_cells(arm: Cell, study: str, analysis: Analysis) -> tuple[Value, ...]:
    """The cells that tell arms apart, as `arm_columns` heads them."""
    first = (words.source(arm, study, analysis.pools), arm.classifier, words.recipe(arm))
    if study == "augmentation":
        return (*first, words.ratio(arm), arm.mixing or words.NOTHING)
    return (*first, words.percent(arm.fraction), words.seen(arm, analysis.pools))


def arm_columns(study: str) -> tuple[Column, ...]:
    """The columns that tell arms apart."""
    rest = ("synthetic : real", "mixing") if study == "augmentation" else ("real records", LEARNT.title)
    return tuple(map(Column, ("source", "classifier", "recipe", *rest)))


def score_cells(analysis: Analysis, arm: Cell, test_on: str) -> tuple[Value, ...]:
    """Macro-AUROC, macro-F1, accuracy and the number of seeds."""
    score = analysis.score(arm, test_on)
    if score is None:
        return None, words.NOTHING, words.NOTHING, 0
    return score.macro_auroc, score.macro_f1, score.accuracy, score.seeds


def change_columns(title: str) -> tuple[Column, Column]:
    """The columns of a difference."""
    return Column(title, "difference"), Column("within folds", "change")


def change_cells(comparison: Comparison | None) -> tuple[Value, Value]:
    """The cells under `change_columns`; nothing where an arm is compared with no other."""
    if comparison is None:
        return words.NOTHING, words.NOTHING
    return comparison.difference, comparison.difference and comparison.difference.within


def records_note(analysis: Analysis, test_on: str) -> str:
    """How many test records there are, and what that leaves out."""
    arms = [arm for arm in analysis.arms if analysis.score(arm, test_on) is not None]
    if not arms:
        return "No arm has all its folds yet"
    per_class = analysis.score(arms[0], test_on).per_class
    text = f"{analysis.score(arms[0], test_on).n} test records of {test_on}, all folds pooled"
    few = [f"{name} (n {entry.n})" for name, entry in per_class.items() if entry.auroc is not None and entry.few]
    absent = [name for name, entry in per_class.items() if entry.auroc is None]
    if few:
        text += f"; in the mean but without a claim of their own, under {FEW_POSITIVES} positives: {', '.join(few)}"
    return text + (f"; left out, none or nothing but positives: {', '.join(absent)}" if absent else "")


def together_note(analysis: Analysis) -> list[str]:
    """What + stands for, where a table may have it."""
    return [WITH_REAL] if any(arm.together for arm in analysis.pools.arms) else []


def note(*parts: str) -> str:
    """Sentences of a table's note, put together."""
    return ". ".join(parts) + "."
