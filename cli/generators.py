"""Commands that train generators and draw from them: train-generator, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgtf.cli import defaults
from ecgtf.cli.options import (
    AllowEmpty,
    BatchSize,
    Data,
    Debug,
    Devices,
    LearningRate,
    MaxMinutes,
    Overwrite,
    Precision,
    Quiet,
    Resume,
    Seed,
    TaskName,
    numbers,
    say,
)
from ecgtf.cli.quiet import import_tensorflow

KINDS = ("vqvae",)


def train_generator(
    kind: Annotated[str, typer.Argument(help="Which generator: vqvae.")] = "vqvae",
    data: Data = None,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Run folder. [default: runs/KIND]")] = None,
    task: TaskName = "rhythm7",
    preset: Annotated[str, typer.Option(help="tiny, small (2 cores), base (one GPU) or paper.")] = "small",
    steps: Annotated[str | None, typer.Option(help="Steps of the stages, such as 600,900. [default: the preset's]")] = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    precision: Precision = "float32",
    leads: Annotated[str, typer.Option(help="independent (8 modelled, 4 derived exactly) or all.")] = "independent",
    balance: Annotated[float, typer.Option(min=0, max=1, help="0: records as they are; 1: classes equally often.")] = 0.5,
    devices: Devices = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    max_minutes: MaxMinutes = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    allow_empty: AllowEmpty = False,
    seed: Seed = 0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a class-conditional generator on the training split."""
    if kind not in KINDS:
        raise ValueError(f"unknown generator {kind!r}; expected one of {', '.join(KINDS)}")
    data = defaults.real_data(data)
    out = out or defaults.RUNS / kind
    say(f"watch it: tensorboard --logdir {out / 'tensorboard'}", quiet)
    if resume and _finished(out):
        say(f"{out} is finished already; nothing to do", quiet)
        return
    import_tensorflow()
    from ecgtf.train_generator import train_vqvae

    train_vqvae(
        data,
        out,
        task=task,
        preset=preset,
        steps=numbers(steps, int, "--steps"),
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        leads=leads,
        balance=balance,
        devices=devices,
        seed=seed,
        checkpoint_every=checkpoint_every,
        max_minutes=max_minutes,
        resume=resume,
        overwrite=overwrite,
        allow_empty=allow_empty,
        quiet=quiet,
    )
    say(f"wrote {out}; next: ecgtf generate --run {out}", quiet)


def generate(
    run: Annotated[Path | None, typer.Option(help="Run of train-generator. [default: the newest in runs/]")] = None,
    out: Annotated[Path, typer.Option(help="Data set (or file) to write.")] = defaults.DATA / "synthetic",
    per_class: Annotated[int | None, typer.Option(min=1, help="Records of each class. [default: 100]")] = None,
    like: Annotated[str | None, typer.Option(help="Draw the labels of this split instead: data/X:train.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Weight of classifier-free guidance; 1 is none.")] = None,
    sampler_steps: Annotated[str | None, typer.Option(help="Decoding steps of the stages, such as 32,16.")] = None,
    temperature: Annotated[str | None, typer.Option(help="Decoding temperatures of the stages, such as 4,0.")] = None,
    sharpness: Annotated[float | None, typer.Option(help="Factor on the logits; above 1 draws likelier tokens.")] = None,
    format: Annotated[str, typer.Option(help="tfrecord, wfdb or npz.")] = "tfrecord",
    batch_size: Annotated[int, typer.Option(min=1, help="Records drawn at once.")] = 64,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw synthetic ECGs from a trained generator."""
    if like is not None and per_class is not None:
        raise ValueError("give --per-class or --like, not both")
    run = defaults.newest_run(run, "train-generator")
    import_tensorflow()
    from ecgtf.synthesis import generate

    written = generate(
        run,
        out,
        per_class=per_class,
        like=like,
        guidance=guidance,
        sampler_steps=numbers(sampler_steps, int, "--sampler-steps"),
        temperature=numbers(temperature, float, "--temperature"),
        sharpness=sharpness,
        format=format,
        seed=seed,
        batch_size=batch_size,
        overwrite=overwrite,
        quiet=quiet,
    )
    say(f"wrote {written}; next: ecgtf finetune --real-frac 0.2", quiet)


def _finished(out: Path) -> bool:
    return bool(defaults.read_json(out / "config.json").get("finished"))
