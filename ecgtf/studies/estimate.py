"""A dry run: the cells of a study and how long they would take here, by timing a few steps of everything that is trained."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ecgtf.augment import Augmentation, augmented
from ecgtf.classifiers.examples import Examples
from ecgtf.classifiers.networks import new_classifier, training_preset
from ecgtf.conditions import encode
from ecgtf.dataset import Manifest, combined_manifest
from ecgtf.generators.presets import get_preset
from ecgtf.generators.stages import Stages
from ecgtf.precision import restoring_precision, set_precision
from ecgtf.studies.cells import Cell, part_of, study_cells
from ecgtf.studies.config import FOREST, GeneratorPlan, Recipe, StudyConfig
from ecgtf.studies.results import Results
from ecgtf.studies.runner import check_study
from ecgtf.studies.sources import Workshop, fold_name, judge_name, pool_labels, set_name
from ecgtf.studies.trials import pretraining_name
from ecgtf.training import make_optimizer

TIMED = 4
"""Steps that are timed, behind those that compile."""

OVERHEAD = 8.0
"""Seconds of a classifier's training beside its steps: data, graphs, validations."""

FOREST_SECONDS = 5.0

_DRAWN = 16  # records at once when drawing is timed


def describe(study: str, config: StudyConfig, out: str | Path, only: str | None = None) -> str:
    """The cells of a call of `run_study` and the time they would take, as text.

    Raises:
        LeakError: as `run_study`.
        ValueError: as `run_study`.
    """
    planned = study_cells(study, config)
    workshop, _ = check_study(study, config, Path(out), planned)
    cells = part_of(planned, only)
    done = Results(out).done(config)
    left = [cell for cell in cells if cell.name not in done]
    lines = [f"{count:5d} x {arm}" for arm, count in Counter(map(_arm, left)).items()]
    lines.append(f"{len(left)} cells to run, {len(cells) - len(left)} done")
    seconds = Forecast(study, workshop).seconds(left)
    lines += [f"{_spelt(value)}  {what}" for what, value in seconds.items() if value]
    lines.append(f"{_spelt(sum(seconds.values()))}  in all, in one process on this machine")
    return "\n".join(lines)


def _arm(cell: Cell) -> str:
    parts = [cell.collection, cell.classifier, cell.recipe, cell.source]
    parts += [f"ratio {cell.ratio:g} {cell.mixing}"] if cell.ratio else []
    parts += [f"{100 * cell.fraction:g} % real"] if cell.fraction < 1 else []
    parts += [f"generator saw {100 * cell.seen:g} %"] if cell.seen < 1 else []
    return ", ".join(part for part in parts if part)


def _spelt(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60:3d} h {minutes % 60:02d} min"


@dataclass(frozen=True)
class Forecast:
    """How long the work of a study takes on this machine."""

    study: str
    workshop: Workshop

    @property
    def config(self) -> StudyConfig:
        """The study's settings."""
        return self.workshop.config

    def seconds(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Seconds by kind of work, for what is not there yet."""
        trained = sum(self._cell(cell) for cell in cells)
        pretrained = sum(self._pretrainings(cells).values())
        generators, drawn = 0.0, 0.0
        for name, collection, fold, seen in self._synthetic(cells):
            folder = set_name(name, collection, fold, seen)
            training, drawing = generator_seconds(self.config.generators[name], self._signal, self.config.task)
            if not (self.config.work_folder / "generators" / folder / "model.keras").is_file():
                generators += training
            if not (self.config.work_folder / "synthetic" / folder / "dataset.json").is_file():
                drawn += drawing * self._drawn(name, collection, fold, seen)
        return {
            "classifiers of the cells": trained,
            "pre-training of classifiers": pretrained,
            "training of generators": generators,
            "drawing from generators": drawn,
        }

    def _cell(self, cell: Cell) -> float:
        if cell.classifier == FOREST:
            return FOREST_SECONDS
        if not cell.fraction:
            return OVERHEAD
        recipe = self.config.recipes[cell.recipe]
        after = self.study == "transfer" and cell.stages
        half = training_preset(cell.classifier, recipe.preset)["steps"] // 2
        steps = recipe.pretrain_steps if cell.together else (recipe.finetune_steps or half) if after else recipe.steps
        return self._training(cell.classifier, recipe, steps)

    def _training(self, classifier: str, recipe: Recipe, steps: int | None) -> float:
        """Seconds of a training, of the preset's length where None is given."""
        return OVERHEAD + (steps or training_preset(classifier, recipe.preset)["steps"]) * self._step(classifier, recipe)

    def _pretrainings(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Seconds of each pre-training, and of each classifier that filters, that is not there."""
        found = {}
        for cell in cells:
            recipe = self.config.recipes.get(cell.recipe)
            if recipe and recipe.keep < 1 and any(stage in self.config.generators for stage in cell.stages):
                name = judge_name(fold_name(cell.collection, cell.fold, cell.fraction), cell.classifier, cell.recipe)
                if not (self.config.work_folder / "judges" / name / "model.keras").is_file():
                    found[f"judge {name}"] = self._training(cell.classifier, recipe, recipe.steps)
            before = len(cell.stages) - cell.together if self.study == "transfer" else 0
            for count in range(1, before + 1):
                name = pretraining_name(cell, cell.stages[:count], self.config)
                if not (self.config.work_folder / "pretrained" / name / "model.keras").is_file():
                    found[name] = self._training(cell.classifier, recipe, recipe.pretrain_steps)
        return found

    def _synthetic(self, cells: Sequence[Cell]) -> list[tuple[str, str, int, float]]:
        """What is drawn from: generator, collection, fold and share of the real records."""
        asked = [
            (stage, cell.collection, cell.fold, cell.seen)
            for cell in cells
            for stage in cell.stages
            if stage in self.config.generators
        ]
        return list(dict.fromkeys(asked))

    def _drawn(self, generator: str, collection: str, fold: int, seen: float) -> int:
        labels = np.array([member.label for member in self.workshop.folds.of(collection, fold, "train")])
        return len(pool_labels(labels[: max(1, round(seen * len(labels)))], self.config, generator, collection, seen))

    def _step(self, classifier: str, recipe: Recipe) -> float:
        return classifier_step(classifier, recipe, self._signal)

    @cached_property
    def _signal(self) -> _Signal:
        manifest = combined_manifest(self.config.data_sets)
        return _Signal(manifest, len(self.config.the_task.classes))


@dataclass(frozen=True, eq=False)
class _Signal:
    """What the records are like, and random ones of that kind."""

    manifest: Manifest
    classes: int

    def batch(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Signals `(size, time, leads)` mV and one-hot labels."""
        rng = np.random.default_rng(0)
        signals = 0.3 * rng.standard_normal((size, self.manifest.samples, len(self.manifest.leads)))
        return signals.astype(np.float32), np.eye(self.classes, dtype=np.float32)[np.arange(size) % self.classes]


@lru_cache
def classifier_step(kind: str, recipe: Recipe, signal: _Signal) -> float:
    """Seconds of a training step, augmentation included."""
    preset = training_preset(kind, recipe.preset)
    signals, labels = signal.batch(recipe.batch_size or preset["batch_size"])
    examples = Examples(signals, labels, [""] * len(signals), [""] * len(signals))
    model = new_classifier(kind, examples, tuple(map(str, range(signal.classes))), False, recipe.preset)
    model.compile(make_optimizer(1e-3, 100), loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    stream = tf.data.Dataset.from_tensors((signals, labels)).repeat()
    how = Augmentation.parse(recipe.augment)
    batches = iter(augmented(stream, 0, 0, how, rate=signal.manifest.sampling_rate, leads=signal.manifest.leads))
    return _timed(lambda: model.train_on_batch(*next(batches)))


@lru_cache
@restoring_precision
def generator_seconds(plan: GeneratorPlan, signal: _Signal, task: str) -> tuple[float, float]:
    """Seconds of a generator's training, and of drawing a record."""
    sizes = get_preset(plan.kind, plan.preset, plan.objective).with_lengths(plan.steps, plan.learning_rate, plan.batch_size)
    manifest = signal.manifest
    told = {
        "leads": manifest.leads,
        "samples": manifest.samples,
        "sampling_rate": manifest.sampling_rate,
        "scale": manifest.statistics["std"],
        "model_leads": "independent",
    }
    classes = tuple(map(str, range(signal.classes)))
    stages = Stages(sizes, told, {"classes": classes, "task": task, "conditions": plan.conditions})
    set_precision(plan.precision)
    training, model = 0.0, None
    signals, labels = signal.batch(sizes.batch_size)
    for stage in sizes.stages:
        if stage.steps:
            model = stages.build(stage, model)
            model.compile(make_optimizer(stage.learning_rate, stage.steps))
            columns = labels if stage.name in ("tokenizer", "enhancer") else _with_unknown(labels, plan)
            step = tf.function(model.train_step)
            training += stage.steps * _timed(lambda step=step, columns=columns: step((signals, columns)))
    given = {"guidance": plan.guidance, "sampler": plan.sampler, "steps": plan.sampler_steps}
    options = dict(sizes.sampling) | {name: value for name, value in given.items() if value is not None}
    draw = tf.function(lambda label, seed: model.sample(label, seed, **options))
    some = tf.constant(_with_unknown(signal.batch(_DRAWN)[1], plan))
    drawing = _timed(lambda: draw(some, tf.constant([0, 0])).numpy(), times=1) / _DRAWN
    return training, drawing


def _with_unknown(labels: np.ndarray, plan: GeneratorPlan) -> np.ndarray:
    """Labels and the columns of conditions that nobody told."""
    return np.concatenate([labels, encode(plan.conditions, {}, len(labels))], axis=1)


def _timed(step: Callable[[], object], times: int = TIMED) -> float:
    """Seconds of a step, the first of which compile."""
    for _ in range(2):
        step()
    started = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - started) / times
