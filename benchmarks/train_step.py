"""Training steps against the published PyTorch code: `python benchmarks/train_step.py [--rounds 7] [--save]`.

The one-dimensional U-Net of denoising-diffusion-pytorch (dim 64, multipliers 1, 2, 4, 8) and DiffWave (64 channels, 20 layers) on
8 leads x 1000 samples: the same network, batch and precision on both sides, each in a process of its own, a step at a time in turns. Ours
is the whole `train_step`: it also scales the leads, conditions on a class, and averages the weights; the peer's is the network,
Adam and the clipping of the gradient. Printed are samples a second as medians of the rounds with the smallest and largest, the share of
the machine's matrix product (measured in the same turns) that the arithmetic of the step comes to, and the peak memory of the process.
At first both train the same weights on the same batches, and the losses are compared.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
from machine import described, limits
from peers import FOLDER, peers_python
from tables import compare, options, show, spread
from workers import Worker

BATCHES = {"unet": 16, "diffwave": 32}
PRECISIONS = ("float32", "bfloat16")
COLUMNS = (
    "network",
    "precision",
    "ecgtf, samples/s",
    "PyTorch, samples/s",
    "ratio",
    "share of the limit",
    "PyTorch's",
    "GB",
    "PyTorch's",
)


def loss_difference(name: str, python: Path, steps: int = 10, batch: int = 4) -> float:
    """The largest difference of the losses of both sides, in shares of the loss."""
    rng = np.random.default_rng(0)
    shape = (steps, batch, 8, 1000)
    x, noise = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    level = rng.uniform(0.1, 0.9, (steps, batch, 1, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        weights, given = str(Path(folder) / "weights.npz"), str(Path(folder) / "batches.npz")
        np.savez(given, x=x, noise=noise, level=level, at=rng.integers(0, 50, (steps, batch)))
        with Worker("network_peer.py", name, "float32", batch, python=python) as peer:
            peer.ask("parameters", path=weights)
            theirs = np.array(peer.ask("losses", path=given))
        with Worker("network_ours.py", name, "float32", batch) as ours:
            return float(np.max(np.abs(np.array(ours.ask("losses", weights=weights, given=given)) / theirs - 1)))


def main() -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--peers", type=Path, default=FOLDER, help="folder of the peers' virtual environment")
    arguments = parser.parse_args()
    python = peers_python(arguments.peers)
    print(described())
    for name in BATCHES:
        print(f"{name}: losses of ten steps differ by at most {loss_difference(name, python):.1e}", flush=True)
    rows, ratios, float32 = [], {}, {}
    machine = {"float32": [], "bfloat16": [], "memory_bandwidth": []}
    with Worker("machine.py", "--serve") as limit:
        for name, batch in BATCHES.items():
            for precision in PRECISIONS:
                case = (name, precision, batch)
                with Worker("network_ours.py", *case) as ours, Worker("network_peer.py", *case, python=python) as peer:
                    flops, rates = peer.ask("flops"), {ours: [], peer: []}
                    for worker in rates:
                        worker.ask("steps", times=2)  # compiles, and fills the caches
                    for _ in range(arguments.rounds):
                        for kind, value in limits(limit).items():
                            machine[kind].append(value)
                        for worker, found in rates.items():
                            found.append(batch / worker.ask("steps", times=1))
                    memory = [worker.ask("memory") for worker in rates]
                middle = [statistics.median(found) for found in rates.values()]
                limit_now = statistics.median(machine[precision][-arguments.rounds :]) * 1e9 / (flops / batch)
                ratios[f"{name} {precision} over PyTorch"] = middle[0] / middle[1]
                float32.setdefault(name, middle[1])
                ratios[f"{name} {precision} over PyTorch's float32"] = middle[0] / float32[name]
                rows.append(
                    (
                        f"{name}, batch {batch}",
                        precision,
                        *(spread(found) for found in rates.values()),
                        f"{middle[0] / middle[1]:.2f}",
                        *(f"{100 * rate / limit_now:.0f} %" for rate in middle),
                        *(f"{value:.1f}" for value in memory),
                    )
                )
    show(COLUMNS, rows)
    for kind, values in machine.items():
        print(f"limit, {kind.replace('_', ' ')}: {spread(values, 0)} {'GB/s' if kind == 'memory_bandwidth' else 'GFLOP/s'}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    compare("train_step", ratios, arguments.save)


if __name__ == "__main__":
    main()
