"""Commands that train classifiers: train-classifier, finetune."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from ecgtf.classifiers import AUGMENT, KINDS
from ecgtf.cli import defaults
from ecgtf.cli.options import (
    AllowEmpty,
    Augment,
    Balance,
    BalanceSources,
    BatchSize,
    Data,
    Debug,
    Devices,
    Json,
    LearningRate,
    MaxMinutes,
    Overwrite,
    Precision,
    Preset,
    Quiet,
    Resume,
    RunFolder,
    Seed,
    Steps,
    Synthetic,
    TaskName,
    TestData,
    say,
    say_copies,
    say_logs,
    say_trained,
)
from ecgtf.quiet import import_tensorflow

_KINDS = f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"


def train_classifier(
    kind: Annotated[str, typer.Argument(help=f"Which network: {_KINDS}.")] = "resnet1d",
    data: Data = None,
    synthetic: Synthetic = None,
    synthetic_ratio: Annotated[float, typer.Option(min=0, help="Synthetic records for each real one.")] = 1.0,
    mixing: Annotated[
        str, typer.Option(help="Synthetic records by class: proportional to the real ones, or balancing the rare classes.")
    ] = "proportional",
    test_data: TestData = None,
    out: RunFolder = None,
    task: TaskName = "rhythm7",
    preset: Preset = "small",
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    balance: Balance = 0.0,
    balance_sources: BalanceSources = 0.0,
    augment: Augment = AUGMENT,
    precision: Precision = "float32",
    devices: Devices = None,
    max_minutes: MaxMinutes = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    allow_empty: AllowEmpty = False,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train an arrhythmia classifier on real, synthetic or mixed data and test it on held-out records."""
    data = defaults.real_data(data)
    say_copies(data, quiet or json)
    out = out or defaults.RUNS / kind
    already = resume and defaults.is_finished(out)
    import_tensorflow()
    from ecgtf.augment import Augmentation
    from ecgtf.classifiers.classifier import train_classifier

    run = train_classifier(
        kind,
        data,
        out,
        synthetic=synthetic,
        synthetic_ratio=synthetic_ratio,
        mixing=mixing,
        test_data=test_data,
        task=task,
        preset=preset,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        balance=balance,
        balance_sources=balance_sources,
        augment=Augmentation.parse(augment),
        precision=precision,
        devices=devices,
        max_minutes=max_minutes,
        resume=resume,
        overwrite=overwrite,
        allow_empty=allow_empty,
        seed=seed,
        quiet=quiet or json,
    )
    _show(run.folder, already, json, quiet)


def finetune(
    real_frac: Annotated[float, typer.Option(help="Share of the real training split, above 0 and up to 1.")] = 1.0,
    data: Data = None,
    synthetic: Synthetic = None,
    from_run: Annotated[
        Path | None, typer.Option("--from", help="Start from this run of a classifier instead, or before learning together.")
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="No pre-training: the baseline that a transfer must beat.")
    ] = False,
    test_data: TestData = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Run folder.")] = defaults.RUNS / "finetuned",
    kind: Annotated[str, typer.Option(help=f"Network: {_KINDS}.")] = "resnet1d",
    task: TaskName = "rhythm7",
    preset: Preset = "small",
    mode: Annotated[
        str,
        typer.Option(
            help="unfreeze (the head first, then everything), full, or together (real and synthetic ECGs in one training)."
        ),
    ] = "unfreeze",
    steps: Steps = None,
    pretrain_steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    balance: Balance = 0.0,
    balance_sources: BalanceSources = 0.0,
    augment: Augment = AUGMENT,
    precision: Precision = "float32",
    devices: Devices = None,
    max_minutes: MaxMinutes = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    allow_empty: AllowEmpty = False,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Pre-train on synthetic ECGs (or start from a run), then fine-tune on a share of the real training split, or learn both together."""
    data = defaults.real_data(data)
    say_copies(data, quiet or json)
    if scratch and (synthetic or from_run):
        raise ValueError("--scratch is without pre-training: leave --synthetic and --from out")
    if not (scratch or synthetic) and (mode == "together" or not from_run):
        synthetic = defaults.synthetic_data(None)
    already = resume and defaults.is_finished(out)
    import_tensorflow()
    from ecgtf.augment import Augmentation
    from ecgtf.classifiers.transfer import finetune

    run = finetune(
        data,
        out,
        real_frac=real_frac,
        synthetic=synthetic or None,
        from_run=from_run,
        test_data=test_data,
        kind=kind,
        task=task,
        preset=preset,
        mode=mode,
        steps=steps,
        pretrain_steps=pretrain_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        balance=balance,
        balance_sources=balance_sources,
        augment=Augmentation.parse(augment),
        precision=precision,
        devices=devices,
        max_minutes=max_minutes,
        resume=resume,
        overwrite=overwrite,
        allow_empty=allow_empty,
        seed=seed,
        quiet=quiet or json,
    )
    if not scratch:
        seen = run.config.get("seen_beyond_real_frac", 0)
        say(f"the synthetic data saw {seen} real training records beyond the share of {real_frac:g}", quiet or json)
    _show(run.folder, already, json, quiet)


def _show(folder: Path, already: bool, json: bool, quiet: bool) -> None:
    """Prints the metrics of a run; `already` as in `say_trained`."""
    content = defaults.read_json(folder / "metrics.json")
    if json:
        typer.echo(json_module.dumps(content, indent=1))
        return
    from ecgtf.classifiers.metrics import metrics_table

    for title, key in (("before fine-tuning", "before"), ("test", "test")):
        if content.get(key):
            say(f"{title}: {metrics_table(content[key])}", quiet)
    say_logs(folder, quiet)
    say_trained(folder, "ecgtf evaluate", already=already, quiet=quiet)
