"""What stands in a study's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ecgtf.classifiers.metrics import FEW_POSITIVES
from ecgtf.studies import words
from ecgtf.studies.analysis import Analysis, Comparison
from ecgtf.studies.comparisons import Families, find, rivals
from ecgtf.studies.pooling import TUNED
from ecgtf.studies.rows import (
    ACCURACY,
    AUROC,
    F1,
    INTERVALS,
    P_VALUES,
    SEEDS,
    TUNING,
    arm_cells,
    arm_columns,
    change_cells,
    change_columns,
    note,
    present_classes,
    records_note,
    score_cells,
    shown_arms,
    together_note,
    trained_on,
)
from ecgtf.studies.tables import Column, Table
from ecgtf.studies.transfer_tables import against_full, against_scratch, curves, source_alone


def study_tables(analysis: Analysis, study: str, found: Families) -> list[Table]:
    """All tables of a study, in order."""
    if study == "augmentation":
        own = [augmentation_own(analysis, name, found[f"own-{name}"]) for name in trained_on(analysis)]
        return [
            *own,
            *(per_class(analysis, study, name) for name in trained_on(analysis)),
            cross(analysis, study, found["cross"], "real only, same recipe"),
            against_rivals(analysis, study, found["rivals"]),
            choices(analysis, study),
        ]
    tables = []
    for name in trained_on(analysis):
        tables += [curves(analysis, name), curves(analysis, name, within=True)]
        tables += [against_scratch(analysis, name, found, kind) for kind in ("plain", "tuned")]
    tables += [against_full(analysis, found["full"])]
    if any(arm.fraction == 0 for arm in analysis.arms):
        tables += [source_alone(analysis, found["full"])]
    tables += [against_rivals(analysis, study, found["rivals"])]
    tables += [per_class(analysis, study, name) for name in trained_on(analysis)]
    return [*tables, cross(analysis, study, found["cross"], "scratch, tuned, same share"), choices(analysis, study)]


def augmentation_own(analysis: Analysis, collection: str, found: Sequence[Comparison]) -> Table:
    """Real and synthetic records together against real ones alone, tested on the collection trained on."""
    rows = []
    for arm in shown_arms(analysis, collection):
        compared = find(found, arm, collection)
        second = words.NOTHING if compared is None else f"real only, {words.recipe(compared.second)}"
        scores = score_cells(analysis, arm, collection)
        rows.append((*arm_cells(arm, "augmentation", analysis), *scores, second, *change_cells(compared)))
    return Table(
        f"own-{collection}",
        f"Trained and tested on {collection}",
        note(records_note(analysis, collection), P_VALUES, TUNING),
        (
            *arm_columns("augmentation"),
            AUROC,
            F1,
            ACCURACY,
            Column(SEEDS),
            Column("compared with"),
            *change_columns("difference of macro-AUROC"),
        ),
        tuple(rows),
    )


def per_class(analysis: Analysis, study: str, collection: str) -> Table:
    """AUROC of each class, tested on the collection trained on."""
    arms = shown_arms(analysis, collection)
    classes = present_classes(analysis, arms, collection)
    rows = []
    for arm in arms:
        score = analysis.score(arm, collection)
        figures = [None] * len(classes) if score is None else [score.per_class[name].auroc for name in classes]
        rows.append((*arm_cells(arm, study, analysis), *figures))
    titles = [f"{name} (n {n}{', no claim' if n < FEW_POSITIVES else ''})" for name, n in classes.items()]
    return Table(
        f"classes-{collection}",
        f"AUROC of each class, trained and tested on {collection}",
        note(records_note(analysis, collection), "n: test records that have the class", INTERVALS),
        (*arm_columns(study), *(Column(title, "estimate") for title in titles)),
        tuple(rows),
    )


def cross(analysis: Analysis, study: str, found: Sequence[Comparison], second: str) -> Table:
    """Arms tested on other collections than their own; `second` says what they are compared with."""
    baselines = dict.fromkeys((each.second, each.test_on) for each in found)
    rows = [
        (arm.collection, test_on, *arm_cells(arm, study, analysis), *score_cells(analysis, arm, test_on), *change_cells(None))
        for arm, test_on in baselines
        if find(found, arm, test_on) is None
    ]
    for each in found:
        arm = each.first
        named = (arm.collection, each.test_on, *arm_cells(arm, study, analysis))
        rows.append((*named, *score_cells(analysis, arm, each.test_on), *change_cells(each)))
    return Table(
        "cross",
        "Trained on one collection, tested on another",
        note(
            f"The difference is to {second}, trained on the same collection and tested on the same records",
            *together_note(analysis),
            "Records of a merged collection are tested on by classifiers that learnt from its other folds",
            P_VALUES,
        ),
        (
            Column("trained on"),
            Column("tested on"),
            *arm_columns(study),
            AUROC,
            F1,
            ACCURACY,
            Column(SEEDS),
            *change_columns("difference of macro-AUROC"),
        ),
        tuple(
            sorted(rows, key=lambda row: (trained_on(analysis).index(row[0]), analysis.config.all_collections.index(row[1])))
        ),
    )


def against_rivals(analysis: Analysis, study: str, found: Sequence[Comparison]) -> Table:
    """What generators give beyond the best of what needs none."""
    rows = []
    for each in found:
        arm, rival, test_on = each.first, each.second, each.test_on
        scores = [analysis.score(side, test_on) for side in (arm, rival)]
        planned = rivals(analysis, arm)
        done = sum(analysis.score(other, test_on) is not None for other in planned)
        name = (
            f"{words.source(rival, study, analysis.pools)}, {words.recipe(rival)}"
            if rival.recipe
            else words.source(rival, study, analysis.pools)
        )
        figures = [None if score is None else score.macro_auroc for score in scores]
        rows.append(
            (
                arm.collection,
                *arm_cells(arm, study, analysis),
                figures[0],
                name,
                figures[1],
                f"{done} of {len(planned)}",
                *change_cells(each),
            )
        )
    same = "ratio and mixing" if study == "augmentation" else "share of real records"
    return Table(
        "rivals",
        "Learned sources against the best rival",
        note(
            f"Rivals need no generator: training from scratch, tuned; the feature forest; ready sources such as the simulator at the "
            f"same {same}, tuned",
            *together_note(analysis),
            "The best is the one of the highest macro-AUROC on the same test records, which favours the rival",
            P_VALUES,
        ),
        (
            Column("collection"),
            *arm_columns(study),
            AUROC,
            Column("best rival"),
            Column("its macro-AUROC", "estimate"),
            Column("rivals done"),
            *change_columns("gain"),
        ),
        tuple(rows),
    )


def choices(analysis: Analysis, study: str) -> Table:
    """Which recipes tuned arms took, and in how many folds."""
    rows = []
    for collection in trained_on(analysis):
        for arm in shown_arms(analysis, collection):
            if arm.recipe == TUNED:
                chosen = list(analysis.pools.choice(arm, collection).values())
                counts = ", ".join(f"{name} in {chosen.count(name)}" for name in dict.fromkeys(sorted(chosen))) or None
                names = analysis.pools.recipes(arm)
                done = sum(bool(analysis.pools.seeds(replace(arm, recipe=name), collection)) for name in names)
                rows.append((collection, *arm_cells(arm, study, analysis), f"{done} of {len(names)}", counts))
    return Table(
        "recipes",
        "Recipes that tuned training took",
        note(TUNING, "Recipes done: those with all folds of at least one seed; the others had no part in the choice"),
        (Column("collection"), *arm_columns(study), Column("recipes done"), Column("folds")),
        tuple(rows),
    )
