"""Ways of drawing from one trained generator, side by side: `python benchmarks/sampling.py RUN DATA steps=10 steps=50`.

Each way is a list of sampling options, such as `sampler=ddim,steps=25,guidance=2` (a tuple as `steps=32+16`); an empty one is the run's
own. From the same labels and seed, each draws the same number of records of each class. Printed are the seconds per 1,000 records (of
a second batch; the first one compiles), the closeness to the held-out records with its floor, and for each class the median heart rate
with its 5th and 95th percentile and the median RMSSD, beside the real records'.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import ecgtf
from ecgtf.closeness.physiology import measure
from ecgtf.dataset import load_arrays
from ecgtf.synthesis import class_labels, generate, load_run

COLUMNS = (
    "frechet_distance",
    "coverage",
    "heart_rate_distance",
    "rmssd_distance",
    "p_wave_distance",
    "near_copy_rate",
    "lead_inconsistency",
)


def options(text: str) -> dict:
    """The sampling options in `sampler=ddim,steps=25`."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        values = [_number(piece) for piece in value.split("+")]
        found[name] = values[0] if len(values) == 1 else tuple(values)
    return found


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _with_interval(metric: dict) -> str:
    interval = "" if metric["low"] is None else f" ({metric['low']:.3g} to {metric['high']:.3g})"
    return f"{metric['value']:.3g}{interval}"


def rhythm(signals: np.ndarray, labels: np.ndarray, rate: float) -> list[str]:
    """For each class the median heart rate (5th to 95th percentile), RMSSD and P-wave score."""
    found = measure(signals, rate)
    cells = []
    for members in labels.T > 0:
        rates, irregular, p_wave = found.heart_rate[members], found.rmssd[members], found.p_wave[members]
        low, middle, high = np.nanpercentile(rates, [5, 50, 95]) if np.isfinite(rates).any() else [np.nan] * 3
        cells.append(f"{middle:.0f} ({low:.0f}-{high:.0f}), {np.nanmedian(irregular):.0f} ms, {np.nanmedian(p_wave):.2f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("ways", nargs="*", default=[""])
    parser.add_argument("--extractor", help="classifier run whose features are compared (default: one is trained, each time)")
    parser.add_argument("--per-class", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    generator = load_run(arguments.run)
    labels = class_labels(len(generator.classes), arguments.per_class)
    real = load_arrays(arguments.data, "train", generator.task)
    print(
        "| way | s per 1,000 |",
        *(f" {name.replace('_', ' ')} |" for name in COLUMNS),
        *(f" {name} |" for name in generator.classes),
        sep="",
    )
    print("|---" * (2 + len(COLUMNS) + len(generator.classes)), "|", sep="")
    print(
        "| real training records | |",
        " |" * len(COLUMNS),
        *(f" {cell} |" for cell in rhythm(real.signals, real.labels, real.manifest.sampling_rate)),
        sep="",
    )
    for way in arguments.ways:
        chosen = options(way)
        some = labels[: generator.batch_size]
        list(generator.batches(some, arguments.seed, **chosen))  # compiles
        start = time.perf_counter()
        list(generator.batches(some, arguments.seed, **chosen))
        seconds = (time.perf_counter() - start) / len(some) * 1000
        given = {"sampler_steps" if name == "steps" else name: value for name, value in chosen.items()}
        with tempfile.TemporaryDirectory() as folder:
            made = generate(
                arguments.run, Path(folder) / "set", per_class=arguments.per_class, seed=arguments.seed, quiet=True, **given
            )
            parts = [load_arrays(made, split, generator.task) for split in ("train", "validation")]
            signals, drawn = (np.concatenate([getattr(part, of) for part in parts]) for of in ("signals", "labels"))
            found = ecgtf.evaluate(
                arguments.data,
                made,
                task=generator.task,
                groups=("distribution", "physiology", "privacy"),
                extractor=arguments.extractor,
            )["metrics"]
        cells = [f" {_with_interval(found[name])} |" for name in COLUMNS]
        print(
            f"| {way or 'as trained'} | {seconds:.0f} |",
            *cells,
            *(f" {cell} |" for cell in rhythm(signals, drawn, generator.model.sampling_rate)),
            sep="",
            flush=True,
        )
    floors = [f" {found[name]['floor']:.3g} |" for name in COLUMNS]
    print("| floor | |", *floors, " |" * len(generator.classes), sep="")


if __name__ == "__main__":
    main()
