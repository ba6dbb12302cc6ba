"""Seconds for 1,000 ECGs by every generator and sampler: `python benchmarks/samplers.py [--rounds 3] [--save]`.

The presets `small`, 12 leads x 1000 samples, trained for a step (the time does not depend on what was learnt), without guidance unless
said, batches of 32, or of 4 where a record takes hundreds of evaluations. What the samplers' records are like is `sampling.py`'s to say.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from machine import described
from tables import compare, options, show, spread
from workers import in_turns, seconds

from ecgtf.data_prep.prepare import prepare
from ecgtf.synthesis import TrainedGenerator, class_labels, load_run
from ecgtf.train_generator import train_generator

DIFFUSION = (
    {"sampler": "ddpm"},
    {"sampler": "ddim", "steps": 50},
    {"sampler": "dpmpp", "steps": 25},
    {"sampler": "dpmpp", "steps": 25, "guidance": 1.5},
    {"sampler": "dpmpp", "steps": 10},
)
FLOW = ({"sampler": "heun", "steps": 25}, {"sampler": "euler", "steps": 25}, {"sampler": "euler", "steps": 10})
TOKENS = ({"steps": (10, 10)}, {"steps": (10, 10), "guidance": 1.5})
GENERATORS = {
    "Time-Diffusion": ("timediffusion", {"steps": (1,)}, DIFFUSION),
    "DiffWave": ("diffwave", {"steps": (1,)}, DIFFUSION),
    "Time-Diffusion, flow matching": ("timediffusion", {"steps": (1,), "objective": "flow"}, FLOW),
    "DiffWave, flow matching": ("diffwave", {"steps": (1,), "objective": "flow"}, FLOW),
    "Time-VQVAE": ("vqvae", {"steps": (1, 1)}, TOKENS),
}
BATCH, FEW = 32, 4
FIRST = "Time-Diffusion, sampler dpmpp, steps 25"


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    arguments = parser.parse_args()
    print(described())
    rows, middle = [], {}
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        prepare(None, None, data, limit=100)
        for title in arguments.generators:
            kind, lengths, ways = GENERATORS[title]
            run = train_generator(kind, data, Path(name) / title, task="rhythm4", preset="small", quiet=True, **lengths)
            generator = load_run(run.folder)
            told = {", ".join(f"{key} {spelt(value)}" for key, value in way.items()): way for way in ways}
            works = {
                way: thousand(generator, settings, FEW if way == "sampler ddpm" else BATCH) for way, settings in told.items()
            }
            for work in works.values():
                work()  # compiles
            found = in_turns(works, arguments.rounds)
            rows += [(title, way, spread(times, 0)) for way, times in found.items()]
            middle |= {f"{title}, {way}": statistics.median(times) for way, times in found.items()}
    show(("generator", "sampling", "s for 1,000 ECGs"), rows)
    ratios = {f"{FIRST} over {way}": middle[FIRST] / took for way, took in middle.items()} if FIRST in middle else {}
    compare("samplers", ratios, arguments.save)


def thousand(generator: TrainedGenerator, settings: dict, batch: int) -> Callable[[], float]:
    """A function that draws a batch and gives the seconds that 1,000 records would take."""
    labels = class_labels(len(generator.classes), batch // len(generator.classes))
    return lambda: 1000 / batch * seconds(lambda: generator.generate(labels, **({"guidance": 1.0} | settings)))


def spelt(value: object) -> str:
    """As the command line takes it, but for the sign between two numbers."""
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    main()
