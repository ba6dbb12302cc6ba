"""The loop that every training goes through, and its devices, precision and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from ecgtf.callbacks import Averages, Best, Checkpoints, Guard, Report
from ecgtf.run_folder import Run

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def make_strategy(devices: int | None = None) -> tf.distribute.Strategy:
    """The strategy for `devices` GPUs (all by default), or for that many logical CPU devices where there is no GPU.

    Raises:
        ValueError: if there are fewer GPUs than asked for.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if devices and devices > len(gpus):
            raise ValueError(f"{devices} devices asked for, {len(gpus)} GPUs are visible")
        return tf.distribute.MirroredStrategy([f"/gpu:{k}" for k in range(devices or len(gpus))])
    if devices is None or devices == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [None]) != devices:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"/cpu:{k}" for k in range(devices)])


def set_precision(name: str) -> None:
    """Sets Keras's policy for the layers that are built from now on: `float32`, `bfloat16` or `float16`."""
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; expected one of {', '.join(PRECISIONS)}")
    keras.config.set_dtype_policy(PRECISIONS[name])


def make_optimizer(learning_rate: float, steps: int, *, weight_decay: float = 1e-4, ema: bool = True, warm_up: float = 0.05):
    """AdamW with linear warm-up over the first share `warm_up` of the steps, then a cosine to zero, and an average of the weights.

    Args:
        learning_rate: The peak.
        steps: Length of the training.
        weight_decay: Decoupled weight decay.
        ema: Keep an exponential moving average of the weights (over about 2 % of the steps), which replaces them at the end.
        warm_up: Share of the steps.
    """
    warm = max(1, int(warm_up * steps))
    schedule = keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warm), warmup_target=learning_rate, warmup_steps=warm)
    momentum = min(0.9995, max(0.9, 1.0 - 50.0 / steps))
    return keras.optimizers.AdamW(schedule, weight_decay=weight_decay, beta_2=0.99, use_ema=ema, ema_momentum=momentum)


def fit(
    model: keras.Model,
    stream_from: Callable[[int], tf.data.Dataset],
    *,
    run: Run,
    steps: int,
    stage: str = "model",
    checkpoint_every: int = 500,
    batch_size: int = 1,
    validation: tf.data.Dataset | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    pictures: Callable[[keras.Model], dict[str, np.ndarray]] | None = None,
    monitor: str | None = None,
    patience: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    keep: int = 2,
    quiet: bool = False,
) -> int:
    """Trains a compiled model for `steps` steps in all, with checkpoints, logs and TensorBoard; returns the steps done.

    Every draw of a training step is a function of (seed, step), and `stream_from(step)` gives the batches from that step on: so a
    run that was stopped anywhere and resumed ends with the weights of an uninterrupted one.

    Args:
        model: A compiled `keras.Model`.
        stream_from: Endless batches from a step on.
        run: The run folder.
        steps: Length of the training, counting the steps before a resume.
        stage: Name of the stage, for logs and checkpoints.
        checkpoint_every: Steps between checkpoints, log rows and validations.
        batch_size: For the rate in samples a second.
        validation: Batches for `evaluate` at each checkpoint.
        callbacks: More callbacks; they see the averaged weights at the end of an epoch, where an average is kept.
        pictures: Gives named images `(height, width, 3)` uint8 for TensorBoard.
        monitor: Name of a logged value; the model ends with the (averaged) weights that had the best of it. A name with `loss` in
            it is best when small, any other when large.
        patience: Checkpoints without a better value of `monitor` after which the training ends.
        max_minutes: Stop cleanly after this time.
        resume: Start from the last checkpoint, where there is one.
        keep: Checkpoints to keep.
        quiet: Show no progress.

    Raises:
        FloatingPointError: if the loss is not finite; the last good checkpoint stays.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    manager = tf.train.CheckpointManager(checkpoint, str(run.folder / "checkpoints" / stage), keep, checkpoint_name="ckpt")
    if resume and manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    done = int(model.optimizer.iterations.numpy())
    every = min(checkpoint_every, steps)
    best = Best(run.folder / "checkpoints" / stage, monitor, patience, every, steps, done) if monitor else None
    if done >= steps:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        if best:
            best.restore(model)
        return done

    report = Report(run, stage, steps, batch_size, done, pictures, quiet)
    order = [
        Guard(stage, steps, max_minutes),
        Checkpoints(manager),
        Averages(),
        report,
        *callbacks,
        *([best] if best else []),
    ]
    with report.progress:
        model.stop_training = False
        while not model.stop_training:
            late = done % every  # after a stop between checkpoints, a short epoch leads back to them
            model.fit(
                stream_from(done),
                steps_per_epoch=every - late,
                initial_epoch=done // every,
                epochs=done // every + 1 if late else -(-steps // every),
                validation_data=validation,
                callbacks=order,
                shuffle=False,
                verbose=0,
            )
            done = int(model.optimizer.iterations.numpy())
    if best:
        best.restore(model)
    return done
