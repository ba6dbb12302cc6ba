"""How long the measures of closeness take: `python benchmarks/closeness.py [--records N] [--groups A B] [--save]`.

First single measures on random features `(records, 64)` against published code for the same: neighbourhoods (`prdc`), MMD (tsgm), the
Frechet distance (SciPy's matrix root) and nearest neighbours (scikit-learn), in turns, with what the matrix products in them take alone.
Where both compute the same number, it is compared first. Then whole groups of `ecgtf evaluate`: N simulated training records, N held-out
and N "synthetic" ones of 1000 x 12, the features those of a classifier trained for a few steps; each group in a process of its own, the
reading of the records included. `--measures` or `--groups` with nothing behind it leaves those out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import described
from peers import add_peers, peers_python
from tables import compare, options, show, spread
from workers import Worker, in_turns, peak_memory, seconds

import ecgtf
from ecgtf.closeness import distribution
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


@dataclass(frozen=True)
class Measure:
    """A measure of two sets of features, beside published code for the same."""

    peer: str
    ours: Callable[[np.ndarray, np.ndarray], list[float]]
    """Of real and generated features; gives what the peer gives."""
    products: Callable[[np.ndarray, np.ndarray], object]
    """The matrix products in it."""
    records: int = 4000
    same: bool = True
    """Whether the two give the same numbers."""


def between_all(real: np.ndarray, generated: np.ndarray) -> list[np.ndarray]:
    """The products of all pairs of records."""
    return [one @ other.T for one, other in ((real, real), (generated, generated), (real, generated))]


MEASURES = {
    "neighbourhoods": Measure(
        "prdc", lambda *sets: list(distribution.precision_recall_density_coverage(*sets, 5)), between_all
    ),
    # tsgm's holds all pairs of all features at once, and counts each record as its own neighbour
    "mmd": Measure("tsgm", lambda *sets: [distribution.mmd(*sets, bandwidth=1.0)], between_all, records=1000, same=False),
    "frechet": Measure(
        "SciPy",
        lambda *sets: [distribution.frechet_distance(*sets).distance],
        lambda *sets: [side.T @ side for side in sets],
    ),
    "nearest": Measure(
        "scikit-learn",
        lambda real, generated: [float(distribution.nearest(generated, real)[0].mean())],
        lambda real, generated: generated @ real.T,
    ),
}


def single_measures(arguments: argparse.Namespace) -> None:
    """The table of measures beside published code."""
    rows, ratios = [], {}
    with tempfile.TemporaryDirectory() as folder, Worker("measures_peer.py", python=peers_python(arguments.peers)) as peer:
        for name in arguments.measures:
            measure, path = MEASURES[name], str(Path(folder) / f"{name}.npz")
            rng = np.random.default_rng(0)
            sets = rng.normal(size=(measure.records, 64)), rng.normal(0.1, 1.1, size=(measure.records, 64))
            np.savez(path, real=sets[0], generated=sets[1])
            published = peer.ask(name, path=path)[1:]
            if measure.same:
                np.testing.assert_allclose(measure.ours(*sets), published, rtol=1e-6)
            ways = {
                "ours": lambda work=measure.ours, sets=sets: seconds(lambda: work(*sets)),
                "peer": lambda name=name, path=path: peer.ask(name, path=path)[0],
                "limit": lambda work=measure.products, sets=sets: seconds(lambda: work(*sets)),
            }
            found = in_turns(ways, arguments.rounds)
            middle = {side: statistics.median(times) for side, times in found.items()}
            ratio = ratios[f"{name} over {measure.peer}"] = middle["peer"] / middle["ours"]
            spreads = [spread([1000 * took for took in found[side]], 0) for side in ("ours", "peer")]
            rows.append((name, measure.records, measure.peer, *spreads, f"{ratio:.1f}", f"{1000 * middle['limit']:.0f}"))
    show(("measure", "records", "published code", "ecgtf, ms", "published, ms", "ratio", "products alone, ms"), rows)
    compare("closeness", ratios, arguments.save)


def evaluate_group(folder: Path, group: str) -> None:
    """Evaluates one group and prints what it took; run in a process of its own."""
    sets, settings = (folder / "real", folder / "synthetic"), {"extractor": folder / "extractor", "out": folder / group}
    took = seconds(lambda: ecgtf.evaluate(*sets, task="rhythm7", groups=group.split(","), **settings))
    print(f"| {group.replace(',', ', ')} | {took:.0f} | {peak_memory():.2f} |")


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_peers(parser)
    parser.add_argument("--measures", nargs="*", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--groups", nargs="*", default=["distribution", "temporal", "physiology", "privacy"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        evaluate_group(arguments.folder, arguments.groups[0])
        return
    print(described())
    if arguments.measures:
        single_measures(arguments)
    if not arguments.groups:
        return
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), arguments.records
        write_set(folder / "real", 0, {"train": count, "test": count}, None)
        write_set(folder / "synthetic", 1, {"train": count}, {"run": "simulator", "settings": {}, "trained_on": []})
        from ecgtf.classifiers.classifier import train_classifier

        train_classifier("resnet1d", folder / "synthetic", folder / "extractor", task="rhythm7", preset="tiny", quiet=True)
        print(f"{count} training, {count} held-out and {count} synthetic records")
        print("| group | seconds | peak of memory (GiB) |\n|---|---|---|", flush=True)
        for group in dict.fromkeys([*arguments.groups, ",".join(arguments.groups)]):
            command = [sys.executable, __file__, "--folder", folder, "--groups", group]
            subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
