"""The training loop and its run folders: resuming, replicas, logs, what is refused."""

import csv
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.augment import Augmentation
from ecgtf.dataset import load, read_manifest
from ecgtf.generators.base import Generator
from ecgtf.generators.presets import get_preset
from ecgtf.generators.stages import Stages
from ecgtf.precision import set_precision
from ecgtf.run_folder import Run, checksums, is_outdated
from ecgtf.tasks import get_task
from ecgtf.train_generator import Training, train_generator
from ecgtf.training import fit, make_optimizer, make_strategy

TINY = {"task": "rhythm7", "preset": "tiny", "steps": (6, 6), "batch_size": 4, "checkpoint_every": 3, "quiet": True, "seed": 3}


@keras.saving.register_keras_serializable("ecgtf-tests")
class Line(Generator):
    """The smallest generator there is: one weight per lead, and noise in its loss."""

    term_names = ("loss", "noise")

    def __init__(self, **kwargs):
        super().__init__(("I", "II"), 10, 100.0, (1.0, 1.0), model_leads="all", **kwargs)
        self.slope = self.add_weight(name="slope", shape=(2,), initializer="zeros")

    def loss_terms(self, signal, label, seed, training):
        noise = tf.random.stateless_normal((), seed)
        return {"loss": tf.reduce_mean((self.slope - signal) ** 2) + 0.01 * noise * tf.reduce_sum(self.slope), "noise": noise}


def line_stream(step: int) -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    signals = rng.normal(1.0, 0.1, (64, 4, 10, 2)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((signals, np.zeros((64, 4, 1), "float32"))).repeat().skip(step)


def checkpoint_steps(run: Run) -> list[int]:
    names = [path.name for path in (run.folder / "checkpoints" / "model").iterdir()]
    steps = sorted(int(name[len("ckpt-") : -len(".index")]) for name in names if name.endswith(".index"))
    assert sorted(names) == sorted(f"ckpt-{step}.{end}" for step in steps for end in ("data-00000-of-00001", "index"))
    return steps


def compiled_line(steps=40, **optimizer) -> Line:
    model = Line(seed=1)
    model.compile(make_optimizer(0.1, steps, **optimizer))
    return model


@pytest.mark.parametrize(("peak", "steps"), [(1e-3, 600), (5e-3, 37)])
def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_zero(peak, steps):
    schedule = make_optimizer(peak, steps)._learning_rate
    rates = [float(schedule(step)) for step in range(steps + 1)]
    warm = steps // 20
    assert rates[0] == 0
    assert rates[warm] == pytest.approx(peak)
    assert rates[steps] == pytest.approx(0, abs=1e-9)
    assert (np.diff(rates[: warm + 1]) > 0).all()
    assert (np.diff(rates[warm:]) < 0).all()


def test_a_run_killed_before_its_configuration_was_whole_starts_afresh(tmp_path):
    for options in ({"resume": True}, {"overwrite": True}, {}):
        folder = tmp_path / str(options)
        folder.mkdir()
        (folder / ".config.json.123.tmp").write_text("{")
        assert Run.load(Run.open(folder, {"command": "test"}, **options).folder).config["command"] == "test"


def test_a_run_goes_on_or_is_replaced(tmp_path):
    with pytest.raises(ValueError, match="give one of the two"):
        Run.open(tmp_path / "run", {"command": "test"}, resume=True, overwrite=True)
    assert not (tmp_path / "run").exists()


def test_a_run_killed_while_it_is_replaced_leaves_no_half_of_it(tmp_path, monkeypatch):
    def killed(folder, **_):
        (folder / "log.csv").unlink()
        raise KeyboardInterrupt

    folder = Run.open(tmp_path / "run", {"command": "test"}).folder
    (folder / "log.csv").write_text("step,loss\n")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            Run.open(folder, {"command": "test"}, overwrite=True)
    assert not folder.exists()
    Run.open(folder, {"command": "test"}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_training_stops_at_the_step_asked_for_and_logs_every_checkpoint(tmp_path):
    run = Run.open(tmp_path / "run", {"command": "test"})
    model = compiled_line()
    assert fit(model, line_stream, run=run, steps=25, checkpoint_every=10, batch_size=4, quiet=True) == 25
    with (run.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [10, 20, 25]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert list((run.folder / "tensorboard").rglob("events*"))
    np.testing.assert_allclose(model.slope.numpy(), 1.0, atol=0.1)


@pytest.mark.parametrize("first", [10, 17])
def test_a_stopped_and_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, first):
    class TimeIsUp(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training |= int(self.model.optimizer.iterations) >= first

    validation = tf.data.Dataset.from_tensors((np.ones((4, 10, 2), "float32"), np.zeros((4, 1), "float32")))
    shared = {"steps": 40, "checkpoint_every": 10, "validation": validation, "monitor": "val_loss", "quiet": True}
    whole = compiled_line()
    fit(whole, line_stream, run=Run.open(tmp_path / "whole", {}), **shared)

    run = Run.open(tmp_path / "parts", {})
    assert fit(compiled_line(), line_stream, run=run, callbacks=[TimeIsUp()], **shared) == first
    resumed = compiled_line()
    fit(resumed, line_stream, run=run, resume=True, **shared)
    np.testing.assert_array_equal(resumed.slope.numpy(), whole.slope.numpy())
    np.testing.assert_array_equal(resumed.optimizer.variables[2].numpy(), whole.optimizer.variables[2].numpy())


def test_checkpoints_come_no_more_often_than_asked_and_always_at_the_end(tmp_path):
    class Broken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 25:
                raise OSError("the disk is full")

    def rows(run):
        with (run.folder / "log.csv").open() as file:
            return [(row["step"], row["loss"]) for row in csv.DictReader(file)]

    shared = {"steps": 40, "checkpoint_every": 10, "quiet": True}
    often, rare = Run.open(tmp_path / "often", {}), Run.open(tmp_path / "rare", {})
    whole, resumed = compiled_line(), compiled_line()
    fit(whole, line_stream, run=often, keep=9, **shared)
    assert checkpoint_steps(often) == [10, 20, 30, 40]

    with pytest.raises(OSError, match="the disk is full"):
        fit(compiled_line(), line_stream, run=rare, keep=9, checkpoint_seconds=3600, callbacks=[Broken()], **shared)
    assert checkpoint_steps(rare) == []
    assert len(rows(rare)) == 2
    at_once = {"checkpoint_seconds": 3600, "max_minutes": 0, "monitor": "loss"} | shared
    stopped, again = compiled_line(), compiled_line()
    fit(stopped, line_stream, run=Run.open(tmp_path / "stopped", {}), **at_once)
    with pytest.raises(OSError, match="the disk is full"):
        fit(
            compiled_line(), line_stream, run=Run.open(tmp_path / "b", {}), callbacks=[Broken()], **at_once | {"max_minutes": 9}
        )
    fit(again, line_stream, run=Run.load(tmp_path / "b"), resume=True, **at_once)
    np.testing.assert_array_equal(again.slope.numpy(), stopped.slope.numpy())  # no weights of steps that are lost
    fit(resumed, line_stream, run=rare, keep=9, checkpoint_seconds=3600, resume=True, **shared)
    assert checkpoint_steps(rare) == [40]
    assert rows(rare) == rows(often)
    np.testing.assert_array_equal(resumed.slope.numpy(), whole.slope.numpy())


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_last_checkpoint(tmp_path):
    def stream(step):
        return line_stream(step).enumerate().map(lambda k, data: (data[0] / tf.cast(k < 15, tf.float32), data[1]))

    run = Run.open(tmp_path / "run", {})
    with pytest.raises(FloatingPointError, match="stage model is not finite at step 16"):
        fit(compiled_line(), stream, run=run, steps=40, checkpoint_every=10, quiet=True)
    assert checkpoint_steps(run) == [10]


def test_the_weights_of_the_best_validation_are_kept(tmp_path):
    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = [3.0, 1.0, 2.0, 4.0][epoch]
            slopes.append(self.model.slope.numpy().copy())

    slopes, model = [], compiled_line()
    run = Run.open(tmp_path / "run", {})
    done = fit(
        model,
        line_stream,
        run=run,
        steps=40,
        checkpoint_every=10,
        monitor="val_loss",
        patience=2,
        callbacks=[Worse()],
        quiet=True,
    )
    assert done == 40
    np.testing.assert_array_equal(model.slope.numpy(), slopes[1])


def test_replicas_draw_differently_and_steps_too():
    model = Line(seed=5)
    draws = {tuple(model.step_seed(tf.constant(step)).numpy()) for step in range(50)}
    assert len(draws) == 50
    assert {tuple(Line(seed=6).step_seed(tf.constant(0)).numpy())}.isdisjoint(draws)


TWO_REPLICAS = """
import numpy as np, tensorflow as tf, keras
from ecgtf.training import make_strategy
strategy = make_strategy(2)
from ecgtf.ecg import INDEPENDENT_LEADS
from ecgtf.generators.base import Generator
from ecgtf.generators.time_vqvae import TimeVQVAE

def trained(scope, steps=3):
    with scope:
        keras.utils.set_random_seed(0)
        model = TimeVQVAE(INDEPENDENT_LEADS, 80, 100.0, [1.0] * 8, width=32, depth=1, codes=(8, 8), code_dim=4, reset_below=0.0)
        model.compile(keras.optimizers.SGD(0.05))
    signals = np.random.default_rng(0).normal(size=(8 * steps, 80, 8)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((signals, np.zeros((8 * steps, 1), "float32"))).batch(8)
    model.fit(data, verbose=0, shuffle=False)
    return model.get_weights()

import contextlib
one, two = trained(contextlib.nullcontext()), trained(strategy.scope())
worst = max(np.abs(a - b).max() for a, b in zip(one, two))
print("replicas", strategy.num_replicas_in_sync, "worst", worst)
assert strategy.num_replicas_in_sync == 2 and worst < 1e-5, worst

def seeds():
    return Generator(["I"], 8, 1.0, [1.0], model_leads="all").step_seed(tf.constant(7))
first, second = strategy.experimental_local_results(strategy.run(seeds))
assert (first.numpy() != second.numpy()).any()

try:
    make_strategy(2, batch_size=1)
except ValueError as error:
    assert "expected a batch size of at least 2, a record for each device, received 1" in str(error)
else:
    raise AssertionError("a batch that leaves a device without records")
"""


def test_two_replicas_make_the_update_of_one_and_draw_different_noise():
    done = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_run_folders_refuse_what_would_lose_or_mix_work(tmp_path):
    run = Run.open(tmp_path / "run", {"seed": 1})
    with pytest.raises(ValueError, match="holds a run already; use --resume"):
        Run.open(run.folder, {"seed": 1})
    assert Run.open(run.folder, {"seed": 1}, resume=True).config == run.config
    with pytest.raises(ValueError, match="another configuration \\(seed: 1 there, 2 now\\)"):
        Run.open(run.folder, {"seed": 2}, resume=True)
    assert Run.open(run.folder, {"seed": 2}, overwrite=True).config["seed"] == 2
    with pytest.raises(ValueError, match="not a run folder"):
        Run.load(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds no run; it is left as it is"):
        Run.open(tmp_path / "other", {}, overwrite=True)
    (run.folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        Run.load(run.folder)
    assert (tmp_path / "other" / "thesis.txt").exists()


def test_a_setting_that_an_older_run_does_not_name_is_what_it_was_then(tmp_path):
    Run.open(tmp_path, {"steps": 1})
    asked, unsaid = {"steps": 1, "augment": "gain=0.2"}, {"augment": "gain=0.2"}
    assert Run.open(tmp_path, asked, resume=True, unsaid=unsaid).config["augment"] == "gain=0.2"
    with pytest.raises(ValueError, match=r"another configuration \(augment: gain=0.2 there, none now\)"):
        Run.open(tmp_path, asked | {"augment": "none"}, resume=True, unsaid=unsaid)


def test_a_run_does_not_go_on_with_other_records(tmp_path, make_dataset):
    data = make_dataset("data")
    config = {"data": [str(data)], "checksums": checksums(data, None)}
    Run.open(tmp_path / "run", config)
    Run.open(tmp_path / "older", {"data": [str(data)]})
    shutil.rmtree(data)
    make_dataset("data", {"train": 2})
    assert is_outdated(tmp_path / "run")
    now = {"data": [str(data)], "checksums": checksums(data)}
    with pytest.raises(
        ValueError, match=r"data is not what the run in .*run began with: name another --out or use --overwrite"
    ):
        Run.open(tmp_path / "run", now, resume=True)
    assert Run.open(tmp_path / "older", now, resume=True).config["data"] == [str(data)]  # it does not know


def test_equal_weights_have_equal_checksums(tmp_path):
    """Whenever they were saved: a run that was trained anew to the same weights may still be started from."""
    run = Run.open(tmp_path, {})
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    run.save_model(model)
    before, first = (tmp_path / "model.keras").read_bytes(), checksums(tmp_path)
    time.sleep(2)  # the clock of zip files
    run.save_model(model)
    assert (tmp_path / "model.keras").read_bytes() != before
    assert checksums(tmp_path) == first
    model.layers[-1].bias.assign([0, 0, 1])
    run.save_model(model)
    assert checksums(tmp_path).keys() == first.keys()
    assert checksums(tmp_path) != first


def test_generators_learn_from_records_changed_as_asked_for(small_dataset):
    manifest, sizes = read_manifest(small_dataset), get_preset("diffwave", "tiny").with_lengths(batch_size=4)
    stages = Stages(sizes, {}, {"conditions": ()})
    fixed = dict.fromkeys(("run", "strategy", "checkpoint_every", "judge", "deadline"))
    fixed |= {"data": small_dataset, "task": get_task("rhythm7"), "manifest": manifest, "stages": stages, "accumulate": 1}
    fixed |= {"balance": 0.5, "balance_sources": 0.0, "seed": 3, "resume": False, "quiet": True}

    def batch(augment: Augmentation) -> np.ndarray:
        return next(iter(Training(augment=augment, **fixed)._stream(get_task("rhythm7"), 3)(0)))[0].numpy()

    plain = load(small_dataset, "train", "rhythm7", batch_size=4, shuffle=True, seed=3, repeat=True, balance=0.5)
    expected = next(iter(plain))[0].numpy()
    np.testing.assert_array_equal(batch(Augmentation()), expected)
    factor = np.sqrt(np.mean(batch(Augmentation(gain=0.2)) ** 2, axis=(1, 2)) / np.mean(expected**2, axis=(1, 2)))
    np.testing.assert_allclose(batch(Augmentation(gain=0.2)), factor[:, None, None] * expected, atol=1e-5)
    assert np.ptp(factor) > 0.01


def test_a_cut_model_file_is_called_damaged(tmp_path):
    run = Run.open(tmp_path / "run", {})
    whole = run.save_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])).read_bytes()
    (run.folder / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged; train again"):
        run.load_model()


def test_a_task_without_training_records_is_refused(tmp_path, small_dataset):
    with pytest.raises(ValueError, match="no training record has a class of task superclass"):
        train_generator("vqvae", small_dataset, tmp_path / "run", **TINY | {"task": "superclass"})
    assert not (tmp_path / "run").exists()


def test_precisions_are_named(tmp_path):
    with pytest.raises(ValueError, match="float32, bfloat16, float16"):
        set_precision("float8")
    assert make_strategy().num_replicas_in_sync == 1


def test_bad_sizes_are_refused_before_anything_is_written(tmp_path, small_dataset):
    with pytest.raises(ValueError, match="unknown preset 'huge'; expected one of tiny, small"):
        train_generator("vqvae", small_dataset, tmp_path / "run", preset="huge")
    with pytest.raises(ValueError, match="expected training steps, 1 or more, for tokenizer and prior and enhancer"):
        train_generator("vqvae", small_dataset, tmp_path / "run", steps=(3, 0))
    with pytest.raises(ValueError, match="unknown generator 'gan'; expected one of vqvae, diffwave, timediffusion"):
        train_generator("gan", small_dataset, tmp_path / "run")
    for option in (
        {"precision": "int8"},
        {"leads": "some"},
        {"learning_rate": -1.0},
        {"max_minutes": -3.0},
        {"batch_size": 6, "accumulate": 4},
    ):
        with pytest.raises(ValueError, match=r"float32|independent|learning rate|max_minutes|that accumulate divides"):
            train_generator("vqvae", small_dataset, tmp_path / "run", **option)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("diffwave", {"denoiser": {"prediction": "score"}}, "unknown prediction 'score'"),
        ("diffwave", {"denoiser": {"schedule": [1]}}, r"unknown schedule \[1\]; expected one of linear, cosine"),
        ("timediffusion", {"denoiser": {"prefix": 2.0}}, "expected prefix from 0 to 1, received 2.0"),
        ("timediffusion", {"denoiser": {"noise_levels": 10}}, "expected 1 to 10 sampling steps"),
        ("vqvae", {"tokenizer": {"n_fft": 5}}, "expected an even n_fft of at least 4, received 5"),
        ("vqvae", {"tokenizer": {"downsampling": (6, 6)}}, "expected powers of two as downsampling, received 6, 6"),
        ("vqvae", {"prior": {"mask_convention": "some"}}, "mask_convention must be"),
        (
            "vqvae",
            {"tokenizer": {"codes": (1024, 4096)}},
            r"codes, 1024 and 4096, received 3500 and 3500 of 28 .*codes=\[1024,2048\]$",
        ),
    ],
)
def test_options_that_no_model_takes_leave_the_run_that_they_would_replace(tmp_path, small_dataset, kind, options, says):
    run = Run.open(tmp_path / "run", {"command": "train-generator"})
    (run.folder / "model.keras").write_text("weeks of work")
    with pytest.raises(ValueError, match=says):
        train_generator(kind, small_dataset, run.folder, task="rhythm7", preset="tiny", options=options, overwrite=True)
    assert (run.folder / "model.keras").read_text() == "weeks of work"


def test_a_preset_that_needs_more_records_and_a_condition_named_twice_leave_the_run_that_they_would_replace(
    tmp_path, small_dataset, make_dataset
):
    run = Run.open(tmp_path / "run", {"command": "train-generator"})
    (run.folder / "model.keras").write_text("weeks of work")
    for data, options, says in (
        (
            make_dataset(),
            {"preset": "paper"},
            r"received 49 and 434 of 7 training records: .*--set tokenizer.codes=\[32,256\]$",
        ),
        (
            small_dataset,
            {"preset": "tiny", "conditions": ("age", "age")},
            r"age is named more than once in age,age: name it once",
        ),
    ):
        with pytest.raises(ValueError, match=says) as told:
            train_generator("vqvae", data, run.folder, task="rhythm7", overwrite=True, allow_empty=True, **options)
        assert "\n" not in str(told.value)
        assert (run.folder / "model.keras").read_text() == "weeks of work"
