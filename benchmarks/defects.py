"""Which metric sees which defect: `python benchmarks/defects.py DATA [--task rhythm4] [--preset small] [--out FOLDER]`.

The training split of a real set is halved by patients: one half is the training set, the other, which is as good as records can be,
is spoilt in one way each and stands for the synthetic set; simulated records are a last one. Prints a Markdown table of every metric
with its floor and, under each defect, its value, bold where it is worse than the floor by more than chance.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from ecgtf.closeness.comparison import Comparison, Part, joined, part_of
from ecgtf.closeness.defects import DEFECTS, halves_by_person
from ecgtf.closeness.evaluate import compute_metrics
from ecgtf.closeness.metrics import GROUPS
from ecgtf.closeness.results import Results
from ecgtf.closeness.table import number
from ecgtf.dataset import combined_manifest, load_arrays
from ecgtf.generators.simulator import simulate_records
from ecgtf.tasks import Task, get_task


def simulated(task: Task, rate: float, records: int) -> Part:
    """Records of the simulator."""
    drawn = list(simulate_records(records, seed=1, rate=rate))
    labels = task.labels([record.codes for record in drawn])
    return Part(np.stack([record.signal for record in drawn]), labels, [record.id for record in drawn])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--task", default="rhythm4")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--out", type=Path, default=Path("defects"), help="folder of the classifiers and of what is done")
    arguments = parser.parse_args()
    task = get_task(arguments.task)
    train, good = halves_by_person(part_of(load_arrays(arguments.data, "train", task)))
    reference = joined([part_of(load_arrays(arguments.data, split, task)) for split in ("validation", "test")])
    manifest, found = combined_manifest(arguments.data), {}
    for name in [*DEFECTS, "simulated"]:
        made = (
            simulated(task, manifest.sampling_rate, len(good))
            if name == "simulated"
            else DEFECTS[name](good, train, np.random.default_rng(0))
        )
        about = {"synthetic": {"without_records_of": []}}
        comparison = Comparison(
            train, reference, made, manifest.sampling_rate, tuple(manifest.leads), task.classes, task, about
        )
        folder = arguments.out / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        trained = arguments.out / "none" / "trained_on_real"
        if trained.is_dir() and not (folder / trained.name).exists():
            shutil.copytree(trained, folder / trained.name)  # the same records: trained once
        results = Results(comparison, folder, arguments.preset, None, True)
        found[name] = compute_metrics(results, GROUPS, folder / "metrics.json", {}, True)
        print(json.dumps({name: {metric: entry["worse"] for metric, entry in found[name].items()}}), flush=True)
    print("| metric | floor |", *(f" {name} |" for name in found), sep="")
    print("|---" * (2 + len(found)), "|", sep="")
    for metric, entry in found["none"].items():
        cells = [_cell(entries[metric]) for entries in found.values()]
        print(f"| {entry['label']} | {number(entry['floor'])} |", *(f" {cell} |" for cell in cells), sep="")


def _cell(entry: dict) -> str:
    if entry["value"] is None:
        return "-"
    return f"**{number(entry['value'])}**" if entry["worse"] else number(entry["value"])


if __name__ == "__main__":
    main()
