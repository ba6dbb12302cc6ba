"""Drawing against the published PyTorch networks: `python benchmarks/draw.py [--rounds 5] [--save]`.

A deterministic sampler of 10 evaluations, batch 16, without guidance, 8 leads x 1000 samples: ours as one compiled loop, theirs as a
loop of Python over the published network, in turns. Printed are network evaluations of a record a second, the ratio, what that makes
of 1,000 ECGs at 25 evaluations, and the peak memory.
"""

from __future__ import annotations

import statistics

from machine import described
from peers import add_peers, peers_python
from tables import compare, options, show, spread
from workers import Worker, in_turns

BATCH, EVALUATIONS = 16, 10
COLUMNS = (
    "network",
    "precision",
    "ecgtf, evaluations/s",
    "PyTorch",
    "ratio",
    "s for 1,000 ECGs",
    "PyTorch's",
    "GiB",
    "PyTorch's",
)


def main() -> None:
    parser = options(__doc__, rounds=5)
    add_peers(parser)
    arguments = parser.parse_args()
    python = peers_python(arguments.peers)
    print(described())
    rows, ratios = [], {}
    for name in ("unet", "diffwave"):
        for precision in ("float32", "bfloat16"):
            case = (name, precision, BATCH)
            with Worker("network_ours.py", *case) as ours, Worker("network_peer.py", *case, python=python) as peer:
                sides = {"ours": ours, "peer": peer}
                for worker in sides.values():
                    worker.ask("draw", evaluations=EVALUATIONS)  # compiles
                ways = {
                    side: lambda worker=worker: BATCH * EVALUATIONS / worker.ask("draw", evaluations=EVALUATIONS)
                    for side, worker in sides.items()
                }
                found = in_turns(ways, arguments.rounds)
                memory = [f"{worker.ask('memory'):.1f}" for worker in sides.values()]
            middle = [statistics.median(rates) for rates in found.values()]
            ratio = ratios[f"{name} {precision} over PyTorch"] = middle[0] / middle[1]
            spreads = [spread(rates, 0) for rates in found.values()]
            rows.append((name, precision, *spreads, f"{ratio:.2f}", *(f"{25_000 / rate:.0f}" for rate in middle), *memory))
    show(COLUMNS, rows)
    compare("draw", ratios, arguments.save)


if __name__ == "__main__":
    main()
