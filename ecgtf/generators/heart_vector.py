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

    About a third have something of what fills real collections: left or right axis, low voltage, a thick left ventricle with or
    without strain, a blocked bundle branch, old infarcts, early repolarisation, flat or inverted T, a depressed ST segment. With
    `abnormal`, each of these comes so many times as often.
    """
    findings = []
    # one number for each choice below, drawn always, so that no choice shifts the others
    variant = rng.random(6) / abnormal if abnormal else np.ones(6)
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
    if variant[0] < 0.04:
        components, qt, duration = _RIGHT_BUNDLE_BLOCK, qt + 0.03, 1.0 + 0.5 * (duration - 1.0)
        t_vector += np.array([0.05, 0.02, 0.24])  # T points away from the late forces
        findings.append("CRBBB")
    elif variant[0] < 0.06:
        components, qt, duration = _LEFT_BUNDLE_BLOCK, qt + 0.05, 1.0 + 0.5 * (duration - 1.0)
        t_vector = gain * np.array([-0.22, -0.02, -0.38])
        st_vector = 0.35 * t_vector
        findings.append("CLBBB")
    table = np.array(components)
    centre, width, vector = table[:, 0] * duration, table[:, 1] * duration, table[:, 2:].copy()
    if variant[0] >= 0.06:
        vector *= np.exp(rng.normal(0, 0.18, (len(vector), 1)))
        vector += rng.normal(0, (0.07, 0.05, 0.07), vector.shape)
        if variant[1] < 0.04:  # old anterior infarct: the forward forces are gone
            vector[0] *= 0.3
            vector[1, 2] += 0.45
            t_vector *= (0.3, 0.9, -0.4)
            findings.append("ASMI")
        elif variant[1] < 0.07:  # old inferior infarct: the vector starts upwards
            vector[0, 1] -= 0.32
            vector[1, 1] -= 0.25
            t_vector[1] = -0.06
            findings.append("IMI")
    if variant[2] < 0.05:
        gain *= 0.5
        findings.append("LVOLT")
    elif variant[2] < 0.12:  # left ventricular hypertrophy
        gain *= 1.5
        frontal -= 10
        findings.append("LVH")
        if variant[2] < 0.075:  # with strain
            t_vector = np.array([-0.20, -0.05, -0.32]) * t_gain
            st_vector = np.array([-0.07, -0.03, -0.06])
            findings.append("NST_")
    if variant[3] < 0.07:
        frontal = rng.normal(-70, 10)  # from a healthy +31 degrees in space to a left axis
        findings.append("LAFB")
    elif variant[3] < 0.09:
        frontal = rng.normal(50, 10)
        findings.append("LPFB")
    if variant[4] < 0.05:
        t_vector *= 0.3
        findings.append("NDT")
    elif variant[4] < 0.07:
        t_vector *= (-0.5, 0.3, 1.0)
        findings.append("NDT")
    elif variant[4] < 0.10:
        st_vector -= (0.09, 0.06, 0.0)
        findings.append("NST_")
    elif variant[4] < 0.18 and age < 55 and not female:  # early repolarisation
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

    p_table = np.array(_P)
    p_vector = p_table[:, 2:] * np.exp(rng.normal(0, 0.28)) * np.exp(rng.normal(0, 0.15, (2, 1)))
    p_width = p_table[:, 1] * np.exp(rng.normal(0, 0.08))
    p_vector = _turn(p_vector, 0.3 * np.clip(frontal, -30, 30) + rng.normal(0, 8), rng.normal(0, 10))
    p = Wave(p_table[:, 0] * np.exp(rng.normal(0, 0.1)), p_width, p_width, p_vector)

    pr = float(np.clip(rng.normal(0.156 + 0.0003 * (age - 50), 0.020), 0.118, 0.225))
    torso = np.exp(rng.normal(0, 0.09, (8, 1))) * _LEAD_FIELD + rng.normal(0, 0.045, (8, 3))
    field, atrial_field = (torso * proximity[:, None] for proximity in (_PROXIMITY, _ATRIAL_PROXIMITY))
    return Heart(p, qrs, t, pr, float(np.clip(qt, 0.36, 0.50)), field.T, atrial_field.T, tuple(dict.fromkeys(findings)))


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
