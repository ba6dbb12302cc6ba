"""When the heart beats, and what the atria do: the seven rhythms of the simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MARGIN = 3.0  # s simulated before and after the record, so that its ends hold whole waves
_GRID = 50.0  # Hz: what is slow is computed at this rate
_CYCLE = 128  # points of an atrial waveform


@dataclass(frozen=True)
class AtrialWave:
    """Lasting electrical activity of the atria: a waveform of slowly varying frequency and size."""

    time: np.ndarray
    """`(grid,)` s."""
    phase: np.ndarray
    """`(grid,)` in cycles."""
    size: np.ndarray
    """`(grid,)`, about 1."""
    cycle: np.ndarray
    """`(points, 3)` mV: the vector over one cycle."""

    def at(self, time: np.ndarray) -> np.ndarray:
        """The vector of the atria `(time, 3)` in mV."""
        phase, size = np.interp(time, self.time, self.phase), np.interp(time, self.time, self.size)
        grid = np.arange(len(self.cycle)) / len(self.cycle)
        return np.stack([size * np.interp(phase, grid, axis, period=1.0) for axis in self.cycle.T], axis=1)


@dataclass(frozen=True)
class Rhythm:
    """The timing of one record."""

    beats: np.ndarray
    """`(beats,)` times of the R peaks in s; at least one before 0 and one beyond the record's end."""
    respiration: float
    """Hz; breathing moves the heart, the beats and the baseline."""
    respiration_phase: float
    """In cycles at time 0."""
    p_waves: str = "sinus"
    """`sinus`: before each QRS. `retrograde`: upside down behind it. `none`: there are none to be seen."""
    retrograde_delay: float = 0.0
    """From R to the middle of a retrograde P, s."""
    atria: tuple[AtrialWave, ...] = ()
    alternation: float = 0.015
    """Relative variation of QRS from beat to beat."""
    strain: float = 0.0
    """Depression of the ST segment by the rate, mV."""


def breathing(rhythm: Rhythm, time: np.ndarray) -> np.ndarray:
    """Filling of the lungs at `time`, about -1 to 1."""
    return np.sin(2 * np.pi * (rhythm.respiration * time + rhythm.respiration_phase))


def sinus(
    rng: np.random.Generator,
    seconds: float,
    rate: float,
    slow: float,
    respiratory: float,
    respiration: float,
) -> Rhythm:
    """Sinus rhythm by integral pulse frequency modulation (Mateo and Laguna, IEEE TBME 2000).

    Args:
        rng: source of chance.
        seconds: length of the record.
        rate: mean rate in beats/min.
        slow: relative variation of the rate (standard deviation) about 0.1 Hz, from the control of blood pressure.
        respiratory: the same from breathing in and out.
        respiration: breaths per second.
    """
    time = np.arange(-_MARGIN, seconds + _MARGIN, 1 / _GRID)
    phase, slow_phase, start = rng.random(3)
    breath = 2 * np.pi * (respiration * time + phase)
    modulation = respiratory * np.sqrt(2) * (np.sin(breath) + 0.2 * np.sin(2 * breath))  # in faster than out
    modulation += slow * np.sqrt(2) * np.sin(2 * np.pi * (rng.normal(0.10, 0.012) * time + slow_phase))
    pulses = start + np.cumsum(rate / 60 * (1 + modulation)) / _GRID
    beats = np.interp(np.arange(1, np.floor(pulses[-1]) + 1), pulses, time)
    return Rhythm(beats + rng.normal(0, 0.003, len(beats)), respiration, phase)


def fibrillation(rng: np.random.Generator, seconds: float, rate: float, irregularity: float) -> Rhythm:
    """Atrial fibrillation: independent RR intervals, none shorter than the AV node allows, and f-waves instead of P.

    An RR interval is the node's refractory time plus a gamma-distributed wait for the next impulse that gets through (after
    Cohen et al., "Quantitative model for ventricular response during atrial fibrillation", IEEE TBME 1983).

    Args:
        rng: source of chance.
        seconds: length of the record.
        rate: mean rate in beats/min.
        irregularity: standard deviation of RR relative to its mean.
    """
    mean = 60 / rate
    shortest = max(0.27, mean * (1 - 2.0 * irregularity))
    shape = ((mean - shortest) / (irregularity * mean)) ** 2
    count = int((seconds + 2 * _MARGIN) / shortest) + 2
    intervals = shortest + rng.gamma(shape, (mean - shortest) / shape, count)
    intervals *= mean / intervals[: int((seconds + _MARGIN) / mean)].mean()  # chance does not change the record's own rate
    beats = rng.uniform(-_MARGIN, -_MARGIN + mean) + np.cumsum(np.insert(intervals, 0, 0.0))
    beats = beats[: np.searchsorted(beats, seconds + 1.0) + 1]
    coarse = np.exp(rng.normal(-0.45, 0.45))  # from fine to coarse fibrillation
    frequency = np.clip(rng.normal(6.2, 0.9), 4.3, 8.7)
    # Three wandering wavelets: two in the right atrium under V1, and what the inferior leads see.
    axes = np.array([(-0.040, 0.005, -0.042), (-0.022, 0.010, -0.024), (0.012, 0.032, 0.012)])
    atria = tuple(_f_wave(rng, seconds, frequency * np.exp(rng.normal(0, 0.08)), coarse * axis) for axis in axes)
    return Rhythm(beats, rng.uniform(0.2, 0.33), rng.random(), "none", 0.0, atria, 0.04)


def flutter(
    rng: np.random.Generator, seconds: float, atrial_rate: float, block: tuple[int, ...], counterclockwise: bool
) -> Rhythm:
    """Typical atrial flutter: sawtooth waves, every n-th of them conducted.

    Args:
        rng: source of chance.
        seconds: length of the record.
        atrial_rate: per minute.
        block: flutter waves per beat; several are drawn from at random.
        counterclockwise: the usual direction, negative in II, III, aVF and positive in V1; else the reverse.
    """
    time, drift = _slow_noise(rng, seconds, 0.15)
    cycles = np.cumsum(atrial_rate / 60 * (1 + 0.006 * drift)) / _GRID
    count = int(cycles[-1] / min(block)) + 2
    conducted = rng.uniform(0, min(block)) + np.cumsum(rng.choice(block, count))
    conducted = conducted[conducted < cycles[-1]]
    # After a long pause the node conducts faster.
    since = np.diff(conducted, prepend=conducted[0] - min(block))
    beats = np.interp(conducted, cycles, time) - 0.010 * (since - np.mean(block)) + rng.normal(0, 0.004, len(conducted))
    size = np.exp(rng.normal(0, 0.25)) * (1.0 if counterclockwise else -0.8)
    _, amplitude = _slow_noise(rng, seconds, 0.25)
    wave = AtrialWave(time, cycles, 1 + 0.06 * amplitude, size * _sawtooth(rng))
    return Rhythm(beats, rng.uniform(0.2, 0.33), rng.random(), "none", 0.0, (wave,), 0.02)


def supraventricular_tachycardia(rng: np.random.Generator, seconds: float, rate: float, retrograde: bool) -> Rhythm:
    """A re-entry through the AV node or an accessory pathway: as regular as a clock, P within QRS or upside down behind it."""
    interval = 60 / rate
    count = int((seconds + 2 * _MARGIN) / interval) + 1
    drift = 0.006 * np.sin(2 * np.pi * (0.08 * interval * np.arange(count) + rng.random()))
    intervals = interval * (1 + drift + rng.normal(0, 0.004, count))
    beats = rng.uniform(-_MARGIN, -_MARGIN + interval) + np.cumsum(intervals)
    strain = max(0.0, rng.normal(0.05, 0.05))
    kind, delay = ("retrograde", rng.uniform(0.085, 0.125)) if retrograde else ("none", 0.0)
    return Rhythm(beats, rng.uniform(0.25, 0.4), rng.random(), kind, delay, (), 0.012, strain)


def draw_rhythm(name: str, rng: np.random.Generator, seconds: float, age: float) -> Rhythm:
    """A record's rhythm of the class `name` (SR, SB, ST, SA, AFIB, AFLT or SVT)."""
    if name == "AFIB":
        rate = np.clip(np.exp(rng.normal(np.log(92), 0.25)), 65, 142)
        return fibrillation(rng, seconds, rate, rng.uniform(0.15, 0.27))
    if name == "AFLT":
        blocks, weights = ((2,), (3,), (4,), (2, 2, 2, 3, 4), (3, 4, 4, 5)), (0.40, 0.10, 0.22, 0.16, 0.12)
        block = blocks[rng.choice(len(blocks), p=weights)]
        return flutter(rng, seconds, np.clip(rng.normal(290, 24), 242, 338), block, rng.random() < 0.88)
    if name == "SVT":
        return supraventricular_tachycardia(rng, seconds, np.clip(rng.normal(177, 15), 152, 217), rng.random() < 0.55)
    # Heart rate variability shrinks with age and with the rate.
    youth = np.exp(-(age - 50) / 60)
    slow, respiratory = np.exp(rng.normal(np.log((0.012, 0.015)), 0.5)) * youth
    respiration = rng.uniform(0.18, 0.33)
    if name == "ST":
        rate, slow, respiratory = min(102.5 + rng.gamma(1.8, 10.0), 156), 0.3 * slow, 0.25 * respiratory
    elif name == "SB":
        rate = np.clip(rng.normal(52, 4.5), 40, 58)
    elif name == "SA":
        rate, respiratory, respiration = np.clip(rng.normal(70, 10), 54, 92), rng.uniform(0.085, 0.15), rng.uniform(0.14, 0.24)
    else:
        rate = np.clip(rng.normal(75, 10), 62.5, 97.5)
    limit = {"ST": 0.012, "SB": 0.045, "SA": 0.15}.get(name, 0.035)
    return sinus(rng, seconds, rate, min(slow, 0.03, limit), min(respiratory, limit), respiration)


def _slow_noise(rng: np.random.Generator, seconds: float, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """A time grid and noise of unit variance on it that wanders up to about `cutoff` Hz."""
    time = np.arange(-_MARGIN, seconds + _MARGIN, 1 / _GRID)
    knots = np.arange(-_MARGIN, seconds + _MARGIN + 1 / cutoff, 0.5 / cutoff)
    return time, np.interp(time, knots, rng.normal(size=len(knots)))


def _f_wave(rng: np.random.Generator, seconds: float, frequency: float, axis: np.ndarray) -> AtrialWave:
    time, wander = _slow_noise(rng, seconds, 2.0)
    _, swell = _slow_noise(rng, seconds, 0.8)
    phase = rng.random() + np.cumsum(np.clip(frequency * (1 + 0.16 * wander), 4.0, 9.0)) / _GRID
    turn = 2 * np.pi * np.arange(_CYCLE) / _CYCLE
    skew = 2 * np.pi * rng.random()
    cycle = np.sin(turn) + 0.30 * np.sin(2 * turn + skew) + 0.10 * np.sin(3 * turn + skew)
    return AtrialWave(time, phase, np.clip(1 + 0.4 * swell, 0.15, None), np.outer(cycle, axis))


def _sawtooth(rng: np.random.Generator) -> np.ndarray:
    """One flutter wave `(points, 3)` in mV.

    Feet (II, III, aVF): a slow descent, a steeper one to the trough, then a sharp rise. Front and right (V1): a small
    upright wave with that rise.
    """
    phase = np.arange(_CYCLE) / _CYCLE
    trough = rng.uniform(0.60, 0.68)
    feet = np.interp(phase, (0.0, 0.40, trough, 0.88, 1.0), (0.085, 0.015, -0.13, 0.075, 0.085))
    front = np.exp(-0.5 * ((phase - 0.84) / 0.085) ** 2)
    vector = np.stack([0.18 * feet - 0.03 * front, feet, -0.10 * front], axis=1)
    spectrum = np.fft.rfft(vector, axis=0) * np.exp(-0.5 * (np.arange(_CYCLE // 2 + 1)[:, None] / 5) ** 2)  # rounds the corners
    spectrum[0] = 0
    return np.fft.irfft(spectrum, axis=0)
