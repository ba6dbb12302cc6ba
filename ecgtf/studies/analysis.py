"""What a study's predictions say: scores of its arms with intervals, and differences between them.

Records and seeds are resampled together. A resample of the records is the same for all arms tested on them, so differences are
paired; seeds are drawn for each arm by itself. Of S seeds, S - 1 are drawn: the variance of their mean is then that of a mean of S,
which S draws would understate by 1/S (a half at two seeds). One seed alone tells nothing of the spread between seeds. A few seeds tell
it roughly, so intervals and p-values are by Student's law, with the degrees of freedom of Welch (1947) and Satterthwaite (1946): those of
the seeds are few, and the records as many as none need be counted.

AUROC is that of all folds' predictions put together, and so compares scores of different classifiers: one fold's may be higher than
another's throughout, the more so the fewer records they learnt from, and pairs across folds then count as mistaken (Parker,
Guenter and Bedo, "Stratification bias in low signal microarray studies", BMC Bioinformatics 8:326, 2007). So AUROC over pairs of the
same fold, in which one classifier gave both scores, stands beside it.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from ecgtf.classifiers.metrics import FEW_POSITIVES, classification_metrics, resamples, weighted_auroc
from ecgtf.studies.cells import Cell
from ecgtf.studies.pooling import TUNED, Pool, Pools

RESAMPLES = 1000
SIGNIFICANT = 0.05
"""A difference with a p-value, after Holm's correction, below this is called one."""

_FEWEST_RESAMPLES = 20


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; no interval where it cannot be resampled."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference of macro-AUROC, with p-values (two-sided) by itself and among all comparisons of its table."""

    p: float | None = None
    holm: float | None = None
    seeds: int = 1
    """Of the side with fewer; one tells nothing of the spread between trainings."""
    within: Estimate | None = None
    """The same of pairs within folds alone."""

    @property
    def significant(self) -> bool:
        """Whether chance alone would hardly give it."""
        return self.seeds > 1 and self.holm is not None and self.holm < SIGNIFICANT


@dataclass(frozen=True)
class ClassScore:
    """AUROC of a class with so many positives."""

    n: int
    auroc: Estimate | None

    @property
    def few(self) -> bool:
        """Whether there are too few positives for a claim."""
        return self.n < FEW_POSITIVES


@dataclass(frozen=True)
class Sample:
    """A figure of an arm: that of each seed, and its mean over the seeds and records of each resample."""

    by_seed: np.ndarray
    """`(seeds,)`"""
    drawn: np.ndarray
    """`(resamples,)`"""

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(self.by_seed.mean())

    @property
    def of_seeds(self) -> tuple[float, int]:
        """The variance of the mean that comes of the seeds (none is known of one seed), and their number."""
        seeds = len(self.by_seed)
        return (float(np.var(self.by_seed, ddof=1)) / seeds if seeds > 1 else 0.0), seeds


@dataclass(frozen=True)
class Score:
    """How good an arm is on a collection, means over its seeds."""

    n: int
    """Records tested on."""
    seeds: int
    macro_auroc: Estimate
    macro_f1: float
    accuracy: float
    per_class: dict[str, ClassScore]
    drawn: Sample
    """What the macro-AUROC is an estimate of."""
    within: Estimate
    """Macro-AUROC of pairs of records of the same fold."""
    within_drawn: Sample


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same records: the first less the second; no difference where one of them is not yet run."""

    first: Cell
    second: Cell
    test_on: str
    difference: Difference | None


class Analysis:
    """The scores of a study's arms, tuned ones too, and the comparisons between them.

    Raises:
        ValueError: if predictions are missing or arms were tested on different records of a collection.
    """

    def __init__(self, pools: Pools, *, bootstrap: int = RESAMPLES):
        self.pools, self.config = pools, pools.config
        self.arms = list(pools.arms)
        self.arms += dict.fromkeys(replace(arm, recipe=TUNED) for arm in pools.arms if arm.recipe)
        self._scores: dict[tuple[Cell, str], Score] = {}
        for test_on in pools.tests:
            self._score_all(test_on, bootstrap)

    def score(self, arm: Cell, test_on: str) -> Score | None:
        """The score of an arm on a collection; None where no seed has all its folds."""
        return self._scores.get((arm, test_on))

    def compare(self, pairs: Iterable[tuple[Cell, Cell, str]]) -> list[Comparison]:
        """The differences of pairs of arms (first, second, collection tested on), corrected for being so many."""
        pairs = list(dict.fromkeys(pairs))
        found = [self._difference(*pair) for pair in pairs]
        corrected = iter(holm([each.p for each in found if each is not None and each.p is not None]))
        found = [each if each is None or each.p is None else replace(each, holm=next(corrected)) for each in found]
        return [Comparison(*pair, each) for pair, each in zip(pairs, found, strict=True)]

    def ratio(self, first: Cell, second: Cell, test_on: str) -> Estimate | None:
        """The macro-AUROC of an arm over that of another, resampled together; None where one of them is not yet run."""
        one, other = self.score(first, test_on), self.score(second, test_on)
        if one is None or other is None:
            return None
        value, by = one.drawn.value / other.drawn.value, other.drawn.value
        (variance, seeds), (other_variance, other_seeds) = one.drawn.of_seeds, other.drawn.of_seeds
        of_seeds = (variance / by**2, seeds), (other_variance * (value / by) ** 2, other_seeds)  # to first order
        drawn = one.drawn.drawn / other.drawn.drawn
        return estimate(value, drawn, freedom(drawn, *of_seeds))

    def _difference(self, first: Cell, second: Cell, test_on: str) -> Difference | None:
        one, other = self.score(first, test_on), self.score(second, test_on)
        if one is None or other is None:
            return None
        found = difference(*_less(one.drawn, other.drawn))
        return replace(found, seeds=min(one.seeds, other.seeds), within=estimate(*_less(one.within_drawn, other.within_drawn)))

    def _score_all(self, test_on: str, bootstrap: int) -> None:
        counts = ids = None
        for arm in self.arms:
            same = self._single(arm, test_on)
            if same is not None:
                if (same, test_on) in self._scores:
                    self._scores[arm, test_on] = self._scores[same, test_on]
                continue
            pool = self.pools.pool(arm, test_on)
            if pool is None:
                continue
            if counts is None:
                ids, counts = pool.ids, _counts(pool.labels, bootstrap, self.config.seed)
            elif not np.array_equal(ids, pool.ids):
                raise ValueError(f"{arm.name} was tested on other records of {test_on} than other arms; run its cells again")
            rng = np.random.default_rng([self.config.seed, zlib.crc32(f"{arm.name} on {test_on}".encode())])
            task = self.config.the_task
            self._scores[arm, test_on] = score(pool, task.classes, task.multi_label, counts, rng)

    def _single(self, arm: Cell, test_on: str) -> Cell | None:
        """The arm that a tuned one is throughout, if there is one: its score, draws of seeds and all, is the same."""
        if arm.recipe != TUNED:
            return None
        chosen = set(self.pools.choice(arm, test_on).values())
        return replace(arm, recipe=chosen.pop()) if len(chosen) == 1 else None


def score(pool: Pool, classes: Sequence[str], multi_label: bool, counts: np.ndarray, rng: np.random.Generator) -> Score:
    """The score of predictions.

    Args:
        pool: The predictions.
        classes: Names of the classes.
        multi_label: Whether classes are decided one by one.
        counts: `(resamples, records)`, how often each resample has each record.
        rng: Draws the seeds.
    """
    points = [
        classification_metrics(pool.labels, scores, classes, multi_label=multi_label, bootstrap=0)
        for scores in pool.probabilities
    ]
    usable = [name not in points[0]["left_out"] for name in classes]
    if not any(usable):
        raise ValueError(f"expected a class with positives and negatives among {len(pool.ids)} records, found none")
    weights = seed_weights(len(pool.seeds), len(counts), rng)
    whole = np.ones((1, len(pool.ids)))

    def samples(folds: np.ndarray | None) -> list[Sample]:
        """AUROC of each class, and last their mean."""
        by_seed = _areas(pool, usable, whole, folds)[..., 0]
        drawn = np.sum(weights * _areas(pool, usable, counts, folds), axis=1)
        return list(map(Sample, [*by_seed, by_seed.mean(axis=0)], [*drawn, drawn.mean(axis=0)]))

    *of_classes, macro = samples(None)
    *_, within = samples(pool.folds)
    of_class = dict(zip(itertools.compress(classes, usable), of_classes, strict=True))
    return Score(
        len(pool.ids),
        len(pool.seeds),
        _estimated(macro),
        _mean(point["macro_f1"]["value"] for point in points),
        _mean(point["accuracy"]["value"] for point in points),
        {
            name: ClassScore(int(positives), _estimated(of_class[name]) if name in of_class else None)
            for name, positives in zip(classes, pool.labels.sum(axis=0), strict=True)
        },
        macro,
        _estimated(within),
        within,
    )


def _areas(pool: Pool, usable: Sequence[bool], counts: np.ndarray, folds: np.ndarray | None = None) -> np.ndarray:
    """AUROC `(usable classes, seeds, resamples)`; where folds are given, of pairs within them."""
    truth = pool.labels > 0.5
    return np.array(
        [
            [weighted_auroc(truth[:, place], scores[:, place], counts, folds) for scores in pool.probabilities]
            for place in np.flatnonzero(usable)
        ]
    )


def seed_weights(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The weight `(seeds, draws)` of each seed in each resample: S - 1 draws out of S, or all of it on a single one."""
    if seeds == 1:
        return np.ones((1, draws))
    return rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=draws).T / (seeds - 1)


def estimate(value: float, drawn: np.ndarray, freedom: float = math.inf) -> Estimate:
    """A figure with the 2.5 and 97.5 percentiles of its resamples `(resamples,)`, as much further away as Student's law of so many degrees
    of freedom has them than the normal law."""
    if len(drawn) < _FEWEST_RESAMPLES:
        return Estimate(value)
    low, high = np.percentile(drawn, (2.5, 97.5))
    wider = stdtrit(freedom, 0.975) / stdtrit(math.inf, 0.975)
    return Estimate(value, float(value - wider * (value - low)), float(value + wider * (high - value)))


def difference(value: float, drawn: np.ndarray, freedom: float = math.inf) -> Difference:
    """A difference with its interval and a two-sided p-value by Student's law, from the spread of its resamples `(resamples,)`.

    Unlike the share of resamples beyond zero, it may be smaller than 1/resamples, which Holm's correction needs.
    """
    whole = estimate(value, drawn, freedom)
    if whole.low is None:
        return Difference(value)
    error = float(np.std(drawn, ddof=1))
    p = float(2 * stdtr(freedom, -abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(value, whole.low, whole.high, p)


def freedom(drawn: np.ndarray, *of_seeds: tuple[float, int]) -> float:
    """The degrees of freedom of the spread of resamples `(resamples,)`, by Welch and Satterthwaite.

    Args:
        drawn: A figure of each resample of records and seeds.
        of_seeds: For each arm, the variance that its seeds give the figure and their number.
    """
    few = sum(variance**2 / (seeds - 1) for variance, seeds in of_seeds if seeds > 1)
    if not few or len(drawn) < _FEWEST_RESAMPLES:
        return math.inf
    return max(1.0, float(np.var(drawn, ddof=1)) ** 2 / few)


def _less(one: Sample, other: Sample) -> tuple[float, np.ndarray, float]:
    """The difference of two figures, its resamples and their degrees of freedom."""
    drawn = one.drawn - other.drawn
    return one.value - other.value, drawn, freedom(drawn, one.of_seeds, other.of_seeds)


def _estimated(sample: Sample) -> Estimate:
    """An AUROC, whose interval ends where AUROC does, however few the seeds."""
    found = estimate(sample.value, sample.drawn, freedom(sample.drawn, sample.of_seeds))
    return found if found.low is None else replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the k-th smallest of m times m - k + 1, never less than a smaller one's."""
    corrected, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(sorted(range(len(values)), key=lambda index: values[index])):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def _counts(labels: np.ndarray, bootstrap: int, seed: int) -> np.ndarray:
    """`(resamples, records)` float32, in the order that `weighted_auroc` likes: sums of counts stay below 2^24, so are exact."""
    truth = labels > 0.5
    usable = truth.any(axis=0) & ~truth.all(axis=0)
    parts = [part.astype(np.float32) for part in resamples(truth[:, usable], bootstrap, seed)]
    return np.asfortranarray(np.concatenate(parts) if parts else np.zeros((0, len(labels)), np.float32))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
