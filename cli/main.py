"""The command line `ecgtf`: its commands, and how errors are told."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import typer
from typer.core import TyperGroup

from ecgtf.cli import classifiers, data, generators, reports, studies

FILE_FOR_FOLDER = (NotADirectoryError, FileExistsError)
"""What the system says of a folder to be made at, or below, a file."""

_NO_ROOM = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}
_GO_ON = "a training goes on with --resume, prepare and study when they are called again"


class Commands(TyperGroup):
    """The commands in the order of the work; a wrong input is one line and exit code 2, a failure one line and exit code 1."""

    def list_commands(self, ctx):
        """The commands as they were added, not by the alphabet."""
        return list(self.commands)

    def parse_args(self, ctx, args):
        """The options of `ecgtf` itself."""
        asked = bool(args)  # which are used up; nothing at all is answered by the help
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if not asked or not hasattr(error, "format_message"):
                raise
            _tell_misuse(error)

    def invoke(self, ctx):
        """Runs a command and tells its errors."""
        # Before TensorFlow is imported: it logs its devices and CPU features otherwise.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            return super().invoke(ctx)
        except Exception as error:  # TensorFlow's errors share no other base class
            if hasattr(error, "format_message"):
                _tell_misuse(error, ctx.invoked_subcommand)
            if isinstance(error, (typer.Abort, BrokenPipeError)) or hasattr(error, "exit_code"):
                raise  # Typer's own, such as --help, and what Typer ends quietly: nobody reads on, as behind `| head`
            _tell(error, 2 if isinstance(error, (ValueError, *FILE_FOR_FOLDER)) else 1)
        except KeyboardInterrupt as error:
            typer.echo(f"{str(error) or 'stopped'}; {_GO_ON}", err=True)
            raise typer.Exit(130) from error


def _tell_misuse(error: Exception, command: str | None = None) -> None:
    """One line of a wrong option, where Typer would print its usage too."""
    _tell(ValueError(f"{error.format_message().rstrip('.')}. See: {' '.join(filter(None, ('ecgtf', command)))} --help"), 2)


def _tell(error: BaseException, code: int) -> None:
    from ecgtf.workers import WorkerDied  # with all of multiprocessing

    if "--debug" in sys.argv:
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FILE_FOR_FOLDER):
        text = f"{error.filename}: a file stands where a folder is expected; name another place"
    elif isinstance(error, OSError) and error.errno in _NO_ROOM:
        text = f"no room to write ({error.strerror}); nothing half-written counts as finished: make room, then {_GO_ON}"
    elif isinstance(error, WorkerDied):
        text = f"{text}; {_GO_ON}"
    typer.echo(f"error: {text}", err=True)
    raise typer.Exit(code) from error


app = typer.Typer(
    cls=Commands,
    help="12-lead ECGs to TFRecords, generators, synthetic ECGs, classifiers and measures of closeness. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"ecgtf {version('ecgtf')}")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Holds the options of `ecgtf` itself."""


app.command("demo")(reports.demo)
app.command("simulate")(data.simulate)
app.command("prepare")(data.prepare)
app.command("info")(data.info)
app.command("plot")(data.plot)
app.command("train-generator")(generators.train_generator)
app.command("generate")(generators.generate)
app.command("export")(generators.export)
app.command("train-classifier")(classifiers.train_classifier)
app.command("finetune")(classifiers.finetune)
app.command("evaluate")(reports.evaluate)
app.command("study")(studies.study)
app.command("report")(reports.report)


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
