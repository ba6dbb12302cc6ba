"""Options that several commands share, and how their values are written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

TASK_HELP = "rhythm4, rhythm7, rhythm12, native, superclass, or a .toml or .csv file of codes and classes."

Seed = Annotated[int, typer.Option(help="Fixes every random choice.", min=0, max=2**31 - 1)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but results and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run; a finished one is left as it is.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Accept classes without training records.")]
Data = Annotated[
    list[Path] | None,
    typer.Option("--data", help="Real data set; may be given several times. [default: the only one in data/]"),
]
TaskName = Annotated[str, typer.Option("--task", help=TASK_HELP)]
Synthetic = Annotated[list[Path] | None, typer.Option("--synthetic", help="Synthetic data set; may be given several times.")]
TestData = Annotated[
    list[Path] | None, typer.Option("--test-data", help="Sets whose test split is tested on, instead of --data's.")
]
RunFolder = Annotated[Path | None, typer.Option("--out", file_okay=False, help="Run folder. [default: runs/KIND]")]
Preset = Annotated[str, typer.Option(help="tiny, small (2 cores), base (one GPU) or paper.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps. [default: the preset's]")]
Balance = Annotated[float, typer.Option(min=0, max=1, help="0: records as they are; 1: classes equally often.")]
BalanceSources = Annotated[float, typer.Option(min=0, max=1, help="0: records as they are; 1: data sets equally often.")]
_AUGMENT = "Random changes of training records: gain, shift_seconds, axis, wander, noise, lead_dropout, mixup."
Augment = Annotated[str, typer.Option(help=_AUGMENT)]
AugmentGenerator = Annotated[
    str | None,
    typer.Option(help=f"{_AUGMENT} [default: gain=0.2,shift_seconds=2.5,axis=12; the last for all twelve leads]"),
]
Devices = Annotated[int | None, typer.Option(min=1, help="GPUs to train on, or logical CPU devices where there is none.")]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
MaxMinutes = Annotated[float | None, typer.Option(help="End the training early and cleanly after this time.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Records a step, over all devices. [default: the preset's]")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate. [default: the preset's]")]


def numbers(text: str | None, kind: type, option: str) -> tuple | None:
    """The numbers in `600,900`.

    Raises:
        ValueError: if they are no numbers.
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} takes numbers with commas between them, such as 600,900; received {text!r}") from None


def stage_options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options in `denoiser.patch=1`, by stage; values are read as JSON, and as text where they are none.

    Raises:
        ValueError: if a text is not of that form.
    """
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        stage, dot, option = name.partition(".")
        if not (equals and dot and stage and option):
            raise ValueError(f"--set takes STAGE.OPTION=VALUE, such as denoiser.patch=1; received {text!r}")
        with suppress(json.JSONDecodeError):
            value = json.loads(value)
        options.setdefault(stage, {})[option] = value
    return options


def typed(path: Path) -> str:
    """A path as it is typed in a shell, with quotes where it has blanks."""
    return shlex.quote(str(path))


def say(text: str, quiet: bool = False) -> None:
    """Prints a line unless `quiet`."""
    if not quiet:
        typer.echo(text)


def say_copies(data: Sequence[Path], quiet: bool) -> None:
    """Says how many records are left out because several of the data sets hold them."""
    if len(data) > 1 and not quiet:
        from ecgtf.copies import left_out

        number = sum(map(len, left_out(data).values()))
        if number:
            say(f"the same ECG in several of these sets: {number} records left out, so that each is read once")


def say_logs(folder: Path, quiet: bool) -> None:
    """Says how to look at the losses and pictures of a training."""
    say(f"see it in TensorBoard: tensorboard --logdir {typed(folder / 'tensorboard')}", quiet)


def say_trained(folder: Path, following: str, *, already: bool, quiet: bool) -> None:
    """Says how a training ended and what to run next; `already` when its run was finished before the command was called."""
    say(f"{folder} is finished already; nothing to do" if already else f"wrote {folder}; next: {following}", quiet)
