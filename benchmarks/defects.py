"""Which metric sees which defect: `python benchmarks/defects.py DATA [--task rhythm4] [--preset small] [--out FOLDER]`.

The training split of a real set is halved by patients: one half is the training set, the other, which is as good as records can be,
is spoilt in one way each and stands for the synthetic set; simulated records are a last one. Prints a Markdown table of every metric
with its floor and, under each defect, its value, bold where it is worse than the floor by more than chance.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgtf.closeness.comparison import Comparison, Part, joined, part_of
from ecgtf.closeness.contents import provenance
from ecgtf.closeness.evaluate import compute_metrics
from ecgtf.closeness.metrics import GROUPS
from ecgtf.closeness.results import Results
from ecgtf.closeness.table import three_digits
from ecgtf.dataset import combined_manifest, load_arrays
from ecgtf.ecg import select_leads
from ecgtf.generators.simulator import simulate_records
from ecgtf.tasks import Task, get_task

MODES = 2
"""Records of each class that a collapsed generator still draws."""

_SHIFT = 20  # samples
_NOISE = 0.01  # mV: so that the draws of a mode are no exact copies of each other


def none(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """The records as they are: real ones, of other people."""
    return good


def white_noise(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Noise with the mean and spread of each lead."""
    mean, spread = good.signals.mean(axis=(0, 1)), good.signals.std(axis=(0, 1))
    return _with(good, rng.normal(mean, spread, good.signals.shape))


def time_reversed(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Every record backwards: spectra and amplitudes stay."""
    return _with(good, good.signals[:, ::-1])


def leads_shuffled(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Every lead under the name of another, the same way in all records."""
    leads = good.signals.shape[2]
    return _with(good, good.signals[..., np.roll(np.arange(leads), 1)])


def amplitude_doubled(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Twice the millivolts: all shapes and times stay."""
    return _with(good, 2.0 * good.signals)


def classes_swapped(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Good records under the label of another class."""
    return replace(good, labels=np.roll(good.labels, 1, axis=1))


def mode_collapsed(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Draws of `MODES` records of each class, over and over."""
    label = good.labels.argmax(axis=1)
    rows = np.array([rng.choice(np.flatnonzero(label == k)[:MODES]) for k in label])
    signals = good.signals[rows]
    return _with(good, signals + rng.normal(0, _NOISE, signals.shape))


def memorised(good: Part, train: Part, rng: np.random.Generator) -> Part:
    """Training records with a little noise, moved a little in time."""
    time = np.arange(train.signals.shape[1])
    shifts = rng.integers(-_SHIFT, _SHIFT + 1, len(train))
    signals = np.stack(
        [signal[np.clip(time + shift, 0, time[-1])] for signal, shift in zip(train.signals, shifts, strict=True)]
    )
    return _with(train, signals + rng.normal(0, _NOISE, signals.shape))


DEFECTS: Mapping[str, Callable[[Part, Part, np.random.Generator], Part]] = {
    "none": none,
    "white noise": white_noise,
    "time reversed": time_reversed,
    "leads shuffled": leads_shuffled,
    "amplitude doubled": amplitude_doubled,
    "classes swapped": classes_swapped,
    "mode collapsed": mode_collapsed,
    "memorised": memorised,
}


def _with(part: Part, signals: np.ndarray) -> Part:
    return replace(part, signals=np.ascontiguousarray(signals, dtype=np.float32))


def simulated(task: Task, rate: float, leads: tuple[str, ...], records: int) -> Part:
    """Records of the simulator."""
    drawn = list(simulate_records(records, seed=1, rate=rate))
    labels = task.labels([record.codes for record in drawn])
    signals = np.stack([select_leads(record.signal, record.leads, leads) for record in drawn])
    return Part(signals, labels, [record.id for record in drawn])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="rhythm4")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--out", type=Path, default=Path("defects"), help="folder of the classifiers and of what is done")
    arguments = parser.parse_args()
    task = get_task(arguments.task)
    train, good = part_of(load_arrays(arguments.data, "train", task)).split_people(0.5, np.random.default_rng(0))
    reference = joined([part_of(load_arrays(arguments.data, split, task)) for split in ("validation", "test")])
    manifest, found = combined_manifest(arguments.data), {}
    for name in [*DEFECTS, "simulated"]:
        made = (
            simulated(task, manifest.sampling_rate, tuple(manifest.leads), len(good))
            if name == "simulated"
            else DEFECTS[name](good, train, np.random.default_rng(0))
        )
        about = {"task": task.name, "sampling": "", "synthetic": {"without_records_of": []}}
        comparison = Comparison(
            train, reference, made, manifest.sampling_rate, tuple(manifest.leads), task.classes, task, about
        )
        folder = arguments.out / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for trained in (arguments.out / "none" / run for run in ("extractor", "trained_on_real")):
            if trained.is_dir() and not (folder / trained.name).exists():
                shutil.copytree(trained, folder / trained.name)  # the same records: trained once
        results = Results(comparison, folder, arguments.preset, None, True)
        found[name] = compute_metrics(results, GROUPS, folder / "metrics.json", provenance(results), True)
        print(json.dumps({name: {metric: entry["worse"] for metric, entry in found[name].items()}}), flush=True)
    print("| metric | floor |", *(f" {name} |" for name in found), sep="")
    print("|---" * (2 + len(found)), "|", sep="")
    for metric, entry in found["none"].items():
        cells = [_cell(entries[metric]) for entries in found.values()]
        print(f"| {entry['label']} | {three_digits(entry['floor'])} |", *(f" {cell} |" for cell in cells), sep="")


def _cell(entry: dict) -> str:
    if entry["value"] is None:
        return "-"
    return f"**{three_digits(entry['value'])}**" if entry["worse"] else three_digits(entry["value"])


if __name__ == "__main__":
    main()
