"""The privacy metrics of one comparison: what its synthetic records tell of its training records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from ecgtf.closeness import privacy
from ecgtf.closeness.comparison import DRAWS, HALVES, Comparison, Part, summary
from ecgtf.closeness.membership import MembershipInference, membership_inference

MOST_FOR_COPIES = 1000
"""Synthetic and held-out records, at most, whose nearest training record is searched (among all of them)."""

MOST_CANDIDATES, MOST_FOR_ATTACK = 500, 2000
"""Members and non-members, at most, and records among which the attacker looks for their neighbours."""


class Leaks:
    """Copies, neighbours and an attack. All records are searched, whatever their class: a copy is a copy.

    Args:
        comparison: What is compared.
        features: Gives the comparison whose training records the extractor did not see, and the features of its parts.
    """

    def __init__(self, comparison: Comparison, features: Callable[[], tuple[Comparison, dict[str, np.ndarray]]]):
        self.comparison, self.features = comparison, features

    @cached_property
    def copies(self) -> tuple[privacy.NearCopies, np.ndarray, np.ndarray]:
        """Near copies of training records, with the synthetic and the training signals among which they were searched."""
        synthetic, reference = (
            part.signals[np.random.default_rng(self.comparison.seed).permutation(len(part))[:MOST_FOR_COPIES]]
            for part in (self.comparison.synthetic, self.comparison.reference)
        )
        train = self.comparison.learnt.signals
        return privacy.near_copies(synthetic, train, reference, self.comparison.rate), synthetic, train

    def near_copy_rate(self) -> dict:
        """Share of near copies; the floor is that of the half of the held-out records that set no threshold."""
        found, synthetic, _ = self.copies
        return share_entry(found.rate, len(synthetic), found.floor, min(len(self.comparison.reference), MOST_FOR_COPIES) // 2)

    def exact_copy_rate(self) -> dict:
        """Share of records that are a training record to the last digit; the floor is that of held-out records."""
        comparison = self.comparison
        parts = comparison.synthetic, comparison.reference
        made, real = (float(privacy.exact_copies(part.signals, comparison.learnt.signals).mean()) for part in parts)
        return share_entry(made, len(parts[0]), real, len(parts[1]))

    def share_closer_to_train(self) -> dict:
        """Share nearer (in features) to the training than to the held-out set; the floor takes held-out records."""
        return self._of_neighbours["share"]

    def distance_ratio(self) -> dict:
        """Low percentile of nearest over second nearest training record (in features); the floor takes held-out records."""
        return self._of_neighbours["ratio"]

    @cached_property
    def _of_neighbours(self) -> dict[str, dict]:
        """Both numbers of the neighbours of the synthetic records, their floors from records of other held-out people.

        The share has as many training as held-out neighbours to choose from; the ratio has all training records, for a copy has its
        original among few of them by chance alone. Means over draws; intervals from half-samples of all sides.
        """
        draws = [self._neighbours(draw, 1.0) for draw in range(DRAWS)]
        halves = [self._neighbours(DRAWS + draw, 0.5) for draw in range(HALVES)]
        return {name: summary(*([found[name] for found in drawn] for drawn in (draws, halves))) for name in ("share", "ratio")}

    def _neighbours(self, draw: int, share: float) -> dict[str, tuple[float, float]]:
        """Both numbers of the synthetic records, and of those of one half of the held-out people, among training records and those
        of the other half."""
        comparison, features = self.features()
        if comparison.seen is not None:
            learnt = np.isin(comparison.train.ids, comparison.learnt.ids)
            features = dict(features) | {"train": features["train"][learnt]}
        rng = np.random.default_rng([comparison.seed, draw])
        people = comparison.reference.of_whom()
        first = np.isin(people, rng.permutation(np.unique(people))[::2])
        sets = {"train": features["train"], "synthetic": features["synthetic"]}
        sets |= {"asking": features["reference"][first], "held out": features["reference"][~first]}
        rows = {name: rng.permutation(len(values))[: max(2, round(share * len(values)))] for name, values in sets.items()}
        train, held_out, *sides = (sets[name][rows[name]] for name in ("train", "held out", "synthetic", "asking"))
        size = min(len(train), len(held_out))
        return {
            "share": tuple(privacy.share_closer_to_train(side, train[:size], held_out[:size]) for side in sides),
            "ratio": tuple(privacy.low_distance_ratio(side, train) for side in sides),
        }

    @cached_property
    def attack(self) -> MembershipInference:
        """The attack on signals: two thirds of the held-out people are non-members, the others are the attacker's own records.

        Members are as many training records of each class; the control is of other people in the training set.
        """
        comparison, rng = self.comparison, np.random.default_rng(self.comparison.seed)
        mine, others = comparison.reference.split_people(1 / 3, rng)
        members, nonmembers = _alike(comparison.learnt, others, MOST_CANDIDATES, rng)
        known = set(members.of_whom())
        rest = np.flatnonzero([person not in known for person in comparison.learnt.of_whom()])
        synthetic = _some(comparison.synthetic, np.arange(len(comparison.synthetic)), MOST_FOR_ATTACK, rng)
        control = _some(comparison.learnt, rest, len(synthetic), rng) if len(rest) else None
        sets = [
            part.signals for part in (members, nonmembers, synthetic, _some(mine, np.arange(len(mine)), MOST_FOR_ATTACK, rng))
        ]
        return membership_inference(*sets, control.signals if control else None, rate=comparison.rate, seed=comparison.seed)

    def attack_auc(self) -> dict:
        """How often the attack puts a member before a non-member."""
        return self.attack.auc

    def attack_tpr(self) -> dict:
        """Share of members found with 1 % false alarms.

        Raises:
            ValueError: if there are too few non-members for 1 %.
        """
        if self.attack.tpr is None:
            raise ValueError(self.attack.note)
        return self.attack.tpr


def share_entry(value: float, size: int, floor: float, floor_size: int) -> dict:
    """The entry of a share of `size` records beside one of `floor_size`, with Wilson's intervals and Newcombe's of the difference."""
    made, real = ({"value": share} | wilson_interval(share, count) for share, count in ((value, size), (floor, floor_size)))
    return made | {"floor": floor} | gap_of_intervals(made, real)


def wilson_interval(share: float, size: int) -> dict[str, float]:
    """Wilson's 95 % interval of a share of `size` records."""
    z = 1.96
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(share * (1 - share) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    return {"low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def gap_of_intervals(made: Mapping, real: Mapping) -> dict[str, float | None]:
    """The 95 % interval of the difference of two independent numbers from the interval of each (Newcombe 1998, method 10)."""
    if any(side[end] is None for side in (made, real) for end in ("low", "high")):
        return {"gap_low": None, "gap_high": None}
    gap = made["value"] - real["value"]
    low = np.hypot(made["value"] - made["low"], real["high"] - real["value"])
    high = np.hypot(made["high"] - made["value"], real["value"] - real["low"])
    return {"gap_low": gap - low, "gap_high": gap + high}


def _alike(train: Part, others: Part, most: int, rng: np.random.Generator) -> tuple[Part, Part]:
    """Equally many records of each class of both parts, at most so many of each part."""
    if train.labels is None or others.labels is None:
        size = min(len(train), len(others), most)
        return tuple(_some(part, np.arange(len(part)), size, rng) for part in (train, others))
    share = min(1.0, most / len(others))
    rows: tuple[list, list] = ([], [])
    for label in np.unique(others.labels, axis=0):
        both = [rng.permutation(np.flatnonzero((part.labels == label).all(axis=1))) for part in (train, others)]
        size = min(len(both[0]), max(1, int(share * len(both[1]))))
        for side, found in zip(rows, both, strict=True):
            side.extend(found[:size])
    return train.take(np.array(rows[0], int)), others.take(np.array(rows[1], int))


def _some(part: Part, rows: np.ndarray, most: int, rng: np.random.Generator) -> Part:
    """At most so many of these rows, drawn at random."""
    return part.take(rng.permutation(rows)[:most])
