"""Trains a generator on data sets into a run folder, stage after stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ecgtf.augment import Augmentation, augmented
from ecgtf.conditions import check_names, draw_rates, encode, of_split, rates_by_class
from ecgtf.dataset import Folders, Manifest, combined_manifest, hash_id, load, load_arrays, read_ids, read_labels
from ecgtf.ecg import LEADS
from ecgtf.generators.base import Generator
from ecgtf.generators.fidelity_enhancer import FidelityEnhancer
from ecgtf.generators.presets import Preset, Stage, get_preset
from ecgtf.generators.stages import Stages, Start
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.judging import Judge
from ecgtf.manifest import listed
from ecgtf.pictures import reconstruction_pictures, sample_pictures
from ecgtf.precision import restoring_precision, set_precision
from ecgtf.run_folder import Run, check_apart, checksums
from ecgtf.tasks import Task, check_classes, get_task
from ecgtf.training import check_limits, fit, is_chief, make_optimizer, make_strategy

AUGMENTATION = Augmentation(gain=0.2, shift_seconds=2.5, axis=12.0)
"""How training records are changed unless told otherwise: a beat may then stand anywhere. Without all twelve leads no axis is turned."""


SIMULATED = "simulated"
"""The start that comes with the package for each kind of generator: preset `small`, trained on simulated records alone."""

CODEBOOK_RECORDS = 256
"""Records, at most, whose vectors the codebooks start from."""

_STARTS = Path(__file__).parent / "starts"


@restoring_precision
def train_generator(
    kind: str,
    data: Folders,
    out: str | Path,
    *,
    task: str | Task = "rhythm7",
    preset: str = "small",
    objective: str | None = None,
    steps: Sequence[int] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    start: str | Path | None = None,
    conditions: Sequence[str] = (),
    batch_size: int | None = None,
    accumulate: int = 1,
    learning_rate: float | None = None,
    precision: str = "float32",
    leads: str = "independent",
    devices: int | None = None,
    balance: float = 0.5,
    balance_sources: float = 0.0,
    augment: Augmentation | None = None,
    seed: int = 0,
    checkpoint_every: int = 200,
    judge: int = 0,
    max_minutes: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    allow_empty: bool = False,
    on_start: Callable[[Path], None] | None = None,
    quiet: bool = False,
) -> Run:
    """Trains a generator on the training split of one or several data sets, and ends with the weights of the best validation.

    Args:
        kind: `vqvae` (Time-VQVAE: a tokenizer, then the prior of its tokens, then an enhancer if it has steps), `diffwave` or
            `timediffusion`. Tokenizer and enhancer learn from every training record, the others from those with a class of the task.
        data: Folders of data sets that agree on rate, seconds and leads.
        out: The run folder.
        task: What the classes are.
        preset: Sizes and lengths, a key of `PRESETS[kind]`.
        objective: What a network that takes noise away is trained as, `diffusion` or `flow`; by default the preset's.
        steps: Training steps of each stage, in place of the preset's; 0 leaves out the enhancer.
        options: By stage, arguments of its model in place of the preset's, such as `{"denoiser": {"patch": 1}}`.
        start: Folder of a finished run of the same kind, preset and options whose weights this one starts from, stage by stage, or
            `simulated` for the one that comes with the package; an enhancer that it does not have starts afresh, and so do the
            vectors of classes and conditions that it does not know. Its training records count as this run's too. It is read again
            by `resume`, and must stay where it is until the end.
        conditions: What the generator is told of a record beside its classes, of `age`, `sex` and `heart_rate`.
        batch_size: Records a step, over all devices and workers.
        accumulate: Parts of a batch whose gradients are computed one after the other, to need the memory of one part.
        learning_rate: Peak learning rate of every stage.
        precision: `float32`, `bfloat16` or `float16`.
        leads: `independent` (8 leads modelled, 4 derived exactly) or `all`.
        devices: GPUs, or logical CPU devices, to train on.
        balance: 0 draws the records as they are, 1 every class equally often (not for the tokenizer).
        balance_sources: The same for the data sets.
        augment: How the training records are changed at random; by default `AUGMENTATION`, whose axis is for all twelve leads.
        seed: Fixes weights, order and draws.
        checkpoint_every: Steps between checkpoints.
        judge: Samples of each class that are drawn ten times in a training and compared with the validation split (see `Judge`), for
            the log; 0 draws none.
        max_minutes: Ends the training early and cleanly; of two stages the first gets 40 % of it.
        resume: Go on with an unfinished run.
        overwrite: Replace what is there.
        allow_empty: Accept classes without training records.
        on_start: Called with the run folder once all is checked and the training begins.
        quiet: Show no progress.

    Raises:
        ValueError: if the data, the task or an option does not fit, or the run to start from is no finished one of such a generator.
    """
    sizes = get_preset(kind, preset, objective).with_options(options or {}).with_lengths(steps, learning_rate, batch_size)
    task = get_task(task)
    manifest = combined_manifest(data)
    labels = read_labels(data, "train", task)
    check_classes(labels, task, allow_empty)
    usual = AUGMENTATION if manifest.leads == LEADS else replace(AUGMENTATION, axis=0.0)
    augment = usual if augment is None else augment
    augment.check_leads(manifest.leads)
    config = {
        "command": "train-generator",
        "kind": kind,
        "data": [str(folder) for folder in listed(data)],
        "task": task.reference,
        "classes": list(task.classes),
        "preset": preset,
        "objective": sizes.objective,
        "steps": [stage.steps for stage in sizes.stages],
        "conditions": list(conditions),
        "options": {stage.name: dict(stage.options) for stage in sizes.stages},
        "start": None if start is None else str(start),
        "batch_size": sizes.batch_size,
        "accumulate": accumulate,
        "learning_rates": [stage.learning_rate for stage in sizes.stages],
        "precision": precision,
        "leads": leads,
        "balance": balance,
        "balance_sources": balance_sources,
        "augment": str(augment),
        "seed": seed,
        "sampling": dict(sizes.sampling),
        "checksums": checksums(data, None if str(start) == SIMULATED else start),
    }
    check_names(conditions)
    if accumulate < 1 or sizes.batch_size % accumulate:
        raise ValueError(
            f"expected a batch size that accumulate divides, received {sizes.batch_size} and accumulate={accumulate}"
        )
    if leads not in ("independent", "all"):
        raise ValueError(f"leads must be 'independent' or 'all', received {leads!r}")
    check_limits(learning_rate, max_minutes)
    check_apart(start, out)
    set_precision(precision)
    strategy = make_strategy(devices, sizes.batch_size)
    signal = {
        "leads": manifest.leads,
        "samples": manifest.samples,
        "sampling_rate": manifest.sampling_rate,
        "scale": manifest.statistics["std"],
        "model_leads": leads,
    }
    label = {"classes": task.classes, "task": task.name, "conditions": tuple(conditions)}
    begun = None if start is None else _read_start(start, kind, sizes.objective)
    stages = Stages(sizes, signal, label, seed, begun)
    stages.check(strategy, accumulate, min(CODEBOOK_RECORDS, manifest.records_in("train")))
    unsaid = {"augment": str(usual)}  # what all runs were trained with before it could be chosen
    run = Run.open(out, config, resume=resume, overwrite=overwrite, writes=is_chief(), unsaid=unsaid)
    if run.finished:
        return run
    if on_start:
        on_start(run.folder)
    started = time.monotonic()
    training = Training(
        run=run,
        strategy=strategy,
        data=data,
        task=task,
        manifest=manifest,
        stages=stages,
        accumulate=accumulate,
        balance=balance,
        balance_sources=balance_sources,
        augment=augment,
        seed=seed,
        checkpoint_every=checkpoint_every,
        judge=judge,
        deadline=None if max_minutes is None else started + 60 * max_minutes,
        resume=resume,
        quiet=quiet,
    )
    if "heart_rate" in conditions and "heart_rates" not in run.config:
        training.keep_heart_rates(labels)
    model = training.train_vqvae() if kind == "vqvae" else training.train_denoiser()
    run.save_model(model)
    run.finish(minutes=round((time.monotonic() - started) / 60, 2))
    return run


def start_run(start: str | Path, kind: str) -> Run:
    """The run of a generator that another one of its kind starts from; `simulated` is the one that comes with the package.

    Raises:
        ValueError: if there is none.
    """
    return Run.load(_STARTS / kind if str(start) == SIMULATED else start)


def _read_start(folder: str | Path, kind: str, objective: str | None) -> Start:
    """The trained models of a run by stage, and what they were trained on.

    Raises:
        ValueError: if the folder holds no finished generator of this kind and objective.
    """
    run = start_run(folder, kind)
    if run.config.get("command") != "train-generator":
        raise ValueError(f"{folder} is {run.what}; expected a run of train-generator to start from")
    if not run.finished:
        raise ValueError(f"{folder} cannot be started from: its training has not come to an end; go on with its --resume")
    for name, value in (("kind", kind), ("objective", objective)):
        there = run.config.get(name)
        if there != value:
            raise ValueError(f"{folder} was trained with {name} {there}, this one has {value}; expected the same to start from")
    last = run.load_model()
    if kind == "vqvae":
        prior = last.prior if isinstance(last, FidelityEnhancer) else last
        # The tokenizer in the prior is the run's, and comes along in an exported run, which has no tokenizer.keras.
        models = {"tokenizer": prior.tokenizer, "prior": prior} | ({} if last is prior else {"enhancer": last})
    else:
        models = {"denoiser": last}
    return Start(str(folder), models, frozenset(run.trained_on()))


@dataclass(frozen=True)
class Training:
    """What the stages of a training share; the arguments of `train_generator`, looked up and checked."""

    run: Run
    strategy: tf.distribute.Strategy
    data: Folders
    task: Task
    manifest: Manifest
    stages: Stages
    accumulate: int
    balance: float
    balance_sources: float
    augment: Augmentation
    seed: int
    checkpoint_every: int
    judge: int
    deadline: float | None
    resume: bool
    quiet: bool

    @property
    def preset(self) -> Preset:
        """The stages and their lengths."""
        return self.stages.preset

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the generator is told beside the classes."""
        return self.stages.label["conditions"]

    @cached_property
    def told(self) -> dict[str, np.ndarray]:
        """The conditions of the training records: heart rates are measured once."""
        return of_split(self.conditions, self.data, "train", self.task)

    def keep_heart_rates(self, labels: np.ndarray) -> None:
        """Notes the heart rates of each class `(records, classes)`, from which one is drawn where none is asked for."""
        kept = labels if self.task.multi_label else labels[labels.any(axis=1)]
        self.run.config["heart_rates"] = rates_by_class(self.told["heart_rate"], kept, self.task.classes)
        self.run.write_config()

    def _write_trained_on(self, task: Task | None) -> None:
        """Keeps the ids of the training records, and of those of the run to start from: its weights have seen them."""
        before = self.stages.start.trained_on if self.stages.start else frozenset()
        self.run.write_trained_on(before.union(map(hash_id, read_ids(self.data, "train", task))))

    def train_vqvae(self) -> Generator:
        """The tokenizer, the prior and, if it is asked for, the enhancer, but for those that an earlier start of the run finished."""
        first, second, third = self.preset.stages
        self._write_trained_on(None)
        if (self.run.folder / "tokenizer.keras").exists():
            tokenizer = self.run.load_model("tokenizer")
        else:
            tokenizer = self._train_tokenizer(first)
        if (self.run.folder / "prior.keras").exists():
            prior = self.run.load_model("prior")
        else:
            prior = self._train_prior(second, tokenizer)
        return self._train_enhancer(third, prior) if third.steps else prior

    def _train_tokenizer(self, stage: Stage) -> TimeVQVAE:
        tokenizer = self._made(stage, 0)
        if self.stages.start is None:  # else the codes are those that the decoder knows
            some = load(self.data, "train", None, batch_size=CODEBOOK_RECORDS, shuffle=True, seed=self.seed)
            tokenizer.start_codebooks(next(iter(some))[0].numpy())
        held_out = load_arrays(self.data, "validation", limit=8).signals
        self._fit(
            tokenizer,
            stage,
            self._stream(None, self.seed),
            self._validation(None),
            best=False,
            pictures=lambda model: reconstruction_pictures(model, held_out),
            share=0.4,
        )
        self.run.save_model(tokenizer, "tokenizer")
        return tokenizer

    def _train_prior(self, stage: Stage, tokenizer: Generator) -> Generator:
        prior = self._made(stage, 1, tokenizer)
        self._fit(
            prior,
            stage,
            self._stream(self.task, self.seed + 1),
            self._validation(self.task),
            **self._shown(prior, stage),
            share=0.8 if self.preset.stages[2].steps else 1.0,
        )
        if self.preset.stages[2].steps:
            self.run.save_model(prior, "prior")
        return prior

    def _train_enhancer(self, stage: Stage, prior: Generator) -> Generator:
        enhancer = self._made(stage, 2, prior)
        self._fit(
            enhancer,
            stage,
            self._stream(None, self.seed + 2),
            self._validation(None),
            **self._shown(enhancer, stage),
        )
        return enhancer

    def train_denoiser(self) -> Generator:
        """The only stage of a diffusion or flow model."""
        (stage,) = self.preset.stages
        self._write_trained_on(self.task)
        model = self._made(stage, 0)
        self._fit(
            model,
            stage,
            self._stream(self.task, self.seed),
            self._validation(self.task),
            **self._shown(model, stage),
        )
        return model

    def _made(self, stage: Stage, number: int, before: Generator | None = None) -> Generator:
        """A new model of a stage, compiled, with the weights that its number and the seed give."""
        keras.utils.set_random_seed(self.seed + number)
        with self.strategy.scope():
            model = self.stages.build(stage, before)
            optimizer = make_optimizer(stage.learning_rate, stage.steps, weight_decay=stage.weight_decay)
            model.compile(optimizer, accumulate=self.accumulate)
        return model

    def _fit(
        self,
        model: Generator,
        stage: Stage,
        stream: Callable,
        validation: tf.data.Dataset | None,
        *,
        best: bool = True,
        share: float = 1.0,
        **options,
    ) -> None:
        """Trains a stage, for at most this share of the time that is left; it ends with the last weights, or the best where there is a
        validation to tell."""
        left = None if self.deadline is None else max(0.1, share * (self.deadline - time.monotonic()) / 60)
        done = fit(
            model,
            stream,
            stage=stage.name,
            steps=stage.steps,
            max_minutes=left,
            run=self.run,
            validation=validation,
            monitor="val_loss" if best and validation is not None else None,
            batch_size=self.preset.batch_size,
            checkpoint_every=self.checkpoint_every,
            resume=self.resume,
            quiet=self.quiet,
            **options,
        )
        self.run.config[f"{stage.name}_steps"] = done
        self.run.write_config()

    def _stream(self, task: Task | None, seed: int) -> Callable[[int], tf.data.Dataset]:
        """Batches of the training split from a step on, augmented."""
        manifest = self.manifest
        more = self._columns("train", task)

        def stream(step: int) -> tf.data.Dataset:
            batches = load(
                self.data,
                "train",
                task,
                batch_size=self.preset.batch_size,
                shuffle=True,
                seed=self.seed,
                repeat=True,
                balance=self.balance if task else 0.0,
                balance_sources=self.balance_sources,
                start_batch=step,
                more=more,
            )
            return augmented(batches, seed, step, self.augment, rate=manifest.sampling_rate, leads=manifest.leads)

        return stream

    def _validation(self, task: Task | None) -> tf.data.Dataset | None:
        """Batches of the validation split; None where it is empty."""
        batches = load(self.data, "validation", task, batch_size=self.preset.batch_size, more=self._columns("validation", task))
        return batches if batches.cardinality() else None

    def _columns(self, split: str, task: Task | None) -> np.ndarray | None:
        """The conditions of the records of a split, where the generator is told any."""
        if task is None or not self.conditions:
            return None
        values = self.told if split == "train" else of_split(self.conditions, self.data, split, task)
        return encode(self.conditions, values, len(values[self.conditions[0]]))

    def _shown(self, model: Generator, stage: Stage) -> dict[str, Any]:
        """What `fit` shows of a generator: a picture of one sample of each class, and figures of more, always from the same seeds."""
        compiled = tf.function(lambda label, seed: model.sample(label, seed, **self.preset.sampling))
        classes = np.eye(len(self.task.classes), dtype="float32")

        def drawn(number: int) -> np.ndarray:
            told = {}
            if "heart_rate" in self.conditions:
                places = np.random.default_rng([self.seed, number]).uniform(size=len(classes))
                told = {"heart_rate": draw_rates(self.run.config["heart_rates"], classes, self.task.classes, places)}
            labels = np.concatenate([classes, encode(self.conditions, told, len(classes))], axis=1)
            return compiled(tf.constant(labels), tf.constant([self.seed, number])).numpy()

        shown = {"pictures": lambda model: sample_pictures(model, drawn(0))}
        held_out = load_arrays(self.data, "validation", self.task) if self.judge else ()
        if not len(held_out):
            return shown
        judge = Judge(held_out.signals, held_out.labels, self.manifest.leads, self.manifest.sampling_rate, self.task.classes)

        def figures(_: Generator) -> dict[str, float]:
            return judge(np.concatenate([drawn(1 + k) for k in range(self.judge)]), np.tile(classes, (self.judge, 1)))

        return shown | {"figures": figures, "figures_every": max(1, stage.steps // 10)}
