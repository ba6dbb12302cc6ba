"""The whole chain on simulated ECGs, small enough for a few minutes on a laptop: what the package does, in one function."""

from __future__ import annotations

import json
from pathlib import Path

from ecgtf.atomic import check_free, remove_folder, write_json
from ecgtf.classifiers.transfer import finetune
from ecgtf.closeness.evaluate import evaluate
from ecgtf.data_prep.prepare import prepare
from ecgtf.report.page import Section, add_sections
from ecgtf.synthesis import generate
from ecgtf.train_generator import train_generator

RECORDS = 560
TASK = "rhythm7"
GENERATOR_STEPS = (250, 350)
PER_CLASS = 40
REAL_FRACTION = 0.2
MARK = "demo.json"
"""The file that tells a demo's folder from any other with data sets and runs."""


def demo(out: str | Path = "reports/demo", *, seed: int = 0, overwrite: bool = False, quiet: bool = False) -> Path:
    """Simulates a collection, trains a small Time-VQVAE on it, draws from it, fine-tunes a classifier and writes the report.

    Everything lies in `out`: the data sets in `data`, the runs in `runs`, the report in `report`.

    Args:
        out: Folder of the demo.
        seed: Fixes every random choice.
        overwrite: Replace an earlier demo.
        quiet: Show no progress.

    Returns:
        The page.

    Raises:
        ValueError: if `out` is not empty (unless `overwrite` and it holds a demo).
    """
    out = Path(out)
    check_free(out, "demo", (out / MARK).is_file, overwrite)
    if overwrite and (out / MARK).is_file():
        remove_folder(out)
    out.resolve().mkdir(parents=True, exist_ok=True)  # also where a link leads to nothing
    write_json(out / MARK, {"seed": seed})
    real, synthetic, runs = out / "data" / "simulated", out / "data" / "synthetic", out / "runs"
    shared = {"seed": seed, "quiet": quiet}
    prepare(None, None, real, limit=RECORDS, seed=seed)
    generator = train_generator("vqvae", real, runs / "vqvae", task=TASK, preset="tiny", steps=GENERATOR_STEPS, **shared)
    generate(generator.folder, synthetic, per_class=PER_CLASS, **shared)
    tuned = finetune(real, runs / "finetuned", synthetic=synthetic, real_frac=REAL_FRACTION, task=TASK, preset="tiny", **shared)
    evaluate(real, synthetic, task=TASK, preset="tiny", out=out / "report", **shared)
    return add_sections(out / "report", [_transfer(json.loads((tuned.folder / "metrics.json").read_text())["test"])])


def _transfer(scores: dict) -> Section:
    """The fine-tuned classifier's scores as a section of the page."""
    rows = [
        [name, entry["n"], *(_number(entry.get(score)) for score in ("auroc", "f1"))]
        for name, entry in scores["per_class"].items()
    ]
    rows.append(["mean", scores["n"], *(_number(scores[score]["value"]) for score in ("macro_auroc", "macro_f1"))])
    return Section(
        "A classifier pre-trained on the synthetic records",
        f"Fine-tuned on {REAL_FRACTION:.0%} of the real training records, tested on the held-out real ones.",
        tables=[("Scores by class", ["class", "n", "AUROC", "F1"], rows)],
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
