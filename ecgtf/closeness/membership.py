"""Whether synthetic records tell who was in the training set: a membership-inference attack and how often it succeeds.

The attacker holds synthetic records, real records of others and the record of a person, but no generator. People who are
nearer to a synthetic record than to the others are called members: the ratio of the two distances estimates that of the
synthetic to the real density there (van Breugel et al. 2023, DOMIAS). By the first distance alone, usual records pass for
members (Watson et al. 2022). Copies of a share of the members raise the true-positive rate by that share, but the AUC by half
of it only: read both. What this attack finds is a leak; what it does not find proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecgtf.closeness.distribution import nearest
from ecgtf.closeness.privacy import signal_distances

_CANDIDATES = 1000  # whose spectra are held at a time: 50 MB for 10 s of 12 leads
_RESAMPLE_CELLS = 2_000_000  # resamples x records that are held at a time: some tables of 16 MB


@dataclass(frozen=True)
class MembershipInference:
    """How well an attacker tells members from non-members, with 95 % bootstrap intervals over both.

    Floors are those of the same attack on real records in place of the synthetic ones, or the level of chance.
    """

    auc: dict[str, float]
    """`attack_auc`: 0.5 for guesses, 1 if all members are known. `value`, `low`, `high`, `floor`, `gap_low`, `gap_high`."""
    tpr: dict[str, float] | None
    """`true_positive_rate` at `false_positive_rate`, likewise; None, and the reason in `note`, with too few non-members."""
    false_positive_rate: float
    n_members: int
    n_nonmembers: int
    note: str = ""


def membership_inference(
    members: np.ndarray,
    nonmembers: np.ndarray,
    synthetic: np.ndarray,
    reference: np.ndarray | None = None,
    control: np.ndarray | None = None,
    *,
    rate: float | None = None,
    false_positive_rate: float = 0.01,
    resamples: int = 1000,
    seed: int = 0,
) -> MembershipInference:
    """Attacks a synthetic set. Every set is `(n, time, leads)` mV at `rate` samples per second, or `(n, d)` features.

    Signals find more: a copy with noise or at other gains is still one, while an extractor trained on the members knows them
    by itself. Members and non-members must differ in nothing but membership: draw both from one source, as many of each class,
    no person in two of the four real sets. The control shows whether they do: a floor far from 0.5 condemns the candidates.
    Intervals are over candidates, all else being fixed, and too narrow where people have several records.

    Args:
        members: What the generator was trained on, or a random part of it.
        nonmembers: Real records that it never saw, as those of the next two.
        synthetic: The generator's records, at best as many as would be published.
        reference: What the attacker compares with; None for an attack by the distance alone.
        control: What stands in for the synthetic set, best of its size, for the floor; None for the level of chance.
        rate: None for features.
        false_positive_rate: Of the true-positive rate (Carlini et al. 2022).
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: if the sets differ in shape, a set is empty, or features hold NaN or infinity.
    """
    sides = [(side, None if reference is None else nearest_distances(side, reference, rate)) for side in (members, nonmembers)]
    attacked, tried = (
        other if other is None else [attack_scores(nearest_distances(side, other, rate), usual) for side, usual in sides]
        for other in (synthetic, control)
    )
    chance = 0.5, chance_of_finding(len(nonmembers), false_positive_rate)
    values, drawn = _rates_of(attacked, false_positive_rate), bootstrap(*attacked, false_positive_rate, resamples, seed)
    floors, floors_drawn = np.array(chance), np.array(chance)[:, None]
    if tried is not None:  # of the same candidates in each resample
        floors, floors_drawn = _rates_of(tried, false_positive_rate), bootstrap(*tried, false_positive_rate, resamples, seed)
    ends, gap_ends = (np.percentile(side, (2.5, 97.5), axis=1).T for side in (drawn, drawn - floors_drawn))
    auc, tpr = (
        {"value": value, "low": low, "high": high, "floor": floor, "gap_low": gap_low, "gap_high": gap_high}
        for value, (low, high), floor, (gap_low, gap_high) in zip(
            *(side.tolist() for side in (values, ends, floors, gap_ends)), strict=True
        )
    )
    note = unresolved(len(nonmembers), false_positive_rate)
    return MembershipInference(auc, None if note else tpr, false_positive_rate, len(members), len(nonmembers), note)


def nearest_distances(candidates: np.ndarray, records: np.ndarray, rate: float | None = None) -> np.ndarray:
    """Distances `(candidates,)` to the nearest record: `signal_distances` of signals, Euclidean of features (without `rate`).

    Raises:
        ValueError: as `signal_distances` and `nearest`.
    """
    if rate is None:
        return nearest(candidates, records)[0][:, 0]
    parts = np.split(np.asarray(candidates), range(_CANDIDATES, len(candidates), _CANDIDATES))
    return np.concatenate([signal_distances(part, records, rate)[0] for part in parts])


def attack_scores(to_synthetic: np.ndarray, to_reference: np.ndarray | None = None) -> np.ndarray:
    """`log(to_reference / to_synthetic)` of candidates `(n,)`, or `-log(to_synthetic)` without a reference; higher for members.

    In d dimensions, d times the score is the log ratio of both densities by their nearest neighbours, up to a constant.

    Args:
        to_synthetic: Distance of each candidate to the nearest synthetic record.
        to_reference: And to the nearest real record of others.
    """
    distances = to_synthetic, np.ones_like(to_synthetic) if to_reference is None else to_reference
    if np.shape(distances[0]) != np.shape(distances[1]):
        raise ValueError(
            f"expected two distances of each candidate, received {' and '.join(str(np.shape(d)) for d in distances)}"
        )
    made, usual = (np.log(np.maximum(side, np.finfo(float).tiny)) for side in distances)  # exact copies are at 0
    return usual - made


def attack_auc(members: np.ndarray, nonmembers: np.ndarray) -> float:
    """Chance that the score of a member is above that of a non-member, ties counting half.

    Raises:
        ValueError: if a side is empty or holds NaN.
    """
    return float(_rates(*_tables(members, nonmembers), allowed=0)[0, 0])


def true_positive_rate(members: np.ndarray, nonmembers: np.ndarray, false_positive_rate: float = 0.01) -> float:
    """Share of members that score strictly above a threshold which at most this share of the non-members exceed.

    The threshold is the score of a non-member, the lowest that will do: the (k + 1)-th highest, k being the whole part of
    `false_positive_rate` times their number. Nothing is interpolated, and members that tie with the threshold are not found.

    Raises:
        ValueError: if a side is empty or holds NaN, or there are too few non-members: 1 % needs 100.
    """
    if reason := unresolved(len(nonmembers), false_positive_rate):
        raise ValueError(reason)
    return float(_rates(*_tables(members, nonmembers), _allowed(len(nonmembers), false_positive_rate))[1, 0])


def chance_of_finding(nonmembers: int, false_positive_rate: float = 0.01) -> float:
    """Mean `true_positive_rate` where nothing tells members: above the false-positive rate where non-members are few."""
    return (_allowed(nonmembers, false_positive_rate) + 1) / (nonmembers + 1)


def unresolved(nonmembers: int, false_positive_rate: float = 0.01) -> str:
    """Why so many non-members give no true-positive rate at this false-positive rate; empty if they do."""
    if not 0 < false_positive_rate < 1:
        raise ValueError(f"expected a false-positive rate between 0 and 1, received {false_positive_rate}")
    if _allowed(nonmembers, false_positive_rate):
        return ""
    least = int(np.ceil(1 / false_positive_rate - 1e-9))
    return f"a false-positive rate of {false_positive_rate:g} needs at least {least} non-members, received {nonmembers}"


def bootstrap(
    members: np.ndarray, nonmembers: np.ndarray, false_positive_rate: float = 0.01, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """`attack_auc` and `true_positive_rate` `(2, resamples)` of members and non-members resampled each by themselves."""
    rng, step = np.random.default_rng(seed), max(1, _RESAMPLE_CELLS // (len(members) + len(nonmembers)))
    sizes = (min(step, resamples - start) for start in range(0, resamples, step))
    allowed = _allowed(len(nonmembers), false_positive_rate)
    return np.concatenate([_rates(*_tables(members, nonmembers, rng, size), allowed) for size in sizes], axis=1)


def _rates_of(scores: list[np.ndarray], false_positive_rate: float) -> np.ndarray:
    """AUC and true-positive rate `(2,)` of the scores of members and of non-members."""
    return _rates(*_tables(*scores), _allowed(len(scores[1]), false_positive_rate))[:, 0]


def _tables(members: np.ndarray, nonmembers: np.ndarray, rng=None, resamples: int = 1) -> list[np.ndarray]:
    """How often each score, in ascending order, comes in resamples of the two sides, or in the sides: `(resamples, scores)`."""
    pooled = np.concatenate([members, nonmembers])
    if pooled.ndim != 1 or not (len(members) and len(nonmembers)) or np.isnan(pooled).any():
        sizes = f"{np.shape(members)} and {np.shape(nonmembers)}, {np.isnan(pooled).sum()} of them NaN"
        raise ValueError(f"expected scores (n,) of members and non-members, received {sizes}; leave out candidates without one")
    values, places = np.unique(pooled, return_inverse=True)
    tables = []
    for side in np.split(places, [len(members)]):
        drawn = side[None] if rng is None else side[rng.integers(len(side), size=(resamples, len(side)))]
        cells = drawn + len(values) * np.arange(resamples)[:, None]
        tables.append(np.bincount(cells.ravel(), minlength=resamples * len(values)).reshape(resamples, -1))
    return tables


def _rates(members: np.ndarray, nonmembers: np.ndarray, allowed: int) -> np.ndarray:
    """AUC and true-positive rate `(2, resamples)` of `_tables`."""
    n, m = members[0].sum(), nonmembers[0].sum()
    upto = nonmembers.cumsum(axis=1)
    areas = (members * (upto - 0.5 * nonmembers)).sum(axis=1) / (n * m)
    threshold = (m - upto <= allowed).argmax(axis=1)  # the first score that few enough non-members exceed
    return np.stack([areas, (n - members.cumsum(axis=1)[np.arange(len(members)), threshold]) / n])


def _allowed(nonmembers: int, false_positive_rate: float) -> int:
    return int(np.floor(false_positive_rate * nonmembers + 1e-9))  # 29 of 100 at 0.29
