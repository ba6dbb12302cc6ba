"""Intervals put into simulated ECGs against intervals measured: `python benchmarks/delineation.py --records 200`.

Records of 10 s with sinus rhythm of a known rate, P waves, intervals and axis come from the simulator's hearts (a third of them
with an abnormality) and its electrode noise. What is true is defined on the noise-free waves of the heart, each by itself, as the
root mean square of their 12 leads:

- QRS begins and ends where its size passes 2 % of its peak, P begins at 5 % of its peak (some 10 and 5 microvolts);
- T ends where the tangent to its steepest descent meets zero;
- the ST level is that of the noise-free leads 60 ms after QRS, above the 16 ms that end 4 ms before it;
- the axis is that of the net area of the noise-free QRS complex.

Printed are, for each rate, the median error, its interquartile range, the 95th percentile of its size, and the share of records
without the measurement.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ecgtf.closeness.physiology import measure
from ecgtf.ecg import LEADS, derive_leads
from ecgtf.generators.electrode_noise import draw_noise
from ecgtf.generators.heart_vector import Heart, draw_heart, p_wave_lead, p_wave_vector, ventricular_vector

RATES = (40, 60, 80, 100, 120, 150, 180, 200)
MEASURES = {
    "heart_rate": "heart rate (/min)",
    "pr_interval": "PR (ms)",
    "qrs_duration": "QRS (ms)",
    "qt_interval": "QT (ms)",
    "st_level": "ST (mV)",
    "qrs_axis": "axis (degrees)",
}
FINE = np.arange(-0.5, 0.8, 0.0005)  # s from the R peak


def known_record(bpm: float, rate: float, seed: int, noise: bool = True) -> tuple[np.ndarray, dict[str, float | np.ndarray]]:
    """A record `(5000 or so, 12)` mV of `bpm` beats/min, jittered by 4 ms, and what is true of it."""
    rng = np.random.default_rng(seed)
    heart = draw_heart(rng, float(rng.integers(25, 80)), bool(rng.random() < 0.5))
    interval = 60 / bpm
    qt, p_lead = heart.qt * interval**0.4, p_wave_lead(heart.pr * np.clip(interval, 0.35, 1.2) ** 0.25)
    clock = np.arange(round(10 * rate)) / rate
    beats = np.arange(rng.uniform(-3.0, -3.0 + interval), 13.5, interval)
    beats += rng.normal(0, 0.004, len(beats))

    leads = _clean(heart, clock, beats, qt, p_lead)
    if noise:
        leads += draw_noise(rng, clock, rate, 0.25, rng.random())
    inside = beats[(beats > 0) & (beats < 10)]
    truth = {"heart_rate": 60 / np.median(np.diff(inside))} | _truth(heart, interval, qt, p_lead)
    return derive_leads(leads).astype(np.float32), truth


def errors(bpm: float, rate: float, records: int, noise: bool = True) -> dict[str, np.ndarray]:
    """Measured minus true of each of `MEASURES`, `(records,)` or `(records, 12)`; NaN where nothing is measured."""
    signals, truths = zip(*(known_record(bpm, rate, seed, noise) for seed in range(records)), strict=True)
    found = measure(np.stack(signals), rate)
    difference = {name: getattr(found, name) - np.stack([truth[name] for truth in truths]) for name in MEASURES}
    difference["qrs_axis"] = (difference["qrs_axis"] + 180) % 360 - 180
    return difference


def _clean(heart: Heart, clock: np.ndarray, beats: np.ndarray, qt: float, p_lead: float) -> np.ndarray:
    """The eight leads `(time, 8)` without noise."""
    many = np.ones(len(beats))
    ventricles = ventricular_vector(heart, clock, beats, qt * many, many) @ heart.field
    return ventricles + p_wave_vector(heart, clock, beats - p_lead) @ heart.atrial_field


def _truth(heart: Heart, interval: float, qt: float, p_lead: float) -> dict[str, float | np.ndarray]:
    qrs = derive_leads(heart.qrs.at(FINE) @ heart.field)
    p = derive_leads(heart.p.at(FINE + p_lead) @ heart.atrial_field)
    t = _size(derive_leads(heart.t.at((FINE + 0.040) / qt) @ heart.field))  # QRS begins, as T counts, 40 ms before R
    onset, end = _edges(_size(qrs), 0.02)
    slope = np.gradient(t, FINE)
    steepest = t.argmax() + slope[t.argmax() :].argmin()
    whole = derive_leads(_clean(heart, FINE, interval * np.arange(-5, 6), qt, p_lead))
    level = whole[slice(*np.searchsorted(FINE, (onset - 0.020, onset - 0.004)))].mean(axis=0)
    area = qrs.sum(axis=0)
    return {
        "pr_interval": 1000 * (onset - _edges(_size(p), 0.05)[0]),
        "qrs_duration": 1000 * (end - onset),
        "qt_interval": 1000 * (FINE[steepest] - t[steepest] / slope[steepest] - onset),
        "st_level": whole[np.searchsorted(FINE, end + 0.060)] - level,
        "qrs_axis": np.degrees(np.arctan2(2 / np.sqrt(3) * area[LEADS.index("aVF")], area[LEADS.index("I")])),
    }


def _size(leads: np.ndarray) -> np.ndarray:
    return np.sqrt((leads**2).mean(axis=1))


def _edges(size: np.ndarray, share: float) -> tuple[float, float]:
    above = np.flatnonzero(size >= share * size.max())
    return FINE[above[0]], FINE[above[-1]]


def _cell(error: np.ndarray, digits: int) -> str:
    missing = np.isnan(error).mean()
    if missing == 1:
        return "none"
    low, middle, high = np.nanpercentile(error, [25, 50, 75])
    middle = round(middle, digits) + 0.0  # no minus before a zero
    cell = f"{middle:+.{digits}f}, {high - low:.{digits}f}, {np.nanpercentile(np.abs(error), 95):.{digits}f}"
    return cell + (f"; {missing:.1%} without" if missing else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200)
    arguments = parser.parse_args()
    print("Median error, interquartile range, 95th percentile of its size.\n")
    print("| samples/s | beats/min |", *(f" {title} |" for title in MEASURES.values()), sep="")
    print("|---" * (2 + len(MEASURES)), "|", sep="")
    for rate in (500, 100):
        for bpm in RATES:
            found = errors(bpm, rate, arguments.records)
            cells = (f" {_cell(error, 3 if name == 'st_level' else 1)} |" for name, error in found.items())
            print(f"| {rate} | {bpm} |", *cells, sep="", flush=True)
    signals = np.stack([known_record(75, 100, seed)[0] for seed in range(200)])
    start = time.process_time()
    measure(signals, 100)
    print(f"\n{200 / (time.process_time() - start):.0f} records of 10 s at 100 samples/s measured in a second.")


if __name__ == "__main__":
    main()
