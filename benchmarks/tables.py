"""Tables of what was measured, and what got slower since they were last saved.

Machines differ and are noisy: compared are ratios of one run, ours over the peer's or the machine's limit, never seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

SAVED = Path(__file__).parent / "saved"
SLOWER = 0.9
"""Ratios below this share of the saved ones are told."""


def options(about: str, rounds: int) -> argparse.ArgumentParser:
    """The options that every topic has; `about` is its docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--save", action="store_true", help="keep the ratios, to compare the next run with")
    return parser


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, and the smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints Markdown."""
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", sep="\n")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def compare(topic: str, ratios: Mapping[str, float], save: bool, folder: Path = SAVED) -> list[str]:
    """Prints and returns the names of ratios (larger is better) that got worse since the last saved run, and saves these."""
    path = folder / f"{topic}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    slower = [name for name, ratio in ratios.items() if name in before and ratio < SLOWER * before[name]]
    for name in slower:
        print(f"slower than saved: {name} {ratios[name]:.2f}, was {before[name]:.2f}")
    if before and not slower:
        print("nothing got slower than saved")
    if save:
        folder.mkdir(exist_ok=True)
        path.write_text(json.dumps(before | {name: round(ratio, 3) for name, ratio in ratios.items()}, indent=1) + "\n")
    return slower
