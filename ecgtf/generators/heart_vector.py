"""The moving heart vector: waves P, QRS, ST-T as sums of Gaussians in space, seen from the body surface through a lead field.

Axes as in Frank's system: x to the left, y to the feet, z to the back; vectors in millivolts, times in seconds. The model is
that of McSharry et al. ("A dynamical model for generating synthetic electrocardiogram signals", IEEE TBME 2003) in its form
for the dipole of the heart (Sameni et al., "Multichannel ECG and noise modeling", EURASIP JASP 2007), with the lead field of
Dower et al. ("On deriving the electrocardiogram from vectorcardiographic leads", Clin. Cardiol. 1980). The numbers are those
of healthy adults at rest; `draw_heart` varies them from person to person and gives some persons a common abnormality.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecgtf.ecg import DOWER

# Dower's lead field, but for lead I's share of y: with his -0.235, P and T in I are half of what they are in healthy adults. V1 and
# V2, next to the heart, see it otherwise than a distant dipole; their rows are scaled likewise.
_LEAD_FIELD = DOWER.copy()
_LEAD_FIELD[0, 1] = -0.120
_PROXIMITY = np.array([1.0, 1.0, 0.8, 1.25, 1.0, 1.0, 1.0, 1.0])
# The atria lie behind and to the right of the ventricles: V1 is near them, V2 ... V6 are not.
_ATRIAL_PROXIMITY = np.array([1.0, 1.0, 1.3, 0.75, 0.5, 0.42, 0.45, 0.55])

_QRS_ONSET = -0.040  # s before the R peak
_T_PEAK, _T_RISE, _T_FALL = 0.795, 0.155, 0.085  # in QT from the onset of QRS: T falls faster than it rises
_ST_CENTRE, _ST_WIDTH = 0.40, 0.11

# Activation of the ventricles: septum, apex, main wall, posterior wall, base.
_QRS = (
    # centre s, width s, x, y, z
    (-0.0210, 0.0068, -0.10, -0.05, -0.23),
    (-0.0095, 0.0066, 0.52, 0.22, -0.10),
    (0.0005, 0.0063, 0.98, 0.66, 0.50),
    (0.0105, 0.0068, -0.10, 0.05, 0.52),
    (0.0205, 0.0094, -0.12, -0.02, 0.20),
)
_RIGHT_BUNDLE_BLOCK = (  # the right ventricle follows late, from left to right and forwards
    *_QRS[:4],
    (0.0420, 0.0130, -0.32, -0.02, -0.40),
    (0.0680, 0.0160, -0.34, -0.02, -0.34),
)
_LEFT_BUNDLE_BLOCK = (  # no septal q; the wave crosses the septum and the left ventricle slowly, in two humps
    (-0.0300, 0.0130, 0.46, 0.14, 0.10),
    (-0.0050, 0.0150, 0.70, 0.24, 0.70),
    (0.0300, 0.0170, 0.72, 0.14, 0.90),
    (0.0620, 0.0170, 0.50, 0.02, 0.42),
)
_P = (  # right atrium, then left
    (-0.012, 0.0170, 0.075, 0.075, -0.060),
    (0.020, 0.0180, 0.105, 0.060, -0.020),
)
_T_VECTOR = (0.36, 0.205, -0.22)
_ST_VECTOR = (0.0, 0.010, -0.060)

_VARIANTS = (  # groups of what excludes each other; a number from 0 to 1 below the limit gives the first such variant
    (("right bundle block", 0.04), ("left bundle block", 0.06)),
    (("anterior infarct", 0.04), ("inferior infarct", 0.07)),
    (("low voltage", 0.05), ("hypertrophy with strain", 0.075), ("hypertrophy", 0.12)),
    (("left axis", 0.07), ("right axis", 0.09)),
    (("flat T", 0.05), ("inverted T", 0.07), ("depressed ST", 0.10), ("early repolarisation", 0.18)),
)
_STATEMENTS = {  # of PTB-XL; early repolarisation is no finding
    "right bundle block": ("CRBBB",),
    "left bundle block": ("CLBBB",),
    "anterior infarct": ("ASMI",),
    "inferior infarct": ("IMI",),
    "low voltage": ("LVOLT",),
    "hypertrophy with strain": ("LVH", "NST_"),
    "hypertrophy": ("LVH",),
    "left axis": ("LAFB",),
    "right axis": ("LPFB",),
    "flat T": ("NDT",),
    "inverted T": ("NDT",),
    "depressed ST": ("NST_",),
}


@dataclass(frozen=True)
class Wave:
    """Gaussians in space; `rise` and `fall` are their standard deviations before and after the centre."""

    centre: np.ndarray
    """`(k,)` seconds."""
    rise: np.ndarray
    fall: np.ndarray
    vector: np.ndarray
    """`(k, 3)` mV."""

    def at(self, time: np.ndarray) -> np.ndarray:
        """The vector `(time, 3)` at times `(time,)` relative to the wave's origin."""
        offset = time[None] - self.centre[:, None]
        offset /= np.where(offset < 0, self.rise[:, None], self.fall[:, None])
        np.square(offset, out=offset)
        return np.exp(-0.5 * offset).T @ self.vector


@dataclass(frozen=True)
class Heart:
    """One person's heart and torso."""

    p: Wave
    """Times about the middle of P."""
    qrs: Wave
    """Times about the R peak."""
    t: Wave
    """ST and T; times about the onset of QRS, in QT."""
    pr: float
    """PR interval at 60 beats/min, s."""
    qt: float
    """QT interval at 60 beats/min, s."""
    field: np.ndarray
    """`(3, 8)`: I, II, V1 ... V6 from the vector of the ventricles."""
    atrial_field: np.ndarray
    """The same from the vector of the atria."""
    findings: tuple[str, ...]
    """PTB-XL's statements of what is not normal, such as CRBBB; none for a healthy heart."""


def draw_heart(rng: np.random.Generator, age: float, female: bool, abnormal: float = 1.0) -> Heart:
    """A heart and torso: mostly healthy, with the axis, amplitudes and intervals of that age and sex.

    About a third have something of what fills real collections: a blocked bundle branch, an old infarct, low voltage, a thick left
    ventricle, a left or right axis, changes of ST and T. With `abnormal`, each of these comes so many times as often.
    """
    has = _draw_variants(rng, age, female, abnormal)
    duration = np.exp(rng.normal(0.0 if female else 0.05, 0.09))
    gain = np.exp(rng.normal(0.0, 0.24)) * (0.95 if female else 1.05) * (1.08 - 0.0013 * age)
    frontal, horizontal = rng.normal((50 - age) * 0.20, 12.0), rng.normal(0.0, 15.0)
    t_gain = np.exp(rng.normal(-0.12 if female else 0.08, 0.30)) * (1.18 - 0.003 * age)
    t_vector = np.array(_T_VECTOR) * t_gain + rng.normal(0, (0.05, 0.03, 0.07))
    if female:
        t_vector[2] += 0.04  # T in V1 ... V3 is lower in women
    st_vector = np.array(_ST_VECTOR) * t_gain + rng.normal(0, 0.012, 3)
    qt = rng.normal(0.414 if female else 0.404, 0.018)

    components = _QRS
    if "right bundle block" in has:
        components, qt, duration = _RIGHT_BUNDLE_BLOCK, qt + 0.03, 1.0 + 0.5 * (duration - 1.0)
        t_vector += np.array([0.05, 0.02, 0.24])  # T points away from the late forces
    elif "left bundle block" in has:
        components, qt, duration = _LEFT_BUNDLE_BLOCK, qt + 0.05, 1.0 + 0.5 * (duration - 1.0)
        t_vector = gain * np.array([-0.22, -0.02, -0.38])
        st_vector = 0.35 * t_vector
    table = np.array(components)
    centre, width, vector = table[:, 0] * duration, table[:, 1] * duration, table[:, 2:].copy()
    if components is _QRS:
        vector *= np.exp(rng.normal(0, 0.18, (len(vector), 1)))
        vector += rng.normal(0, (0.07, 0.05, 0.07), vector.shape)
    if "anterior infarct" in has:  # an old one: the forward forces are gone
        vector[0] *= 0.3
        vector[1, 2] += 0.45
        t_vector *= (0.3, 0.9, -0.4)
    elif "inferior infarct" in has:  # an old one: the vector starts upwards
        vector[0, 1] -= 0.32
        vector[1, 1] -= 0.25
        t_vector[1] = -0.06
    if "low voltage" in has:
        gain *= 0.5
    elif has & {"hypertrophy", "hypertrophy with strain"}:  # of the left ventricle
        gain *= 1.5
        frontal -= 10
    if "hypertrophy with strain" in has:
        t_vector = np.array([-0.20, -0.05, -0.32]) * t_gain
        st_vector = np.array([-0.07, -0.03, -0.06])
    if "left axis" in has:
        frontal = rng.normal(-70, 10)  # from a healthy +31 degrees in space to a left axis
    elif "right axis" in has:
        frontal = rng.normal(50, 10)
    if "flat T" in has:
        t_vector *= 0.3
    elif "inverted T" in has:
        t_vector *= (-0.5, 0.3, 1.0)
    elif "depressed ST" in has:
        st_vector -= (0.09, 0.06, 0.0)
    elif "early repolarisation" in has:
        st_vector += np.array([0.08, 0.03, -0.07])
        t_vector *= 1.35

    splinter = rng.normal(0, (0.07, 0.06, 0.07))  # a small notch somewhere
    vector = min(gain, 1.8) * np.vstack([_turn(vector, frontal, horizontal), splinter])
    centre = np.append(centre, rng.uniform(-0.025, 0.03) * duration)
    width = np.append(width, rng.uniform(0.0040, 0.0065))
    qrs = Wave(centre, width, width, vector)

    t_width = np.exp(rng.normal(0, 0.08))
    t_centre = np.array([_T_PEAK + rng.normal(0, 0.012), _ST_CENTRE])
    t_rise, t_fall = np.array([_T_RISE * t_width, _ST_WIDTH]), np.array([_T_FALL * t_width, _ST_WIDTH])
    t = Wave(t_centre, t_rise, t_fall, np.vstack([_turn(t_vector, 0.4 * frontal, 0.4 * horizontal), st_vector]))
    p = _draw_p(rng, frontal)
    pr = float(np.clip(rng.normal(0.156 + 0.0003 * (age - 50), 0.020), 0.118, 0.225))
    torso = np.exp(rng.normal(0, 0.09, (8, 1))) * _LEAD_FIELD + rng.normal(0, 0.045, (8, 3))
    field, atrial_field = (torso * proximity[:, None] for proximity in (_PROXIMITY, _ATRIAL_PROXIMITY))
    findings = tuple(dict.fromkeys(code for name, codes in _STATEMENTS.items() if name in has for code in codes))
    return Heart(p, qrs, t, pr, float(np.clip(qt, 0.36, 0.50)), field.T, atrial_field.T, findings)


def _draw_variants(rng: np.random.Generator, age: float, female: bool, abnormal: float) -> set[str]:
    """Names of what is not usual in a heart, at most one of each group of `_VARIANTS`."""
    # One number for each group, drawn always, so that no choice shifts the others. The sixth is not used: without it, the hearts of all
    # seeds would be others.
    drawn = rng.random(6) / abnormal if abnormal else np.ones(6)
    has = set()
    for number, group in zip(drawn, _VARIANTS, strict=False):
        has.update([name for name, limit in group if number < limit][:1])
    # In a wave that crosses the heart another way, a scar has no such signs.
    if has & {"right bundle block", "left bundle block"}:
        has -= {"anterior infarct", "inferior infarct"}
    if age >= 55 or female:
        has -= {"early repolarisation"}
    return has


def _draw_p(rng: np.random.Generator, frontal: float) -> Wave:
    """The P wave of a heart whose ventricles are turned by `frontal` degrees."""
    table = np.array(_P)
    vector = table[:, 2:] * np.exp(rng.normal(0, 0.28)) * np.exp(rng.normal(0, 0.15, (2, 1)))
    width = table[:, 1] * np.exp(rng.normal(0, 0.08))
    vector = _turn(vector, 0.3 * np.clip(frontal, -30, 30) + rng.normal(0, 8), rng.normal(0, 10))
    return Wave(table[:, 0] * np.exp(rng.normal(0, 0.1)), width, width, vector)


def ventricular_vector(heart: Heart, time: np.ndarray, beats: np.ndarray, qt: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The vector of the ventricles `(time, 3)` in mV.

    Args:
        heart: the heart.
        time: `(time,)` s.
        beats: `(beats,)` times of the R peaks in s; the first before and the last after all of `time`.
        qt: `(beats,)` QT interval of each beat in s.
        gain: `(beats,)` relative size of each QRS.
    """
    following = np.searchsorted(beats, time, side="right")
    last = following - 1
    nearest = np.where(time - beats[last] < 0.55 * (beats[following] - beats[last]), last, following)
    since = time - beats[nearest]
    near = np.abs(since) < 0.15
    vector = heart.t.at((time - beats[last] - _QRS_ONSET) / qt[last])
    vector[near] += gain[nearest[near], None] * heart.qrs.at(since[near])
    return vector


def p_wave_vector(heart: Heart, time: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """The vector of the atria `(time, 3)` in mV with P waves about the times `middles`, in order, in s."""
    nearest = np.searchsorted(0.5 * (middles[1:] + middles[:-1]), time)
    return heart.p.at(time - middles[nearest])


def p_wave_lead(pr: np.ndarray | float) -> np.ndarray | float:
    """How long the middle of P comes before the R peak for a PR interval (onset to onset), in s; half of P lasts 50 ms."""
    return pr - 0.050 - _QRS_ONSET


def _turn(vector: np.ndarray, frontal: float, horizontal: float) -> np.ndarray:
    """`vector` `(..., 3)` turned by degrees in the frontal plane (left to feet), then in the horizontal one (left to back)."""
    a, b = np.radians((frontal, horizontal))
    in_frontal = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
    in_horizontal = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return vector @ in_frontal @ in_horizontal
