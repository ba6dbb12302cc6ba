"""Small data sets of seeded synthetic signals that the tests share."""

import json
import os
import signal
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # the tests beside it have the other processors: threads would wait for each other
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np
import pytest

from ecgtf.dataset import finish_dataset, hash_id, load_arrays, shard_names, write_shard
from ecgtf.ecg import LEADS, Record, lead_matrix

RATE, SECONDS = 100, 10.0
RHYTHM_CODES = {  # rhythm7 class: SNOMED CT code, beats per minute
    "SR": ("426783006", 70),
    "SB": ("426177001", 48),
    "ST": ("427084000", 120),
    "SA": ("427393009", 70),
    "AFIB": ("164889003", 90),
    "AFLT": ("164890007", 75),
    "SVT": ("426761007", 180),
}


LONG = ("test_study_runs.py", "test_training_runs.py", "test_cli.py", "test_closeness_evaluate.py")
"""Files of tests that take minutes, the longest first."""


def pytest_collection_modifyitems(items):
    """The files that take long come first: a worker has whole files (`--dist loadfile`), and none is left alone with one at the end."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard():
    """Whatever the tests were started by: background jobs of a shell ignore it, and so does what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def toy_signal(rate_bpm: float, irregular: float, rng: np.random.Generator) -> np.ndarray:
    """`(1000, 12)` float32 mV: bumps at the given rate in 8 leads, the limb leads by their equations, whole microvolts."""
    intervals = 60 / rate_bpm * (1 + irregular * rng.uniform(-1, 1, size=64))
    beats = rng.uniform(0, intervals[0]) + np.concatenate([[0], np.cumsum(intervals)])
    time = np.arange(int(RATE * SECONDS)) / RATE
    bumps = np.exp(-((time[:, None] - beats) ** 2) / (2 * 0.03**2)).sum(axis=1)
    independent = np.array([0.8, 1.0, -0.5, 0.3, 0.7, 1.2, 1.1, 0.9]) * rng.uniform(0.8, 1.2, size=8)
    signal = bumps[:, None] * independent + rng.normal(0, 0.02, size=(len(time), 8))
    signal = signal @ lead_matrix(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), LEADS)
    return (np.round(signal * 1000) / 1000).astype(np.float32)


def toy_record(number: int, rhythm: str, split: str) -> Record:
    rng = np.random.default_rng([number, len(rhythm), sum(rhythm.encode())])
    code, rate_bpm = RHYTHM_CODES[rhythm]
    irregular = {"AFIB": 0.4, "SA": 0.2}.get(rhythm, 0.02)
    return Record(
        id=f"toy/{split}/{rhythm}{number:03d}",
        codes=(code, "428750005") if number % 2 else (code,),  # a code beside the rhythm, as real records have
        signal=toy_signal(rate_bpm, irregular, rng),
        sampling_rate=RATE,
        patient=f"{rhythm}{number:03d}" if number % 3 else None,
        age=float(20 + number) if number % 4 else None,
        sex=("male", "female", None)[number % 3],
        split=split,
    )


def write_toy_dataset(folder: Path, per_class: dict[str, int], *, shards: int = 1, name: str = "toy", **fields) -> Path:
    """A finished data set with this many records of each rhythm7 class per split."""
    folder.mkdir(parents=True, exist_ok=True)
    samples, summaries = int(RATE * SECONDS), []
    for split, count in per_class.items():
        records = [toy_record(number, rhythm, split) for number in range(count) for rhythm in RHYTHM_CODES]
        size = max(1, len(records)) * samples * len(LEADS) * 2
        names = shard_names(split, len(records), samples, len(LEADS), shard_bytes=-(-size // shards))
        for part, file in enumerate(names):
            summaries.append(write_shard(folder / file, records[part :: len(names)], LEADS, samples))
    about = {"name": name, "sampling_rate": RATE, "seconds": SECONDS, "leads": LEADS}
    about["sources"] = [{"name": "toy signals", "licence": "none needed", "citation": ""}]
    finish_dataset(folder, about | fields, summaries)
    return folder


def edit_manifest(folder, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory) -> Path:
    """A folder: 12 leads, 100 Hz, 10 s, the 7 rhythms; 28 training records in 2 shards, 14 validation, 14 test records."""
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "small", {"train": 4, "validation": 2, "test": 2}, shards=2)


@pytest.fixture
def make_dataset(tmp_path):
    """`write_toy_dataset` into a folder of this test alone."""

    def make(name: str = "set", per_class: dict[str, int] | None = None, **options) -> Path:
        return write_toy_dataset(tmp_path / name, per_class or {"train": 1, "validation": 1, "test": 1}, name=name, **options)

    return make


@pytest.fixture(scope="session")
def real_set(tmp_path_factory) -> Path:
    """A folder: the 7 rhythms; 42 training records, 14 validation, 28 test records."""
    return write_toy_dataset(tmp_path_factory.mktemp("sets") / "real", {"train": 6, "validation": 2, "test": 4}, name="real")


@pytest.fixture(scope="session")
def synthetic_set(tmp_path_factory, real_set) -> Path:
    """The training records of the set `real_set` once more, said to come of a generator that saw them."""
    saw = [hash_id(name) for name in load_arrays(real_set, "train").ids]
    folder = tmp_path_factory.mktemp("sets") / "synthetic"
    made = {"run": "toy", "settings": {}, "trained_on": saw}
    return write_toy_dataset(folder, {"train": 6}, name="synthetic", generator=made)


@pytest.fixture(scope="session")
def classifier_run(tmp_path_factory, real_set):
    """A classifier of four rhythms, trained on the set `real_set`."""
    from small_classifiers import QUICK  # TensorFlow, which most tests do without

    from ecgtf.classifiers.classifier import train_classifier

    options = QUICK | {"steps": 60}
    return train_classifier("resnet1d", real_set, tmp_path_factory.mktemp("runs") / "c", task="rhythm4", seed=1, **options)
