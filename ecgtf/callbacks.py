"""The callbacks of every training: the guard, checkpoints, averaged weights, the best weights, and the log."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ecgtf.atomic import replacing, write_json
from ecgtf.progress import Progress
from ecgtf.run_folder import Run


class Guard(keras.callbacks.Callback):
    """Ends the training at its last step, when time is up, or when the loss is not finite."""

    def __init__(self, stage: str, steps: int, max_minutes: float | None):
        super().__init__()
        self.stage, self.steps = stage, steps
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else None

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss, the steps done and the clock.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        step = int(self.model.optimizer.iterations.numpy())
        if logs and not np.isfinite(float(np.mean(logs.get("loss", 0.0)))):
            raise FloatingPointError(
                f"the loss of stage {self.stage} is not finite at step {step}; the last good checkpoint is kept: "
                "go on with --resume and a smaller --learning-rate, or with --precision float32"
            )
        if step >= self.steps or (self.deadline and time.monotonic() > self.deadline):
            self.model.stop_training = True


class Checkpoints(keras.callbacks.Callback):
    """Saves model and optimizer at the end of each epoch, before averaged weights are swapped in."""

    def __init__(self, manager: tf.train.CheckpointManager):
        super().__init__()
        self.manager = manager

    def on_epoch_end(self, epoch, logs=None):
        """Saves a checkpoint, named by the steps done."""
        self.manager.save(checkpoint_number=self.model.optimizer.iterations)


class Averages(keras.callbacks.Callback):
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
        """Validation sees the averages."""
        self._use_averages()

    def on_test_end(self, logs=None):
        """Training's own weights are back for the checkpoint."""
        self._back()

    def on_epoch_end(self, epoch, logs=None):
        """The callbacks after this one see the averages."""
        self._use_averages()

    def on_epoch_begin(self, epoch, logs=None):
        """Training goes on with its own weights."""
        self._back()


class Best(keras.callbacks.Callback):
    """Keeps the weights with the best value of one logged number, in files, so that a resumed run knows them too.

    Only every `every` steps and at the last one: where time ran out must not decide which weights are compared.
    """

    def __init__(self, folder: Path, monitor: str, patience: int | None, every: int, steps: int, done: int):
        super().__init__()
        self.monitor, self.patience, self.every, self.steps = monitor, patience, every, steps
        self.sign = -1.0 if "loss" in monitor else 1.0
        self.weights, self.note = folder / "best.npz", folder / "best.json"
        self.best: float | None = None
        self.since = 0
        if self.note.exists():
            there = json.loads(self.note.read_text())
            if there["step"] <= done:  # what came after the checkpoint will come again
                self.best, self.since = there["value"], there["since"]

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the weights if they are the best so far, and ends the training when patience is over."""
        value = float(logs[self.monitor])
        step = int(self.model.optimizer.iterations.numpy())
        if step % self.every and step != self.steps:
            return
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


class Report(keras.callbacks.Callback):
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
        """Shows the step and its loss."""
        self.seen += 1
        self.progress.update(self.seen, f"loss {float(logs['loss']):.4g}" if logs else "")

    def on_epoch_end(self, epoch, logs=None):
        """Writes a row of the log, and the same with the pictures for TensorBoard."""
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
