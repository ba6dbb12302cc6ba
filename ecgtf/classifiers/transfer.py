"""Transfer: pre-train a classifier on synthetic ECGs, or take a trained one, and fine-tune it on a share of real records."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from ecgtf.augment import Augmentation
from ecgtf.classifiers.classifier import signature, write_metrics
from ecgtf.classifiers.examples import (
    Examples,
    check_fit,
    check_untested,
    counts,
    hold_out,
    lineage,
    mix,
    names_of,
    read_examples,
    read_splits,
    real_ids,
    share,
)
from ecgtf.classifiers.fitting import AUGMENTATION, check_training, fit_classifier
from ecgtf.classifiers.metrics import classification_metrics
from ecgtf.classifiers.networks import check_kind, classifier_run, load_classifier, new_classifier, predict, training_preset
from ecgtf.classifiers.parts import LogitsHead
from ecgtf.dataset import Folders, check_no_leak, combined_manifest, hash_id, read_labels, read_manifests
from ecgtf.precision import restoring_precision, set_precision
from ecgtf.run_folder import Run, check_apart, checksums
from ecgtf.tasks import TASKS, Task, check_classes, get_task
from ecgtf.training import check_limits, check_one_worker, make_strategy

TOGETHER = "together"
MODES = ("unfreeze", "full", TOGETHER)
"""How real records come into it: after synthetic ones, the head first or everything at once, or together with them."""


@restoring_precision
def finetune(
    data: Folders,
    out: str | Path,
    *,
    real_frac: float = 1.0,
    synthetic: Folders | None = None,
    from_run: str | Path | None = None,
    rehearse: Folders | None = None,
    rehearsal: float = 1.0,
    test_data: Folders | None = None,
    kind: str = "resnet1d",
    task: str | Task = "rhythm7",
    preset: str = "small",
    mode: str = "unfreeze",
    steps: int | None = None,
    pretrain_steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    balance: float = 0.0,
    balance_sources: float = 0.0,
    augment: Augmentation = AUGMENTATION,
    patience: int | None = 10,
    seed: int = 0,
    precision: str = "float32",
    devices: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_empty: bool = False,
    bootstrap: int = 1000,
    quiet: bool = False,
) -> Run:
    """Pre-trains on synthetic records, or starts from a run, and fine-tunes on a share of the real training split.

    With neither, a fresh network is trained on the share: the baseline that a transfer must beat. In the mode `together` a fresh
    network, or that of the run, learns the synthetic records and the share in one training, in which real records come as often as
    `balance_sources` says; its weights are chosen by the validation records of both, for a few real ones decide nothing. The share
    is stratified and nested (20 % is a part of 50 % of the same seed), and every class keeps a record. The run folder ends as that of
    `train_classifier`; `metrics.json` also holds `before`, the test metrics before fine-tuning, where the classes agree.

    Args:
        data: Folders of real data sets.
        out: The run folder.
        real_frac: Share of the training split to fine-tune on; validation and test are always whole.
        synthetic: Synthetic data sets to pre-train on, or to learn together with the share.
        from_run: Run folder of a classifier to start from, instead of a pre-training or before learning together; its head is replaced
            where the classes differ.
        rehearse: Synthetic data sets whose records stay in the fine-tuning.
        rehearsal: How many of them for each real record, in each class alike.
        test_data: Data sets whose test split is tested on, instead of that of `data`.
        kind: Network, when none is given by `from_run`.
        task: What the classes are.
        preset: Size of the network and lengths of the trainings.
        mode: `unfreeze` trains the head alone for a fifth of the steps, then everything; `full` trains everything at once; `together`
            does so on synthetic and real records mixed.
        steps: Steps of the fine-tuning, in place of half the preset's (all of them without pre-training, and together).
        pretrain_steps: Steps of the pre-training, in place of the preset's.
        batch_size: Records a step, over all devices.
        learning_rate: Peak learning rate of the fine-tuning, in place of a quarter of the preset's (all of it without
            pre-training, and together).
        balance: 0 draws the records as they are, 1 every class equally often.
        balance_sources: 0 draws the records as they are, 1 every data set equally often; together, real and synthetic records.
        augment: How the training records are changed at random.
        patience: Validations (of 20 a stage) without a better macro-AUROC after which a stage ends; None for never.
        seed: Fixes the share, weights, order and draws.
        precision: `float32`, `bfloat16` or `float16`.
        devices: GPUs, or logical CPU devices, to train on.
        max_minutes: Ends the trainings early and cleanly; half of the time goes to the pre-training.
        resume: Go on with an unfinished run.
        overwrite: Replace what is there.
        allow_empty: Accept classes without training records, and say nothing of those without synthetic ones.
        bootstrap: Resamples behind the intervals of the test metrics.
        quiet: Show no progress.

    Raises:
        ValueError: if the data, the task, the run or an option does not fit, or validation or test records were trained on, by
            the run to start from or by the generator of the synthetic data.
    """
    task = get_task(task)
    check_kind(kind, preset)
    check_limits(learning_rate, max_minutes)
    together = mode == TOGETHER
    _check_mode(mode, synthetic, from_run, rehearse, pretrain_steps)
    check_apart(from_run, out)
    check_one_worker()
    start = None if from_run is None else classifier_run(from_run)
    manifest = combined_manifest(data)
    kind = kind if start is None else start.config.get("kind")
    lengths = training_preset(kind, preset)
    pretrains = synthetic is not None and not together
    fresh = start is None and not pretrains
    whole = fresh or together  # a training of its own, no fine-tuning of what was learnt
    steps = max(1, lengths["steps"] // (1 if whole else 2)) if steps is None else steps
    pretrain_steps = lengths["steps"] if pretrain_steps is None else pretrain_steps
    batch_size = lengths["batch_size"] if batch_size is None else batch_size
    learning_rate = lengths["learning_rate"] / (1 if whole else 4) if learning_rate is None else learning_rate
    check_training(min(steps, pretrain_steps), batch_size, balance, balance_sources=balance_sources)
    augment.check_leads(manifest.leads)
    config = {
        "command": "finetune",
        "kind": kind,
        "data": names_of(data),
        "real_frac": real_frac,
        "synthetic": names_of(synthetic),
        "from_run": None if from_run is None else str(from_run),
        "rehearse": names_of(rehearse),
        "rehearsal": rehearsal if rehearse is not None else None,
        "test_data": names_of(test_data),
        "preset": preset,
        "mode": mode,
        "steps": steps,
        "pretrain_steps": pretrain_steps if pretrains else None,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "balance": balance,
        "balance_sources": balance_sources,
        "augment": str(augment),
        "patience": patience,
        "precision": precision,
        "seed": seed,
        **signature(manifest, task),
        "checksums": checksums(data, synthetic, from_run, rehearse, test_data),
    }
    if start is not None:
        _check_start(start, config)
    seen, chosen_by = _history(data, start, (synthetic, rehearse), data if test_data is None else test_data, task)
    train, validation, test = read_splits(data, test_data, task, seed)
    check_classes(train.labels, task, allow_empty)
    used = train.take(share(train.labels, real_frac, seed))
    trained_on = seen | {hash_id(name) for name in used.ids}
    check_no_leak(trained_on, validation.ids + test.ids)
    check_no_leak(chosen_by, test.ids)

    set_precision(precision)
    strategy = make_strategy(devices, batch_size)

    run = Run.open(out, config, resume=resume, overwrite=overwrite)
    if run.finished:
        return run
    run.write_trained_on(trained_on)
    run.write_chosen_by(chosen_by | {hash_id(name) for name in validation.ids})
    beyond = seen & {hash_id(name) for name in train.ids} - {hash_id(name) for name in used.ids}
    run.config["training_records"] = {"real": counts(train.labels, task), "used": counts(used.labels, task)}
    run.config["seen_beyond_real_frac"] = len(beyond)
    run.write_config()
    if rehearse is not None:
        used = used.plus(mix(used, read_examples(rehearse, "train", task), rehearsal, task.multi_label, seed))
    notes = not (quiet or allow_empty)
    if together:
        made, held_out = _synthetic_splits(synthetic, task, seed, used if notes else None)
        run.config["training_records"]["synthetic"] = counts(made.labels, task)
        used, validation = _as_one_set(used, "real").plus(_as_one_set(made, "synthetic")), validation.plus(held_out)
        del made, held_out  # both hold copies

    started = time.monotonic()

    def left(part: float = 1.0) -> float | None:
        """Minutes for a stage: this part of what is left."""
        return None if max_minutes is None else part * max(0.02, max_minutes - (time.monotonic() - started) / 60)

    keras.utils.set_random_seed(seed)
    shared = {
        "run": run,
        "rate": manifest.sampling_rate,
        "leads": manifest.leads,
        "strategy": strategy,
        "batch_size": batch_size,
        "balance": balance,
        "balance_sources": balance_sources,
        "augment": augment,
        "patience": patience,
        "seed": seed,
        "resume": resume,
        "quiet": quiet,
    }
    if pretrains:
        model = _pretrained(
            lambda: _synthetic_splits(synthetic, task, seed, used if notes else None),
            lambda records: new_classifier(kind, records, task.classes, task.multi_label, preset),
            left,
            shared | {"steps": pretrain_steps, "learning_rate": lengths["learning_rate"]},
        )
    else:
        with strategy.scope():
            model = (
                load_classifier(start)
                if start is not None
                else new_classifier(kind, used, task.classes, task.multi_label, preset)
            )

    before = None
    if not fresh and len(test) and _same_classes(model, task):
        probabilities = predict(model, test.signals)
        before = classification_metrics(
            test.labels, probabilities, task.classes, multi_label=task.multi_label, bootstrap=bootstrap, seed=seed
        )
    if not _same_classes(model, task):
        with strategy.scope():
            model = replace_head(model, task)

    shared["learning_rate"] = learning_rate
    head_steps = steps // 5 if mode == "unfreeze" and not fresh else 0
    if head_steps:
        _train_only_head(model, True)
        fit_classifier(model, used, validation, stage="head", steps=head_steps, max_minutes=left(0.2), **shared)
        _train_only_head(model, False)
    steps = max(1, steps - head_steps)
    done = fit_classifier(model, used, validation, stage="finetune", steps=steps, max_minutes=left(), **shared)
    run.save_model(model)
    write_metrics(run, model, test, task, bootstrap=bootstrap, seed=seed, before=before)
    run.finish(steps_done=done, minutes=round((time.monotonic() - started) / 60, 2))
    return run


def _check_mode(
    mode: str, synthetic: Folders | None, from_run: str | Path | None, rehearse: Folders | None, pretrain_steps: int | None
) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}")
    if mode == TOGETHER and (synthetic is None or rehearse is not None or pretrain_steps is not None):
        raise ValueError(
            "together learns real and synthetic records in one training: give synthetic data, and no pretrain_steps or rehearse"
        )
    if mode != TOGETHER and synthetic is not None and from_run is not None:
        raise ValueError("give synthetic data to pre-train on or a run to start from, not both")


def _history(
    data: Folders, start: Run | None, beside: Sequence[Folders | None], tested: Folders, task: Task
) -> tuple[set[str], set[str]]:
    """Hashed ids of the records that weights have learnt, and have been chosen by, through all but the real training records: those
    of the run to start from, and the sets `beside` the data, which are checked."""
    seen = lineage(data) | (set() if start is None else set(start.trained_on()))
    chosen_by = set() if start is None else set(start.chosen_by())
    for folders in beside:
        if folders is not None:
            check_fit(data, folders)
            check_untested(folders, tested)
            seen |= lineage(folders) | real_ids(folders, "train", task)
            chosen_by |= real_ids(folders, "validation", task)
    return seen, chosen_by


def _pretrained(
    read: Callable[[], tuple[Examples, Examples]],
    build: Callable[[Examples], keras.Model],
    left: Callable[[float], float | None],
    training: dict[str, Any],
) -> keras.Model:
    """The network that has learnt the synthetic records, which an earlier start of the run may have finished."""
    run = training["run"]
    with training["strategy"].scope():
        if (run.folder / "pretrained.keras").exists():
            return run.load_model("pretrained")
        train, validation = read()
        model = build(train)
    fit_classifier(model, train, validation, stage="pretrain", max_minutes=left(0.5), **training)
    run.save_model(model, "pretrained")
    return model


def replace_head(model: keras.Model, task: Task) -> keras.Model:
    """The classifier with a fresh head for another task, on the same layers."""
    below = model.get_layer("logits").input
    return keras.Model(model.inputs, LogitsHead(task.classes, task.multi_label)(below), name=model.name)


def _synthetic_splits(synthetic: Folders, task: Task, seed: int, real: Examples | None) -> tuple[Examples, Examples]:
    """Training and validation records of synthetic sets; a tenth of the training records where there is no validation split.

    Classes that they lack and the `real` records have are noted.
    """
    train, validation = (read_examples(synthetic, split, task) for split in ("train", "validation"))
    check_classes(train.labels, task, allow_empty=True)
    if real is not None:
        _note_lacking(synthetic, train, real, task)
    return (train, validation) if len(validation) else hold_out(train, seed)


def _note_lacking(synthetic: Folders, made: Examples, used: Examples, task: Task) -> None:
    """Says which classes of the real records the synthetic ones lack. No error: a simulator may well know fewer classes."""
    both = zip(task.classes, made.labels.any(axis=0), used.labels.any(axis=0), strict=True)
    lacking = [name for name, is_made, is_used in both if is_used and not is_made]
    if not lacking:
        return
    labels = read_labels(synthetic, "train", task)
    left_out = int((~labels.any(axis=1)).sum())
    drawn_for = {str((part.generator or {}).get("task")) for _, part in read_manifests(synthetic)} & TASKS.keys() - {task.name}
    hint = f"; they were drawn for --task {' and '.join(sorted(drawn_for))}" if drawn_for else ""
    print(
        f"note: no synthetic training record of {', '.join(lacking)}; {left_out} of {len(labels)} have no class of task "
        f"{task.name}{hint}",
        file=sys.stderr,
    )


def _as_one_set(examples: Examples, name: str) -> Examples:
    """The same records as if they were of one set, whose draws `balance_sources` weighs as one."""
    return replace(examples, sources=[name] * len(examples))


def _same_classes(model: keras.Model, task: Task) -> bool:
    head = model.get_layer("logits")
    return (head.classes, head.multi_label) == (task.classes, task.multi_label)


def _train_only_head(model: keras.Model, only: bool) -> None:
    """Freezes everything below the head (its batch normalisation then keeps its averages), or thaws it."""
    for layer in model.layers:
        layer.trainable = layer.name == "logits" or not only


def _check_start(start: Run, config: dict) -> None:
    """Refuses a run whose signals differ from the data's."""
    for name, what in (("leads", "leads"), ("sampling_rate", "a sampling rate"), ("samples", "a length in samples")):
        if start.config.get(name) != config[name]:
            raise ValueError(f"{start.folder} was trained with {what} of {start.config.get(name)}, the data has {config[name]}")
