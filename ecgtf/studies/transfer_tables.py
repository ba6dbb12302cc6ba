"""The tables that the transfer study alone has."""

from __future__ import annotations

from collections.abc import Sequence

from ecgtf.studies import words
from ecgtf.studies.analysis import Analysis, Comparison
from ecgtf.studies.comparisons import NON_INFERIOR, Families, non_inferior
from ecgtf.studies.rows import (
    AUROC,
    INTERVALS,
    LEARNT,
    P_VALUES,
    SEEDS,
    TUNING,
    arm_cells,
    arm_columns,
    change_cells,
    change_columns,
    learning_rows,
    note,
    records_note,
    score_cells,
    together_note,
)
from ecgtf.studies.tables import Column, Table, Value


def curves(analysis: Analysis, collection: str, within: bool = False) -> Table:
    """Macro-AUROC by the share of real records, a row for each source; of all pairs of records or of those within folds."""
    fractions = sorted({arm.fraction for arm in analysis.pools.arms if arm.collection == collection})
    rows = []
    for (_, classifier, _, saw), arms in learning_rows(analysis, collection).items():
        arm = next(iter(arms.values()))
        cells: list[Value] = []
        for fraction in fractions:
            score = analysis.score(arms[fraction], collection) if fraction in arms else None
            shown = score and (score.within if within else score.macro_auroc)
            cells.append(shown if fraction in arms else words.NOTHING)
        counts = [score.seeds for arm in arms.values() if (score := analysis.score(arm, collection))]
        seeds = words.NOTHING if not counts else "-".join(str(count) for count in sorted({min(counts), max(counts)}))
        rows.append(
            (words.source(arm, "transfer", analysis.pools), classifier, words.recipe(arm), saw or words.NOTHING, *cells, seeds)
        )
    return Table(
        f"{'within' if within else 'curves'}-{collection}",
        f"Macro-AUROC {'within folds ' if within else ''}on {collection} by the share of its real records that were learnt from",
        note(
            *(["Over pairs of records of the same fold, in which one classifier scored both"] if within else []),
            records_note(analysis, collection),
            *together_note(analysis),
            "Generator saw: all real training records, or the same share as the classifier; only the latter saves real records",
            INTERVALS,
            TUNING,
        ),
        (
            *map(Column, ("source", "classifier", "recipe", LEARNT.title)),
            *(Column(words.percent(fraction), "estimate") for fraction in fractions),
            Column(SEEDS),
        ),
        tuple(rows),
    )


def against_scratch(analysis: Analysis, collection: str, found: Families, kind: str) -> Table:
    """Against training from scratch on the same real records, by the `plain` (same) recipe or the `tuned` one."""
    rows = []
    for each in found[f"{kind}-{collection}"]:
        scores = score_cells(analysis, each.first, collection)
        second = analysis.score(each.second, collection)
        rows.append(
            (
                *arm_cells(each.first, "transfer", analysis),
                scores[0],
                scores[3],
                words.recipe(each.second),
                second and second.macro_auroc,
                *change_cells(each),
            )
        )
    which = "by the same recipe, or the plain one where there is none," if kind == "plain" else "by the tuned recipe"
    return Table(
        f"{kind}-{collection}",
        f"Learning from a source against {kind} training from scratch on the same share of {collection}",
        note(
            f"From scratch: trained {which} on the same real records",
            *together_note(analysis),
            records_note(analysis, collection),
            P_VALUES,
        ),
        (
            *arm_columns("transfer"),
            AUROC,
            Column(SEEDS),
            Column("scratch by"),
            Column("scratch macro-AUROC", "estimate"),
            *change_columns("difference"),
        ),
        tuple(rows),
    )


def against_full(analysis: Analysis, found: Sequence[Comparison]) -> Table:
    """Against training from scratch on all real records: does a share of them do after synthetic ones?"""
    rows = []
    for each in found:
        score = analysis.score(each.first, each.test_on)
        change = each.difference
        above = None if change is None else _yes(change.value > NON_INFERIOR)
        shown = None if change is None or change.low is None else _yes(non_inferior(change))
        named = (each.test_on, *arm_cells(each.first, "transfer", analysis))
        rows.append((*named, score and score.macro_auroc, change and change.seeds, *change_cells(each), above, shown))
    return Table(
        "full",
        "Against training on all real records alone",
        note(
            "The difference is to training from scratch, tuned, on 100 % of the real records",
            f"Non-inferior by {-NON_INFERIOR:g}: of several seeds (of the arm with fewer), and the low end of the interval above "
            f"{NON_INFERIOR:g}, within folds too; each interval by itself, without a correction for their number",
            *together_note(analysis),
            "Only where the generator saw no more than the same share are real records saved",
            P_VALUES,
        ),
        (
            Column("collection"),
            *arm_columns("transfer"),
            AUROC,
            Column(SEEDS),
            *change_columns("difference"),
            Column(f"above {NON_INFERIOR:g}"),
            Column("non-inferior"),
        ),
        tuple(rows),
    )


def source_alone(analysis: Analysis, found: Sequence[Comparison]) -> Table:
    """Trained on a source and tested on real records (TSTR where it is synthetic), beside training on all the real ones (TRTR)."""
    rows = []
    for each in found:
        if each.first.fraction == 0:
            scores = [analysis.score(arm, each.test_on) for arm in (each.first, each.second)]
            figures = [score and score.macro_auroc for score in scores]
            named = (each.test_on, *arm_cells(each.first, "transfer", analysis))
            ratio = analysis.ratio(each.first, each.second, each.test_on)
            rows.append((*named, *figures, each.difference and each.difference.seeds, ratio, *change_cells(each)))
    return Table(
        "alone",
        "Trained on a source alone, tested on real records",
        note(
            "TSTR: the classifier as its sources left it; TRTR: trained from scratch, tuned, on all real records",
            "Of several recipes TSTR has the first, for there are no real records to choose by",
            "Seeds: of the arm with fewer",
            "Holm's correction is that of the table of all differences to TRTR",
            INTERVALS,
        ),
        (
            Column("collection"),
            *arm_columns("transfer"),
            Column("TSTR macro-AUROC", "estimate"),
            Column("TRTR macro-AUROC", "estimate"),
            Column(SEEDS),
            Column("TSTR over TRTR", "estimate"),
            *change_columns("difference"),
        ),
        tuple(rows),
    )


def _yes(true: bool) -> str:
    return "yes" if true else "no"
