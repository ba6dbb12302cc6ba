"""The command that runs the paper's experiments: study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgtf.cli import defaults
from ecgtf.cli.options import Debug, Quiet, say
from ecgtf.quiet import import_tensorflow
from ecgtf.studies import STUDIES


def study(
    which: Annotated[str, typer.Argument(metavar="STUDY", help=f"Which study: {' or '.join(STUDIES)}.")],
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Settings: a .toml file, or paper, small, superclass or smoke.")
    ],
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Report folder. [default: reports/CONFIG-STUDY]")] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Run part I of N: the parts may run at once, on one machine or on several."),
    ] = None,
    collect: Annotated[
        list[Path] | None, typer.Option("--collect", help="Bring in the cells of this folder, from another machine, first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and how long they would take, and end.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed before.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a study of synthetic ECGs as training data: its tables, figures and page. A study that was stopped goes on."""
    if which not in STUDIES:
        raise ValueError(f"unknown study {which!r}; expected {' or '.join(STUDIES)}")
    import_tensorflow()
    from ecgtf.studies.config_file import read_config

    settings = read_config(config)
    out = out or defaults.REPORTS / f"{settings.name}-{which}"
    if dry_run:
        from ecgtf.studies.estimate import describe

        typer.echo(describe(which, settings, out, only))
        return
    from ecgtf.studies.runner import run_study

    page = run_study(which, settings, out, only=only, collect=collect or (), retry=retry, quiet=quiet)
    say(f"wrote {page}; next: open it in a browser", quiet)
