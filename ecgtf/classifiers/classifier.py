"""Trains an arrhythmia classifier on real, synthetic or mixed data sets into a run folder, and tests it on held-out records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ecgtf.atomic import replacing, write_json
from ecgtf.augment import Augmentation, augmented
from ecgtf.classifiers import resnet1d
from ecgtf.classifiers.examples import (
    Examples,
    check_fit,
    counts,
    lineage,
    mix,
    names_of,
    read_examples,
    read_splits,
    training_batches,
)
from ecgtf.classifiers.metrics import classification_metrics, macro_auroc
from ecgtf.dataset import Folders, Manifest, check_no_leak, combined_manifest, hash_id
from ecgtf.run_folder import Run
from ecgtf.tasks import Task, check_classes, get_task
from ecgtf.training import fit, make_optimizer, make_strategy, set_precision

BUILDERS: dict[str, tuple[Callable[..., keras.Model], dict[str, dict]]] = {
    "resnet1d": (resnet1d.resnet1d, resnet1d.PRESETS),
}
"""Kind of network: its builder and the builder's options by preset."""

PRESETS = {
    "tiny": {"steps": 100, "batch_size": 16, "learning_rate": 5e-3},
    "small": {"steps": 600, "batch_size": 32, "learning_rate": 2e-3},
    "base": {"steps": 6_000, "batch_size": 64, "learning_rate": 2e-3},
    "paper": {"steps": 20_000, "batch_size": 128, "learning_rate": 1e-3},
}
"""Lengths of the training, the same for every kind; the sizes of the networks are the builder's."""

VALIDATIONS = 20
"""Validations in a training."""


AUGMENTATION = Augmentation(gain=0.2, shift_seconds=1.0)
"""How training records are changed unless told otherwise."""


def train_classifier(
    kind: str,
    data: Folders,
    out: str | Path,
    *,
    synthetic: Folders | None = None,
    synthetic_ratio: float = 1.0,
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
    probabilities of the test records) and `trained_on.txt`. Where the data has no validation split, a tenth of the training
    split is held out for it.

    Args:
        kind: Network, a key of `BUILDERS`.
        data: Folders of data sets, real or synthetic, that agree on rate, seconds and leads.
        out: The run folder.
        synthetic: Synthetic data sets whose training split is added to the training.
        synthetic_ratio: Synthetic records for each real one, in each class alike (in a multi-label task: at random).
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
    settings = PRESETS[preset] | {
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
    config = {
        "command": "train-classifier",
        "kind": kind,
        "data": names_of(data),
        "synthetic": names_of(synthetic),
        "synthetic_ratio": synthetic_ratio if synthetic is not None else None,
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
    }
    real, validation, test = read_splits(data, test_data, task, seed)
    train, trained_on = real, lineage(data)
    if synthetic is not None:
        check_fit(data, synthetic)
        added = mix(real, read_examples(synthetic, "train", task), synthetic_ratio, task.multi_label, seed)
        train, trained_on = real.plus(added), trained_on | lineage(synthetic)
    trained_on |= {hash_id(name) for name in train.ids}
    check_classes(train.labels, task, allow_empty)
    check_no_leak(trained_on, validation.ids + test.ids)
    if steps is None:
        steps = settings["steps"] if epochs is None else max(1, round(epochs * len(train) / settings["batch_size"]))

    check_training(steps, settings["batch_size"], balance, class_weights, balance_sources)
    set_precision(precision)
    strategy = make_strategy(devices)

    run = Run.open(out, config, resume=resume, overwrite=overwrite)
    if run.finished:
        return run
    run.write_trained_on(trained_on)
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


def new_classifier(
    kind: str, train: Examples, classes: Sequence[str], multi_label: bool, preset: str = "small", **options
) -> keras.Model:
    """A fresh network that normalises by the statistics of these training records; `options` replace the preset's."""
    check_kind(kind, preset)
    builder, presets = BUILDERS[kind]
    mean = train.signals.mean(axis=(0, 1), dtype=np.float64)
    square = np.stack([np.square(record, dtype=np.float64).mean(axis=0) for record in train.signals]).mean(axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0.0))  # without a float64 copy of all signals
    std = np.where(std > 0, std, 1.0)  # a lead that is flat everywhere stays flat
    return builder(train.signals.shape[1:], classes, multi_label, mean.tolist(), std.tolist(), **(presets[preset] | options))


def fit_classifier(
    model: keras.Model,
    train: Examples,
    validation: Examples,
    *,
    run: Run,
    rate: float,
    leads: Sequence[str],
    strategy: tf.distribute.Strategy | None = None,
    stage: str = "classifier",
    steps: int = 600,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    balance: float = 0.0,
    class_weights: str | None = None,
    balance_sources: float = 0.0,
    augment: Augmentation = AUGMENTATION,
    ema: bool = True,
    patience: int | None = 10,
    seed: int = 0,
    max_minutes: float | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Trains a model of `new_classifier` on records in memory and gives it its best weights; returns the steps done.

    The weights kept are those of the best macro-AUROC on `validation`; where no class there has positives and negatives, the
    last ones. The other arguments are those of `train_classifier`.
    """
    check_training(steps, batch_size, balance, class_weights, balance_sources)
    multi_label = model.get_layer("logits").multi_label
    weights = _rarity(train.labels) if class_weights else np.ones(train.labels.shape[1])
    with (strategy or tf.distribute.get_strategy()).scope():
        optimizer = make_optimizer(learning_rate, steps, weight_decay=weight_decay, ema=ema)
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, loss=_loss(weights, multi_label))
    judged = len(validation) > 0 and np.isfinite(macro_auroc(validation.labels, validation.labels))

    def stream(step: int) -> tf.data.Dataset:
        batches = training_batches(
            train, batch_size=batch_size, balance=balance, balance_sources=balance_sources, seed=seed, start_batch=step
        )
        return augmented(batches, seed, step, augment, rate=rate, leads=leads)

    return fit(
        model,
        stream,
        run=run,
        stage=stage,
        steps=steps,
        batch_size=batch_size,
        checkpoint_every=max(1, min(steps, max(10, steps // VALIDATIONS))),
        callbacks=[_DropoutSeeds(seed), *([_Validation(validation)] if judged else [])],
        monitor="val_score" if judged else None,
        patience=patience if judged else None,
        max_minutes=max_minutes,
        resume=resume,
        quiet=quiet,
    )


def predict(model: keras.Model, signals: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Probabilities `(records, classes)`, by sigmoid or softmax as the task is, of signals `(records, time, leads)` in mV.

    Raises:
        ValueError: if the signals have another shape than the model was trained on.
    """
    expected = tuple(model.input_shape[1:])
    if np.ndim(signals) != 3 or tuple(np.shape(signals)[1:]) != expected:
        raise ValueError(f"the model takes signals (records, {expected[0]}, {expected[1]}), received shape {np.shape(signals)}")
    head = model.get_layer("logits")
    if not len(signals):
        return np.zeros((0, len(head.classes)), np.float32)
    logits = model.predict(np.asarray(signals, np.float32), batch_size=batch_size, verbose=0)
    return ops.convert_to_numpy(head.probabilities(logits))


def features(model: keras.Model, signals: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """The pooled features `(records, d)` float32 that a classifier's head sees, of signals `(records, time, leads)` in mV."""
    extractor = keras.Model(model.inputs, model.get_layer("features").output)
    return extractor.predict(np.asarray(signals, np.float32), batch_size=batch_size, verbose=0)


def load_classifier(run: str | Path | Run) -> keras.Model:
    """The classifier of a run folder; its layer `logits` knows the names of the classes (`.classes`) and `.multi_label`.

    Raises:
        ValueError: if the folder holds no finished classifier.
    """
    return classifier_run(run).load_model()


def classifier_run(run: str | Path | Run) -> Run:
    """The run in a folder, if it is that of a finished classifier; raises as `load_classifier`."""
    run = run if isinstance(run, Run) else Run.load(run)
    if run.config.get("command") not in ("train-classifier", "finetune"):
        raise ValueError(f"{run.folder} is {run.what}; expected a run of train-classifier or finetune")
    if not run.finished:
        raise ValueError(f"the training in {run.folder} has not come to its end; go on with --resume")
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


def check_kind(kind: str, preset: str) -> None:
    """Refuses networks and presets that do not exist, by naming those that do."""
    if kind not in BUILDERS:
        raise ValueError(f"unknown classifier {kind!r}; expected one of {', '.join(BUILDERS)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")


def check_training(
    steps: int, batch_size: int, balance: float, class_weights: str | None = None, balance_sources: float = 0.0
) -> None:
    """Refuses settings of a training that are not possible."""
    if steps < 1 or batch_size < 1:
        raise ValueError(f"expected at least 1 step and 1 record a batch, received {steps} and {batch_size}")
    for name, value in (("balance", balance), ("balance_sources", balance_sources)):
        if not 0 <= value <= 1:
            raise ValueError(f"expected a {name} between 0 and 1, received {value}")
    if class_weights not in (None, "balanced"):
        raise ValueError(f"class_weights must be 'balanced' or None, received {class_weights!r}")


def check_limits(learning_rate: float | None, max_minutes: float | None) -> None:
    """Refuses a peak learning rate and a time in which nothing is learnt; None stands for the preset's and for no end."""
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise ValueError(f"expected a learning rate above 0, received {learning_rate}")
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"expected max_minutes above 0, received {max_minutes}")


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


def _rarity(labels: np.ndarray) -> np.ndarray:
    """Weights `(classes,)` in inverse proportion to the classes' sizes, 1 on average over positives; 0 for empty classes."""
    sizes = labels.sum(axis=0)
    return np.where(sizes > 0, sizes.sum() / (np.maximum(sizes, 1) * max(1, (sizes > 0).sum())), 0.0)


def _loss(weights: np.ndarray, multi_label: bool) -> Callable:
    """Cross-entropy `(batch,)` of logits, positives weighed by their class; labels may be soft, as `mixup` makes them."""
    weights = tf.constant(weights, tf.float32)

    def loss(label, logits):
        if multi_label:
            return ops.mean(label * weights * ops.softplus(-logits) + (1.0 - label) * ops.softplus(logits), axis=-1)
        return -ops.sum(label * weights * ops.log_softmax(logits), axis=-1)

    return loss


class _DropoutSeeds(keras.callbacks.Callback):
    """Makes the draws of dropout a function of (seed, step): a checkpoint does not hold their state."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_train_begin(self, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        dropouts = [layer for layer in self.model.layers if isinstance(layer, keras.layers.Dropout) and layer.rate > 0]
        for number, layer in enumerate(dropouts):
            layer.seed_generator.state.assign([self.seed + number, step])  # the second number counts the draws


class _Validation(keras.callbacks.Callback):
    """Adds `val_macro_auroc`, `val_loss` and `val_score` to the logs at the end of each epoch."""

    def __init__(self, validation: Examples):
        super().__init__()
        self.validation = validation

    def on_epoch_end(self, epoch, logs=None):
        labels = self.validation.labels
        probabilities = predict(self.model, self.validation.signals).astype(np.float64)
        area = macro_auroc(labels, probabilities)
        likely = np.clip(probabilities, 1e-7, 1 - 1e-7)
        loss = -np.mean(np.sum(labels * np.log(likely) + (1 - labels) * np.log(1 - likely), axis=1))
        # A few hundred records often give the same area, or 1: the loss then decides between weights.
        logs |= {"val_macro_auroc": area, "val_loss": float(loss), "val_score": area - 1e-3 * min(float(loss), 10.0)}
