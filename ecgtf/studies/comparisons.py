"""The comparisons that a study's tables are made of. Each family is corrected for its number by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ecgtf.studies.analysis import Analysis, Comparison, Difference
from ecgtf.studies.cells import Cell, tested_on
from ecgtf.studies.config import FOREST, SCRATCH, WITH
from ecgtf.studies.pooling import TUNED, forest_of, ready_of, scratch_of

NON_INFERIOR = -0.01
"""A difference of macro-AUROC above this counts as none worth the labels that it saves."""

USEFUL_ALONE = 0.9
"""Of the macro-AUROC of training on real records, the share that training on synthetic ones alone should have."""

Families = dict[str, list[Comparison]]


def families(analysis: Analysis, study: str) -> Families:
    """All comparisons of a study, by the name of their table."""
    return {"augmentation": _augmentation, "transfer": _transfer}[study](analysis)


def find(comparisons: Sequence[Comparison], first: Cell, test_on: str) -> Comparison | None:
    """The comparison that an arm stands first in."""
    return next((each for each in comparisons if each.first == first and each.test_on == test_on), None)


def non_inferior(difference: Difference) -> bool:
    """Whether it is shown that nothing worth the labels is lost: by several seeds, and by pairs of records within folds too.

    For an arm tuned among several recipes, such as training from scratch, loses by pooling what one of a single recipe does not.
    """
    both = difference.low, difference.within and difference.within.low
    return difference.seeds > 1 and None not in both and min(both) > NON_INFERIOR


def _augmentation(analysis: Analysis) -> Families:
    """Real and synthetic records against the same real ones alone, trained by the same recipe."""
    found: Families = {}
    for collection in analysis.config.all_collections:
        pairs = [pair for pair in _against_real_only(analysis) if pair[0].collection == pair[2] == collection]
        found[f"own-{collection}"] = analysis.compare(pairs)
    found["cross"] = analysis.compare(pair for pair in _against_real_only(analysis) if pair[0].collection != pair[2])
    found["rivals"] = analysis.compare(_against_rivals(analysis))
    found["lead"] = analysis.compare(_leads(analysis))
    return found


def _transfer(analysis: Analysis) -> Families:
    """Training on something else, first or together, against training from scratch on the same and on all real records."""
    found: Families = {}
    arms = [arm for arm in analysis.arms if arm.source != SCRATCH and arm.fraction]
    for collection in analysis.config.all_collections:
        mine = [arm for arm in arms if arm.collection == collection]
        plain = [(arm, scratch_of(arm, _same_recipe(analysis, arm)), collection) for arm in mine if arm.recipe != TUNED]
        tuned = [(arm, scratch_of(arm, TUNED), collection) for arm in mine if arm.recipe == TUNED]
        found[f"plain-{collection}"] = analysis.compare(_planned(analysis, plain))
        found[f"tuned-{collection}"] = analysis.compare(_planned(analysis, tuned))
    # What is trained from scratch on less, or on no real records, is compared too: it says what the labels left out are worth.
    best = [arm for arm in analysis.arms if arm.recipe == TUNED]
    whole = [(arm, replace(scratch_of(arm, TUNED), fraction=1.0), arm.collection) for arm in best]
    found["full"] = analysis.compare(pair for pair in _planned(analysis, whole) if pair[0] != pair[1])
    found["rivals"] = analysis.compare(_against_rivals(analysis))
    tuned = [(arm, scratch_of(arm, TUNED)) for arm in arms if arm.recipe == TUNED]
    cross = [(*pair, test_on) for pair in _planned(analysis, tuned) for test_on in tested_on(pair[0], analysis.config)]
    # A classifier that learnt from the collection tested on, before its own, carries nothing over.
    found["cross"] = analysis.compare(each for each in cross if each[2] not in (each[0].collection, *each[0].stages))
    found["lead"] = analysis.compare(_leads(analysis))
    return found


def _planned(analysis: Analysis, pairs: Sequence[tuple]) -> list[tuple]:
    """The pairs whose second arm the study has: others would be missing for ever."""
    return [pair for pair in pairs if pair[1] in analysis.arms]


def _against_real_only(analysis: Analysis) -> Iterator[tuple[Cell, Cell, str]]:
    """Arms with a source against those without of the same recipe; without a source, other recipes against the plain one."""
    for arm in analysis.pools.arms:
        plain = scratch_of(arm, analysis.pools.plain(arm))
        second = scratch_of(arm, arm.recipe) if arm.source != SCRATCH else plain
        if arm.classifier != FOREST and arm != second and second in analysis.pools.arms:
            for test_on in tested_on(arm, analysis.config):
                yield arm, second, test_on


def _same_recipe(analysis: Analysis, arm: Cell) -> str:
    """The arm's recipe if there is a training from scratch by it, otherwise the plain one."""
    return arm.recipe if scratch_of(arm, arm.recipe) in analysis.arms else analysis.pools.plain(arm)


def rivals(analysis: Analysis, arm: Cell) -> list[Cell]:
    """What an arm with a generator's records has to beat, as far as it was planned: no generator was trained for any of these."""
    ready = [ready_of(arm, way + name) for name in analysis.config.sources for way in ("", WITH)]
    return [rival for rival in (scratch_of(arm, TUNED), forest_of(arm), *ready) if rival in analysis.arms]


def _against_rivals(analysis: Analysis) -> Iterator[tuple[Cell, Cell, str]]:
    """Arms with a generator's records against the best rival, the one of the highest score on the same test records."""
    for arm in analysis.arms:
        if arm.recipe == TUNED and analysis.pools.learned(arm):
            scores = {rival: analysis.score(rival, arm.collection) for rival in rivals(analysis, arm)}
            known = [rival for rival in scores if scores[rival] is not None]
            if scores:
                best = max(known, key=lambda rival: scores[rival].macro_auroc.value) if known else next(iter(scores))
                yield arm, best, arm.collection


def _leads(analysis: Analysis) -> Iterator[tuple[Cell, Cell, str]]:
    """For each collection (and share of real records) the best source against the next, each at its best.

    Generators that saw all real records and those that saw no more than the classifier do not compete with each other.
    """
    best: dict[tuple, dict[tuple, Cell]] = {}
    for arm in analysis.arms:
        score = analysis.score(arm, arm.collection)
        if score is None or arm.recipe != TUNED or arm.source == SCRATCH:
            continue
        learned = analysis.pools.learned(arm)
        for saw_all in (False, True):
            if learned and arm.seen != (1.0 if saw_all else arm.fraction):
                continue
            sources = best.setdefault((arm.collection, arm.classifier, arm.fraction, saw_all), {})
            other = sources.get(arm.stages)  # learnt before the real records or with them, whichever is better
            if other is None or score.macro_auroc.value > analysis.score(other, arm.collection).macro_auroc.value:
                sources[arm.stages] = arm
    for (collection, *_), sources in best.items():
        ranked = sorted(sources.values(), key=lambda arm: -analysis.score(arm, collection).macro_auroc.value)
        if len(ranked) > 1 and any(analysis.pools.learned(arm) for arm in ranked):
            yield ranked[0], ranked[1], collection
