"""The privacy metrics of one comparison: what its synthetic records tell of its training records."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from ecgtf.closeness import privacy
from ecgtf.closeness.comparison import DRAWS, Comparison, Part
from ecgtf.closeness.membership import MembershipInference, membership_inference

MOST_FOR_COPIES = 1000
"""Synthetic and held-out records, at most, whose nearest training record is searched (among all of them)."""

MOST_CANDIDATES, MOST_FOR_ATTACK = 500, 2000
"""Members and non-members, at most, and records among which the attacker looks for their neighbours."""


class Leaks:
    """Copies, neighbours and an attack.

    Args:
        comparison: What is compared.
        features: Gives the feature vectors of the three parts, where there are any.
    """

    def __init__(self, comparison: Comparison, features: Callable[[], dict[str, np.ndarray]]):
        self.comparison, self.features = comparison, features

    @cached_property
    def copies(self) -> tuple[privacy.NearCopies, np.ndarray, np.ndarray]:
        """Near copies of training records, with the synthetic and the training signals among which they were searched."""
        synthetic, reference = (
            part.signals[np.random.default_rng(self.comparison.seed).permutation(len(part))[:MOST_FOR_COPIES]]
            for part in (self.comparison.synthetic, self.comparison.reference)
        )
        train = self.comparison.train.signals
        return privacy.near_copies(synthetic, train, reference, self.comparison.rate), synthetic, train

    def near_copy_rate(self) -> dict:
        """Share of near copies; the floor is that of the half of the held-out records that set no threshold."""
        found, synthetic, _ = self.copies
        return share_entry(found.rate, len(synthetic), floor=found.floor)

    def exact_copy_rate(self) -> dict:
        """Share of records that are a training record to the last digit; the floor is that of held-out records."""
        comparison = self.comparison
        made, real = (
            len({place for place, _ in privacy.exact_copies(part.signals, comparison.train.signals)}) / len(part)
            for part in (comparison.synthetic, comparison.reference)
        )
        return share_entry(made, len(comparison.synthetic), floor=real)

    @cached_property
    def neighbours(self) -> list[tuple[privacy.Neighbours, privacy.Neighbours]]:
        """In each of some draws, the neighbours (in features) of the synthetic records and those of half of the held-out ones.

        The training and the held-out set that they have are of one size: the other half of the held-out records, and as many
        training records.
        """
        found = []
        for draw in range(DRAWS):
            rng = np.random.default_rng([self.comparison.seed, draw])
            features = {name: values[rng.permutation(len(values))] for name, values in self.features().items()}
            first, second = np.array_split(features["reference"], 2)
            sets = features["train"][: len(second)], second[: len(features["train"])]
            found.append(tuple(privacy.neighbours(part, *sets) for part in (features["synthetic"], first)))
        return found

    def share_closer_to_train(self) -> dict:
        """Share nearer (in features) to the training than to the held-out set; the floor takes held-out records."""
        value, floor = np.mean([[side.share_closer_to_train for side in sides] for sides in self.neighbours], axis=0)
        return share_entry(value, len(self.comparison.synthetic), floor=floor)

    def distance_ratio(self) -> dict:
        """Low percentile of nearest over second nearest training record (in features); the floor takes held-out records."""
        found = np.array([[privacy.distance_ratios(side).low for side in sides] for sides in self.neighbours])
        value, floor = found.mean(axis=0)
        spread, gap_spread = 1.96 * found[:, 0].std(ddof=1), 1.96 * (found[:, 0] - found[:, 1]).std(ddof=1)
        gap = value - floor
        ends = {"low": value - spread, "high": value + spread, "gap_low": gap - gap_spread, "gap_high": gap + gap_spread}
        return {"value": value, "floor": floor, **ends}

    @cached_property
    def attack(self) -> MembershipInference:
        """The attack on signals: two thirds of the held-out people are non-members, the others are the attacker's own records.

        Members are as many training records of each class; the control is of other people in the training set.
        """
        comparison, rng = self.comparison, np.random.default_rng(self.comparison.seed)
        mine, others = _split_people(comparison.reference, 1 / 3, rng)
        members, nonmembers = _alike(comparison.train, others, MOST_CANDIDATES, rng)
        known = set(members.of_whom())
        rest = np.flatnonzero([person not in known for person in comparison.train.of_whom()])
        synthetic = _some(comparison.synthetic, np.arange(len(comparison.synthetic)), MOST_FOR_ATTACK, rng)
        control = _some(comparison.train, rest, len(synthetic), rng) if len(rest) else None
        sets = [
            part.signals for part in (members, nonmembers, synthetic, _some(mine, np.arange(len(mine)), MOST_FOR_ATTACK, rng))
        ]
        return membership_inference(*sets, control.signals if control else None, rate=comparison.rate, seed=comparison.seed)

    def attack_auc(self) -> dict:
        """How often the attack puts a member before a non-member."""
        found = self.attack
        return {"value": found.auc, "floor": found.auc_floor, "low": found.auc_low, "high": found.auc_high}

    def attack_tpr(self) -> dict:
        """Share of members found with 1 % false alarms.

        Raises:
            ValueError: if there are too few non-members for 1 %.
        """
        found = self.attack
        if found.tpr is None:
            raise ValueError(found.note)
        return {"value": found.tpr, "floor": found.tpr_floor, "low": found.tpr_low, "high": found.tpr_high}


def share_entry(value: float, size: int, *, floor: float) -> dict:
    """The entry of a share of `size` records, with Wilson's 95 % interval."""
    z = 1.96
    centre = (value + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(value * (1 - value) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    return {"value": value, "floor": floor, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def _split_people(part: Part, share: float, rng: np.random.Generator) -> tuple[Part, Part]:
    """The records of this share of the people, and those of the others."""
    people = part.of_whom()
    names = rng.permutation(np.unique(people))
    chosen = np.isin(people, names[: round(share * len(names))])
    return part.take(np.flatnonzero(chosen)), part.take(np.flatnonzero(~chosen))


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
