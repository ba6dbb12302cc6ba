"""Seconds for 1,000 ECGs by every generator and sampler: `python benchmarks/samplers.py [--generators G ...] [--save]`.

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
from workers import Worker, in_turns, seconds

from ecgtf.data_prep.prepare import prepare
from ecgtf.synthesis import TrainedGenerator, class_labels, load_run
from ecgtf.train_generator import train_generator

DDPM = {"sampler": "ddpm"}
DIFFUSION = (
    DDPM,
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


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    arguments = parser.parse_args()
    print(described())
    rows, ratios = [], {}
    with tempfile.TemporaryDirectory() as name, Worker("machine.py", "--serve") as machine:
        data = Path(name) / "data"
        prepare(None, None, data, limit=100)
        for title in arguments.generators:
            kind, lengths, ways = GENERATORS[title]
            run = train_generator(kind, data, Path(name) / title, task="rhythm4", preset="small", quiet=True, **lengths)
            generator = load_run(run.folder)
            for way in ways:
                batch = FEW if way == DDPM else BATCH
                draw = thousand(generator, way, batch)
                draw()  # compiles
                found = in_turns({"machine": lambda: machine.ask("float32"), "ours": draw}, arguments.rounds)
                told = ", ".join(f"{key} {spelt(value)}" for key, value in way.items())
                rows.append((title, told, batch, spread(found["ours"], 0)))
                each = statistics.median(found["ours"]) / 1000
                ratios[f"{title}, {told}: records in the time of a TFLOP"] = 1000 / each / statistics.median(found["machine"])
            print(f"{title} done", flush=True)
    show(("generator", "sampling", "batch", "s for 1,000 ECGs"), rows)
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
