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

from ecgtf.closeness.privacy import signal_distances

_CANDIDATES = 1000  # whose spectra are held at a time: 50 MB for 10 s of 12 leads
_RESAMPLE_CELLS = 2_000_000  # resamples x records that are held at a time: some tables of 16 MB


@dataclass(frozen=True)
class MembershipInference:
    """How well an attacker tells members from non-members, with 95 % bootstrap intervals over both.

    Floors are those of the same attack on real records in place of the synthetic ones, or the level of chance.
    """

    auc: dict[str, float]
    """0.5 for guesses, 1 if all members are known. `value`, `low`, `high`, `floor`, `gap_low`, `gap_high`."""
    tpr: dict[str, float] | None
    """True-positive rate, likewise; None, and the reason in `note`, with too few non-members."""
    note: str = ""


def membership_inference(
    members: np.ndarray,
    nonmembers: np.ndarray,
    synthetic: np.ndarray,
    reference: np.ndarray,
    control: np.ndarray | None = None,
    *,
    rate: float,
    false_positive_rate: float = 0.01,
    resamples: int = 1000,
    seed: int = 0,
) -> MembershipInference:
    """Attacks a synthetic set. Every set is `(n, time, leads)` mV at `rate` samples per second.

    Signals, not features, are compared: a copy with noise or at other gains is still one, while an extractor trained on the members
    knows them by itself. Members and non-members must differ in nothing but membership: draw both from one source, as many of each
    class, no person in two of the four real sets. The control shows whether they do: a floor far from 0.5 condemns the candidates.
    Intervals are over candidates, all else being fixed, and too narrow where people have several records.

    Args:
        members: What the generator was trained on, or a random part of it.
        nonmembers: Real records that it never saw, as those of the next two.
        synthetic: The generator's records, at best as many as would be published.
        reference: What the attacker compares with.
        control: What stands in for the synthetic set, best of its size, for the floor; None for the level of chance.
        rate: Samples per second.
        false_positive_rate: Of the true-positive rate (Carlini et al. 2022).
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: if the sets differ in shape or a set is empty.
    """
    sides = [(side, nearest_distances(side, reference, rate)) for side in (members, nonmembers)]
    attacked, tried = (
        other if other is None else [attack_scores(nearest_distances(side, other, rate), usual) for side, usual in sides]
        for other in (synthetic, control)
    )
    values = attack_rates(*attacked, false_positive_rate)
    drawn = bootstrap(*attacked, false_positive_rate, resamples, seed)
    floors = np.array([0.5, chance_of_finding(len(nonmembers), false_positive_rate)])
    floors_drawn = floors[:, None]
    if tried is not None:  # of the same candidates in each resample
        floors, floors_drawn = (
            attack_rates(*tried, false_positive_rate),
            bootstrap(*tried, false_positive_rate, resamples, seed),
        )
    ends, gap_ends = (np.percentile(side, (2.5, 97.5), axis=1).T for side in (drawn, drawn - floors_drawn))
    auc, tpr = (
        {"value": value, "low": low, "high": high, "floor": floor, "gap_low": gap_low, "gap_high": gap_high}
        for value, (low, high), floor, (gap_low, gap_high) in zip(
            *(side.tolist() for side in (values, ends, floors, gap_ends)), strict=True
        )
    )
    note = unresolved(len(nonmembers), false_positive_rate)
    return MembershipInference(auc, None if note else tpr, note)


def nearest_distances(candidates: np.ndarray, records: np.ndarray, rate: float) -> np.ndarray:
    """Distances `(candidates,)` to the nearest record, those of `signal_distances`.

    Raises:
        ValueError: as `signal_distances`.
    """
    parts = np.split(np.asarray(candidates), range(_CANDIDATES, len(candidates), _CANDIDATES))
    return np.concatenate([signal_distances(part, records, rate)[0] for part in parts])


def attack_scores(to_synthetic: np.ndarray, to_reference: np.ndarray) -> np.ndarray:
    """`log(to_reference / to_synthetic)` of candidates `(n,)`; higher for members.

    In d dimensions, d times the score is the log ratio of both densities by their nearest neighbours, up to a constant.

    Args:
        to_synthetic: Distance of each candidate to the nearest synthetic record.
        to_reference: And to the nearest real record of others.
    """
    made, usual = (np.log(np.maximum(side, np.finfo(float).tiny)) for side in (to_synthetic, to_reference))  # copies are at 0
    return usual - made


def attack_rates(members: np.ndarray, nonmembers: np.ndarray, false_positive_rate: float = 0.01) -> np.ndarray:
    """AUC and true-positive rate `(2,)` of the scores `(n,)` of members and of non-members.

    The AUC is the chance that the score of a member is above that of a non-member, ties counting half. The true-positive rate is the
    share of members that score strictly above a threshold which at most that share of the non-members exceed: the score of a
    non-member, the lowest that will do, the (k + 1)-th highest, k being the whole part of `false_positive_rate` times their number.
    Nothing is interpolated, and members that tie with the threshold are not found.

    Raises:
        ValueError: if a side is empty or holds NaN.
    """
    return _rates(*_tables(members, nonmembers), _allowed(len(nonmembers), false_positive_rate))[:, 0]


def chance_of_finding(nonmembers: int, false_positive_rate: float = 0.01) -> float:
    """Mean true-positive rate where nothing tells members: above the false-positive rate where non-members are few."""
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
    """`attack_rates` `(2, resamples)` of members and non-members resampled each by themselves."""
    rng, step = np.random.default_rng(seed), max(1, _RESAMPLE_CELLS // (len(members) + len(nonmembers)))
    sizes = (min(step, resamples - start) for start in range(0, resamples, step))
    allowed = _allowed(len(nonmembers), false_positive_rate)
    return np.concatenate([_rates(*_tables(members, nonmembers, rng, size), allowed) for size in sizes], axis=1)


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
