"""One cell of a study: a classifier trained as the cell says, and what it makes of the records to test on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import keras
import numpy as np

from ecgtf.atomic import remove_folder
from ecgtf.augment import Augmentation
from ecgtf.classifiers.classifier import train_classifier
from ecgtf.classifiers.examples import Examples, read_examples
from ecgtf.classifiers.fitting import judged
from ecgtf.classifiers.metrics import classification_metrics
from ecgtf.classifiers.networks import classifier_run, load_classifier, predict, training_preset
from ecgtf.classifiers.transfer import TOGETHER, finetune
from ecgtf.dataset import Folders, check_no_leak, combined_manifest
from ecgtf.run_folder import Run, is_finished, is_outdated
from ecgtf.studies.cells import Cell, tested_on
from ecgtf.studies.config import FOREST, Recipe, StudyConfig
from ecgtf.studies.feature_forest import FeatureForest, morphology_features, rhythm_features
from ecgtf.studies.results import Predictions, Row
from ecgtf.studies.sources import Workshop, leave_the_model, trained
from ecgtf.tasks import Task, get_task

_SETS_IN_MEMORY = 6


@dataclass(frozen=True)
class Trials:
    """Runs the cells of a study.

    Args:
        workshop: Makes folds, generators and synthetic sets.
        study: `augmentation` or `transfer`.
    """

    workshop: Workshop
    study: str
    _measured: dict[str, np.ndarray] = field(default_factory=dict)
    """Features of records by id: every forest sees the same."""

    @property
    def config(self) -> StudyConfig:
        """The study's settings."""
        return self.workshop.config

    @property
    def task(self) -> Task:
        """What the classes are."""
        return self.config.the_task

    def run(self, cell: Cell) -> list[tuple[Row, Predictions]]:
        """Trains a cell's classifier and tests it on the same fold of every collection; its run folder is deleted afterwards.

        Raises:
            LeakError: if a record to test on was trained on, by the classifier or by what it learnt from.
            ValueError: if the training is not possible, for instance because a class has no training records.
        """
        keras.backend.clear_session()
        real = self.workshop.fold(cell.collection, cell.fold, cell.fraction) if cell.fraction else None
        probabilities, score = self._forest(cell, real) if cell.classifier == FOREST else self._network(cell, real)
        return list(self._scored(cell, probabilities, score))

    def _network(self, cell: Cell, real: Path | None) -> tuple[dict[str, np.ndarray], float | None]:
        """Probabilities of the cell's network on each collection's test records, and its score on the validation records; without
        real records, the network is as its sources left it."""
        run = classifier_run(self._pretrained(cell, cell.stages, None)) if real is None else self._trained(cell, real)
        tests = {name: self._test(name, cell.fold) for name in tested_on(cell, self.config)}
        check_no_leak([*run.trained_on(), *run.chosen_by()], [record for test in tests.values() for record in test.ids])
        model = load_classifier(run)
        probabilities = {name: predict(model, test.signals) for name, test in tests.items()}
        if real is None:
            return probabilities, None
        validation = read_examples(real, "validation", self.task)
        remove_folder(run.folder)
        return probabilities, _score(validation, lambda: predict(model, validation.signals))

    def _test(self, collection: str, fold: int) -> Examples:
        return _examples(self.workshop.fold(collection, fold).resolve(), "test", self.config.task)

    def _scored(
        self, cell: Cell, probabilities: dict[str, np.ndarray], score: float | None
    ) -> Iterator[tuple[Row, Predictions]]:
        for name, likely in probabilities.items():
            test = self._test(name, cell.fold)
            scores = classification_metrics(
                test.labels, likely, self.task.classes, multi_label=self.task.multi_label, bootstrap=0
            )
            means = {key: scores[key]["value"] for key in ("macro_auroc", "macro_f1", "accuracy")}
            yield Row(cell, name, "", len(test), **means, validation_score=score), Predictions(test.ids, test.labels, likely)

    def _trained(self, cell: Cell, real: Path) -> Run:
        """The run of the cell's classifier."""
        recipe = self.config.recipes[cell.recipe]
        out = self.workshop.folder / "classifiers" / f"{self.study}-{cell.name}"
        if self.study == "augmentation":
            synthetic = self._source(cell, cell.source, real) if cell.stages else None
            more = {"synthetic": synthetic, "synthetic_ratio": cell.ratio, "mixing": cell.mixing} if cell.stages else {}
            return trained(out, train_classifier, cell.classifier, real, **self._fixed(cell), **_training(recipe), **more)
        if not cell.stages:
            return trained(out, train_classifier, cell.classifier, real, **self._fixed(cell), **_training(recipe))
        if cell.together:
            start = self._pretrained(cell, cell.stages[:-1], real) if len(cell.stages) > 1 else None
            return trained(
                out,
                finetune,
                real,
                from_run=start,
                synthetic=self._source(cell, cell.stages[-1], real),
                kind=cell.classifier,
                mode=TOGETHER,
                balance_sources=recipe.balance_sources,
                **self._fixed(cell),
                **_training(recipe) | _pretraining(cell, recipe),
            )
        start = self._pretrained(cell, cell.stages, real)
        rehearse = {}
        if recipe.rehearsal:
            rehearse = {"rehearse": self._source(cell, cell.stages[-1], real), "rehearsal": recipe.rehearsal}
        return trained(
            out,
            finetune,
            real,
            from_run=start,
            **self._fixed(cell),
            **_training(recipe) | {"steps": recipe.finetune_steps, "learning_rate": recipe.finetune_rate},
            mode=recipe.mode,
            **rehearse,
        )

    def _fixed(self, cell: Cell) -> dict:
        return {"task": self.config.task, "seed": cell.seed, "bootstrap": 0, "quiet": True}

    def _pretrained(self, cell: Cell, stages: tuple[str, ...], real: Path | None) -> Path:
        """The run of a classifier that learnt from the sources in turn; cells that differ in what follows share it. One that is
        finished is taken as it is, its sources are not read again, unless they were made anew."""
        folder = self.workshop.folder / "pretrained"
        if len(stages) > 1 and (folder / pretraining_name(cell, stages[:-1], self.config)).exists():
            self._pretrained(cell, stages[:-1], real)
        out = folder / pretraining_name(cell, stages, self.config)
        with self.workshop.alone(f"pretrained-{out.name}"):
            if not is_finished(out) or is_outdated(out):
                leave_the_model(self._pretrain(cell, stages, real, out))
        return out

    def _pretrain(self, cell: Cell, stages: tuple[str, ...], real: Path | None, out: Path) -> Run:
        recipe, fixed = self.config.recipes[cell.recipe], self._fixed(cell)
        before = self._pretrained(cell, stages[:-1], real) if len(stages) > 1 else None
        data = self._source(cell, stages[-1], real)
        if stages[-1] in self.config.sources:
            fixed["task"] = self.config.sources[stages[-1]].task or self.config.task
        training = _training(recipe) | _pretraining(cell, recipe)
        if before is None:
            return trained(out, train_classifier, cell.classifier, data, **fixed, **training)
        return trained(out, finetune, data, from_run=before, mode="full", **fixed, **training)

    def _source(self, cell: Cell, name: str, real: Path | None) -> Folders:
        """The data sets of a source, as the cell's classifier may see them; all of a generator's where there is nothing real."""
        if name in self.config.collections:
            return self.workshop.fold(name, cell.fold)
        if name in self.config.sources:
            return list(self.config.sources[name].data)
        recipe = self.config.recipes[cell.recipe]
        synthetic = self.workshop.synthetic(name, cell.collection, cell.fold, cell.seen)
        return self.workshop.kept(synthetic, real, recipe.keep, cell.classifier, cell.recipe, _training(recipe))

    def _forest(self, cell: Cell, real: Path) -> tuple[dict[str, np.ndarray], float | None]:
        """Probabilities of the feature forest on each collection's test records, and its score on the validation records."""
        train, validation = (read_examples(real, split, self.task) for split in ("train", "validation"))
        forest = FeatureForest().fit(self._features(train), train.labels, self.task.multi_label, cell.seed)
        tests = {name: self._test(name, cell.fold) for name in tested_on(cell, self.config)}
        probabilities = {name: forest.probabilities(self._features(test)) for name, test in tests.items()}
        return probabilities, _score(validation, lambda: forest.probabilities(self._features(validation)))

    def _features(self, examples: Examples) -> np.ndarray:
        """What a cardiologist measures of the rhythm; of the waves too where the classes are more than rhythms."""
        new = [place for place, name in enumerate(examples.ids) if name not in self._measured]
        if new:
            signals, rate, leads = examples.signals[new], *self._signal
            columns = [rhythm_features(signals, rate)]
            if self.task.multi_label:
                columns.append(morphology_features(signals, rate, leads))
            names = [examples.ids[place] for place in new]
            self._measured.update(zip(names, np.concatenate(columns, axis=1), strict=True))
        return np.stack([self._measured[name] for name in examples.ids])

    @cached_property
    def _signal(self) -> tuple[float, tuple[str, ...]]:
        manifest = combined_manifest(self.config.data_sets)
        return manifest.sampling_rate, manifest.leads


def pretraining_name(cell: Cell, stages: tuple[str, ...], config: StudyConfig) -> str:
    """A name for the pre-training on sources in turn: the same for all cells that share it."""
    depends = [cell.classifier, cell.recipe, "~".join(stages), f"seed{cell.seed}"]
    learned = any(stage in config.generators for stage in stages)
    if learned or any(stage in config.collections for stage in stages):
        depends = [cell.collection, cell.fold, *depends]  # ready sources are the same for all
    depends += [f"seen{cell.seen:g}"] if learned else []
    depends += [f"real{cell.fraction:g}"] if learned and config.recipes[cell.recipe].keep < 1 else []
    return "-".join(map(str, depends))


def _score(validation: Examples, predicted: Callable[[], np.ndarray]) -> float | None:
    """What recipes are chosen by; None without validation records, of which nothing can be predicted."""
    return judged(validation.labels, predicted())["val_score"] if len(validation) else None


def _training(recipe: Recipe) -> dict:
    """The arguments of a recipe that every training of a classifier takes."""
    return {
        "preset": recipe.preset,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "balance": recipe.balance,
        "augment": Augmentation.parse(recipe.augment),
        "patience": recipe.patience,
    }


def _pretraining(cell: Cell, recipe: Recipe) -> dict:
    """Steps and learning rate of a training on a source."""
    preset = training_preset(cell.classifier, recipe.preset)
    return {"steps": recipe.pretrain_steps or preset["steps"], "learning_rate": recipe.learning_rate or preset["learning_rate"]}


@lru_cache(maxsize=_SETS_IN_MEMORY)
def _examples(folder: Path, split: str, task: str) -> Examples:
    return read_examples(folder, split, get_task(task))
