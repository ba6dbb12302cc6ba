"""How near a generator in training has come to held-out records, by a few samples: for the log, not for a paper (`ecgtf evaluate`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ecgtf.closeness.distribution import frechet_distance
from ecgtf.closeness.physiology import distribution_distance, heart_rate, r_peaks, rmssd

OCTAVES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Hz: edges of the bands whose power is compared."""
FEATURE_LEADS = ("II", "V1", "V5")


class Judge:
    """Held-out records that samples are compared with: they are measured once, and not kept.

    Args:
        signals: `(records, time, leads)` mV.
        labels: `(records, classes)`.
        leads: Names of the leads.
        rate: Samples per second.
        classes: Names of the classes.
    """

    def __init__(self, signals: np.ndarray, labels: np.ndarray, leads: Sequence[str], rate: float, classes: Sequence[str]):
        self.labels, self.leads, self.rate, self.classes = labels, leads, rate, classes
        self._powers = band_powers(signals, rate, leads)
        self._beats = _beats(signals, rate)

    def __call__(self, signals: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Figures of samples `(n, time, leads)` with labels `(n, classes)`, NaN where there is nothing to compare.

        Returns:
            `sample_frechet`: of band powers, the samples of each class counting as often as held-out records have it;
            `sample_heart_rate` (beats/min) and `sample_rmssd` (ms):
            Wasserstein distances, means over the classes that both sides have; `heart_rate_CLASS`: the samples' medians.
        """
        figures = {"sample_frechet": float("nan")}
        pairs = _alike(self.labels, labels)
        if len(pairs) > 1:
            powers = self._powers, band_powers(signals, self.rate, self.leads)
            figures["sample_frechet"] = frechet_distance(*(side[pairs[:, k]] for k, side in enumerate(powers))).distance
        drawn, distances = _beats(signals, self.rate), []
        for number, name in enumerate(self.classes):
            there, here = (side[:, number] > 0 for side in (self.labels, labels))
            rates = drawn["heart_rate"][here]
            figures[f"heart_rate_{name}"] = float(np.nanmedian(rates)) if np.isfinite(rates).any() else float("nan")
            distances.append([distribution_distance(self._beats[of][there], drawn[of][here]) for of in drawn])
        for name, column in zip(("sample_heart_rate", "sample_rmssd"), np.array(distances).T, strict=True):
            known = column[np.isfinite(column)]
            figures[name] = float(known.mean()) if len(known) else float("nan")
        return figures


def _beats(signals: np.ndarray, rate: float) -> dict[str, np.ndarray]:
    """Heart rate (beats/min) and RMSSD (ms) of each record, NaN where no beats are found; the rest of `measure` takes far longer."""
    peaks = r_peaks(signals, rate)
    return {of.__name__: np.array([of(each, rate) for each in peaks]) for of in (heart_rate, rmssd)}


def _alike(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """`(pairs, 2)`: each real record whose label some samples have, and one of these, which take turns."""
    pairs = []
    for label in np.unique(real, axis=0):
        here, there = (np.flatnonzero((side == label).all(axis=1)) for side in (real, drawn))
        if len(there):
            pairs.extend(zip(here, np.resize(there, len(here)), strict=True))
    return np.array(pairs, int).reshape(-1, 2)


def band_powers(signals: np.ndarray, rate: float, leads: Sequence[str]) -> np.ndarray:
    """Log10 power in octaves from 0.5 to 32 Hz of a few leads: `(records, features)` float64."""
    chosen = [leads.index(lead) for lead in FEATURE_LEADS if lead in leads] or [0]
    spectra = np.abs(np.fft.rfft(np.asarray(signals, np.float64)[..., chosen], axis=1)) ** 2
    frequencies = np.fft.rfftfreq(signals.shape[1], 1 / rate)
    bands = [
        spectra[:, (frequencies >= low) & (frequencies < high)].sum(axis=1)
        for low, high in pairwise(OCTAVES)
        if ((frequencies >= low) & (frequencies < high)).any()
    ]
    return np.log10(np.concatenate(bands, axis=1) / signals.shape[1] ** 2 + 1e-9)
