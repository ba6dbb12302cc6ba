"""What every training shares: devices, precision, the run folder, checkpoints, logs.

A run folder holds `config.json` (what was asked, with versions and seed), `log.csv`, `tensorboard/`, `checkpoints/<stage>/`, the
final `.keras` files, and `trained_on.txt` (hashed ids of the training records).
"""

from __future__ import annotations

import csv
import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ecgtf.atomic import replacing, write_atomically, write_json
from ecgtf.progress import Progress

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


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("ecgtf", "tensorflow", "keras", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


@dataclass
class Run:
    """A run folder: what was asked for and what came of it."""

    folder: Path
    config: dict = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path, config: dict, *, resume: bool = False, overwrite: bool = False) -> Run:
        """Starts a run in `folder`, or goes on with the one that is there.

        Args:
            folder: The run folder.
            config: What was asked for; compared with what is there when resuming.
            resume: Go on with an unfinished run of the same configuration (a new one is started where there is none).
            overwrite: Delete what is there first.

        Raises:
            ValueError: if the folder is not empty (without `resume` or `overwrite`), or holds a run of another configuration.
        """
        folder = Path(folder)
        config = json.loads(json.dumps(config))
        if overwrite and folder.exists() and not resume:
            if any(folder.iterdir()) and not (folder / "config.json").exists():
                raise ValueError(f"{folder} is not a run folder; it is left as it is: name another --out")
            shutil.rmtree(folder)
        if folder.exists() and any(folder.iterdir()):
            if not resume:
                raise ValueError(
                    f"{folder} is not empty; use --resume to go on with its run, --overwrite to replace it, or another --out"
                )
            there = cls.load(folder)
            other = sorted(key for key in config if there.config.get(key) != config[key])
            if other:
                changes = "; ".join(f"{key}: {_short(there.config.get(key))} there, {_short(config[key])} now" for key in other)
                raise ValueError(
                    f"{folder} holds a run of another configuration ({changes}): name another --out or use --overwrite"
                )
            return there
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder, config | {"schema": 1, "versions": versions(), "finished": False})
        run.write_config()
        return run

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run in a folder.

        Raises:
            ValueError: if there is none.
        """
        folder = Path(folder)
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder} is not a run folder: it has no config.json; expected the --out of a training command")
        try:
            return cls(folder, json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}); train again with --overwrite") from error

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.config.get("finished"))

    def write_config(self) -> None:
        """Writes `config.json`."""
        write_json(self.folder / "config.json", self.config)

    def finish(self, **results) -> None:
        """Marks the run as finished, with what is worth knowing of its end."""
        self.config |= {"finished": True} | results
        self.write_config()

    def save_model(self, model: keras.Model, name: str = "model") -> Path:
        """Saves a model as `<name>.keras`, without its optimizer, under a temporary name first."""
        path = self.folder / f"{name}.keras"
        bare = model.__class__.from_config(model.get_config())
        bare.set_weights(model.get_weights())
        with replacing(path, ".keras") as temporary:
            bare.save(temporary)
        return path

    def load_model(self, name: str = "model") -> keras.Model:
        """The model saved as `<name>.keras`.

        Raises:
            ValueError: if the run has none yet.
        """
        path = self.folder / f"{name}.keras"
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no {path.name}: its training has not come to an end; go on with --resume")
        return keras.models.load_model(path, compile=False)

    def write_trained_on(self, hashed_ids: Iterable[str]) -> None:
        """Keeps the hashed ids of the training records, one a line."""
        write_atomically(self.folder / "trained_on.txt", "".join(f"{value}\n" for value in sorted(hashed_ids)))

    def trained_on(self) -> list[str]:
        """The hashed ids of the training records."""
        path = self.folder / "trained_on.txt"
        return path.read_text().split() if path.exists() else []


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
    best = _Best(run.folder / "checkpoints" / stage, monitor, patience, done) if monitor else None
    if done >= steps:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        if best:
            best.restore(model)
        return done

    every = min(checkpoint_every, steps)
    report = _Report(run, stage, steps, batch_size, done, pictures, quiet)
    order = [
        _Guard(stage, steps, max_minutes),
        _Checkpoints(manager),
        _Averages(),
        report,
        *callbacks,
        *([best] if best else []),
    ]
    with report.progress:
        model.fit(
            stream_from(done),
            steps_per_epoch=every,
            initial_epoch=done // every,
            epochs=-(-steps // every),
            validation_data=validation,
            callbacks=order,
            shuffle=False,
            verbose=0,
        )
    if best:
        best.restore(model)
    return int(model.optimizer.iterations.numpy())


class _Guard(keras.callbacks.Callback):
    """Ends the training at its last step, when time is up, or when the loss is not finite."""

    def __init__(self, stage: str, steps: int, max_minutes: float | None):
        super().__init__()
        self.stage, self.steps = stage, steps
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else None

    def on_train_batch_end(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        if logs and not np.isfinite(float(np.mean(logs.get("loss", 0.0)))):
            raise FloatingPointError(
                f"the loss of stage {self.stage} is not finite at step {step}; the last good checkpoint is kept: "
                "go on with --resume and a smaller --learning-rate, or with --precision float32"
            )
        if step >= self.steps or (self.deadline and time.monotonic() > self.deadline):
            self.model.stop_training = True


class _Checkpoints(keras.callbacks.Callback):
    """Saves model and optimizer at the end of each epoch, before averaged weights are swapped in."""

    def __init__(self, manager: tf.train.CheckpointManager):
        super().__init__()
        self.manager = manager

    def on_epoch_end(self, epoch, logs=None):
        self.manager.save(checkpoint_number=self.model.optimizer.iterations)


class _Averages(keras.callbacks.Callback):
    """Puts the averaged weights in place for validation and for the callbacks after this one, and the others back for training.

    Keras's `SwapEMAWeights` swaps by adding and subtracting, whose rounding a resumed run would not share.
    """

    def __init__(self):
        super().__init__()
        self.others: list[np.ndarray] | None = None

    def _use_averages(self):
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if optimizer.use_ema and self.others is None:
            self.others = [variable.numpy() for variable in self.model.trainable_variables]
            optimizer.finalize_variable_values(self.model.trainable_variables)

    def _back(self):
        if self.others is not None:
            for variable, value in zip(self.model.trainable_variables, self.others, strict=True):
                variable.assign(value)
            self.others = None

    def on_test_begin(self, logs=None):
        self._use_averages()

    def on_test_end(self, logs=None):
        self._back()

    def on_epoch_end(self, epoch, logs=None):
        self._use_averages()

    def on_epoch_begin(self, epoch, logs=None):
        self._back()


class _Best(keras.callbacks.Callback):
    """Keeps the weights with the best value of one logged number, in files, so that a resumed run knows them too."""

    def __init__(self, folder: Path, monitor: str, patience: int | None, done: int):
        super().__init__()
        self.monitor, self.patience = monitor, patience
        self.sign = -1.0 if "loss" in monitor else 1.0
        self.weights, self.note = folder / "best.npz", folder / "best.json"
        self.best: float | None = None
        self.since = 0
        if self.note.exists():
            there = json.loads(self.note.read_text())
            if there["step"] <= done:  # what came after the checkpoint will come again
                self.best, self.since = there["value"], there["since"]

    def on_epoch_end(self, epoch, logs=None):
        value = float(logs[self.monitor])
        step = int(self.model.optimizer.iterations.numpy())
        if self.best is None or self.sign * value > self.sign * self.best:
            self.best, self.since = value, 0
            with replacing(self.weights, ".npz") as temporary:
                # Keras's save_weights would keep the optimizer's state with them.
                np.savez(temporary, *self.model.get_weights())
        else:
            self.since += 1
        write_json(self.note, {"monitor": self.monitor, "value": self.best, "step": step, "since": self.since})
        if self.patience is not None and self.since >= self.patience:
            self.model.stop_training = True

    def restore(self, model: keras.Model) -> None:
        """Gives the model its best weights."""
        if self.weights.exists():
            with np.load(self.weights) as content:
                model.set_weights([content[name] for name in content.files])


class _Report(keras.callbacks.Callback):
    """Progress, `log.csv` and TensorBoard."""

    def __init__(self, run: Run, stage: str, steps: int, batch_size: int, done: int, pictures, quiet: bool):
        super().__init__()
        self.run, self.stage, self.batch_size, self.pictures = run, stage, batch_size, pictures
        self.path = run.folder / "log.csv"
        self.progress = Progress(f"training {stage}", steps, "steps", quiet)
        self.writer = tf.summary.create_file_writer(str(run.folder / "tensorboard" / stage))
        self.seen = self.saved = done
        self.clock = time.monotonic()
        self._drop_rows_after(done)

    def _drop_rows_after(self, step: int) -> None:
        """Rows of steps that will be done again after a resume."""
        if self.path.exists():
            rows = [row for row in _read_rows(self.path) if row["stage"] != self.stage or int(row["step"]) <= step]
            _write_rows(self.path, rows)

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        self.progress.update(self.seen, f"loss {float(logs['loss']):.4g}" if logs else "")

    def on_epoch_end(self, epoch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        now = time.monotonic()
        values = {name: float(value) for name, value in (logs or {}).items()}
        values["samples_per_second"] = (step - self.saved) * self.batch_size / max(now - self.clock, 1e-9)
        values["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        rows = [*_read_rows(self.path)] if self.path.exists() else []
        _write_rows(self.path, [*rows, {"stage": self.stage, "step": step} | values])
        with self.writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
            for name, image in (self.pictures(self.model) if self.pictures else {}).items():
                tf.summary.image(name, image[None])
        self.writer.flush()
        self.saved, self.clock = step, time.monotonic()


def _read_rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
