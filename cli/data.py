"""Commands that make data sets and look at them: simulate, prepare, info, plot."""

from __future__ import annotations

import json as json_module
import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ecgtf.cli import defaults
from ecgtf.cli.options import Debug, Json, Overwrite, Quiet, Seed, TaskName, say, typed

_NO_CODES = (
    "none carries a diagnosis code, so nothing can be trained on them: prepare them as another source, or as wfdb with --labels"
)


def simulate(
    out: Annotated[Path, typer.Argument(file_okay=False, help="Folder to write.")] = Path("data/simulated-wfdb"),
    records: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    rate: Annotated[float, typer.Option(help="Samples per second.")] = 500,
    seconds: Annotated[float, typer.Option(help="Length of a record.")] = 10.0,
    rhythms: Annotated[str | None, typer.Option(help="Rhythms that take turns, such as SR,AFIB. [default: all seven]")] = None,
    abnormal: Annotated[
        float, typer.Option(help="How many times as often as in real collections the waves are not normal, 0 to 5.")
    ] = 1.0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. [default: one a processor]")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write 12-lead WFDB records of several rhythms from the knowledge-driven simulator."""
    from ecgtf.generators.simulator import simulate_collection
    from ecgtf.progress import Progress

    chosen = None if rhythms is None else rhythms.split(",")
    options = {"seed": seed, "rate": rate, "seconds": seconds, "rhythms": chosen, "abnormal": abnormal}
    options |= {"overwrite": overwrite, "workers": workers}
    with Progress("simulating", records, "records", quiet) as progress:
        simulate_collection(out, records, progress=lambda done, total: progress.update(done), **options)
    say(f"wrote {records} records to {out}; next: ecgtf prepare wfdb {typed(out)}", quiet)


def prepare(
    source: Annotated[
        str | None, typer.Argument(help="ptbxl, chapman, challenge, ludb or wfdb; without it, simulated ECGs.")
    ] = None,
    root: Annotated[Path | None, typer.Argument(metavar="INPUT", help="Folder of the collection.")] = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Data set to write. [default: data/SOURCE]")] = None,
    rate: Annotated[float, typer.Option(help="Samples per second.")] = 100,
    seconds: Annotated[float, typer.Option(help="Length of every record.")] = 10.0,
    leads: Annotated[
        str | None, typer.Option(help="Leads and their order, such as I,II,V1. [default: the standard 12]")
    ] = None,
    window: Annotated[str, typer.Option(help="What is kept of a longer record: first, centre or all.")] = "first",
    short: Annotated[str, typer.Option(help="What becomes of a shorter record: refuse or pad.")] = "refuse",
    band: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Zero-phase band-pass in Hz, such as 0.5,40 or 0.5, or ,40.")
    ] = None,
    mains: Annotated[float | None, typer.Option(help="Zero-phase notch at this mains frequency in Hz, 50 or 60.")] = None,
    checks: Annotated[bool, typer.Option("--checks/--no-checks", help="Leave out records of poor quality.")] = True,
    labels: Annotated[Path | None, typer.Option(help="CSV of diagnoses for the source wfdb.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. [default: one a processor]")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many records (or how many to simulate).")] = None,
    runner: Annotated[str, typer.Option(help="local (worker processes here) or beam (Apache Beam).")] = "local",
    beam_args: Annotated[str | None, typer.Option(help="Options of Apache Beam, such as '--runner=FlinkRunner ...'.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a record cannot be used.")] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn a collection of ECGs into a data set of TFRecord shards; a stopped preparation goes on when called again."""
    from ecgtf.data_prep.prepare import prepare
    from ecgtf.ecg import LEADS
    from ecgtf.progress import Progress

    out = out or defaults.DATA / (source or "simulated")
    with Progress("preparing", None, "records", quiet) as progress:
        manifest = prepare(
            source,
            root,
            out,
            rate=rate,
            seconds=seconds,
            leads=LEADS if leads is None else leads.split(","),
            window=window,
            short=short,
            band=None if band is None else _band(band),
            mains=mains,
            checks=checks,
            runner=runner,
            beam_args=_split(beam_args or ""),
            labels=labels,
            workers=workers,
            limit=limit,
            strict=strict,
            overwrite=overwrite,
            seed=seed,
            progress=lambda done, total: progress.update(done, total=total),
        )
    parts = ", ".join(f"{split} {content['records']}" for split, content in manifest.splits.items())
    told = any(part["codes"] for part in manifest.splits.values())
    following = "next: ecgtf train-generator vqvae" if told else _NO_CODES
    rejected = f"; {manifest.rejected} rejected, listed in {out / 'rejected.csv'}" if manifest.rejected else ""
    say(f"wrote {manifest.records} records to {out} ({parts}){rejected}; {following}", quiet)


def _split(text: str) -> list[str]:
    """The words of a command line."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"--beam-args takes options as on a command line; received {text!r} ({error})") from None


def _band(text: str) -> tuple[float | None, float | None]:
    """The corners of `0.5,40`, `0.5,` or `,40`."""
    parts = text.split(",")
    try:
        low, high = (float(part) if part.strip() else None for part in parts)
    except ValueError:
        raise ValueError(f"--band takes LOW,HIGH in Hz, such as 0.5,40; received {text!r}") from None
    return low, high


def info(
    data: Annotated[list[Path] | None, typer.Argument(help="Data sets. [default: the only real one in data/]")] = None,
    task: TaskName = "rhythm7",
    verify: Annotated[bool, typer.Option("--verify", help="Check every shard against the manifest.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show the records of a data set by split and class."""
    from ecgtf.dataset import verify as verify_shards
    from ecgtf.info import info

    folders = defaults.real_data(data, defaults.BY_FOLDER)
    if verify:
        faults = [f"{folder}: {fault}" for folder in folders for fault in verify_shards(folder)]
        if faults:
            raise ValueError("; ".join(faults))
    content = info(folders, task)
    if json:
        typer.echo(json_module.dumps(content, indent=1))
        return
    _show(content)
    if verify:
        typer.echo("every shard is as the manifest says")


def _show(content: dict) -> None:
    """Prints what `info` found, for people."""
    typer.echo(
        f"{content['name']}: {content['records']} records of {content['seconds']:g} s at {content['sampling_rate']:g} Hz, "
        f"{len(content['leads'])} leads ({' '.join(content['leads'])}), {content['rejected']} rejected"
    )
    names = list(content["splits"]["train"]["classes"])
    typer.echo(f"{'':12s}{'records':>9s}{'shards':>8s}" + "".join(f"{name:>8s}" for name in names) + f"{'excluded':>10s}")
    for split, part in content["splits"].items():
        counts = "".join(f"{part['classes'][name]:8d}" for name in names)
        typer.echo(f"{split:12s}{part['records']:9d}{part['shards']:8d}{counts}{part['excluded']:10d}")
    parts = content["splits"].values()
    excluded, several = (sum((Counter(part[key]) for part in parts), Counter()) for key in ("excluded_codes", "several"))
    typer.echo(f"task {content['task']['name']}: {content['task']['rule']}")
    if excluded:
        typer.echo(f"excluded, no code of the task; their codes: {_counts(excluded)}")
    if several:
        typer.echo(f"codes of several classes: {_counts(several)}")
    if content["rejected_reasons"]:
        typer.echo(f"rejected: {_counts(Counter(content['rejected_reasons']))}")
    copies = content["copies"]
    if copies["groups"]:
        left_out = f"; {copies['left_out']} left out, so that each is read once" if copies["left_out"] else ""
        crossing = f" ({copies['across_splits']} across splits)" if copies["across_splits"] else ""
        typer.echo(
            f"the same ECG more than once: {copies['groups']}{crossing}{left_out}; such as {' = '.join(copies['examples'][0])}"
        )
    if content["quality"]:
        typer.echo(f"{'quality':16s}{'median':>10s}{'95th pct':>10s}{'largest':>10s}")
        for name, values in content["quality"].items():
            typer.echo(f"{name:16s}" + "".join(f"{values[key]:10.3g}" for key in ("median", "p95", "max")))


def _counts(counter: Counter[str], most: int = 8) -> str:
    """`PACE 4, NORM 2`, the most frequent first."""
    more = f" and {len(counter) - most} more" if len(counter) > most else ""
    return ", ".join(f"{name} {count}" for name, count in counter.most_common(most)) + more


def plot(
    source: Annotated[
        Path | None, typer.Argument(help="Data set or WFDB record. [default: the only real set in data/]")
    ] = None,
    record: Annotated[str | None, typer.Option(help="Id of a record of the data set, or its end. [default: the first]")] = None,
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = Path("ecg.png"),
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw an ECG on ECG paper, 25 mm/s and 10 mm/mV."""
    from ecgtf.report.ecg_paper import save_ecg

    source = source or defaults.real_data(None, defaults.BY_FOLDER)[0]
    if source.is_dir():
        from ecgtf.ecg import SPLITS
        from ecgtf.shards import read_records

        found = (each for split in SPLITS for each in read_records(source, split))
        chosen = next((each for each in found if record is None or each.id.endswith(record)), None)
        if chosen is None:
            some = next((each.id for split in SPLITS for each in read_records(source, split)), None)
            raise ValueError(f"{source} has no record {record!r}; ids look like {some!r}")
        signal, leads, rate = chosen.signal, chosen.leads, chosen.sampling_rate
        title = f"{chosen.id}  {' '.join(chosen.codes)}"
    else:
        from ecgtf.wfdb_io import read_record

        signal, leads, rate = read_record(source)
        title = source.name
    save_ecg(out, signal, rate=rate, leads=leads, title=title)
    say(f"wrote {out}; next: open it", quiet)
