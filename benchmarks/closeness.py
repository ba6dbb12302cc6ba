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
from pathlib import Path

import numpy as np
from machine import described
from peers import FOLDER, peers_python
from tables import compare, options, show, spread
from workers import Worker, in_turns, peak_memory, seconds

import ecgtf
from ecgtf.closeness import distribution
from ecgtf.dataset import finish_dataset, shard_names, write_shard
from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_records

SAMPLES = 1000
MEASURED, FEW = 4000, 1000
"""Records of the single measures; those of tsgm's MMD, which holds all pairs of all features at once."""
PEERS = {"neighbourhoods": "prdc", "mmd": "tsgm", "frechet": "SciPy", "nearest": "scikit-learn"}


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


def single_measures(arguments: argparse.Namespace) -> None:
    """The table of measures beside published code."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(MEASURED, 64)), rng.normal(0.1, 1.1, size=(MEASURED, 64))
    some, others = real[:FEW], generated[:FEW]
    ours = {
        "neighbourhoods": lambda: list(distribution.precision_recall_density_coverage(real, generated, 5)),
        "mmd": lambda: [distribution.mmd(some, others, bandwidth=1.0)],
        "frechet": lambda: [distribution.frechet_distance(real, generated).distance],
        "nearest": lambda: [float(distribution.nearest(generated, real)[0].mean())],
    }
    products = {  # between sets of records, and covariances
        "neighbourhoods": lambda: [one @ other.T for one, other in ((real, real), (generated, generated), (real, generated))],
        "mmd": lambda: [one @ other.T for one, other in ((some, some), (others, others), (some, others))],
        "frechet": lambda: [side.T @ side for side in (real, generated)],
        "nearest": lambda: [generated @ real.T],
    }
    rows, ratios = [], {}
    with tempfile.TemporaryDirectory() as name:
        paths = {measure: str(Path(name) / f"{measure}.npz") for measure in ours}
        for measure, path in paths.items():
            sets = (some, others) if measure == "mmd" else (real, generated)
            np.savez(path, real=sets[0], generated=sets[1])
        with Worker("measures_peer.py", python=peers_python(arguments.peers)) as peer:
            for measure in arguments.measures:
                work = ours[measure]
                published = peer.ask(measure, path=paths[measure])[1:]
                if measure != "mmd":  # tsgm's counts each record as its own neighbour
                    np.testing.assert_allclose(work(), published, rtol=1e-6)
                found = in_turns(
                    {
                        "ours": lambda work=work: seconds(work),
                        "peer": lambda measure=measure: peer.ask(measure, path=paths[measure])[0],
                        "limit": lambda measure=measure: seconds(products[measure]),
                    },
                    arguments.rounds,
                )
                middle = {side: statistics.median(times) for side, times in found.items()}
                ratio = ratios[f"{measure} over {PEERS[measure]}"] = middle["peer"] / middle["ours"]
                spreads = [spread([1000 * took for took in found[side]], 0) for side in ("ours", "peer")]
                records = FEW if measure == "mmd" else MEASURED
                rows.append((measure, records, PEERS[measure], *spreads, f"{ratio:.1f}", f"{1000 * middle['limit']:.0f}"))
    show(("measure", "records", "published code", "ecgtf, ms", "published, ms", "ratio", "products alone, ms"), rows)
    compare("closeness", ratios, arguments.save)


def measure(folder: Path, group: str) -> None:
    """Evaluates one group and prints what it took; run in a process of its own."""
    sets, settings = (folder / "real", folder / "synthetic"), {"extractor": folder / "extractor", "out": folder / group}
    took = seconds(lambda: ecgtf.evaluate(*sets, task="rhythm7", groups=group.split(","), **settings))
    print(f"| {group.replace(',', ', ')} | {took:.0f} | {peak_memory():.2f} |")


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--peers", type=Path, default=FOLDER, help="folder of the peers' virtual environment")
    parser.add_argument("--measures", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--groups", nargs="*", default=["distribution", "temporal", "physiology", "privacy"])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.groups[0])
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
