"""The knowledge-driven simulator: 12-lead ECGs of seven rhythms, and of common changes of the waves, without any training data.

A rhythm says when the atria and ventricles are active (`rhythms`), a heart turns that into a moving vector and its eight leads
(`heart_vector`), electrodes add noise (`electrode_noise`); the other four limb leads follow exactly from I and II.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ecgtf.atomic import check_free, replacing_folder
from ecgtf.ecg import LEADS, Record, derive_leads
from ecgtf.generators.electrode_noise import draw_noise
from ecgtf.generators.heart_vector import Heart, draw_heart, p_wave_lead, p_wave_vector, ventricular_vector
from ecgtf.generators.rhythms import Rhythm, breathing, draw_rhythm
from ecgtf.wfdb_io import write_record
from ecgtf.workers import run_jobs

RHYTHMS = {
    "SR": "426783006",
    "SB": "426177001",
    "ST": "427084000",
    "SA": "427393009",
    "AFIB": "164889003",
    "AFLT": "164890007",
    "SVT": "426761007",
}
"""The classes of the task rhythm7 and their SNOMED CT codes."""

SETTINGS_FILE = "simulation.json"
"""Lies in a finished collection and says how it was made."""

_SINUS = ("SR", "SB", "ST", "SA")
_MOST_ABNORMAL = 5.0  # beyond it, there would be more early repolarisations than hearts
_AGES = {"AFIB": (72, 10), "AFLT": (68, 11), "SVT": (48, 17), "SA": (42, 17), "ST": (56, 19)}  # mean and SD; the others: 58, 17
_RESOLUTION = 0.002  # mV; even microvolts, so that the leads' relations survive storage in whole microvolts
_FOLDER_RECORDS = 1000
_BLOCK_RECORDS = 250  # one job of a worker process


def simulate_record(
    rhythm: str, *, rng: np.random.Generator, seconds: float = 10.0, rate: float = 500.0, abnormal: float = 1.0
) -> Record:
    """One ECG of the class `rhythm`, one of `RHYTHMS`.

    Person, heart and rhythm are drawn before the noise: the same `rng` state gives the same heart beats at every `rate`.

    Args:
        rhythm: SR, SB, ST, SA, AFIB, AFLT or SVT.
        rng: the only source of chance.
        seconds: length of the record.
        rate: samples per second.
        abnormal: how many times as often as in real collections a heart is not normal, 0 to 5 (see `draw_heart`).

    Returns:
        A record with `signal` `(time, 12)`, age, sex and codes: its rhythm in SNOMED CT, then PTB-XL's statements of what is not normal
        in its waves, or NORM where nothing is and the rhythm is the sinus node's. Steps are 2 microvolts.

    Raises:
        ValueError: for an unknown rhythm, less than 1 s, a rate below 50 Hz, or `abnormal` out of range.
    """
    _check(seconds, rate, [rhythm], abnormal)
    mean, spread = _AGES.get(rhythm, (58, 17))
    age, female = float(np.clip(np.round(rng.normal(mean, spread)), 18, 95)), bool(rng.random() < 0.5)
    heart, timing = draw_heart(rng, age, female, abnormal), draw_rhythm(rhythm, rng, seconds, age)
    variation, body = rng.normal(size=len(timing.beats)), rng.normal(size=4)

    time = np.arange(round(seconds * rate)) / rate
    breath = breathing(timing, time)
    ventricles = _ventricles(heart, timing, time, variation)
    leads = _breathe(ventricles, breath, body) @ heart.field + _atria(heart, timing, time) @ heart.atrial_field
    leads += draw_noise(rng, time, rate, timing.respiration, timing.respiration_phase)
    leads = np.round(leads / _RESOLUTION) * _RESOLUTION
    return Record(
        id=f"simulated/{rhythm}",
        codes=(RHYTHMS[rhythm], *(heart.findings or (["NORM"] if rhythm in _SINUS else []))),
        signal=derive_leads(leads).astype(np.float32),
        sampling_rate=float(rate),
        age=age,
        sex="female" if female else "male",
    )


def simulate_records(
    n: int,
    *,
    seed: int,
    rate: float = 500.0,
    seconds: float = 10.0,
    rhythms: Sequence[str] | None = None,
    abnormal: float = 1.0,
    start: int = 0,
) -> Iterator[Record]:
    """Records `start` to `start + n - 1` of the endless collection of this seed; record i depends on the seed, `abnormal` and i alone.

    Rhythms take turns, so the classes are balanced; one that stands twice in `rhythms` comes twice as often.

    Raises:
        ValueError: for a negative number or seed, or as `simulate_record` does.
    """
    rhythms = list(RHYTHMS) if rhythms is None else list(rhythms)
    _check(seconds, rate, rhythms, abnormal)
    if n < 0 or seed < 0:
        raise ValueError(f"expected a number of records and a seed of 0 or more, received {n} and {seed}")
    return _records(range(start, start + n), seed, rate, seconds, rhythms, abnormal)


def simulate_collection(
    out: str | Path,
    n: int,
    *,
    seed: int,
    rate: float = 500.0,
    seconds: float = 10.0,
    rhythms: Sequence[str] | None = None,
    abnormal: float = 1.0,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes `simulate_records(n, seed=seed, ...)` as WFDB records `out/000/S000000` and so on, 1000 to a folder.

    Header comments give age, sex and codes (`#Age: 63`, `#Sex: Female`, `#Dx: 426783006,NORM`). The collection appears under its
    name when it is whole; the same arguments give the same bytes.

    Args:
        out: the collection's folder.
        n: number of records.
        seed: of the collection.
        rate: samples per second.
        seconds: length of each record.
        rhythms: classes to draw in turn; all seven by default.
        abnormal: how many times as often as in real collections a heart is not normal, 0 to 5.
        overwrite: replace the simulated collection that is there.
        workers: processes; by default as many as there are processors, and one alone for a small collection.
        progress: is called with the records written so far and `n`.

    Returns:
        `out`.

    Raises:
        ValueError: if `out` holds something already and `overwrite` is not set, or it is no simulated collection; for fewer
            than one record; as `simulate_records` does.
    """
    out = Path(out)
    rhythms = list(RHYTHMS) if rhythms is None else list(rhythms)
    simulate_records(0, seed=seed, rate=rate, seconds=seconds, rhythms=rhythms, abnormal=abnormal)  # checks the arguments
    if n < 1:
        raise ValueError(f"expected at least one record to simulate, received {n}")
    check_free(out, "simulated collection", (out / SETTINGS_FILE).is_file, overwrite)
    parts = [range(first, min(first + _BLOCK_RECORDS, n)) for first in range(0, n, _BLOCK_RECORDS)]
    with replacing_folder(out) as unfinished:
        blocks = [(unfinished, part, seed, rate, seconds, rhythms, abnormal) for part in parts]
        done = 0
        for written in run_jobs(_write_block, blocks, workers):
            done += written
            if progress is not None:
                progress(done, n)
        settings = {"records": n, "seed": seed, "rate": rate, "seconds": seconds, "rhythms": rhythms, "abnormal": abnormal}
        settings["leads"] = LEADS
        (unfinished / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return out


def _check(seconds: float, rate: float, rhythms: Sequence[str], abnormal: float) -> None:
    unknown = [rhythm for rhythm in rhythms if rhythm not in RHYTHMS]
    if unknown or not rhythms:
        raise ValueError(f"unknown rhythm {', '.join(map(repr, unknown)) or '(none)'}; choose from {', '.join(RHYTHMS)}")
    if not 1 <= seconds <= 3600:
        raise ValueError(f"expected records of 1 to 3600 s, received {seconds:g} s")
    if not 50 <= rate <= 5000:
        raise ValueError(f"expected a sampling rate of 50 to 5000 Hz, received {rate:g} Hz")
    if not 0 <= abnormal <= _MOST_ABNORMAL:
        raise ValueError(f"expected abnormal, a number of times, from 0 to {_MOST_ABNORMAL:g}, received {abnormal:g}")


def _records(
    indices: range, seed: int, rate: float, seconds: float, rhythms: Sequence[str], abnormal: float
) -> Iterator[Record]:
    for index in indices:
        rng = np.random.default_rng([seed, index])
        record = simulate_record(rhythms[index % len(rhythms)], rng=rng, seconds=seconds, rate=rate, abnormal=abnormal)
        record.id = f"simulated/{index // _FOLDER_RECORDS:03d}/S{index:06d}"
        yield record


def _ventricles(heart: Heart, timing: Rhythm, time: np.ndarray, variation: np.ndarray) -> np.ndarray:
    """The vector of the ventricles `(time, 3)`; QT follows RR."""
    intervals = np.diff(timing.beats, prepend=2 * timing.beats[0] - timing.beats[1])
    # Repolarisation remembers the beats before: three quarters of QT's adaptation are to the mean RR, not to the last one.
    adapted = 0.75 * intervals.mean() + 0.25 * np.minimum(intervals, 1.5 * intervals.mean())
    vector = ventricular_vector(heart, time, timing.beats, heart.qt * adapted**0.4, 1 + timing.alternation * variation)
    if timing.strain:
        since = time - timing.beats[np.searchsorted(timing.beats, time, side="right") - 1]
        dip = np.exp(-0.5 * ((since - 0.075) / 0.025) ** 2)
        vector -= timing.strain * dip[:, None] * np.array([0.7, 0.6, -0.2])
    return vector


def _atria(heart: Heart, timing: Rhythm, time: np.ndarray) -> np.ndarray:
    """The vector of the atria `(time, 3)`."""
    if timing.p_waves == "retrograde":  # from the AV node upwards
        return p_wave_vector(heart, time, timing.beats + timing.retrograde_delay) * np.array([0.3, -1.1, -0.8])
    vector = np.zeros((len(time), 3))
    if timing.p_waves == "sinus":
        # PR shortens with RR, less than QT does.
        pr = heart.pr * np.clip(np.median(np.diff(timing.beats)), 0.35, 1.2) ** 0.25
        vector = p_wave_vector(heart, time, timing.beats - p_wave_lead(pr))
    for wave in timing.atria:
        vector += wave.at(time)
    return vector


def _breathe(vector: np.ndarray, breath: np.ndarray, body: np.ndarray) -> np.ndarray:
    """`vector` `(time, 3)` turned and scaled a little with each breath, as the heart moves in the chest."""
    x, y, z = vector.T
    frontal, horizontal = 0.028 * body[0] * breath, 0.022 * body[1] * breath
    size = 1 + 0.025 * body[2] * breath
    turned = np.stack([x - frontal * y - horizontal * z, y + frontal * x, z + horizontal * x], axis=1)
    return turned * size[:, None]


def _write_block(block: tuple[Path, range, int, float, float, Sequence[str], float]) -> int:
    """Writes some records of a collection, in a worker process or in this one."""
    folder, indices, *settings = block
    for record in _records(indices, *settings):
        _, part, name = record.id.split("/")
        comments = (f"Age: {record.age:.0f}", f"Sex: {record.sex.capitalize()}", f"Dx: {','.join(record.codes)}")
        write_record(folder / part, name, record.signal, record.leads, record.sampling_rate, comments)
    return len(indices)
