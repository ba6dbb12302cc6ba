"""Trainings that are stopped, damaged, divided into parts or overflow; this file is also the program that is stopped."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.generators.base import Generator
from ecgtf.precision import set_precision
from ecgtf.run_folder import Run
from ecgtf.training import fit, make_optimizer

STEPS, EVERY = 40, 10


class Line(Generator):
    """One weight per lead, and noise in its loss."""

    term_names = ("loss", "noise")

    def __init__(self):
        super().__init__(("I", "II"), 10, 100.0, (1.0, 1.0), model_leads="all", seed=1)
        self.slope = self.add_weight(name="slope", shape=(2,), initializer="zeros")

    def loss_terms(self, signal, label, seed, training):
        noise = tf.random.stateless_normal((), seed)
        return {"loss": tf.reduce_mean((self.slope - signal) ** 2) + 0.01 * noise * tf.reduce_sum(self.slope), "noise": noise}


class HalfLine(Generator):
    """A line in half precision: its first gradients, times the scale of the loss, are beyond what half precision holds."""

    def __init__(self):
        super().__init__(("I", "II"), 10, 100.0, (1.0, 1.0), model_leads="all", clip_norm=100.0)
        self.slope = self.add_weight(name="slope", shape=(2,), initializer="zeros")

    def loss_terms(self, signal, label, seed, training):
        half = self.compute_dtype
        return {"loss": tf.reduce_mean(tf.cast(tf.cast(self.slope.value, half) - tf.cast(4.0 * signal, half), "float32") ** 2)}


class Values(keras.callbacks.Callback):
    """Gives `val_loss` at each checkpoint."""

    def __init__(self, values: dict[int, float]):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[int(self.model.optimizer.iterations)]


class StopAt(keras.callbacks.Callback):
    """Stops as time does."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training |= int(self.model.optimizer.iterations) >= self.step


class Terminate(keras.callbacks.Callback):
    """Asks the process to end, as a scheduler does, in a step."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Pause(keras.callbacks.Callback):
    """Says that a step begins, and waits for a line."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            print("waiting", flush=True)
            sys.stdin.readline()


def stream(step: int) -> tf.data.Dataset:
    signals = np.random.default_rng(0).normal(1.0, 0.1, (64, 4, 10, 2)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((signals, np.zeros((64, 4, 1), "float32"))).repeat().skip(step)


def train(folder, model=None, steps=STEPS, resume=False, **options) -> Generator:
    """A line after a training in a folder."""
    model = model or Line()
    model.compile(make_optimizer(0.1, steps))
    run = Run.open(folder, {"seed": 1}, resume=resume)
    fit(model, stream, run=run, steps=steps, checkpoint_every=EVERY, resume=resume, quiet=True, **options)
    return model


def checkpoints(folder) -> Path:
    return Path(folder) / "checkpoints" / "model"


def checkpoint_steps(folder) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in checkpoints(folder).glob("ckpt-*.index"))


def state(model) -> list[np.ndarray]:
    """Weights of the model and variables of its optimizer."""
    return [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]


def log_of(folder) -> list[dict]:
    with (folder / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if name != "stage"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[np.ndarray]:
    """The end of a training that nothing interrupted."""
    return state(train(tmp_path_factory.mktemp("whole")))


def test_a_training_step_is_traced_once_for_all_epochs(tmp_path):
    class Counted(Line):
        traces = 0

        def loss_terms(self, *arguments, **options):
            self.traces += 1
            return super().loss_terms(*arguments, **options)

    assert train(tmp_path / "run", Counted()).traces == 1


# --- stopping


def test_sigterm_in_the_middle_of_an_epoch_leaves_a_checkpoint_of_that_step(tmp_path, whole):
    out = tmp_path / "run"
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__, str(out), "13"], **pipe) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate("go on\n", timeout=60)
    assert process.returncode not in (0, -signal.SIGTERM)
    assert "Stopped: stopped at step 14 of stage model, of which there is a checkpoint" in errors
    assert checkpoint_steps(out) == [10, 14]
    before = signal.getsignal(signal.SIGTERM)
    resumed = train(out, resume=True)
    assert signal.getsignal(signal.SIGTERM) is before
    for one, other in zip(state(resumed), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["step"] for row in log_of(out)] == [10, 20, 30, 40]


@pytest.mark.parametrize("step", [EVERY, EVERY + 1, STEPS])
def test_sigterm_at_the_end_of_an_epoch_loses_neither_its_row_nor_the_best_weights(tmp_path, step):
    """The best value is that of the step in which the signal comes, or of the one before it."""
    values = Values({10: 1.0, 20: 4.0, 30: 3.0, 40: 0.5 if step == STEPS else 2.0})
    whole = train(tmp_path / "whole", callbacks=[values], monitor="val_loss")
    with pytest.raises(
        KeyboardInterrupt, match=f"stopped a(t|fter) step {step} of stage model, of which there is a checkpoint"
    ):
        train(tmp_path / "run", callbacks=[values, Terminate(step)], monitor="val_loss")
    resumed = train(tmp_path / "run", callbacks=[values], monitor="val_loss", resume=True)
    np.testing.assert_array_equal(resumed.slope.numpy(), whole.slope.numpy())
    assert [row["step"] for row in log_of(tmp_path / "run")] == [10, 20, 30, 40]


def test_sigterm_after_the_last_step_is_not_lost(tmp_path):
    class AtTheEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 40"):
        train(tmp_path / "run", callbacks=[AtTheEnd()])
    assert checkpoint_steps(tmp_path / "run") == [30, 40]


# --- checkpoints


def cut_data(folder: Path, step: int) -> None:
    path = folder / f"ckpt-{step}.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-40])


def flip_data(folder: Path, step: int) -> None:
    path = folder / f"ckpt-{step}.data-00000-of-00001"
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def lose_data(folder: Path, step: int) -> None:
    (folder / f"ckpt-{step}.data-00000-of-00001").unlink()


def cut_index(folder: Path, step: int) -> None:
    path = folder / f"ckpt-{step}.index"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty_index(folder: Path, step: int) -> None:
    (folder / f"ckpt-{step}.index").write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_data, flip_data, lose_data, cut_index, empty_index])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, whole, capfd, damage):
    out = tmp_path / "run"
    train(out, callbacks=[StopAt(26)])
    assert checkpoint_steps(out) == [20, 26]
    damage(checkpoints(out), 26)
    (checkpoints(out) / ".saving").mkdir()  # as a training leaves it that is killed while it saves
    (checkpoints(out) / ".saving" / "ckpt.data-00000-of-00001").write_bytes(b"half")
    resumed = train(out, resume=True)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("checkpoint 26 in ")]
    assert len(lines) == 1
    assert lines[0].endswith("trying the one before")
    for one, other in zip(state(resumed), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    ends = ("data-00000-of-00001", "index")
    assert sorted(path.name for path in checkpoints(out).iterdir()) == [
        f"ckpt-{step}.{end}" for step in (30, 40) for end in ends
    ]


def test_when_all_checkpoints_are_damaged_a_training_is_refused(tmp_path):
    train(tmp_path / "run", callbacks=[StopAt(26)])
    cut_data(checkpoints(tmp_path / "run"), 20)
    cut_index(checkpoints(tmp_path / "run"), 26)
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read; train again with --overwrite"):
        train(tmp_path / "run", resume=True)


def test_the_last_checkpoints_and_the_best_weights_are_kept(tmp_path):
    """The best weights are found again where a resume starts before the last value, and where it starts after it."""
    values, monitor = Values({10: 3.0, 20: 1.0, 30: 2.0, 33: 0.0, 40: 1.5}), {"monitor": "val_loss"}
    best = train(tmp_path / "whole", callbacks=[values], keep=3, **monitor)
    assert checkpoint_steps(tmp_path / "whole") == [20, 30, 40]
    for stop, lost in ((30, ()), (30, (30,)), (33, (33, 30)), (33, (33, 30, 20))):
        out = tmp_path / f"run{stop}-{len(lost)}"
        train(out, callbacks=[values, StopAt(stop)], keep=4, **monitor)
        for step in lost:
            cut_data(checkpoints(out), step)
        resumed = train(out, callbacks=[values], resume=True, **monitor)
        np.testing.assert_array_equal(resumed.slope.numpy(), best.slope.numpy())


def test_weights_of_a_value_that_is_no_number_are_never_the_best(tmp_path):
    values = Values({10: np.nan, 20: 1.0, 30: 2.0, 40: np.nan})
    best = train(tmp_path / "nan", callbacks=[values], monitor="val_loss")
    whole = train(tmp_path / "one", callbacks=[Values({10: 5.0, 20: 1.0, 30: 2.0, 40: 3.0})], monitor="val_loss")
    np.testing.assert_array_equal(best.slope.numpy(), whole.slope.numpy())


class Root(Generator):
    """A loss whose gradient is infinity times zero from a step on: the loss alone does not tell."""

    def __init__(self):
        super().__init__(("I", "II"), 10, 100.0, (1.0, 1.0), model_leads="all")
        self.slope = self.add_weight(name="slope", shape=(), initializer="ones")

    def loss_terms(self, signal, label, seed, training):
        late = tf.cast(self.optimizer.iterations >= 2 * EVERY - 1, tf.float32)
        return {"loss": tf.sqrt((self.slope - 5.0) ** 2 * (1.0 - late)) + tf.reduce_mean(signal)}


def test_a_gradient_that_is_no_number_ends_the_training_before_it_is_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="the gradient norm of stage model is not finite at step 20"):
        train(tmp_path / "run", Root())
    assert checkpoint_steps(tmp_path / "run") == [10]


def test_patience_that_is_over_is_over_after_a_resume_too(tmp_path):
    values = Values({10: 1.0, 20: 2.0, 30: 3.0, 40: 0.0})
    patience = {"monitor": "val_loss", "patience": 2, "callbacks": [values]}
    first = train(tmp_path / "run", **patience)
    again = train(tmp_path / "run", resume=True, **patience)
    assert checkpoint_steps(tmp_path / "run") == [20, 30]
    np.testing.assert_array_equal(again.slope.numpy(), first.slope.numpy())


# --- a batch in parts


class Net(Generator):
    """A network without noise, with an embedding, whose gradient comes in slices."""

    def __init__(self):
        super().__init__(("I", "II"), 10, 100.0, (1.0, 1.0), model_leads="all")
        self.embedding = keras.layers.Embedding(5, 8)
        self.dense = keras.layers.Dense(2)
        self.embedding.build((None,))
        self.dense.build((None, None, 8))

    def loss_terms(self, signal, label, seed, training):
        where = tf.cast(tf.argmax(label, axis=-1), tf.int32)
        return {"loss": tf.reduce_mean((self.dense(tf.nn.tanh(self.embedding(where)))[:, None] - signal) ** 2)}


def parts_of(batch: int, accumulate: int) -> tuple[list[np.ndarray], dict]:
    """The weights of a network after three batches, each gone through in so many parts, and the logs."""
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(3 * batch, 10, 2)).astype("float32")
    labels = np.eye(5, dtype="float32")[rng.integers(0, 5, 3 * batch)]
    keras.utils.set_random_seed(0)
    model = Net()
    model.compile(keras.optimizers.SGD(0.1), accumulate=accumulate)
    data = tf.data.Dataset.from_tensor_slices((signals, labels)).batch(batch, drop_remainder=True)
    history = model.fit(data, shuffle=False, verbose=0).history
    return model.get_weights(), history


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_a_batch_in_parts_makes_the_update_of_the_whole(accumulate):
    (whole, whole_logs), (parts, parts_logs) = parts_of(8, 1), parts_of(8, accumulate)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(whole_logs[name], parts_logs[name], rtol=1e-5)


def test_parts_draw_noise_of_their_own_and_go_on_after_a_stop(tmp_path):
    def line(name, resume=False, **options):
        model = Line()
        model.compile(make_optimizer(0.1, STEPS), accumulate=2)
        run = Run.open(tmp_path / name, {}, resume=resume)
        fit(model, stream, run=run, steps=STEPS, checkpoint_every=EVERY, resume=resume, quiet=True, **options)
        return state(model)

    uninterrupted = line("whole")
    line("parts", callbacks=[StopAt(17)])
    for one, other in zip(line("parts", resume=True), uninterrupted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_that_parts_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="expected a batch size that is a multiple of accumulate=3, received 8"):
        parts_of(8, 3)
    with pytest.raises(ValueError, match="expected accumulate of at least 1"):
        Line().compile(make_optimizer(0.1, 10), accumulate=0)


# --- half precision


@pytest.fixture
def float16():
    set_precision("float16")
    yield
    set_precision("float32")


def test_a_step_that_overflows_in_half_precision_is_skipped_and_the_scale_halved(tmp_path, float16):
    model = train(tmp_path / "run", HalfLine(), steps=1)
    assert model.optimizer.dynamic_scale.numpy() == 2.0**14
    assert model.optimizer.iterations.numpy() == 1
    moments = [variable for variable in model.optimizer.inner_optimizer.variables if "slope" in variable.path]
    assert len(moments) == 3  # two moments and an average
    for variable in (model.slope, *moments):
        np.testing.assert_array_equal(variable.numpy(), 0.0)
    started = HalfLine()
    started.slope.assign([3.0, 4.0])
    train(tmp_path / "started", started, steps=1)  # the average of the weights starts from them, not from zero
    np.testing.assert_array_equal(started.slope.numpy(), [3.0, 4.0])
    (row,) = log_of(tmp_path / "run")
    assert row["gradient_norm"] == 0.0  # no gradient was applied
    assert row["loss"] == pytest.approx(16.0, rel=0.05)


def test_training_in_half_precision_learns_and_resumes_where_steps_were_skipped(tmp_path, float16):
    whole = train(tmp_path / "whole", HalfLine())
    scale = whole.optimizer.dynamic_scale.numpy()
    assert scale < 2.0**14  # more than one step was skipped
    train(tmp_path / "parts", HalfLine(), callbacks=[StopAt(1)])
    parts = train(tmp_path / "parts", HalfLine(), resume=True)
    for one, other in zip(state(parts), state(whole), strict=True):
        np.testing.assert_array_equal(one, other)

    set_precision("float32")
    full = train(tmp_path / "full", HalfLine())
    half_log, full_log = log_of(tmp_path / "whole"), log_of(tmp_path / "full")
    assert [row["step"] for row in half_log] == [10, 20, 30, 40]
    assert half_log[-1]["loss"] < 0.5 * half_log[0]["loss"]
    for half, single in zip(half_log, full_log, strict=True):
        assert half["gradient_norm"] == pytest.approx(single["gradient_norm"], rel=0.2)
        assert half["learning_rate"] == pytest.approx(single["learning_rate"])
    np.testing.assert_allclose(whole.slope.numpy(), full.slope.numpy(), rtol=0.1)


TWO_REPLICAS = """
from ecgtf.training import make_strategy
strategy = make_strategy(2)
import sys
import numpy as np, tensorflow as tf
from test_training_stops import HalfLine, Line, log_of, parts_of, stream
from ecgtf.run_folder import Run
from ecgtf.precision import set_precision
from ecgtf.training import fit, make_optimizer
from pathlib import Path

with strategy.scope():
    line = Line()
    try:
        line.compile(make_optimizer(0.1, 10), accumulate=2)
    except ValueError as error:
        assert "of 1 on several replicas, received 2 on 2: use one device, or a smaller batch" in str(error), error
    else:
        raise SystemExit("accumulate on two replicas was not refused")

    line.compile(make_optimizer(0.1, 10))
    two = parts_of(5, 1)  # 3 and 2 records
for values in zip(parts_of(5, 1)[0], two[0]):
    np.testing.assert_allclose(*values, atol=1e-6)
np.testing.assert_allclose(parts_of(5, 1)[1]["loss"], two[1]["loss"], rtol=1e-5)
signals = np.random.default_rng(0).normal(size=(9, 10, 2)).astype("float32")
held_out = tf.data.Dataset.from_tensor_slices((signals, np.zeros((9, 1), "float32"))).batch(4)  # the last has one record
loss = line.evaluate(held_out, return_dict=True, verbose=0)["loss"]
np.testing.assert_allclose(loss, (signals ** 2).mean(), rtol=1e-5)

set_precision("float16")
with strategy.scope():
    half, out = HalfLine(), Path(sys.argv[1])
    half.compile(make_optimizer(0.1, 40))
fit(half, stream, run=Run.open(out, {}), steps=40, checkpoint_every=10, quiet=True)
assert half.optimizer.dynamic_scale.numpy() == 2.0**14
assert half.optimizer.iterations.numpy() == 40
rows = log_of(out)
assert rows[-1]["loss"] < 0.5 * rows[0]["loss"], rows
"""


def test_two_replicas_refuse_parts_share_odd_batches_and_skip_overflows(tmp_path):
    command = [sys.executable, "-c", TWO_REPLICAS, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


# --- logs


def test_hyper_parameters_are_in_the_events_once_for_all_stages_and_resumes(tmp_path):
    from tensorboard.plugins.hparams import metadata

    config = {"learning_rate": 0.1, "preset": "tiny", "steps": [40, 40], "balance": True, "text": "x" * 100}
    run = Run.open(tmp_path / "run", config)
    for stage, steps in (("first", 10), ("second", 10), ("second", 20)):
        model = Line()
        model.compile(make_optimizer(0.1, steps))
        fit(model, stream, run=run, stage=stage, steps=steps, checkpoint_every=10, resume=True, quiet=True)
    found = []
    for path in (run.folder / "tensorboard").rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [value for value in event.summary.value if value.metadata.plugin_data.plugin_name == "hparams"]
    (start,) = [value for value in found if value.tag == metadata.SESSION_START_INFO_TAG]
    written = metadata.parse_session_start_info_plugin_data(start.metadata.plugin_data.content).hparams
    assert {name: getattr(value, value.WhichOneof("kind")) for name, value in written.items()} == {
        "learning_rate": 0.1,
        "preset": "tiny",
        "balance": True,
    }


if __name__ == "__main__":
    train(sys.argv[1], callbacks=[Pause(int(sys.argv[2]))])
