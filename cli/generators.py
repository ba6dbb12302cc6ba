"""Commands that train generators and draw from them: train-generator, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgtf.cli import defaults
from ecgtf.cli.options import (
    AllowEmpty,
    AugmentGenerator,
    Balance,
    BalanceSources,
    BatchSize,
    Data,
    Debug,
    Devices,
    LearningRate,
    MaxMinutes,
    Overwrite,
    Precision,
    Preset,
    Quiet,
    Resume,
    RunFolder,
    Seed,
    TaskName,
    numbers,
    say,
    say_copies,
    say_logs,
    say_trained,
    stage_options,
    typed,
)
from ecgtf.quiet import import_tensorflow

KINDS = ("vqvae", "diffwave", "timediffusion")


def train_generator(
    kind: Annotated[str, typer.Argument(help="Which generator: vqvae, diffwave or timediffusion.")] = "vqvae",
    data: Data = None,
    out: RunFolder = None,
    task: TaskName = "rhythm7",
    preset: Preset = "small",
    objective: Annotated[
        str | None, typer.Option(help="What diffwave and timediffusion are trained as: diffusion or flow. [default: diffusion]")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Training steps of each stage: 6000, or for vqvae 1800,2000. [default: the preset's]")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="An option of a stage's model, such as denoiser.patch=1, prior.causal=false or, for less memory, "
            "denoiser.gradient_checkpointing=true; repeatable.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Start from this run of the same kind, preset and options, or from simulated: that of the package.",
        ),
    ] = None,
    conditions: Annotated[
        str | None, typer.Option(help="What it is told of a record beside its classes: age,sex,heart_rate or some of them.")
    ] = None,
    batch_size: BatchSize = None,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts of a batch that are gone through one after the other, to need less memory.")
    ] = 1,
    learning_rate: LearningRate = None,
    precision: Precision = "float32",
    leads: Annotated[str, typer.Option(help="independent (8 modelled, 4 derived exactly) or all.")] = "independent",
    balance: Balance = 0.5,
    balance_sources: BalanceSources = 0.0,
    augment: AugmentGenerator = None,
    devices: Devices = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    judge: Annotated[
        int, typer.Option(min=0, help="Samples of each class to draw and compare with held-out records ten times, for the log.")
    ] = 4,
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
    say_copies(data, quiet)
    out = out or defaults.RUNS / kind
    already = resume and defaults.is_finished(out)
    import_tensorflow()
    from ecgtf.augment import Augmentation
    from ecgtf.train_generator import train_generator

    train_generator(
        kind,
        data,
        out,
        task=task,
        preset=preset,
        objective=objective,
        steps=numbers(steps, int, "--steps"),
        options=stage_options(options or []),
        start=start,
        conditions=conditions.split(",") if conditions else (),
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        precision=precision,
        leads=leads,
        balance=balance,
        balance_sources=balance_sources,
        augment=None if augment is None else Augmentation.parse(augment),
        devices=devices,
        seed=seed,
        checkpoint_every=checkpoint_every,
        judge=judge,
        max_minutes=max_minutes,
        resume=resume,
        overwrite=overwrite,
        allow_empty=allow_empty,
        on_start=lambda folder: say_logs(folder, quiet),
        quiet=quiet,
    )
    say_trained(out, f"ecgtf generate --run {typed(out)}", already=already, quiet=quiet)


def generate(
    run: Annotated[Path | None, typer.Option(help="Run of train-generator. [default: the newest in runs/]")] = None,
    out: Annotated[Path, typer.Option(help="Data set (or file) to write.")] = defaults.DATA / "synthetic",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Draw from the small generator that comes with ecgtf.")
    ] = False,
    per_class: Annotated[int | None, typer.Option(min=1, help="Records of each class. [default: 100]")] = None,
    like: Annotated[str | None, typer.Option(help="Draw the labels of this split instead: data/X:train.")] = None,
    age: Annotated[float | None, typer.Option(help="Years, 0 to 100, for a generator that was told ages.")] = None,
    sex: Annotated[str | None, typer.Option(help="male or female, for a generator that was told it.")] = None,
    heart_rate: Annotated[float | None, typer.Option(help="Beats/min, 40 to 200, for a generator that was told it.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Weight of classifier-free guidance; 1 is none.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Diffusion: ddpm, ddim, dpmpp or fast (six steps); flow: euler or heun.")
    ] = None,
    sampler_steps: Annotated[
        str | None,
        typer.Option(help="Evaluations of a diffusion or flow model, such as 25; steps of low and high tokens, such as 32,16."),
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Noise of the sampler ddim, from 0 (none) to 1 (as ddpm).")] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Parts of a record drawn one after another, by a diffusion or flow model trained with a prefix."
        ),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(help="Decoding temperatures of low and high tokens, such as 4,0. Low ones drawn in time have none."),
    ] = None,
    sharpness: Annotated[float | None, typer.Option(help="Factor on token logits; above 1 draws likelier tokens.")] = None,
    format: Annotated[str, typer.Option(help="tfrecord, wfdb or npz.")] = "tfrecord",
    batch_size: Annotated[int, typer.Option(min=1, help="Records drawn at once.")] = 64,
    precision: Precision = "float32",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw synthetic ECGs from a trained generator."""
    if like is not None and per_class is not None:
        raise ValueError("give --per-class or --like, not both")
    if pretrained and run is not None:
        raise ValueError("give --run or --pretrained, not both")
    run = None if pretrained else defaults.newest_run(run, "train-generator")
    import_tensorflow()
    from ecgtf.sharing import PRETRAINED
    from ecgtf.synthesis import generate

    steps = numbers(sampler_steps, int, "--sampler-steps")
    written = generate(
        run or PRETRAINED,
        out,
        per_class=per_class,
        like=like,
        age=age,
        sex=sex,
        heart_rate=heart_rate,
        guidance=guidance,
        sampler=sampler,
        sampler_steps=steps[0] if steps and len(steps) == 1 else steps,
        eta=eta,
        precision=precision,
        parts=parts,
        temperature=numbers(temperature, float, "--temperature"),
        sharpness=sharpness,
        format=format,
        seed=seed,
        batch_size=batch_size,
        overwrite=overwrite,
        quiet=quiet,
    )
    say(f"wrote {written}; next: {_following(written, format, run or PRETRAINED)}", quiet)


def _following(written: Path, format: str, run: Path) -> str:
    """What to do with a synthetic set, in the generator's task; only data sets pre-train a classifier."""
    task = defaults.read_json(run / "config.json").get("task")
    ours = isinstance(task, str)  # a task of the user's own is kept as its table, not as the file that it was read from
    command = "finetune --real-frac 0.2" if format == "tfrecord" else "evaluate"
    hint = f"ecgtf {command} --synthetic {typed(written)} --task {task if ours else 'FILE'}"
    return hint if ours else f"{hint}, the file of the task {task['name']}"


def export(
    run: Annotated[Path | None, typer.Option(help="Run of train-generator. [default: the newest in runs/]")] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to write.")] = Path("exported"),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a trained generator as a small folder to share: no checkpoints, no logs, no data."""
    run = defaults.newest_run(run, "train-generator")
    import_tensorflow()
    from ecgtf.sharing import export as write

    written = write(run, out, overwrite=overwrite)
    say(f"wrote {written}; draw from it anywhere with: ecgtf generate --run {typed(written)}", quiet)
