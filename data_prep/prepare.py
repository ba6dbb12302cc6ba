"""From a collection of ECGs to a data set: plan shards from metadata, write them in parallel, finish with the manifest.

The parent process reads metadata only and plans the shards; a worker turns the records of one shard into one file. The plan,
and so every byte, depends on records and settings alone, not on the number of workers or on interruptions: a preparation that
was stopped goes on behind the shards that its journal lists. The manifest comes last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ecgtf
from ecgtf.atomic import write_atomically
from ecgtf.data_prep import challenge, chapman, ludb, ptbxl, wfdb_folder
from ecgtf.data_prep.beam_runner import pipeline_options, run_jobs_on_beam
from ecgtf.data_prep.conversion import TABLE_COLUMNS, Job, Settings, simulated_records, write_job
from ecgtf.data_prep.journal import REJECTED, Journal, check_folder, only_one
from ecgtf.data_prep.signals import SHORT, WINDOWS
from ecgtf.data_prep.splits import FRACTIONS, assign_splits
from ecgtf.ecg import LEADS, SPLITS, Record, Rejection, canonical_leads
from ecgtf.manifest import Manifest, ShardSummary, finish_dataset
from ecgtf.record_table import FILE_NAME as RECORDS
from ecgtf.record_table import join_rows, read_columns
from ecgtf.shards import SHARD_BYTES, shard_names
from ecgtf.workers import run_jobs

SOURCES: dict[str, Callable[..., Iterator[Record | Rejection]]] = {
    "ptbxl": lambda root, rate, labels: ptbxl.read_ptbxl(root, rate),
    "chapman": lambda root, rate, labels: chapman.read_chapman(root),
    "challenge": lambda root, rate, labels: challenge.read_challenge(root),
    "ludb": lambda root, rate, labels: ludb.read_ludb(root),
    "wfdb": lambda root, rate, labels: wfdb_folder.read_wfdb(root, labels),
}
"""Collections that `prepare` knows, with their readers of metadata: `(root, rate, labels) -> records and rejections`."""

_ABOUT = {
    "ptbxl": ptbxl.SOURCE,
    "chapman": chapman.SOURCE,
    "challenge": challenge.SOURCE,
    "ludb": ludb.SOURCE,
    None: {"name": "simulated", "licence": "none needed", "citation": "simulated by ecgtf.generators.simulator"},
}
RUNNERS = ("local", "beam")
_LEAST_SHARD_BYTES = 4 * 2**20
_MOST_SAMPLES = 2**24 - 1
_NAMED = 3  # so many rejected records are named in an error


def prepare(
    source: str | None,
    root: str | Path | None,
    out: str | Path,
    *,
    rate: float = 100,
    seconds: float = 10.0,
    leads: Sequence[str] = LEADS,
    window: str = "first",
    short: str = "refuse",
    band: tuple[float | None, float | None] | None = None,
    mains: float | None = None,
    checks: bool = True,
    labels: str | Path | None = None,
    workers: int | None = None,
    runner: str = "local",
    beam_args: Sequence[str] = (),
    limit: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    shard_bytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Writes the collection at `root` as a data set in the folder `out`.

    Records that cannot be used (missing or broken files, missing leads, too short, too slowly sampled, missing samples, flat
    leads) are left out and listed with the reason in `out/rejected.csv`. A stopped preparation is continued when called again
    with the same settings.

    Args:
        source: a name in `SOURCES`; None for ECGs of several rhythms from the simulator, which needs no `root`.
        root: the collection's folder.
        out: the data set's folder: a new or an empty one, or an unfinished preparation of the same settings.
        rate: samples per second of the data set. Records are resampled, never from a lower rate than this.
        seconds: length of every record; longer ones are cut, shorter ones left out.
        leads: which leads, in which order; missing limb leads are computed from I and II.
        window: what is kept of a longer record: its `first` seconds, those in the `centre`, or `all` that fit one after the other,
            each a record `ID@STARTs` of its own.
        short: whether to `refuse` shorter records or to `pad` them with their last value.
        band: corner frequencies in Hz of a zero-phase band-pass filter; None for an end that stays open.
        mains: the mains frequency in Hz to notch out.
        checks: leave out records of poor quality (see `ecgtf.data_prep.quality.LIMITS`).
        labels: a CSV file of diagnoses for the source `wfdb` (see `read_wfdb`).
        workers: worker processes; as many as processors if None.
        runner: `local`, worker processes on this machine, or `beam`, a pipeline of Apache Beam; the data set is the same.
        beam_args: options of the pipeline.
        limit: only the first so many records of the source; how many to simulate (700 if None) without a source.
        strict: any record left out is an error.
        overwrite: replace what is in `out`, if that is a data set or an unfinished one.
        seed: of the splits where the source gives none, and of the simulator.
        shard_bytes: about the size of a shard; by default a sixteenth of the set within 4 to 64 MiB.
        progress: is called with the records done so far and their number.

    Raises:
        ValueError: if an argument or the source cannot be used, `out` is in use, nothing is left, or `strict` and one left out.
    """
    settings = _checked(
        Settings(source, float(rate), float(seconds), canonical_leads(leads), window, seed, limit, short, band, mains, checks),
        workers,
    )
    if runner not in RUNNERS:
        raise ValueError(f"unknown runner {runner!r}; expected one of {', '.join(RUNNERS)}")
    if beam_args and runner != "beam":
        raise ValueError("options of Apache Beam go with the runner beam only")
    out = Path(out)
    if runner == "beam":
        pipeline_options(beam_args)  # before anything is replaced
        out, root = out.resolve(), root and Path(root).resolve()  # workers elsewhere have another current folder
    check_folder(out, overwrite)
    about, items = _open_source(source, root, settings, labels)
    records, rejections = _collect(items, settings.limit)
    rejected_unread = len(rejections)
    if strict:
        _raise_on_rejections(rejections)
    if not records:
        raise ValueError(_nothing_left(rejections))
    jobs = _plan(records, settings, out, shard_bytes)
    described = {**settings.as_json(), "records": _digest(jobs)}
    with only_one(out):
        journal = Journal(out, described, overwrite)
        try:
            _write_shards(jobs, journal, _run_with(runner, workers, beam_args), strict, progress)
        except ValueError:
            if not journal.finished:
                journal.clear()  # nothing to continue
            raise
        rejections += [rejection for job in jobs for rejection in journal.finished[job.path.name][1]]
        summaries = [journal.finished[job.path.name][0] for job in jobs]
        if not any(summary.records for summary in summaries):
            journal.clear()
            raise ValueError(_nothing_left(rejections))
        write_atomically(out / REJECTED, _rejected_table(rejections))
        table = join_rows(out / RECORDS, (job.table for job in jobs), TABLE_COLUMNS)
        padded = sum(float(seconds) > 0 for seconds in read_columns(out / RECORDS, ["padded_seconds"])["padded_seconds"])
        fields = {
            "name": about["name"],
            "sampling_rate": settings.rate,
            "seconds": settings.seconds,
            "leads": settings.leads,
            "rejected": len(rejections),
            "sources": [about],
            "table": {"file": RECORDS, "sha256": table},
            "provenance": {
                "made_by": f"ecgtf {ecgtf.__version__} prepare",
                **settings.as_json(),
                "splits": _describe_splits(records, seed),
                "source_records": len(records) + rejected_unread,
                "padded": padded,
            },
        }
        manifest = finish_dataset(out, fields, summaries)
        journal.close()
    return manifest


def _checked(settings: Settings, workers: int | None) -> Settings:
    """The settings, if they make sense."""
    for name, value in (("rate", settings.rate), ("seconds", settings.seconds)):
        if not 0 < value < math.inf:
            raise ValueError(f"expected a number above 0 for {name}, received {value:g}")
    product = settings.rate * settings.seconds
    if abs(product - round(product)) > 1e-6 or not 1 <= product <= _MOST_SAMPLES:
        raise ValueError(
            f"{settings.seconds:g} s at {settings.rate:g} Hz are {product:g} samples; expected a whole number from 1 to {_MOST_SAMPLES}"
        )
    for name, value, choices in (("window", settings.window, WINDOWS), ("short", settings.short, SHORT)):
        if value not in choices:
            raise ValueError(f"unknown {name} {value!r}; expected one of {', '.join(choices)}")
    if not settings.leads:
        raise ValueError("expected at least one lead")
    for name, value, least in (("workers", workers, 1), ("limit", settings.limit, 1), ("seed", settings.seed, 0)):
        if value is not None and value < least:
            raise ValueError(f"expected at least {least} for {name}, received {value}")
    for its in settings.filters:
        its.check(settings.rate if settings.source is None else math.inf)  # a collection's own rates are not known yet
    return settings


def _open_source(
    source: str | None, root: str | Path | None, settings: Settings, labels: str | Path | None
) -> tuple[dict[str, Any], Iterable[Record | Rejection]]:
    """What is known of the collection, and its records without signals."""
    if source is not None and source not in SOURCES:
        raise ValueError(f"unknown source {source!r}; expected one of {', '.join(SOURCES)}")
    if labels is not None and source != "wfdb":
        raise ValueError("a labels file goes with the source wfdb only")
    if source is None:
        return _ABOUT[None], simulated_records(settings)
    if root is None:
        raise ValueError(f"source {source} needs the folder that the collection is in")
    unknown = {"name": Path(root).resolve().name, "licence": "unknown", "citation": ""}
    return _ABOUT.get(source, unknown), SOURCES[source](Path(root), settings.rate, labels)


def _collect(items: Iterable[Record | Rejection], limit: int | None) -> tuple[list[Record], list[Rejection]]:
    records, rejections, ids = [], [], set()
    for item in items:
        if isinstance(item, Record) and item.id in ids:
            item = Rejection(item.id, "another record has the same id")
        elif not item.id.isprintable():
            item = Rejection(ascii(item.id), item.reason if isinstance(item, Rejection) else "its name is no printable text")
        if isinstance(item, Rejection):
            rejections.append(item)
            continue
        ids.add(item.id)
        records.append(item)
        if len(records) == limit:
            break
    return records, rejections


def _plan(records: Sequence[Record], settings: Settings, out: Path, shard_bytes: int | None) -> list[Job]:
    """The shards of every split, with the records in order of the source."""
    if shard_bytes is None:
        whole = len(records) * settings.samples * len(settings.leads) * 2
        shard_bytes = min(max(whole // 16, _LEAST_SHARD_BYTES), SHARD_BYTES)
    splits = assign_splits(records, settings.seed)
    jobs = []
    for split in SPLITS:
        part = [record for record, its in zip(records, splits, strict=True) if its == split]
        names = shard_names(split, len(part), settings.samples, len(settings.leads), shard_bytes)
        for number, name in enumerate(names):
            share = part[number * len(part) // len(names) : (number + 1) * len(part) // len(names)]
            jobs.append(Job(out / name, share, settings))
    return jobs


def _run_with(
    runner: str, workers: int | None, beam_args: Sequence[str]
) -> Callable[[Sequence[Job]], Iterator[tuple[ShardSummary, list[Rejection]]]]:
    """A function that writes the shards of jobs."""
    if runner == "beam":
        return lambda jobs: run_jobs_on_beam(write_job, jobs, beam_args)
    return lambda jobs: run_jobs(write_job, jobs, workers)


def _write_shards(
    jobs: Sequence[Job],
    journal: Journal,
    run: Callable[[Sequence[Job]], Iterator[tuple[ShardSummary, list[Rejection]]]],
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    sizes = {job.path.name: len(job.records) for job in jobs}
    done = sum(sizes[name] for name in journal.finished)
    if strict:
        _raise_on_rejections([rejection for _, rejections in journal.finished.values() for rejection in rejections])
    if progress:
        progress(done, sum(sizes.values()))
    waiting = [job for job in jobs if job.path.name not in journal.finished]
    with closing(run(waiting)) as results:  # no worker may still write after an error
        for summary, rejections in results:
            if strict:
                _raise_on_rejections(rejections)
            journal.add(summary, rejections)
            done += sizes[summary.file]
            if progress:
                progress(done, sum(sizes.values()))


def _raise_on_rejections(rejections: Sequence[Rejection]) -> None:
    if rejections:
        named = "; ".join(f"{rejection.id}: {rejection.reason}" for rejection in rejections[:_NAMED])
        more = f"; and {len(rejections) - _NAMED} more" if len(rejections) > _NAMED else ""
        raise ValueError(f"strict: {named}{more}")


def _nothing_left(rejections: Sequence[Rejection]) -> str:
    """Why no record is left, with a count for each kind of reason."""
    kinds = Counter(rejection.kind for rejection in rejections)
    counts = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5))
    first = f" (the first: {rejections[0].id}: {rejections[0].reason})" if rejections else ""
    return f"no record is left of {len(rejections)}: {counts or 'the source is empty'}{first}"


def _rejected_table(rejections: Iterable[Rejection]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("id", "reason"))
    writer.writerows((rejection.id, rejection.reason) for rejection in rejections)
    return table.getvalue()


def _digest(jobs: Iterable[Job]) -> str:
    """16 hexadecimal digits that change with the records and their distribution over shards."""
    digest = hashlib.sha256()
    for job in jobs:
        metadata = [(record.id, record.codes, record.patient, record.age, record.sex) for record in job.records]
        digest.update(json.dumps([job.path.name, metadata]).encode())
    return digest.hexdigest()[:16]


def _describe_splits(records: Sequence[Record], seed: int) -> str:
    given = sum(record.split is not None for record in records)
    shares = "/".join(f"{100 * FRACTIONS[split]:.0f}" for split in SPLITS)
    rule = f"{shares} % by patient where known, balanced over codes, seed {seed}"
    return (
        "as the source gives them" if given == len(records) else rule if not given else f"as the source gives them, else {rule}"
    )
