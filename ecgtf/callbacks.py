"""The callbacks of every training: the guard, checkpoints, averaged weights, the best weights, and the log."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ecgtf.atomic import replacing, write_json
from ecgtf.progress import Progress
from ecgtf.run_folder import Run

GO_ON, TIME_IS_UP, TERMINATED = 0, 1, 2
"""What a worker wishes after a step, by weight."""


class Stopped(KeyboardInterrupt):
    """The training was asked to stop (SIGTERM) and has saved a checkpoint; like Ctrl-C, it is no failure and no end."""


class Guard(keras.callbacks.Callback):
    """Ends the training at its last step, when time is up, when it was asked to stop, or when loss or gradient are not finite.

    Args:
        stage: Name of the stage.
        done: Steps done before.
        steps: The last step.
        every: Steps between the ends of epochs, where log, best weights and a checkpoint are written.
        max_minutes: Time until it is up.
        terminated: Whether this process was asked to stop.
        agree: The strongest of all workers' wishes: they must end at the same step, or those that go on would wait for ever.
        save: Saves a checkpoint.
    """

    def __init__(
        self,
        stage: str,
        done: int,
        steps: int,
        every: int,
        max_minutes: float | None,
        terminated: Callable[[], bool],
        agree: Callable[[int], int],
        save: Callable[[], None],
    ):
        super().__init__()
        self.stage, self.done, self.steps, self.every = stage, done, steps, every
        self.terminated, self.agree, self.save = terminated, agree, save
        self.deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else None

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss, the steps done, the clock and the signal.

        Raises:
            FloatingPointError: if the loss or the gradient is not finite.
            Stopped: if one of the workers was asked to stop in the middle of an epoch; a checkpoint of this step is saved. At the end
                of one, all that belongs to it is written first, and the training ends there.
        """
        step = self._count()
        for name in ("loss", "gradient_norm"):
            if logs and not np.isfinite(float(np.mean(logs.get(name, 0.0)))):
                raise FloatingPointError(
                    f"the {name.replace('_', ' ')} of stage {self.stage} is not finite at step {step}; the last good checkpoint is "
                    "kept: train again with --overwrite and a smaller --learning-rate, or with --precision float32"
                )
        late = self.deadline is not None and time.monotonic() > self.deadline
        wish = self.agree(TERMINATED if self.terminated() else TIME_IS_UP if late else GO_ON)
        if wish == TERMINATED and step % self.every and step < self.steps:
            self.save()
            raise Stopped(f"stopped at step {step} of stage {self.stage}, of which there is a checkpoint")
        if step >= self.steps or wish != GO_ON:
            self.model.stop_training = True

    def _count(self) -> int:
        """The steps done. One that float16 skipped counts too: it had its batch, and a resumed run goes on from the next."""
        self.done += 1
        iterations = self.model.optimizer.iterations
        if int(iterations.numpy()) != self.done:
            iterations.assign(self.done)
        return self.done


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

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Training's own weights within the block."""
        swapped = self.others is not None
        self._back()
        yield
        if swapped:
            self._use_averages()

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


class Checkpoints(keras.callbacks.Callback):
    """Saves model and optimizer at the ends of epochs, not the averaged weights; keeps the last checkpoints.

    It is the last callback, so that all that belongs to a step (log, best weights) is written where a checkpoint tells of it. A
    checkpoint is `ckpt-STEP.index` and its data. It is written in another folder and its index moved last, so that a killed
    training leaves nothing that looks like one.

    Args:
        folder: Where checkpoints are.
        checkpoint: What is saved.
        averages: What swaps the weights.
        keep: Checkpoints to keep.
        best: What keeps the best weights; saved with each checkpoint.
        seconds: Time since the last one before which none is saved, but at the end of the training.
        agree: The strongest of all workers' wishes.
        chief: Whether this worker's checkpoints are kept. All workers save at the same time, because variables that they hold
            in parts are summed then, but only one may write to the folder.
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: tf.train.Checkpoint,
        averages: Averages,
        keep: int,
        best: Best | None = None,
        seconds: float = 0.0,
        agree: Callable[[int], int] = lambda wish: wish,
        chief: bool = True,
    ):
        super().__init__()
        self.folder, self.checkpoint, self.averages, self.keep, self.chief = folder, checkpoint, averages, keep, chief
        self.best, self.seconds, self.agree, self.saved = best, seconds, agree, time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Saves a checkpoint where the last one is old enough, or the training ends."""
        if self.model.stop_training or self.agree(int(time.monotonic() - self.saved >= self.seconds)):
            self.save()

    def save(self) -> None:
        """Saves a checkpoint, named by the steps done."""
        self.saved = time.monotonic()
        if self.best:
            self.best.save()
        with self.averages.left_out():
            if self.chief:
                self._save(int(self.model.optimizer.iterations.numpy()))
            else:
                with tempfile.TemporaryDirectory() as private:
                    self.checkpoint.write(f"{private}/ckpt")

    def _save(self, step: int) -> None:
        unfinished = self.folder / ".saving"
        shutil.rmtree(unfinished, ignore_errors=True)  # what a killed training left
        unfinished.mkdir()
        self.checkpoint.write(str(unfinished / "ckpt"))
        for part in sorted(unfinished.iterdir()):  # the data before its index
            os.replace(part, self.folder / part.name.replace("ckpt", f"ckpt-{step}", 1))
        unfinished.rmdir()
        # Those of later steps are damaged: a resume went on from the one before.
        kept = {f"ckpt-{number}" for number in [number for number in self.steps() if number <= step][-self.keep :]}
        for path in self.folder.glob("ckpt-*.*"):
            if path.name.split(".")[0] not in kept:
                path.unlink()

    def steps(self) -> list[int]:
        """The steps of the checkpoints in the folder, ascending."""
        return sorted(int(path.stem.removeprefix("ckpt-")) for path in self.folder.glob("ckpt-*.index"))

    def restore(self) -> None:
        """Goes back to the last checkpoint, where there is one; of a damaged one to the one before, with a line that says so.

        Raises:
            ValueError: if there are checkpoints and all are damaged.
        """
        for step in reversed(self.steps()):
            try:
                self.checkpoint.read(str(self.folder / f"ckpt-{step}")).assert_existing_objects_matched()
                return
            except (
                tf.errors.OpError,
                RuntimeError,
                ValueError,
                IndexError,
                AssertionError,
            ) as error:  # as TensorFlow's reader raises them
                reason = str(error).splitlines()[0][:200]
                if self.chief:
                    print(f"checkpoint {step} in {self.folder} is damaged ({reason}): trying the one before", file=sys.stderr)
        if self.steps():
            raise ValueError(f"no checkpoint in {self.folder} can be read; train again with --overwrite")


class Best(keras.callbacks.Callback):
    """Keeps the weights with the best value of one logged number; in files where a checkpoint tells of them, for a resumed run.

    Only every `every` steps and at the last one: where time ran out must not decide which weights are compared. Every worker
    sees the same values; the chief writes.
    """

    def __init__(self, folder: Path, monitor: str, patience: int | None, every: int, steps: int, chief: bool = True):
        super().__init__()
        self.monitor, self.patience, self.every, self.steps, self.chief = monitor, patience, every, steps, chief
        self.sign = -1.0 if "loss" in monitor else 1.0
        self.weights, self.note = folder / "best.npz", folder / "best.json"
        self.values: dict[int, float] = {}  # by step
        self.unsaved: list[np.ndarray] | None = None  # the best weights, where they are in no file yet

    def go_on(self, done: int) -> None:
        """Knows the values of an earlier start up to the step of its checkpoint; the others come again."""
        if self.note.exists():
            there = json.loads(self.note.read_text())["values"]
            self.values = {int(step): value for step, value in there.items() if int(step) <= done}

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the weights if they are the best so far, and ends the training when patience is over."""
        value = float(logs[self.monitor])
        step = int(self.model.optimizer.iterations.numpy())
        if step % self.every and step != self.steps:
            return
        self.values[step] = value
        if self.chief and self._best_step() == step:
            self.unsaved = self.model.get_weights()
        if self.over:
            self.model.stop_training = True

    def save(self) -> None:
        """Writes the best weights and the values so far."""
        if not self.values or not self.chief:
            return
        if self.unsaved is not None:
            with replacing(self.weights, ".npz") as temporary:
                # Keras's save_weights would keep the optimizer's state with them.
                np.savez(temporary, *self.unsaved)
            self.unsaved = None
        best = self._best_step()
        write_json(self.note, {"monitor": self.monitor, "value": self.values[best], "step": best, "values": self.values})

    def _best_step(self) -> int:
        # The first of equals; a value that is no number, which compares with nothing, is the worst.
        return max(self.values, key=lambda step: np.nan_to_num(self.sign * self.values[step], nan=-np.inf))

    @property
    def over(self) -> bool:
        """Whether patience is over: that many values came after the best one."""
        if self.patience is None or not self.values:
            return False
        return sum(step > self._best_step() for step in self.values) >= self.patience

    def restore(self, model: keras.Model) -> None:
        """Gives the model its best weights."""
        if self.weights.exists():
            with np.load(self.weights) as content:
                model.set_weights([content[name] for name in content.files])


class Report(keras.callbacks.Callback):
    """Progress, `log.csv` and TensorBoard.

    Args:
        run: The run folder.
        stage: Name of the stage.
        steps: The last step.
        batch_size: Records a step.
        done: Steps done before.
        pictures: Gives named images of the model.
        figures: Gives named numbers of the model, `figures_every` steps and at the last one.
        figures_every: Steps.
        quiet: Show no progress.
    """

    def __init__(
        self,
        run: Run,
        stage: str,
        steps: int,
        batch_size: int,
        done: int,
        pictures: Callable[[keras.Model], dict[str, np.ndarray]] | None,
        figures: Callable[[keras.Model], dict[str, float]] | None,
        figures_every: int,
        quiet: bool,
    ):
        super().__init__()
        self.run, self.stage, self.steps, self.batch_size, self.pictures = run, stage, steps, batch_size, pictures
        self.figures, self.figures_every = figures, figures_every
        self.path = run.folder / "log.csv"
        self.progress = Progress(f"training {stage}", steps, "steps", quiet)
        self.writer = tf.summary.create_file_writer(str(run.folder / "tensorboard" / stage))
        self.seen = self.saved = done
        self.clock = time.monotonic()
        self._drop_rows_after(done)
        _write_hyper_parameters(run)

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
        if self.figures and (step // self.figures_every > self.saved // self.figures_every or step == self.steps):
            values |= self.figures(self.model)
        rows = [*_read_rows(self.path)] if self.path.exists() else []
        _write_rows(self.path, [*rows, {"stage": self.stage, "step": step} | values])
        with self.writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
            for name, image in (self.pictures(self.model) if self.pictures else {}).items():
                tf.summary.image(name, image[None])
        self.writer.flush()
        self.saved, self.clock = step, time.monotonic()


def _write_hyper_parameters(run: Run) -> None:
    """The numbers and short texts of the configuration for TensorBoard's HParams, once for all stages and resumes of a run."""
    values = {name: run.config[name] for name in run.config.keys() - {"schema", "finished"}}
    values = {name: value for name, value in values.items() if isinstance(value, int | float | str) and len(str(value)) <= 60}
    folder = run.folder / "tensorboard"
    if not values or any(folder.glob("events*")):
        return
    from tensorboard.plugins.hparams import api

    with tf.summary.create_file_writer(str(folder)).as_default(step=0):
        api.hparams(values)


def _read_rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_rows(path: Path, rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
