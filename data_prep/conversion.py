"""One shard's worth of work: read, cut, select leads, check, filter, resample, write. Runs in workers, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgtf.data_prep.chapman import read_csv_signal
from ecgtf.data_prep.filters import BandPass, Filter, Notch
from ecgtf.data_prep.quality import QUALITY_COLUMNS, quality, quality_fault
from ecgtf.data_prep.signals import cut, fault, pad, resample
from ecgtf.ecg import Record, Rejection, select_leads
from ecgtf.fingerprint import fingerprint
from ecgtf.manifest import ShardSummary
from ecgtf.record_table import COLUMNS, write_rows
from ecgtf.shards import write_shard
from ecgtf.wfdb_io import read_record

SIMULATED_RECORDS = 700
"""How many ECGs are simulated unless told otherwise."""

TABLE_COLUMNS = (*COLUMNS, *QUALITY_COLUMNS)
"""The columns of `records.csv`."""


@dataclass(frozen=True)
class Settings:
    """All that the content of the shards depends on, besides the records."""

    source: str | None
    rate: float
    seconds: float
    leads: tuple[str, ...]
    window: str
    seed: int
    limit: int | None
    short: str = "refuse"
    band: tuple[float | None, float | None] | None = None
    """Hz: corner frequencies of the band-pass filter."""
    mains: float | None = None
    """Hz: the mains frequency that is notched out."""
    checks: bool = True
    """Whether records of poor quality are left out."""

    @property
    def samples(self) -> int:
        """Samples per record."""
        return round(self.rate * self.seconds)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """What the signals pass through on their way to the new rate."""
        band = () if self.band is None else (BandPass(*self.band),)
        return band if self.mains is None else (*band, Notch(self.mains))

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**vars(self), "leads": list(self.leads), "band": None if self.band is None else list(self.band)}


@dataclass(frozen=True)
class Job:
    """One shard to write."""

    path: Path
    records: Sequence[Record]
    settings: Settings

    @property
    def table(self) -> Path:
        """Where the rows of this shard's records are kept until all shards are there."""
        return self.path.with_name(f".{self.path.name}.csv")


def read_signal(record: Record, settings: Settings) -> tuple[np.ndarray, tuple[str, ...], float]:
    """The whole signal of a record `(time, leads)` float32 mV with its lead names and rate, if the data set can be made of it.

    Raises:
        ValueError: with the reason, if it cannot.
    """
    if record.signal is not None:
        signal, leads, rate = record.signal, record.leads, record.sampling_rate
    else:
        read = read_csv_signal if record.path.suffix == ".csv" else read_record
        signal, leads, rate = read(record.path)
    if rate < settings.rate:
        raise ValueError(f"sampled at {rate:g} Hz, {settings.rate:g} Hz are asked for")
    twice = [lead for lead in settings.leads if leads.count(lead) > 1]
    if twice:
        raise ValueError(f"lead {', '.join(twice)} stands more than once in the record")
    select_leads(signal[:0], leads, settings.leads)  # are they there?
    return signal, leads, rate


def condition(signal: np.ndarray, rate: float, settings: Settings) -> tuple[np.ndarray, dict[str, float]]:
    """An excerpt `(time, leads)` float32 mV as the data set holds it, and the quality it had before.

    Raises:
        ValueError: with the reason, if it cannot be used.
    """
    _refuse(fault(signal, settings.leads))
    measures = quality(signal, settings.leads, rate)
    if settings.checks:
        _refuse(quality_fault(measures))
    signal = pad(resample(signal, rate, settings.rate, settings.filters), settings.samples)
    _refuse(fault(signal, settings.leads))  # resampling may swing beyond a clipped wave
    return signal, measures


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise ValueError(reason)


def write_job(job: Job) -> tuple[ShardSummary, list[Rejection]]:
    """Writes one shard and the rows of its records: what is in it, and what had to be left out. Runs in a worker process."""
    rejections: list[Rejection] = []
    rows: list[dict[str, Any]] = []
    summary = write_shard(job.path, _usable(job, rejections, rows), job.settings.leads, job.settings.samples)
    write_rows(job.table, rows, TABLE_COLUMNS)
    return summary, rejections


def _usable(job: Job, rejections: list[Rejection], rows: list[dict[str, Any]]) -> Iterator[Record]:
    settings = job.settings
    for record in job.records:
        try:
            known = _simulate(record, settings) if settings.source is None else record
            signal, leads, rate = read_signal(known, settings)
            excerpts = cut(signal, rate, settings.seconds, settings.window, settings.short)
        except ValueError as error:
            rejections.append(Rejection(record.id, str(error)))
            continue
        except OSError as error:
            rejections.append(Rejection(record.id, f"cannot be read: {error.strerror or type(error).__name__}"))
            continue
        for first, excerpt in excerpts:
            name = record.id if settings.window != "all" else f"{record.id}@{first / rate:g}s"
            try:
                chosen = select_leads(excerpt, leads, settings.leads)
                conditioned, measures = condition(chosen, rate, settings)
            except ValueError as error:
                rejections.append(Rejection(name, str(error)))
                continue
            kept = replace(known, id=name, signal=conditioned, leads=settings.leads, sampling_rate=settings.rate)
            told = {"fingerprint": _fingerprint(chosen, kept, rate, settings)} | measures
            rows.append(_row(kept, job, rate, len(signal), len(excerpt)) | told)
            yield kept


def _row(record: Record, job: Job, rate: float, source_samples: int, samples: int) -> dict[str, Any]:
    """What `records.csv` says of a stored record, apart from its quality."""
    return {
        "id": record.id,
        "split": job.path.name.split(".tfrecord")[0],
        "codes": ";".join(record.codes),
        "patient": record.patient,
        "age": record.age,
        "sex": record.sex,
        "source_rate": float(rate),
        "source_seconds": source_samples / rate,
        "padded_seconds": max(0.0, job.settings.seconds - samples / rate),
    }


def _fingerprint(excerpt: np.ndarray, stored: Record, rate: float, settings: Settings) -> str:
    """The fingerprint of the record without filters: it goes by the slow course of the leads, which a high-pass takes away."""
    plain = pad(resample(excerpt, rate, settings.rate), settings.samples) if settings.filters else stored.signal
    return fingerprint(plain, stored.leads, stored.sampling_rate)


def simulated_records(settings: Settings) -> Iterator[Record]:
    """What is known of simulated records beforehand; record i depends on the seed and i alone.

    Their ids name the seed, so that sets of different seeds share none.
    """
    from ecgtf.generators.simulator import RHYTHMS

    codes = list(RHYTHMS.values())
    for index in range(settings.limit or SIMULATED_RECORDS):
        yield Record(id=f"simulated/seed{settings.seed}/S{index:06d}", codes=(codes[index % len(codes)],))


def _simulate(record: Record, settings: Settings) -> Record:
    """The record with signal, age and sex, simulated at the rate of the data set."""
    from ecgtf.generators.simulator import simulate_records

    index = int(record.id.rsplit("S", 1)[-1])
    made = next(simulate_records(1, seed=settings.seed, rate=settings.rate, seconds=settings.seconds, start=index))
    return replace(made, id=record.id)
