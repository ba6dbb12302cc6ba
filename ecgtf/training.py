"""The loop that every training goes through, and its devices, precision and optimizer."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import keras
import numpy as np
import tensorflow as tf

from ecgtf.callbacks import GO_ON, TERMINATED, Averages, Best, Checkpoints, Guard, Report, Stopped
from ecgtf.optimizer import AdamW
from ecgtf.run_folder import Run
from ecgtf.signals import watching


class WorkerLost(RuntimeError):
    """Another worker of the training ended or cannot be reached."""


def make_strategy(devices: int | None = None, batch_size: int | None = None) -> tf.distribute.Strategy:
    """The strategy for `devices` GPUs (all by default), or for that many logical CPU devices where there is no GPU.

    Where the environment variable TF_CONFIG names a cluster of several workers, for all of them: the same command is started once
    per worker, with `TF_CONFIG='{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'`
    and the worker's own index. They share the run folder, to which only the first one, the chief, writes; batch sizes count the
    records over all workers. The strategy must be made before any operation of TensorFlow in the process.

    Raises:
        ValueError: if there are fewer GPUs than asked for, several CPU devices are asked for in a cluster, TF_CONFIG is not
            such a description, or a batch of `batch_size` has no record for some of the devices.
        RuntimeError: if TensorFlow was used before, in a cluster.
    """
    strategy = _multi_worker_strategy(devices) if _workers() > 1 else _one_worker_strategy(devices)
    if batch_size is not None and batch_size < strategy.num_replicas_in_sync:
        raise ValueError(
            f"expected a batch size of at least {strategy.num_replicas_in_sync}, a record for each device, received {batch_size}"
        )
    return strategy


def _one_worker_strategy(devices: int | None) -> tf.distribute.Strategy:
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


def _multi_worker_strategy(devices: int | None) -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")
    if devices and devices > max(1, len(gpus)):
        raise ValueError(f"{devices} devices asked for on a worker of a cluster, which has {len(gpus)} GPUs")
    try:
        if devices and gpus:
            tf.config.set_visible_devices(gpus[:devices], "GPU")
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            f"the strategy for several workers (TF_CONFIG) must be made before TensorFlow is used ({error})"
        ) from error


def _cluster() -> tuple[dict, dict]:
    """`cluster` (addresses by the workers' type) and `task` (type and index of this one) of TF_CONFIG; empty without it."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        if cluster and int(task["index"]) >= len(cluster[task["type"]]):
            raise IndexError(f"{task['type']} {task['index']} is not in its cluster")
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(
            'expected TF_CONFIG such as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}, '
            f"received {text} ({type(error).__name__}: {error})"
        ) from error
    return cluster, task


def _workers() -> int:
    cluster, _ = _cluster()
    return max(1, sum(len(cluster.get(kind, [])) for kind in ("chief", "worker")))


def is_chief() -> bool:
    """Whether this process is the one that writes: the only one, or the first worker of the cluster in TF_CONFIG."""
    cluster, task = _cluster()
    return _workers() == 1 or task["type"] == "chief" or ("chief" not in cluster and int(task["index"]) == 0)


def check_one_worker() -> None:
    """Refuses a cluster of several workers (TF_CONFIG), for trainings that take a machine's GPUs and no more."""
    if _workers() > 1:
        raise ValueError(
            f"classifiers are trained on one machine, and TF_CONFIG names {_workers()} workers: unset it (a generator takes them)"
        )


def check_limits(learning_rate: float | None, max_minutes: float | None) -> None:
    """Refuses a peak learning rate and a time in which nothing is learnt; None stands for the preset's and for no end."""
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise ValueError(f"expected a learning rate above 0, received {learning_rate}")
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"expected max_minutes above 0, received {max_minutes}")


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
    return AdamW(schedule, weight_decay=weight_decay, beta_2=0.99, use_ema=ema, ema_momentum=momentum)


def fit(
    model: keras.Model,
    stream_from: Callable[[int], tf.data.Dataset],
    *,
    run: Run,
    steps: int,
    stage: str = "model",
    checkpoint_every: int = 500,
    checkpoint_seconds: float = 0.0,
    batch_size: int = 1,
    validation: tf.data.Dataset | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    pictures: Callable[[keras.Model], dict[str, np.ndarray]] | None = None,
    figures: Callable[[keras.Model], dict[str, float]] | None = None,
    figures_every: int = 1,
    monitor: str | None = None,
    patience: int | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    keep: int = 2,
    quiet: bool = False,
) -> int:
    """Trains a compiled model for `steps` steps in all, with checkpoints, logs and TensorBoard; returns the steps done.

    Every draw of a training step is a function of (seed, step), and `stream_from(step)` gives the batches from that step on: so a
    run that was stopped anywhere and resumed ends with the weights of an uninterrupted one. SIGTERM, by which schedulers
    announce that a machine will be taken away, stops it after the current step, with a checkpoint.

    With several workers (see `make_strategy`) each calls this with the same arguments; the chief alone makes `pictures` and `figures`.

    Args:
        model: A compiled `keras.Model`.
        stream_from: Endless batches from a step on.
        run: The run folder.
        steps: Length of the training, counting the steps before a resume.
        stage: Name of the stage, for logs and checkpoints.
        checkpoint_every: Steps of an epoch, at whose end there is a log row, a validation and a checkpoint.
        checkpoint_seconds: A checkpoint is left out where the one before is not as old, but at the end: it takes a tenth of a second.
        batch_size: For the rate in samples a second.
        validation: Batches for `evaluate` at the end of each epoch.
        callbacks: More callbacks; they see the averaged weights at the end of an epoch, where an average is kept.
        pictures: Gives named images `(height, width, 3)` uint8 for TensorBoard.
        figures: Gives named numbers for log and TensorBoard, at the first checkpoint after each `figures_every` steps and the last.
        figures_every: Steps.
        monitor: Name of a logged value; the model ends with the (averaged) weights that had the best of it. A name with `loss` in
            it is best when small, any other when large.
        patience: Checkpoints without a better value of `monitor` after which the training ends.
        max_minutes: Stop cleanly after this time.
        resume: Start from the last checkpoint, where there is one.
        keep: Checkpoints to keep, the last ones; the best weights are kept beside them.
        quiet: Show no progress.

    Raises:
        FloatingPointError: if the loss is not finite; the last good checkpoint stays.
        Stopped: after SIGTERM; a `KeyboardInterrupt`, so that nobody takes the training for finished.
        WorkerLost: if another worker ended; all must be started again, with `resume`.
        ValueError: if no checkpoint can be read, or the workers do not see the same ones.
    """
    chief, strategy = is_chief(), model.distribute_strategy
    with _watching_workers(), watching(signal.SIGTERM) as terminated:
        everyone = _everyone(strategy)

        def agree(wish: int) -> int:
            return max(everyone(wish))

        _build_optimizer(model)
        folder = run.folder / "checkpoints" / stage
        averages = Averages()
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        every = min(checkpoint_every, steps)
        best = Best(folder, monitor, patience, every, steps, chief) if monitor else None
        checkpoints = Checkpoints(folder, checkpoint, averages, keep, best, checkpoint_seconds, agree, chief)
        if resume:
            checkpoints.restore()
        done = int(model.optimizer.iterations.numpy())
        if best:
            best.go_on(done)
        if len(set(everyone(done))) > 1:
            raise ValueError(f"the workers see different checkpoints in {folder}: it must be on a file system that they share")
        if done >= steps or (best and best.over):
            model.optimizer.finalize_variable_values(model.trainable_variables)
            if best:
                best.restore(model)
            return done

        if chief:
            folder.mkdir(parents=True, exist_ok=True)
        report = Report(run, stage, steps, batch_size, done, pictures, figures, figures_every, quiet) if chief else None
        order = [
            Guard(stage, done, steps, every, max_minutes, terminated, agree, checkpoints.save),
            averages,
            *callbacks,
            *([report] if report else []),
            *([best] if best else []),
            checkpoints,
        ]
        with report.progress if report else nullcontext():
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
        # Workers meet here once more: the best weights of the chief are written before another reads them.
        if agree(TERMINATED if terminated() else GO_ON) == TERMINATED:
            raise Stopped(f"stopped after step {done} of stage {stage}, of which there is a checkpoint")
        if best:
            best.restore(model)
        return done


def _build_optimizer(model: keras.Model) -> None:
    """Creates the optimizer's state, the averages as copies of the weights.

    Keras copies them at the first step, and leaves them zero where float16 skips that step.
    """
    with model.distribute_strategy.scope():
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if optimizer.use_ema and not int(optimizer.iterations.numpy()):
            for average, variable in zip(optimizer._model_variables_moving_average, model.trainable_variables, strict=True):
                average.assign(variable)


@contextmanager
def _watching_workers() -> Iterator[None]:
    """Tells what TensorFlow says of a lost worker (after some 10 s at most) in one line."""
    try:
        yield
    except tf.errors.OpError as error:
        if _workers() == 1 or not (isinstance(error, tf.errors.UnavailableError) or "Collective ops is aborted" in str(error)):
            raise
        raise WorkerLost(
            "another worker ended or cannot be reached; the training goes on from its last checkpoint when all workers are "
            "started again with --resume"
        ) from error


def _everyone(strategy: tf.distribute.Strategy) -> Callable[[int], list[int]]:
    """A function that gives the numbers with which all workers call it, and so waits for all of them."""
    if _workers() == 1:
        return lambda number: [number]

    @tf.function
    def gathered(number: tf.Tensor) -> tf.Tensor:
        return strategy.gather(strategy.run(lambda: number[None]), axis=0)

    return lambda number: gathered(tf.constant(number, tf.int64)).numpy().tolist()
