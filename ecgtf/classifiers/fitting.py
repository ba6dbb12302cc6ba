"""Fits a classifier to records in memory: the loss, what is kept, when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ecgtf.augment import Augmentation, augmented
from ecgtf.classifiers import AUGMENT
from ecgtf.classifiers.examples import Examples, training_batches
from ecgtf.classifiers.metrics import macro_auroc
from ecgtf.classifiers.networks import predict
from ecgtf.run_folder import Run
from ecgtf.training import fit, make_optimizer

VALIDATIONS = 20
"""Validations in a training."""
CHECKPOINT_SECONDS = 10.0
"""Time between checkpoints: at each validation they would take an eighth of a training of half a minute."""

AUGMENTATION = Augmentation.parse(AUGMENT)


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
        checkpoint_seconds=CHECKPOINT_SECONDS,
        callbacks=[_DropoutSeeds(seed), *([_Validation(validation)] if judged else [])],
        monitor="val_score" if judged else None,
        patience=patience if judged else None,
        max_minutes=max_minutes,
        resume=resume,
        quiet=quiet,
    )


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
    if class_weights and balance == 1:
        raise ValueError("class_weights 'balanced' and balance 1 do the same: expected one of them")


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
    """Makes the draws of dropout a function of (seed, step): a checkpoint does not hold their state. They are alike on all replicas."""

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
        logs |= judged(self.validation.labels, predict(self.model, self.validation.signals))


def judged(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """How good predictions `(records, classes)` of validation records are: macro-AUROC, loss, and the score that weights are kept by."""
    area = macro_auroc(labels, probabilities)
    likely = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = float(-np.mean(np.sum(labels * np.log(likely) + (1 - labels) * np.log(1 - likely), axis=1)))
    # A few hundred records often give the same area, or 1: the loss then decides between weights.
    score = (area if np.isfinite(area) else 0.5) - 1e-3 * min(loss, 10.0)
    return {"val_macro_auroc": area, "val_loss": loss, "val_score": score}
