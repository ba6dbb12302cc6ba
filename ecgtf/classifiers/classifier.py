"""Trains an arrhythmia classifier on real, synthetic or mixed data sets into a run folder, and tests it on held-out records."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np

from ecgtf.atomic import replacing, write_json
from ecgtf.augment import Augmentation
from ecgtf.classifiers.examples import (
    Examples,
    check_fit,
    check_mixing,
    check_untested,
    counts,
    lineage,
    mix,
    names_of,
    read_examples,
    read_splits,
)
from ecgtf.classifiers.fitting import AUGMENTATION, check_training, fit_classifier
from ecgtf.classifiers.metrics import classification_metrics
from ecgtf.classifiers.networks import check_kind, new_classifier, predict, training_preset
from ecgtf.dataset import Folders, Manifest, check_no_leak, combined_manifest, hash_id
from ecgtf.precision import restoring_precision, set_precision
from ecgtf.run_folder import Run, checksums
from ecgtf.tasks import Task, check_classes, get_task
from ecgtf.training import check_limits, check_one_worker, make_strategy


@restoring_precision
def train_classifier(
    kind: str,
    data: Folders,
    out: str | Path,
    *,
    synthetic: Folders | None = None,
    synthetic_ratio: float = 1.0,
    mixing: str = "proportional",
    test_data: Folders | None = None,
    task: str | Task = "rhythm7",
    preset: str = "small",
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float = 1e-2,
    balance: float = 0.0,
    class_weights: str | None = None,
    balance_sources: float = 0.0,
    augment: Augmentation = AUGMENTATION,
    ema: bool = True,
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
    """Trains a classifier, keeps the weights with the best validation macro-AUROC, and writes the test metrics.

    The run folder ends with `model.keras`, `metrics.json` (see `classification_metrics`), `predictions.npz` (ids, labels and
    probabilities of the test records), `trained_on.txt` and `chosen_by.txt` (the validation records). Where the data has no
    validation split, a tenth of the training split is held out for it.

    Args:
        kind: Network, a key of `BUILDERS`.
        data: Folders of data sets, real or synthetic, that agree on rate, seconds and leads.
        out: The run folder.
        synthetic: Synthetic data sets whose training split is added to the training.
        synthetic_ratio: Synthetic records for each real one.
        mixing: How they are dealt to the classes, `proportional` or `balancing`; see `mix`.
        test_data: Data sets whose test split is tested on, instead of that of `data`.
        task: What the classes are.
        preset: Size of the network and length of the training.
        steps: Training steps, in place of the preset's.
        epochs: The same as passes over the training records.
        batch_size: Records a step, over all devices.
        learning_rate: Peak of the learning rate (AdamW, warm-up, cosine).
        weight_decay: Decoupled weight decay.
        balance: 0 draws the records as they are, 1 every class equally often.
        class_weights: `balanced` weighs the losses of the classes by their rarity; not with `balance` 1, which does the same.
        balance_sources: 0 draws the records as they are, 1 every data set equally often.
        augment: How the training records are changed at random.
        ema: Average the weights over the training.
        patience: Validations (of 20) without a better macro-AUROC after which the training ends; None for never.
        seed: Fixes weights, order and draws.
        precision: `float32`, `bfloat16` or `float16`.
        devices: GPUs, or logical CPU devices, to train on.
        max_minutes: Ends the training early and cleanly.
        resume: Go on with an unfinished run.
        overwrite: Replace what is there.
        allow_empty: Accept classes without training records.
        bootstrap: Resamples behind the intervals of the test metrics.
        quiet: Show no progress.

    Raises:
        ValueError: if the data, the task or an option does not fit, classes of a single-label task have no training records, or
            records to test on were trained on, by this classifier or by the generator of its synthetic data.
    """
    task = get_task(task)
    check_kind(kind, preset)
    check_limits(learning_rate, max_minutes)
    check_mixing(synthetic_ratio, mixing)
    check_one_worker()
    settings = training_preset(kind, preset) | {
        name: value for name, value in (("batch_size", batch_size), ("learning_rate", learning_rate)) if value is not None
    }
    if steps is not None and epochs is not None:
        raise ValueError("give steps or epochs, not both")
    options = {
        "weight_decay": weight_decay,
        "balance": balance,
        "class_weights": class_weights,
        "balance_sources": balance_sources,
        "augment": augment,
        "ema": ema,
    }
    manifest = combined_manifest(data)
    augment.check_leads(manifest.leads)
    config = {
        "command": "train-classifier",
        "kind": kind,
        "data": names_of(data),
        "synthetic": names_of(synthetic),
        "synthetic_ratio": synthetic_ratio if synthetic is not None else None,
        "mixing": mixing if synthetic is not None else None,
        "test_data": names_of(test_data),
        "preset": preset,
        "steps": steps,
        "epochs": epochs,
        "patience": patience,
        "precision": precision,
        "seed": seed,
        **{name: settings[name] for name in ("batch_size", "learning_rate")},
        **options,
        "augment": str(augment),
        **signature(manifest, task),
        "checksums": checksums(data, synthetic, test_data),
    }
    real, validation, test = read_splits(data, test_data, task, seed)
    train, trained_on = real, lineage(data)
    if synthetic is not None:
        check_fit(data, synthetic)
        check_untested(synthetic, data if test_data is None else test_data, ["train"])
        added = mix(real, read_examples(synthetic, "train", task), synthetic_ratio, task.multi_label, seed, mixing)
        train, trained_on = real.plus(added), trained_on | lineage(synthetic)
    trained_on |= {hash_id(name) for name in train.ids}
    check_classes(train.labels, task, allow_empty)
    check_no_leak(trained_on, validation.ids + test.ids)
    if steps is None:
        steps = settings["steps"] if epochs is None else max(1, round(epochs * len(train) / settings["batch_size"]))

    check_training(steps, settings["batch_size"], balance, class_weights, balance_sources)
    set_precision(precision)
    strategy = make_strategy(devices, settings["batch_size"])

    run = Run.open(out, config, resume=resume, overwrite=overwrite)
    if run.finished:
        return run
    run.write_trained_on(trained_on)
    run.write_chosen_by({hash_id(name) for name in validation.ids})
    run.config["training_records"] = {"given": counts(real.labels, task)}
    if synthetic is not None:
        run.config["training_records"]["synthetic"] = counts(added.labels, task)
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        model = new_classifier(kind, train, task.classes, task.multi_label, preset)
    done = fit_classifier(
        model,
        train,
        validation,
        run=run,
        rate=manifest.sampling_rate,
        leads=manifest.leads,
        strategy=strategy,
        steps=steps,
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        **options,
        patience=patience,
        seed=seed,
        max_minutes=max_minutes,
        resume=resume,
        quiet=quiet,
    )
    run.save_model(model)
    write_metrics(run, model, test, task, bootstrap=bootstrap, seed=seed)
    run.finish(steps_done=done, minutes=round((time.monotonic() - started) / 60, 2))
    return run


def write_metrics(run: Run, model: keras.Model, test: Examples, task: Task, *, bootstrap: int, seed: int, **more) -> None:
    """Writes `metrics.json` (`test`, and `more`) and the test predictions; without test records, the reason why not."""
    result: dict = {"schema": 1, "task": task.name, "classes": list(task.classes), "multi_label": task.multi_label}
    if len(test):
        probabilities = predict(model, test.signals)
        result["test"] = classification_metrics(
            test.labels, probabilities, task.classes, multi_label=task.multi_label, bootstrap=bootstrap, seed=seed
        )
        with replacing(run.folder / "predictions.npz", ".npz") as file:
            np.savez(file, ids=test.ids, labels=test.labels, probabilities=probabilities)
    else:
        result |= {"test": None, "reason": "no test records: name a data set with --test-data"}
    write_json(run.folder / "metrics.json", result | more)


def signature(manifest: Manifest, task: Task) -> dict:
    """What a classifier's input and output are, for `config.json`."""
    return {
        "task": task.reference,
        "classes": list(task.classes),
        "multi_label": task.multi_label,
        "leads": list(manifest.leads),
        "sampling_rate": manifest.sampling_rate,
        "samples": manifest.samples,
    }
