"""Commands that compare and show: evaluate, report, demo."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from ecgtf.cli import defaults
from ecgtf.cli.options import TASK_HELP, Debug, Json, Overwrite, Quiet, Seed, say, say_copies
from ecgtf.quiet import import_tensorflow


def evaluate(
    real: Annotated[list[Path] | None, typer.Option("--real", help="Real set. [default: the only one in data/]")] = None,
    synthetic: Annotated[
        list[Path] | None,
        typer.Option(
            "--synthetic", help="Synthetic set, or somebody else's npz file or WFDB folder. [default: the only one in data/]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Report folder.")] = defaults.REPORTS / "closeness",
    task: Annotated[str | None, typer.Option(help=f"{TASK_HELP} [default: the generator's task]")] = None,
    groups: Annotated[
        str | None, typer.Option(help="Some of distribution,temporal,physiology,utility,privacy. [default: all]")
    ] = None,
    extractor: Annotated[
        Path | None,
        typer.Option(
            help="Run of a classifier that gives the features, such as a report's folder extractor. [default: one is trained]"
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="Budget of the classifiers: tiny, small, base or paper.")] = "small",
    max_records: Annotated[
        int | None, typer.Option(min=10, help="At most so many records of each part, drawn at random.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how close, useful and private synthetic ECGs are, against held-out real ones."""
    real, synthetic = defaults.real_data(real, "with --real"), defaults.synthetic_data(synthetic)
    say_copies(real, quiet or json)
    import_tensorflow()
    from ecgtf.closeness.evaluate import evaluate
    from ecgtf.closeness.table import metrics_table

    content = evaluate(
        real,
        synthetic,
        task=task,
        groups=None if groups is None else groups.split(","),
        extractor=extractor,
        preset=preset,
        out=out,
        overwrite=overwrite,
        max_records=max_records,
        seed=seed,
        quiet=quiet or json,
    )
    typer.echo(json_module.dumps(content, indent=1) if json else metrics_table(content))
    _say_page(out / "index.html", quiet or json)


def report(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Report folder. [default: the only one in reports/]")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the page of a report again from its saved figures, that of a study from its results."""
    folder = defaults.only_report(folder)
    if (folder / "study.json").is_file():
        import_tensorflow()
        from ecgtf.studies.runner import rebuild
    else:
        from ecgtf.report.page import rebuild
    _say_page(rebuild(folder), quiet)


def demo(
    out: Annotated[Path, typer.Option(file_okay=False, help="Report folder.")] = defaults.REPORTS / "demo",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run the whole chain on simulated ECGs in a few minutes and write a page about it."""
    import_tensorflow()
    from ecgtf.demo import demo

    _say_page(demo(out, seed=seed, overwrite=overwrite, quiet=quiet), quiet)


def _say_page(page: Path, quiet: bool) -> None:
    say(f"wrote {page}; next: open it in a browser", quiet)
