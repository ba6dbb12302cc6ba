"""Trains a generator on data sets into a run folder: the two stages of Time-VQVAE, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ecgtf.augment import Augmentation, augmented
from ecgtf.dataset import Folders, combined_manifest, hash_id, load, load_arrays, read_labels
from ecgtf.ecg import LEADS
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.generators.token_prior import TokenPrior
from ecgtf.run_folder import Run
from ecgtf.tasks import Task, check_classes, get_task
from ecgtf.training import fit, make_optimizer, make_strategy, set_precision

SHOWN_LEADS = ("I", "II", "V1", "V5")


@dataclass(frozen=True)
class Preset:
    """Sizes and lengths of a Time-VQVAE and its training."""

    tokenizer: dict
    prior: dict
    steps: tuple[int, int]
    batch_size: int = 32
    learning_rates: tuple[float, float] = (2e-3, 2e-3)
    guidance: float = 2.0
    decoding_steps: tuple[int, int] = (32, 16)


PRESETS = {
    "tiny": Preset({"width": 64, "depth": 1}, {"width": 96, "depth": (3, 2)}, (200, 300)),
    "small": Preset({"width": 128, "depth": 2}, {"width": 128, "depth": (4, 4)}, (300, 400)),
    "base": Preset(
        {"width": 256, "depth": 2}, {"width": 256, "depth": (8, 6), "heads": 8}, (20_000, 40_000), 128, (1e-3, 5e-4)
    ),
    "paper": Preset(
        {"width": 128, "depth": 2, "decay": 0.8, "commitment": 1.0, "reset_below": 0.0},
        {"width": 128, "depth": (4, 1), "heads": 2, "mask_convention": "known", "causal": False},
        (20_000, 40_000),
        32,
        (1e-3, 1e-3),
        1.0,
        (10, 10),
    ),
}
"""Presets of Time-VQVAE: `tiny` for the demo, `small` for 2 cores, `base` for one GPU, `paper` near the published sizes."""


def train_vqvae(
    data: Folders,
    out: str | Path,
    *,
    task: str | Task = "rhythm7",
    preset: str = "small",
    steps: Sequence[int] | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    precision: str = "float32",
    leads: str = "independent",
    devices: int | None = None,
    balance: float = 0.5,
    balance_sources: float = 0.0,
    seed: int = 0,
    checkpoint_every: int = 200,
    max_minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_empty: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a Time-VQVAE on the training split of one or several data sets.

    Stage 1, the tokenizer, learns from every training record; stage 2, the prior of the tokens, from those with a class of the task,
    and ends with the weights of its best validation likelihood. Both see randomly shifted and scaled records.

    Args:
        data: Folders of data sets that agree on rate, seconds and leads.
        out: The run folder.
        task: What the classes are.
        preset: Sizes and lengths, a key of `PRESETS`.
        steps: Training steps of the two stages, in place of the preset's.
        batch_size: Records a step, over all devices.
        learning_rate: Peak learning rate of both stages.
        precision: `float32`, `bfloat16` or `float16`.
        leads: `independent` (8 leads modelled, 4 derived exactly) or `all`.
        devices: GPUs, or logical CPU devices, to train on.
        balance: 0 draws the records of stage 2 as they are, 1 every class equally often.
        balance_sources: The same for the data sets, in both stages.
        seed: Fixes weights, order and draws.
        checkpoint_every: Steps between checkpoints.
        max_minutes: Ends the training early and cleanly; 40 % of the time goes to stage 1.
        resume: Go on with an unfinished run.
        overwrite: Replace what is there.
        allow_empty: Accept classes without training records.
        quiet: Show no progress.

    Raises:
        ValueError: if the data, the task or an option does not fit.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    sizes = PRESETS[preset]
    steps = tuple(steps or sizes.steps)
    if len(steps) != 2 or min(steps) < 1:
        raise ValueError(f"Time-VQVAE has two stages: expected two numbers of steps such as 600,900, received {steps}")
    batch_size = batch_size or sizes.batch_size
    rates = (learning_rate, learning_rate) if learning_rate else sizes.learning_rates
    task = get_task(task)
    manifest = combined_manifest(data)
    check_classes(read_labels(data, "train", task), task, allow_empty)

    folders = [str(folder) for folder in ([data] if isinstance(data, str | Path) else data)]
    config = {
        "command": "train-generator",
        "kind": "vqvae",
        "data": folders,
        "task": task.reference,
        "classes": list(task.classes),
        "preset": preset,
        "steps": list(steps),
        "batch_size": batch_size,
        "learning_rates": list(rates),
        "precision": precision,
        "leads": leads,
        "balance": balance,
        "balance_sources": balance_sources,
        "seed": seed,
        "sampling": {"guidance": sizes.guidance, "steps": list(sizes.decoding_steps)},
    }
    if leads not in ("independent", "all"):
        raise ValueError(f"leads must be 'independent' or 'all', received {leads!r}")
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise ValueError(f"expected a learning rate above 0, received {learning_rate}")
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"expected max_minutes above 0, received {max_minutes}")
    set_precision(precision)
    run = Run.open(out, config, resume=resume, overwrite=overwrite)
    if run.finished:
        return run

    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    strategy = make_strategy(devices)
    signal = {
        "leads": manifest.leads,
        "samples": manifest.samples,
        "sampling_rate": manifest.sampling_rate,
        "scale": manifest.statistics["std"],
        "model_leads": leads,
        "seed": seed,
    }
    axis = 12.0 if manifest.leads == LEADS else 0.0  # degrees by which the heart's axis is turned at random
    every_record = load_arrays(data, "train")
    run.write_trained_on(hash_id(record) for record in every_record.ids)
    reading = {"batch_size": batch_size, "shuffle": True, "seed": seed, "repeat": True, "balance_sources": balance_sources}
    shared = {"run": run, "batch_size": batch_size, "checkpoint_every": checkpoint_every, "resume": resume, "quiet": quiet}

    if not (run.folder / "tokenizer.keras").exists():
        with strategy.scope():
            tokenizer = TimeVQVAE(**signal, **sizes.tokenizer)
            tokenizer.compile(make_optimizer(rates[0], steps[0]))
        rng = np.random.default_rng(seed)
        tokenizer.start_codebooks(every_record.signals[rng.permutation(len(every_record))[:256]])
        held_out = load_arrays(data, "validation", limit=8)

        def stream(step: int) -> tf.data.Dataset:
            batches = load(data, "train", None, **reading, start_batch=step)
            anywhere = Augmentation(gain=0.2, shift_seconds=manifest.seconds / 2, axis=axis)
            return augmented(batches, seed, step, anywhere, rate=manifest.sampling_rate, leads=manifest.leads)

        done = fit(
            tokenizer,
            stream,
            stage="tokenizer",
            steps=steps[0],
            validation=_validation(data, None, batch_size),
            pictures=lambda model: reconstruction_pictures(model, held_out.signals),
            max_minutes=None if max_minutes is None else 0.4 * max_minutes,
            **shared,
        )
        run.config["tokenizer_steps"] = done
        run.save_model(tokenizer, "tokenizer")

    del every_record
    keras.utils.set_random_seed(seed + 1)  # the same weights at the start, whether stage 1 ran just now or before a restart
    with strategy.scope():
        prior = TokenPrior(run.load_model("tokenizer"), task.classes, task.name, seed=seed, **sizes.prior)
        prior.compile(make_optimizer(rates[1], steps[1], weight_decay=0.03))

    def stream(step: int) -> tf.data.Dataset:
        batches = load(data, "train", task, **reading, start_batch=step, balance=balance)
        near = Augmentation(gain=0.2, shift_seconds=0.1, axis=axis)
        return augmented(batches, seed + 1, step, near, rate=manifest.sampling_rate, leads=manifest.leads)

    draw = tf.function(lambda label, seed: prior.sample(label, seed, guidance=sizes.guidance, steps=sizes.decoding_steps))
    done = fit(
        prior,
        stream,
        stage="prior",
        steps=steps[1],
        validation=_validation(data, task, batch_size),
        monitor="val_loss",
        pictures=lambda model: sample_pictures(model, draw, seed),
        max_minutes=None if max_minutes is None else max(0.1, max_minutes - (time.monotonic() - started) / 60),
        **shared,
    )
    run.save_model(prior)
    run.finish(prior_steps=done, minutes=round((time.monotonic() - started) / 60, 2))
    return run


def _validation(data: Folders, task: Task | None, batch_size: int) -> tf.data.Dataset | None:
    """Batches of the validation split; None where it is empty."""
    batches = load(data, "validation", task, batch_size=batch_size)
    return batches if batches.cardinality() else None


def reconstruction_pictures(model: TimeVQVAE, signals: np.ndarray) -> dict[str, np.ndarray]:
    """A picture of records and their reconstructions, one under the other."""
    if not len(signals):
        return {}
    signals = signals[:3]
    rebuilt = keras.ops.convert_to_numpy(model.reconstruct(signals))
    pairs = np.stack([signals, rebuilt], axis=1).reshape(-1, *signals.shape[1:])
    titles = [f"{kind} {k}" for k in range(len(signals)) for kind in ("record", "reconstruction")]
    return {"reconstructions": _picture(pairs, model, titles)}


def sample_pictures(model: TokenPrior, draw: Callable, seed: int) -> dict[str, np.ndarray]:
    """A picture of one sample of each class, always from the same seed; `draw(labels, seed)` is the compiled `sample`."""
    signals = draw(tf.eye(len(model.classes)), tf.constant([seed, 0])).numpy()
    return {"samples": _picture(signals, model, list(model.classes))}


def _picture(signals: np.ndarray, model, titles: list[str]) -> np.ndarray:
    from ecgtf.report.ecg_paper import ecg_grid, ecg_image

    shown = [lead for lead in SHOWN_LEADS if lead in model.leads] or list(model.leads[:4])
    return ecg_image(ecg_grid(signals, rate=model.sampling_rate, leads=model.leads, titles=titles, show_leads=shown))
