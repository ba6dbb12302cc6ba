"""Generators that travel: a run without what only its training needs, and the one that comes with the package."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ecgtf.atomic import replacing, replacing_folder
from ecgtf.run_folder import Run, check_replaceable
from ecgtf.synthesis import TrainedGenerator, load_run

PRETRAINED = Path(__file__).parent / "pretrained"
"""Run folder of the generator that comes with the package; its MODEL_CARD.md says what it is and what it is not."""

MANTISSA_BITS = {"float32": 10, "float16": 10, "bfloat16": 7}
"""Of a weight that travels, by the precision of its training: as many as its products saw, at most those of float16 (a relative
error of 0.05 %)."""


def load_pretrained() -> TrainedGenerator:
    """The generator that comes with the package.

    >>> signals, labels = load_pretrained().generate(per_class=2)  # doctest: +SKIP
    """
    return load_run(PRETRAINED)


def export(run: str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a finished generator as a small run folder for `generate`: no checkpoints, no logs, weights in about half the bytes.

    The hashed ids of its training records go along, so that a later evaluation can still refuse to test on them.

    Args:
        run: Run folder of train-generator.
        out: Folder to write.
        overwrite: Replace a run that is there.

    Raises:
        ValueError: if the run is not finished, or `out` is not empty or the run itself.
    """
    generator = load_run(run)
    there = generator.run
    out = Path(out)
    if out.resolve() == there.folder.resolve():
        raise ValueError(f"{out} is the run itself: name another --out")
    check_replaceable(out, overwrite)
    config = {
        name: value for name, value in there.config.items() if name not in ("schema", "versions", "finished", "checksums")
    }
    config["data"] = [Path(folder).name for folder in config["data"]]
    if config.get("start"):
        config["start"] = Path(config["start"]).name
    bits = MANTISSA_BITS[there.config["precision"]]
    generator.model.set_weights([rounded(weight, bits) for weight in generator.model.get_weights()])
    with replacing_folder(out) as unfinished:
        copy = Run.open(unfinished, config)
        copy.config["versions"] = there.config["versions"]  # those that it was trained with
        _compress(copy.save_model(generator.model))
        copy.write_trained_on(there.trained_on())
        copy.finish()
    return out


def rounded(weight: np.ndarray, bits: int) -> np.ndarray:
    """The nearest float32 numbers with so many bits of mantissa, which a compressed file holds in fewer bytes."""
    weight = np.asarray(weight)
    if weight.dtype != np.float32:
        return weight
    cut = np.uint32(23 - bits)
    half = np.uint32(1) << (cut - np.uint32(1))
    return (((weight.view(np.uint32) + half) >> cut) << cut).view(np.float32)


def _compress(archive: Path) -> None:
    """Packs what Keras stores as it is."""
    with (
        replacing(archive, archive.suffix) as smaller,
        zipfile.ZipFile(archive) as whole,
        zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
