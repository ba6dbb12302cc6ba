"""A study's questions and what its numbers answer, in plain English."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ecgtf.studies import words
from ecgtf.studies.analysis import Analysis, Comparison, Difference
from ecgtf.studies.comparisons import NON_INFERIOR, USEFUL_ALONE, Families, non_inferior
from ecgtf.studies.config import SCRATCH

FEW_REAL = 0.2
"""Up to this share of the real records, real records are few."""

PAPER = "The paper (arXiv 2411.18456)"

SEEN = {
    "": "sources that need no generator",
    "same": "generators that saw the same share of the real records",
    "all": "generators that saw all real records",
}
"""Ways to learn by what a generator saw: only one that saw no more than the classifier saves real records."""


@dataclass(frozen=True)
class Answer:
    """A question and the sentences that answer it."""

    question: str
    sentences: tuple[str, ...]


def answers(analysis: Analysis, study: str, found: Families) -> list[Answer]:
    """The questions of a study that its settings ask, with what can be said so far."""
    asked = _Augmentation(analysis, found) if study == "augmentation" else _Transfer(analysis, found)
    told = [Answer(question, tuple(sentences)) for question, sentences in asked.answers()]
    return [answer for answer in told if answer.sentences]


def change(difference: Difference, subject: str) -> str:
    """A difference as a sentence's end: what `subject` did to macro-AUROC, and whether chance alone would hardly do it."""
    low, high = difference.low, difference.high
    if low is None:
        return f"{subject} changed macro-AUROC by {words.signed(difference.value)}; too few records for an interval"
    sure = difference.significant
    spelt = words.figure if sure and difference.value > 0 else words.signed
    interval = f"{spelt(low)} to {spelt(high)}; Holm p {_equals(difference.holm)}"
    if not sure:
        value = words.signed(difference.value)
        why = "no difference that these data could show" if difference.seeds > 1 else "of one seed, so no claim"
        return f"{subject} changed macro-AUROC by {value} ({interval}): {why}"
    verb = "raised" if difference.value > 0 else "lowered"
    return f"{subject} {verb} macro-AUROC by {abs(difference.value):.3f} ({interval})"


def tally(comparisons: Sequence[Comparison], what: str, name: Callable[[Comparison], str]) -> str:
    """How many of the comparisons show a difference, and the one of the highest."""
    done = [each for each in comparisons if each.difference is not None]
    if not done:
        return f"{what}: not yet run"
    best = _best(done)
    text = change(best.difference, name(best))
    if len(done) == 1 == len(comparisons):
        return f"{what}, {text}"
    down = sum(each.difference.significant and each.difference.value < 0 for each in done)
    return f"{what}, {raised(comparisons)} raised macro-AUROC beyond chance and {down} lowered it; at best, {text}"


def _best(done: Sequence[Comparison]) -> Comparison:
    """The one of the highest difference; one of a single seed only where there is no other."""
    return max(done, key=lambda each: (each.difference.seeds > 1, each.difference.value))


def _by(difference: Difference) -> str:
    return words.with_interval(difference, words.signed) + (" (one seed)" if difference.seeds == 1 else "")


def raised(comparisons: Sequence[Comparison]) -> str:
    """How many of them are a gain beyond chance, of those that could be called one, and how many cannot yet."""
    done = [each.difference for each in comparisons if each.difference is not None]
    several = [each for each in done if each.seeds > 1]
    rest = {"of one seed, so no claim": len(done) - len(several), "not yet run": len(comparisons) - len(done)}
    text = f"{sum(each.significant and each.value > 0 for each in several)} of {len(several)}" if several else "none"
    left = ", ".join(f"{count} {why}" for why, count in rest.items() if count)
    return f"{text} ({left})" if left else text


def _equals(p: float | None) -> str:
    text = words.p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


class _Questions:
    study = ""

    def __init__(self, analysis: Analysis, found: Families):
        self.analysis, self.found, self.pools = analysis, found, analysis.pools
        there = {arm.collection for arm in analysis.pools.arms}
        self.collections = [name for name in analysis.config.all_collections if name in there]

    def name(self, each: Comparison) -> str:
        return words.arm_in_words(each.first, self.study, self.pools)

    def leads(self) -> Iterator[str]:
        """Which source is best, and whether it is by more than chance."""
        for each in self.found["lead"]:
            first, second = (words.arm_in_words(arm, self.study, self.pools) for arm in (each.first, each.second))
            share = self._share(each)
            lead = each.difference
            interval = f"{words.with_interval(lead, words.signed)}, Holm p {_equals(lead.holm)}"
            if lead.significant:
                sure = "is beyond chance"
            else:
                sure = "is not beyond what chance gives" if lead.seeds > 1 else "is of one seed, so no claim"
            yield f"On {each.test_on}{share}, {first} is best and {second} next; the lead of {interval} {sure}."

    def rivals(self) -> Iterator[str]:
        """Whether generators are worth their training."""
        for collection in self.collections:
            mine = [each for each in self.found["rivals"] if each.first.collection == collection]
            for saw, part in self.by_what_was_seen(mine):
                where = f"On {collection}, with {SEEN[saw]}" if self.study == "transfer" else f"On {collection}"
                yield tally(part, f"{where}, against the best rival", self._against) + "."

    def by_what_was_seen(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
        """Arms by what their generators saw, in the order of `SEEN`."""
        for saw in SEEN:
            mine = [each for each in comparisons if self.pools.saw(each.first) == saw]
            if mine:
                yield saw, mine

    def _against(self, each: Comparison) -> str:
        rival = words.arm_in_words(each.second, self.study, self.pools)
        return f"{self._shared(each)} in place of {rival}"

    def cross(self) -> Iterator[str]:
        pairs = dict.fromkeys((each.first.collection, each.test_on) for each in self.found["cross"])
        for trained, tested in pairs:
            mine = [
                each
                for each in self.found["cross"]
                if (each.first.collection, each.test_on) == (trained, tested) and each.first.source != SCRATCH
            ]
            if mine:
                yield tally(mine, f"Trained on {trained} and tested on {tested}", self._shared) + "."

    def _shared(self, each: Comparison) -> str:
        return self.name(each) + self._share(each)

    def _share(self, each: Comparison) -> str:
        return f" with {words.percent(each.first.fraction)} of the real records" if self.study == "transfer" else ""


class _Augmentation(_Questions):
    study = "augmentation"

    def answers(self) -> Iterator[tuple[str, Iterator[str]]]:
        for collection in self.collections:
            yield f"Does adding synthetic records help on {collection}?", self.helps(collection)
        yield "Which source is best, and is its lead over the next beyond chance?", self.leads()
        yield "Does classical augmentation do as well?", self.classical()
        yield "Does a generator beat the best rival that needs none?", self.rivals()
        yield "Does it carry over to other collections?", self.cross()
        yield "How does this stand to the paper?", self.paper()

    def added(self, collection: str) -> list[Comparison]:
        """The comparisons of synthetic additions."""
        return [each for each in self.found[f"own-{collection}"] if each.first.source != SCRATCH]

    def helps(self, collection: str) -> Iterator[str]:
        mine = self.added(collection)
        if mine:
            yield tally(mine, f"On {collection}, of the additions of synthetic records", self._adding) + "."

    def _adding(self, each: Comparison) -> str:
        return f"adding {self.name(each)}"

    def classical(self) -> Iterator[str]:
        """Recipes that change real records more than the plain one does, beside the best addition to the plain one."""
        recipes = self.analysis.config.recipes
        for collection in self.collections:
            others = [each for each in self.found[f"own-{collection}"] if each.first.source == SCRATCH]
            for each in others:
                plain, other = each.second.recipe, each.first.recipe
                if recipes[plain].augment == recipes[other].augment:
                    continue
                if each.difference is None:
                    yield f"On {collection}, real records alone by the recipe {other}: not yet run."
                    continue
                text = change(each.difference, f"the recipe {other} on real records alone, in place of {plain},")
                added = [one for one in self.added(collection) if one.second == each.second and one.difference is not None]
                best = max(added, key=lambda one: one.difference.value, default=None)
                beside = ""
                if best is not None:
                    by = words.with_interval(best.difference, words.signed)
                    beside = f"; the best synthetic addition to {plain}, {self.name(best)}, changed it by {by}"
                yield f"On {collection}, {text}{beside}."

    def paper(self) -> Iterator[str]:
        merged = self.analysis.config.merged
        there = [name for name in self.collections if self.added(name)]
        if not there:
            return
        single = [name for name in there if name != merged or len(self.analysis.config.collections) == 1]
        text = f"{PAPER} found that augmenting one data set hardly helps and that all metrics rise on the merged sets; here, "
        parts = [f"{raised(self.added(name))} additions on {name}" for name in single]
        if merged in there and merged not in single:
            parts.append(f"{raised(self.added(merged))} on the merged {merged}")
        yield f"{text}{_listed(parts)} raised macro-AUROC beyond chance."


class _Transfer(_Questions):
    study = "transfer"

    def answers(self) -> Iterator[tuple[str, Iterator[str]]]:
        few = words.percent(FEW_REAL)
        yield (
            f"Does learning from synthetic records beat training from scratch by the same recipe on up to {few} of the real records?",
            self.beats("plain"),
        )
        yield f"Does it beat tuned training from scratch on up to {few} of the real records?", self.beats("tuned")
        yield f"With {few} of the real records, does it reach training on all of them?", self.reaches()
        yield "What is it worth without any real record?", self.alone()
        yield "Which source is best, and is its lead over the next beyond chance?", self.leads()
        yield "Does a generator beat the best rival that needs none?", self.rivals()
        yield "Does it carry over to other collections?", self.cross()
        yield "How does this stand to the paper?", self.paper()

    def beats(self, kind: str) -> Iterator[str]:
        for collection in self.collections:
            mine = [each for each in self.found[f"{kind}-{collection}"] if each.first.fraction <= FEW_REAL]
            for source, part in self._by_source(mine):
                yield tally(part, f"On {collection}, of the ways to learn from {source}", self._shared) + "."

    def _by_source(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
        """Arms that learnt from synthetic records alone or beside real ones, by what they are."""
        collections = set(self.analysis.config.all_collections)
        synthetic = [each for each in comparisons if not collections & {*each.first.stages}]
        for saw, mine in self.by_what_was_seen(synthetic):
            yield SEEN[saw] + (", which saves none" if saw == "all" else ""), mine

    def _reaching(self, collection: str) -> list[Comparison]:
        """A source and few real records against all real ones."""
        found = [each for each in self.found["full"] if each.test_on == collection and each.first.fraction == FEW_REAL]
        return [each for each in found if each.first.source != SCRATCH]

    def reaches(self) -> Iterator[str]:
        """Whether a few real records and a source do as well as all real records."""
        for collection in self.collections:
            for source, mine in self._by_source(self._reaching(collection)):
                done = [each for each in mine if each.difference is not None]
                start = f"On {collection}, with {words.percent(FEW_REAL)} of the real records and {source}"
                if not done:
                    yield f"{start}: not yet run."
                    continue
                best = _best(done)
                within = sum(each.difference.value > NON_INFERIOR for each in done)
                shown = sum(non_inferior(each.difference) for each in done)
                yield (
                    f"{start}, the difference to training from scratch, tuned, on all real records is above {NON_INFERIOR:g} for "
                    f"{within} of {len(done)} sources, and shown to be (non-inferior) for {shown}; the best, "
                    f"{self.name(best)}, differs by {_by(best.difference)}."
                )

    def alone(self) -> Iterator[str]:
        """Training on a source alone against training on all real records."""
        for collection in self.collections:
            mine = [each for each in self.found["full"] if each.test_on == collection and not each.first.fraction]
            ratios = [(self.analysis.ratio(each.first, each.second, collection), each) for each in mine]
            done = [(ratio, each) for ratio, each in ratios if ratio is not None]
            if mine and not done:
                yield f"On {collection}: not yet run."
            if done:
                ratio, best = max(done, key=lambda one: one[0].value)
                reached = sum(ratio.value >= USEFUL_ALONE for ratio, _ in done)
                yield (
                    f"On {collection}, training on a source alone has at least {USEFUL_ALONE:g} of the macro-AUROC of training from "
                    f"scratch, tuned, on all real records for {reached} of {len(done)} sources; the best, {self.name(best)}, has "
                    f"{words.with_interval(ratio)}."
                )

    def paper(self) -> Iterator[str]:
        said = f"{PAPER} found Time-VQVAE the best source of pre-training, yet not close to training on real records alone."
        here = []
        for collection in self.collections:
            mine = [each for each in self._reaching(collection) if self.pools.learned(each.first)]
            done = [each for each in mine if each.difference is not None]
            if done:
                best = _best(done)
                start = f"On {collection} with {words.percent(FEW_REAL)} of the real records"
                by = _by(best.difference)
                here.append(f"{start}, {self.name(best)} is the best here, and differs from training on all of them by {by}.")
        yield from [said, *here] if here else []
