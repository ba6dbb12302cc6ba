"""Leads, units and the record: the vocabulary that the rest of the package shares (NumPy only).

A signal is a `(time, leads)` or `(batch, time, leads)` float32 array in millivolts. Leads go by name, in the order of `LEADS`
unless a manifest or a record says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The standard 12 leads, in the order of every data set unless it says otherwise."""

INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The 8 leads that are measured; Einthoven's and Goldberger's equations give the other four."""

DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
"""Lead field `(8, 3)`: the independent leads of a heart vector (x to the left, y to the feet, z to the back) (Dower et al. 1980)."""

ELECTRODES = ("RA", "LA", "LL", "C1", "C2", "C3", "C4", "C5", "C6")

ELECTRODES_TO_LEADS = np.zeros((9, 8))
"""From `ELECTRODES` to the independent leads (Einthoven's; Wilson's central terminal)."""
ELECTRODES_TO_LEADS[:3, 0] = -1, 1, 0
ELECTRODES_TO_LEADS[:3, 1] = -1, 0, 1
ELECTRODES_TO_LEADS[:3, 2:] = -1 / 3
ELECTRODES_TO_LEADS[3:, 2:] = np.eye(6)

_LIMB_EQUATIONS = {  # lead: its weights on I and II
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}

_SPELLINGS = {name.lower(): name for name in LEADS}


def canonical_lead(name: str) -> str:
    """The standard name of a lead however it is spelt: `avr`, `AVR` -> `aVR`, `lead ii` -> `II`.

    Raises:
        ValueError: if the name is not one of the 12 standard leads.
    """
    key = name.strip().lower().removeprefix("lead").strip(" _-")
    if key not in _SPELLINGS:
        raise ValueError(f"unknown lead name {name!r}; expected one of {', '.join(LEADS)} (in any case)")
    return _SPELLINGS[key]


def canonical_leads(names: Sequence[str]) -> tuple[str, ...]:
    """`canonical_lead` of each name.

    Raises:
        ValueError: if a name is unknown or stands twice.
    """
    leads = tuple(canonical_lead(name) for name in names)
    twice = sorted({lead for lead in leads if leads.count(lead) > 1})
    if twice:
        raise ValueError(f"lead {', '.join(twice)} is named more than once in {', '.join(names)}")
    return leads


def select_leads(signal: np.ndarray, have: Sequence[str], want: Sequence[str]) -> np.ndarray:
    """`signal` `(..., len(have))` with the leads `want`, in that order; a missing limb lead is derived if I and II are there.

    Raises:
        ValueError: if a wanted lead is neither there nor derivable.
    """
    have, want = tuple(have), tuple(want)
    if have == want:
        return signal
    derivable = "I" in have and "II" in have
    missing = [lead for lead in want if lead not in have and not (derivable and lead in _LIMB_EQUATIONS)]
    if missing:
        raise ValueError(f"leads {', '.join(missing)} are missing; the signal has {', '.join(have)}")
    if all(lead in have for lead in want):
        return signal[..., [have.index(lead) for lead in want]]
    # Lead by lead: in a product of matrices, a sample that is missing in one lead would be missing in all.
    one, two = (signal[..., have.index(limb)] for limb in ("I", "II"))
    derived = {lead: a * one + b * two for lead, (a, b) in _LIMB_EQUATIONS.items() if lead in want}
    return np.stack([signal[..., have.index(lead)] if lead in have else derived[lead] for lead in want], axis=-1)


def lead_matrix(have: Sequence[str], want: Sequence[str]) -> np.ndarray:
    """The `(len(have), len(want))` float64 matrix that takes a signal with leads `have` to leads `want`.

    Leads that are in both are copied; missing limb leads follow from I and II: III = II - I, aVR = -(I + II)/2, aVL = I - II/2,
    aVF = II - I/2 (Einthoven 1913; Goldberger 1942).
    """
    matrix = np.zeros((len(have), len(want)))
    for column, lead in enumerate(want):
        if lead in have:
            matrix[have.index(lead), column] = 1.0
        else:
            for limb, weight in zip(("I", "II"), _LIMB_EQUATIONS[lead], strict=True):
                matrix[have.index(limb), column] = weight
    return matrix


def derive_leads(signal: np.ndarray) -> np.ndarray:
    """The 12 standard leads `(..., 12)` of the 8 independent ones `(..., 8)`, exact to rounding."""
    if signal.shape[-1] != len(INDEPENDENT_LEADS):
        raise ValueError(f"expected the 8 leads {', '.join(INDEPENDENT_LEADS)}, received shape {signal.shape}")
    return select_leads(signal, INDEPENDENT_LEADS, LEADS)


@dataclass
class Record:
    """One ECG with what is known of it.

    A source yields records whose `signal` is not read yet (`signal is None`, `path` names the WFDB record without its suffix);
    whoever needs the signal reads it, so that a collection of any size passes through little memory.
    """

    id: str
    """Source and path relative to the input, e.g. `ptb-xl/records100/00000/00001_lr`."""
    codes: tuple[str, ...] = ()
    """Diagnosis codes as the source wrote them: SCP-ECG statements, SNOMED CT codes, words."""
    signal: np.ndarray | None = None
    """`(time, leads)` float32 in millivolts, or None when not read yet."""
    leads: tuple[str, ...] = LEADS
    sampling_rate: float = 0.0
    """Samples per second."""
    path: Path | None = None
    patient: str | None = None
    age: float | None = None
    """Years."""
    sex: str | None = None
    """`male`, `female` or None."""
    split: str | None = None
    """`train`, `validation` or `test` where the source fixes it; None lets `prepare` choose."""


@dataclass(frozen=True)
class Rejection:
    """A record that could not be used, and why."""

    id: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without what is particular to one record: names, numbers, leads and remarks in parentheses."""
        general = re.sub(r"^\S+\.hea: |\(.*?\)|'[^']*'", "", self.reason)
        general = re.sub(r"\b(?:" + "|".join(LEADS) + r")\b(?:, )?", "", general)
        return " ".join(re.sub(r"\b\d+(?:\.\d+)?\b", "N", general).split())


SPLITS = ("train", "validation", "test")
