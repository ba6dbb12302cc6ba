"""Training steps against the published PyTorch code: `python benchmarks/train_step.py [--rounds 7] [--save]`.

The one-dimensional U-Net of denoising-diffusion-pytorch (dim 64, multipliers 1, 2, 4, 8) and DiffWave (64 channels, 20 layers) on
8 leads x 1000 samples: the same network, batch and precision on both sides, each in a process of its own, a step at a time in turns. Ours
is the whole `train_step`: it also scales the leads, conditions on a class, and averages the weights; the peer's is the network,
Adam and the clipping of the gradient. The U-Net of diffusers is another network, of which the share of the limit is compared. Printed are
samples a second as medians of the rounds with the smallest and largest, the share of the machine's matrix product (measured in the same
turns) that the arithmetic of the step comes to, and the peak memory of the process. At first both train the same weights on the same
batches, and the losses are compared.
"""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import described, limits
from peers import add_peers, peers_python
from tables import compare, options, show, spread
from workers import Worker, in_turns

BATCHES = {"unet": 16, "diffwave": 32, "diffusers": 16}
OTHER = "diffusers"
"""A network that ecgtf has not: how near it comes to the machine's limit is compared with how near our U-Net does."""
PRECISIONS = ("float32", "bfloat16")
COLUMNS = (
    "network",
    "precision",
    "ecgtf, samples/s",
    "PyTorch, samples/s",
    "ratio",
    "share of the limit",
    "PyTorch's",
    "GiB",
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


@dataclass
class Measured:
    """One network in one precision, on each side that has it."""

    rates: dict[str, list[float]]
    """Samples a second."""
    memory: dict[str, float]
    """Peak GiB."""
    most: float
    """Samples a second if all arithmetic went at the rate of a matrix product."""
    machine: list[dict[str, float]]
    """The machine's limits in each round."""

    def middle(self, side: str) -> float:
        """Median samples a second."""
        return statistics.median(self.rates[side])

    def share(self, side: str) -> float:
        """Of the machine's limit."""
        return self.middle(side) / self.most

    def cells(self) -> list[str]:
        """Of the table, ours before the peer's."""
        sides = ("ours", "peer")
        columns = (
            lambda side: spread(self.rates[side]),
            lambda side: f"{100 * self.share(side):.0f} %",
            lambda side: f"{self.memory[side]:.1f}",
        )
        return [column(side) if side in self.rates else "" for column in columns for side in sides]


def measure(name: str, precision: str, python: Path, rounds: int) -> Measured:
    """Training steps of both sides in turns, with the machine's limits between them."""
    batch = BATCHES[name]
    case = (name, precision, batch)
    with ExitStack() as stack:
        sides = {"peer": stack.enter_context(Worker("network_peer.py", *case, python=python))}
        if name != OTHER:
            sides["ours"] = stack.enter_context(Worker("network_ours.py", *case))
        machine = stack.enter_context(Worker("machine.py", "--serve"))
        flops = sides["peer"].ask("flops") / batch
        for worker in sides.values():
            worker.ask("steps", times=2)  # compiles, and fills the caches
        ways = {side: lambda worker=worker: batch / worker.ask("steps", times=1) for side, worker in sides.items()}
        rates = in_turns({"machine": lambda: limits(machine), **ways}, rounds)
        memory = {side: worker.ask("memory") for side, worker in sides.items()}
    limit = rates.pop("machine")
    return Measured(rates, memory, statistics.median(found[precision] for found in limit) * 1e9 / flops, limit)


def main() -> None:
    parser = options(__doc__, rounds=7)
    add_peers(parser)
    arguments = parser.parse_args()
    python = peers_python(arguments.peers)
    print(described())
    for name in ("unet", "diffwave"):
        print(f"{name}: losses of ten steps differ by at most {loss_difference(name, python):.1e}", flush=True)
    found = {
        (name, precision): measure(name, precision, python, arguments.rounds) for name in BATCHES for precision in PRECISIONS
    }
    rows, ratios = [], {}
    for (name, precision), case in found.items():
        if name == OTHER:
            ratio = found["unet", precision].share("ours") / case.share("peer")
            ratios[f"unet {precision} over {name}, shares of the limit"] = ratio
        else:
            ratio = case.middle("ours") / case.middle("peer")
            ratios[f"{name} {precision} over PyTorch"] = ratio
            ratios[f"{name} {precision} over PyTorch's float32"] = case.middle("ours") / found[name, "float32"].middle("peer")
        ours, peers, *rest = case.cells()
        rows.append((f"{name}, batch {BATCHES[name]}", precision, ours, peers, f"{ratio:.2f}", *rest))
    show(COLUMNS, rows)
    rounds = [limit for case in found.values() for limit in case.machine]
    for kind in rounds[0]:
        unit = "GB/s" if kind == "memory_bandwidth" else "GFLOP/s"
        print(f"limit, {kind.replace('_', ' ')}: {spread([limit[kind] for limit in rounds], 0)} {unit}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}")
    compare("train_step", ratios, arguments.save)


if __name__ == "__main__":
    main()
