"""How long an evaluation takes and what memory it needs: `python benchmarks/closeness.py [--records N] [--groups A,B]`.

N simulated training records, N held-out and N "synthetic" ones of 1000 x 12, the features those of a classifier trained for a few
steps. Each group is evaluated in a process of its own; printed are its seconds and its peak of memory, the reading of the records
and the start of Python included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ecgtf
from ecgtf.dataset import finish_dataset, shard_names, write_shard
from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_records

SAMPLES = 1000


def write_set(folder: Path, seed: int, per_split: dict[str, int], generator: dict | None) -> None:
    """A data set of simulated records with these numbers of records in its splits."""
    folder.mkdir(parents=True)
    summaries, start = [], 0
    for split, count in per_split.items():
        names = shard_names(split, count, SAMPLES, len(LEADS))
        for part, name in enumerate(names):
            first, last = part * count // len(names), (part + 1) * count // len(names)
            records = simulate_records(last - first, seed=seed, rate=100.0, start=start + first)
            summaries.append(write_shard(folder / name, records, LEADS, SAMPLES))
        start += count
    about = {"name": folder.name, "sampling_rate": 100, "seconds": SAMPLES / 100, "leads": LEADS}
    about["sources"] = [{"name": "simulated", "licence": "none needed", "citation": ""}]
    finish_dataset(folder, about | {"generator": generator}, summaries)


def measure(folder: Path, group: str) -> None:
    """Evaluates one group and prints what it took; run in a process of its own."""
    started = time.perf_counter()
    ecgtf.evaluate(
        folder / "real",
        folder / "synthetic",
        task="rhythm7",
        groups=group.split(","),
        extractor=folder / "extractor",
        out=folder / group,
    )
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {group.replace(',', ', ')} | {seconds:.0f} | {peak:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--groups", nargs="*", default=["distribution", "temporal", "physiology", "privacy"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.groups[0])
        return
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), arguments.records
        write_set(folder / "real", 0, {"train": count, "test": count}, None)
        write_set(folder / "synthetic", 1, {"train": count}, {"run": "simulator", "settings": {}, "trained_on": []})
        from ecgtf.classifiers.classifier import train_classifier

        train_classifier("resnet1d", folder / "synthetic", folder / "extractor", task="rhythm7", preset="tiny", quiet=True)
        print(f"{count} training, {count} held-out and {count} synthetic records")
        print("| group | seconds | peak of memory (GiB) |\n|---|---|---|", flush=True)
        for group in [*arguments.groups, ",".join(arguments.groups)]:
            command = [sys.executable, __file__, "--folder", folder, "--groups", group]
            subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
