"""Training by several workers, real processes that talk over the loopback; this file is also the program of such a worker."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import write_toy_dataset

from ecgtf.dataset import load
from ecgtf.generators.base import Generator
from ecgtf.run_folder import Run
from ecgtf.training import fit, is_chief, make_optimizer, make_strategy

STEPS, EVERY, BATCH = 40, 10, 4


class Gains(Generator):
    """A gain for each lead: its loss has no noise, so that it does not matter how a batch is divided."""

    def __init__(self, leads):
        super().__init__(leads, 1000, 100.0, (1.0,) * len(leads), model_leads="all")
        self.gain = self.add_weight(name="gain", shape=(len(leads),), initializer="zeros")

    def loss_terms(self, signal, label, seed, training):
        return {"loss": tf.reduce_mean((self.gain * signal - 2.0 * tf.nn.relu(signal)) ** 2)}


class Slowly(keras.callbacks.Callback):
    """Gives the tests time to interfere."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(self.seconds)


def train(data: str, out: str, seconds: float = 0.0, resume: bool = False) -> tuple[tf.distribute.Strategy, Gains]:
    strategy = make_strategy()
    with strategy.scope():
        model = Gains(("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"))
        model.compile(make_optimizer(0.05, STEPS))
    fit(
        model,
        lambda step: batches(data, step),
        run=Run.open(out, {"seed": 1}, resume=resume, writes=is_chief()),
        steps=STEPS,
        checkpoint_every=EVERY,
        batch_size=BATCH,
        validation=load(data, "validation", None, batch_size=BATCH),
        monitor="val_loss",
        callbacks=[Slowly(seconds)],
        resume=resume,
        quiet=True,
    )
    return strategy, model


def batches(data: str, step: int) -> tf.data.Dataset:
    return load(data, "train", None, batch_size=BATCH, shuffle=True, seed=1, repeat=True, start_batch=step)


def records_of(signals) -> list[list[float]]:
    """A mark of each record of a batch."""
    return np.abs(signals).sum(axis=(1, 2)).round(3).tolist()


def work(data: str, out: str, report: str, seconds: float, resume: bool) -> None:
    """What a worker does: it trains, and reports its weights and what it sees of each batch."""
    strategy, model = train(data, out, seconds, resume)
    split = {}
    for split_name, stream in (
        ("train", batches(data, 3).take(9)),
        ("validation", load(data, "validation", None, batch_size=BATCH)),
    ):
        parts = iter(strategy.experimental_distribute_dataset(stream))
        split[split_name] = [records_of(strategy.experimental_local_results(part[0])[0].numpy()) for part in parts]
    weights = [value.tolist() for value in model.get_weights()]
    Path(report).write_text(json.dumps({"weights": weights, "split": split}))


class Workers:
    """Two workers of one training, ended with the block."""

    def __init__(self, folder: Path, data: Path, out: str, seconds: float = 0.0, resume: bool = False):
        self.checkpoints = folder / out / "checkpoints" / "model"
        self.reports = [folder / f"{out}-{index}.json" for index in range(2)]
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.errors, self.processes = [], []
        for index, report in enumerate(self.reports):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            self.errors.append(folder / f"{out}-{index}.err")
            with self.errors[-1].open("w") as errors:
                arguments = [str(data), str(folder / out), str(report), str(seconds), str(int(resume))]
                environment = os.environ | {"TF_CONFIG": json.dumps(config)}
                self.processes.append(subprocess.Popen([sys.executable, __file__, *arguments], env=environment, stderr=errors))

    def wait_for(self, step: int) -> None:
        """Waits for a checkpoint of that step."""
        deadline = time.monotonic() + 120
        while not (self.checkpoints / f"ckpt-{step}.index").exists():
            assert all(process.poll() is None for process in self.processes), self.said(0) + self.said(1)
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self, seconds: float = 120) -> list[int]:
        """Waits for both; their exit codes."""
        deadline = time.monotonic() + seconds
        return [process.wait(max(0.0, deadline - time.monotonic())) for process in self.processes]

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, index: int) -> str:
        return self.errors[index].read_text()

    def results(self) -> list[dict]:
        assert self.end() == [0, 0], self.said(0)[-2000:] + self.said(1)[-2000:]
        return [json.loads(report.read_text()) for report in self.reports]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def data(folder) -> Path:
    """35 training records; 21 for validation, so that one worker gets nothing of the last batch."""
    return write_toy_dataset(folder / "data", {"train": 5, "validation": 3}, shards=3)


@pytest.fixture(scope="module")
def uninterrupted(folder, data) -> list[dict]:
    with Workers(folder, data, "whole") as workers:
        return workers.results()


def test_two_workers_share_each_batch_and_no_record_is_seen_twice(data, uninterrupted):
    streams = {"train": batches(data, 3).take(9), "validation": load(data, "validation", None, batch_size=BATCH)}
    for split, stream in streams.items():
        parts = [report["split"][split] for report in uninterrupted]
        whole = [records_of(signals.numpy()) for signals, _ in stream]
        assert [sorted(first + second) for first, second in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]
    assert len(parts[0][-1]) == 1
    assert parts[1][-1] == []


def test_two_workers_end_with_the_weights_and_the_log_of_a_single_process(folder, data, uninterrupted):
    first, second = (report["weights"] for report in uninterrupted)
    assert first == second
    _, model = train(data, folder / "single")
    for one, many in zip(model.get_weights(), first, strict=True):
        np.testing.assert_allclose(one, many, atol=1e-5)
    rows = [list(csv.DictReader((folder / out / "log.csv").open())) for out in ("single", "whole")]
    assert len(rows[0]) == STEPS // EVERY
    for one, many in zip(*rows, strict=True):
        for name in ("step", "loss", "val_loss", "gradient_norm", "learning_rate"):
            assert float(one[name]) == pytest.approx(float(many[name]), rel=1e-4), name


def test_the_chief_alone_writes(folder, uninterrupted):
    def names(out):
        files = (path.relative_to(folder / out) for path in (folder / out).rglob("*") if path.is_file())
        return sorted(re.sub(r"tfevents.*", "tfevents", str(path)) for path in files)

    assert names("whole") == [
        "checkpoints/model/best.json",
        "checkpoints/model/best.npz",
        "checkpoints/model/ckpt-30.data-00000-of-00001",
        "checkpoints/model/ckpt-30.index",
        "checkpoints/model/ckpt-40.data-00000-of-00001",
        "checkpoints/model/ckpt-40.index",
        "config.json",
        "log.csv",
        "tensorboard/events.out.tfevents",
        "tensorboard/model/events.out.tfevents",
    ]


def test_workers_stopped_or_killed_go_on_to_the_weights_of_an_uninterrupted_training(folder, data, uninterrupted):
    with Workers(folder, data, "parts", seconds=0.1) as workers:
        workers.wait_for(10)
        workers.processes[1].send_signal(signal.SIGTERM)
        assert workers.end() == [1, 1]
    stops = [re.search(r"Stopped: stopped at step (\d+) of stage model", workers.said(index)) for index in range(2)]
    assert stops[0][1] == stops[1][1]
    assert (workers.checkpoints / f"ckpt-{stops[0][1]}.index").exists()

    with Workers(folder, data, "parts", seconds=0.1, resume=True) as workers:
        workers.wait_for(20)
        workers.processes[1].kill()
        assert workers.end(seconds=60) == [1, -signal.SIGKILL]
    assert "WorkerLost: another worker ended or cannot be reached" in workers.said(0)

    with Workers(folder, data, "parts", resume=True) as workers:
        resumed = workers.results()
    assert [report["weights"] for report in resumed] == [report["weights"] for report in uninterrupted]


GENERATOR = """
import json, sys
from ecgtf.train_generator import train_generator
options = {"denoiser": {"network_options": {"width": 16, "depth": 2, "cycle": 2}}}
common = {"task": "rhythm7", "preset": "tiny", "batch_size": 4, "quiet": True, "judge": 1}
import ecgtf.callbacks
def report(self, model, restore=ecgtf.callbacks.Best.restore):
    restore(self, model)
    json.dump([value.tolist() for value in model.get_weights()], open(sys.argv[3], "w"))
ecgtf.callbacks.Best.restore = report
train_generator("diffwave", sys.argv[1], sys.argv[2], steps=(12,), checkpoint_every=6, options=options, **common)
"""


def test_a_generator_trained_by_two_workers_has_the_same_weights_on_both(folder, data):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    reports, processes = [folder / f"generator-{index}.json" for index in range(2)], []
    for index, report in enumerate(reports):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        words = [sys.executable, "-c", GENERATOR, data, folder / "generator", report]
        environment = os.environ | {"TF_CONFIG": json.dumps(config)}
        processes.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    first, second = (json.loads(report.read_text()) for report in reports)
    assert first == second
    run = Run.load(folder / "generator")
    assert run.finished
    for mine, saved in zip(first, run.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(np.array(mine, "float32"), saved)


@pytest.mark.parametrize(
    "config",
    [
        "[",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    ],
)
def test_a_tf_config_that_describes_no_cluster_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="expected TF_CONFIG such as"):
        make_strategy()


if __name__ == "__main__":
    data_folder, out_folder, report_file, pause, again = sys.argv[1:]
    work(data_folder, out_folder, report_file, float(pause), bool(int(again)))
