"""One shard's worth of work: read records, select leads, cut, check, resample, write. Runs in workers, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgtf.data_prep.signals import fault, fit_length, resample
from ecgtf.ecg import Record, Rejection, select_leads
from ecgtf.manifest import ShardSummary
from ecgtf.shards import write_shard
from ecgtf.wfdb_io import read_record

SIMULATED_RECORDS = 700
"""How many ECGs are simulated unless told otherwise."""


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

    @property
    def samples(self) -> int:
        """Samples per record."""
        return round(self.rate * self.seconds)

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {**vars(self), "leads": list(self.leads)}


@dataclass(frozen=True)
class Job:
    """One shard to write."""

    path: Path
    records: Sequence[Record]
    settings: Settings


def read_signal(record: Record, settings: Settings) -> np.ndarray:
    """The signal `(samples, leads)` float32 mV of a record, as the data set holds it.

    Raises:
        ValueError: with the reason, if the record cannot be used.
    """
    if record.signal is not None:
        signal, leads, rate = record.signal, record.leads, record.sampling_rate
    else:
        signal, leads, rate = read_record(record.path)
    if rate < settings.rate:
        raise ValueError(f"sampled at {rate:g} Hz, {settings.rate:g} Hz are asked for")
    twice = [lead for lead in settings.leads if leads.count(lead) > 1]
    if twice:
        raise ValueError(f"lead {', '.join(twice)} stands more than once in the record")
    signal = select_leads(fit_length(signal, rate, settings.seconds, settings.window), leads, settings.leads)
    reason = fault(signal, settings.leads)
    if reason is None:
        signal = resample(signal, rate, settings.rate)[: settings.samples]
        reason = fault(signal, settings.leads)  # resampling may swing beyond a clipped wave
    if reason is not None:
        raise ValueError(reason)
    return signal


def write_job(job: Job) -> tuple[ShardSummary, list[Rejection]]:
    """Writes one shard: what is in it, and what had to be left out. Runs in a worker process."""
    rejections: list[Rejection] = []
    summary = write_shard(job.path, _usable(job, rejections), job.settings.leads, job.settings.samples)
    return summary, rejections


def _usable(job: Job, rejections: list[Rejection]) -> Iterator[Record]:
    for record in job.records:
        try:
            known = _simulate(record, job.settings) if job.settings.source is None else record
            signal = read_signal(known, job.settings)
        except ValueError as error:
            rejections.append(Rejection(record.id, str(error)))
        except OSError as error:
            rejections.append(Rejection(record.id, f"cannot be read: {error.strerror or type(error).__name__}"))
        else:
            yield replace(known, signal=signal, leads=job.settings.leads, sampling_rate=job.settings.rate)


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
