"""The same ECG under two names: a fingerprint that survives resampling, and the search for equal ones (NumPy only).

Collections contain each other's records, at other rates and after other rounding, so that a hash of the samples does not find
them. The fingerprint is the sign of random projections (Charikar, "Similarity estimation techniques from rounding algorithms",
STOC 2002) of what a copy cannot lose: the slow course of the independent leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ecgtf.ecg import INDEPENDENT_LEADS

BITS = 128
MOST_DIFFERENT_BITS = 7
"""Fingerprints that differ in more bits are of different ECGs."""

_BLOCKS_PER_SECOND = 10
_EDGE_SECONDS = 0.5
_BANDS = 8  # fingerprints that differ in fewer bits than there are bands agree in one of them


def fingerprint(signal: np.ndarray, leads: Sequence[str], rate: float) -> str:
    """32 hexadecimal digits for a `signal` `(time, leads)` in millivolts.

    Means over tenths of a second, without each lead's mean, are projected on fixed random signs; half a second at both ends is
    left out, where filters and resampling show. PTB-XL's 100 Hz files and its 500 Hz files resampled here differ in 1 of the 128
    bits (median of 242 records, at most 5), different ECGs in 64 (median, at least 25 among 450,775 pairs of 950 records).
    Only signals of the same rate, length and leads compare so.
    """
    chosen = [leads.index(lead) for lead in INDEPENDENT_LEADS if lead in leads] or list(range(len(leads)))
    seconds = len(signal) / rate
    edge = _EDGE_SECONDS if seconds > 4 * _EDGE_SECONDS else 0.0
    blocks = max(2, int((seconds - 2 * edge) * _BLOCKS_PER_SECOND + 1e-6))
    starts = np.round((edge + np.arange(blocks + 1) / _BLOCKS_PER_SECOND) * rate).astype(int).clip(0, len(signal))
    cumulated = np.concatenate([np.zeros((1, len(chosen))), np.cumsum(signal[:, chosen], axis=0, dtype=np.float64)])
    course = np.diff(cumulated[starts], axis=0) / np.maximum(np.diff(starts), 1)[:, None]
    course -= course.mean(axis=0)
    bits = course.ravel() @ _signs(course.size) > 0
    return np.packbits(bits).tobytes().hex()


def copies(fingerprints: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places `(i, j)`, i < j, whose fingerprints differ in at most `MOST_DIFFERENT_BITS` bits.

    Of several equal fingerprints each is paired with the first of them, so that the pairs are few even if all are equal.
    """
    first: dict[str, int] = {}
    pairs = [(first[text], place) for place, text in enumerate(fingerprints) if first.setdefault(text, place) != place]
    places = np.array(list(first.values()), np.int64)
    words = np.frombuffer(bytes.fromhex("".join(first)), ">u2").reshape(-1, _BANDS)
    near = {pair for band in range(_BANDS) for pair in _near_in_band(words, band)}
    pairs += [(int(places[i]), int(places[j])) for i, j in near]
    return sorted(pairs)


def _near_in_band(words: np.ndarray, band: int) -> list[tuple[int, int]]:
    """Pairs of rows of `words` `(n, bands)` that agree in this band and differ in few bits."""
    order = np.argsort(words[:, band], kind="stable")
    keys = words[order, band]
    found = []
    for distance in range(1, len(order)):  # compares each row with the next, the next but one ... of its group
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(same):
            break
        a, b = order[same], order[same + distance]
        close = np.bitwise_count(words[a] ^ words[b]).sum(axis=1) <= MOST_DIFFERENT_BITS
        found += [(int(min(i, j)), int(max(i, j))) for i, j in zip(a[close], b[close], strict=True)]
    return found


@lru_cache(maxsize=4)
def _signs(values: int) -> np.ndarray:
    """`(values, BITS)` of -1 and 1, the same everywhere: the bits of a generator whose stream NumPy guarantees."""
    words = np.random.PCG64(20).random_raw(values * BITS // 64)
    return np.unpackbits(words.astype("<u8").view(np.uint8)).reshape(values, BITS) * 2.0 - 1.0
