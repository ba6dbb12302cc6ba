"""What classifiers learn from beside real records: generators trained fold by fold, what is drawn from them, and what is kept of it."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ecgtf.atomic import remove_folder, replacing_folder
from ecgtf.classifiers import MIXINGS
from ecgtf.classifiers.classifier import train_classifier
from ecgtf.classifiers.examples import dealt, share
from ecgtf.classifiers.networks import load_classifier, predict
from ecgtf.dataset import finish_dataset, load_arrays, read_labels, read_manifest, read_records, write_split
from ecgtf.run_folder import Run, is_finished
from ecgtf.studies.cells import Cell
from ecgtf.studies.config import StudyConfig
from ecgtf.studies.folds import Folds, make_folds, write_fold
from ecgtf.synthesis import generate
from ecgtf.tasks import Task
from ecgtf.train_generator import train_generator


@dataclass(frozen=True)
class Workshop:
    """Makes what the cells of a study need, once: folds, generators, synthetic sets. All of it lies in the study's work folder.

    Everything here is a function of the settings and its seed: what was made before is taken as it is, what was interrupted goes on.
    Processes that need the same thing wait for each other.
    """

    config: StudyConfig
    quiet: bool = False
    _failed: dict[str, Exception] = field(default_factory=dict)
    """Why generators could not be trained: one that diverged is not tried again by each of its cells, but by each process."""

    @property
    def folder(self) -> Path:
        """The work folder."""
        return self.config.work_folder

    @cached_property
    def folds(self) -> Folds:
        """Where each record stands."""
        return make_folds(self.config)

    def fold(self, collection: str, fold: int, fraction: float = 1.0) -> Path:
        """The data set of a fold, with a share of its training and validation records."""
        with self.alone(name := fold_name(collection, fold, fraction)):
            return write_fold(self.folds, collection, fold, fraction, self.folder / "folds" / name)

    def generator(self, name: str, collection: str, fold: int, seen: float) -> Path:
        """The run of a generator trained on a share of a fold's training records; one that is finished is taken as it is."""
        data, plan = self.fold(collection, fold, seen), self.config.generators[name]
        out = self.folder / "generators" / set_name(name, collection, fold, seen)
        if out.name in self._failed:
            raise self._failed[out.name]
        with self.alone(out.name):
            if is_finished(out):
                return out
            try:
                run = trained(
                    out,
                    train_generator,
                    plan.kind,
                    data,
                    task=self.config.task,
                    preset=plan.preset,
                    objective=plan.objective,
                    steps=plan.steps,
                    start=plan.start,
                    conditions=plan.conditions,
                    batch_size=plan.batch_size,
                    learning_rate=plan.learning_rate,
                    precision=plan.precision,
                    balance=plan.balance,
                    seed=self.config.seed,
                    quiet=self.quiet,
                )
            except Exception as error:
                self._failed[out.name] = error
                raise
            leave_the_model(run)
        return out

    def synthetic(self, name: str, collection: str, fold: int, seen: float) -> Path:
        """The set drawn from a generator: enough for every ratio that the study asks for; a larger one later draws it anew."""
        plan, task = self.config.generators[name], self.config.the_task
        out = self.folder / "synthetic" / set_name(name, collection, fold, seen)
        real = read_labels(self.fold(collection, fold, seen), "train", task)
        labels = pool_labels(real, self.config, name, collection, seen)
        with self.alone(f"synthetic-{out.name}"):
            if not _enough(out, labels, task):
                generate(
                    self.generator(name, collection, fold, seen),
                    out,
                    labels=labels,
                    guidance=plan.guidance,
                    sampler=plan.sampler,
                    sampler_steps=plan.sampler_steps,
                    precision=plan.precision,
                    seed=self.config.seed + fold,
                    overwrite=True,
                    quiet=self.quiet,
                )
        return out

    def kept(self, synthetic: Path, real: Path | None, share: float, classifier: str, name: str, recipe: dict) -> Path:
        """The share of a synthetic set, class by class, that a classifier trained on these real records by the recipe of this name
        finds most probable; none are needed to keep all of it."""
        if share == 1:
            return synthetic
        judge = self.folder / "judges" / judge_name(real.name, classifier, name)
        out = self.folder / "kept" / f"{synthetic.name}-by-{judge.name}"
        with self.alone(f"kept-{judge.name}"):
            if not (out / "dataset.json").is_file() or read_manifest(out).provenance["of"] != read_manifest(synthetic).checksum:
                run = trained(
                    judge,
                    train_classifier,
                    classifier,
                    real,
                    task=self.config.task,
                    seed=self.config.seed,
                    bootstrap=0,
                    quiet=True,
                    **recipe,
                )
                _keep(synthetic, out, share, run, self.config)
                leave_the_model(run)
        return out

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Holds other processes back that would make the same thing."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check_supply(workshop: Workshop, study: str, cells: Sequence[Cell]) -> None:
    """Refuses ready sources that hold fewer records than cells add to real ones: no ratio would be what it is called.

    Raises:
        ValueError: naming the first of them.
    """
    config, task = workshop.config, workshop.config.the_task
    adding = {
        (cell.collection, cell.fold, cell.stages[-1], cell.fraction, *_added(study, cell, config))
        for cell in cells
        if cell.stages and cell.stages[-1] in config.sources and cell.fraction
    }
    adding = sorted(each for each in adding if each[4])
    held_by = {name: read_labels(list(config.sources[name].data), "train", task) for name in {each[2] for each in adding}}
    for collection, fold, name, fraction, ratio, mixing in adding:
        labels = np.array([member.label for member in workshop.folds.of(collection, fold, "train")])
        real = labels[share(labels, fraction, config.seed)]
        there = held_by[name]
        if task.multi_label:
            lacking = [("all classes", len(there), round(ratio * len(real)))]
        else:
            lacking = zip(task.classes, there.sum(axis=0).astype(int), dealt(real.sum(axis=0), ratio, mixing), strict=True)
        for what, held, asked in lacking:
            if held < asked:
                raise ValueError(
                    f"the source {name} holds {held} records of {what} to learn from, but {asked} are to be added to {collection} "
                    f"({ratio:g} for each real one, {mixing}): make more of them, or ask for less"
                )


def _added(study: str, cell: Cell, config: StudyConfig) -> tuple[float, str]:
    """The synthetic records that stand beside each real one in a cell's training, and how they are dealt to the classes."""
    if study == "augmentation":
        return cell.ratio, cell.mixing
    if cell.together:  # with all of them
        return 0.0, MIXINGS[0]
    return config.recipes[cell.recipe].rehearsal, MIXINGS[0]


def fold_name(collection: str, fold: int, fraction: float) -> str:
    """The folder of a fold's data set, with a share of its real records."""
    return f"{collection}-{fold}-real{fraction:g}"


def set_name(generator: str, collection: str, fold: int, seen: float) -> str:
    """The folder of a generator trained on a share of a fold, and of what is drawn from it."""
    return f"{generator}-{fold_name(collection, fold, seen)}"


def judge_name(real: str, classifier: str, recipe: str) -> str:
    """The folder of a classifier trained on the data set `real`, by which synthetic records are kept or not."""
    return f"{real}-{classifier}-{recipe}"


def pool_labels(labels: np.ndarray, config: StudyConfig, generator: str, collection: str, seen: float = 1.0) -> np.ndarray:
    """The labels `(n, classes)` to draw from a generator that saw a share of a fold's training records, which have `labels`: what every
    ratio and mixing that the study asks of it there needs, and every recipe.

    A ninth more follows, class by class, for the last tenth of a set is its validation split. Where classes do not exclude each
    other, labels are those of the training records over and over, in an order of their own; twice as many where rare classes are
    to come first, for there they are picked from what was drawn.
    """
    task, rng = config.the_task, np.random.default_rng(config.seed)
    grids = [
        grid
        for grid in config.grids.get("augmentation", ())
        if seen == 1 and generator in grid.sources and collection in (grid.collections or config.all_collections)
    ]
    rehearsal = max((recipe.rehearsal for recipe in config.recipes.values()), default=0.0)
    keep = min((recipe.keep for recipe in config.recipes.values()), default=1.0)
    asked = {(ratio, mixing) for grid in grids for ratio in grid.ratios for mixing in grid.mixings} | {(rehearsal, MIXINGS[0])}
    if task.multi_label:
        wanted = max(ratio * len(labels) * (1 if mixing == MIXINGS[0] else 2) for ratio, mixing in asked)
        wanted = max(wanted, config.pool_per_class * len(task.classes)) / keep / 0.9
        places = np.tile(rng.permutation(len(labels)), int(np.ceil(wanted / len(labels))))[: int(np.ceil(wanted))]
        return labels[places]
    sizes = labels.sum(axis=0)
    counts = [dealt(sizes, ratio, mixing) for ratio, mixing in sorted(asked)]
    train = np.ceil(np.max([*counts, np.full(len(sizes), config.pool_per_class)], axis=0) / keep).astype(int)
    one_hot = np.eye(len(sizes), dtype=np.float32)
    parts = [rng.permutation(np.repeat(one_hot, part, axis=0)) for part in (train, -(-train // 9))]
    return np.concatenate(parts)


def _enough(folder: Path, labels: np.ndarray, task: Task) -> bool:
    """Whether a set holds as many records of each class as are asked for: one that was drawn for smaller ratios is drawn anew."""
    if not (folder / "dataset.json").is_file():
        return False
    there = sum(read_labels(folder, split, task).sum(axis=0) for split in ("train", "validation"))
    return bool((there >= labels.sum(axis=0)).all())


def trained(out: Path, train: Callable[..., Run], *what, **options) -> Run:
    """The run of a training in `out`. What a killed one left there goes on, unless it was of other records or settings: of a source
    made anew since, of a work folder that was elsewhere, of an earlier state of the package."""
    left = (out / "config.json").is_file()
    try:
        return train(*what, out=out, resume=True, **options)
    except ValueError:
        if not left:
            raise
    remove_folder(out)
    return train(*what, out=out, **options)


def leave_the_model(run: Run) -> None:
    """Deletes what only a training that goes on needs: hundreds of runs would fill a disk."""
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(run.folder / name, ignore_errors=True)


def _keep(synthetic: Path, out: Path, share: float, run: Run, config: StudyConfig) -> None:
    """Writes the best share of a synthetic set as a set; the classifier's training records count as the set's own from then on."""
    manifest, model, task = read_manifest(synthetic), load_classifier(run), config.the_task
    seen = sorted({*manifest.generator["trained_on"], *run.trained_on()})
    description = {
        "name": out.name,
        "sampling_rate": manifest.sampling_rate,
        "seconds": manifest.seconds,
        "leads": manifest.leads,
        "sources": manifest.sources,
        "provenance": {"command": "study", "kept": share, "of": manifest.checksum},
        "generator": manifest.generator | {"trained_on": seen},
    }
    with replacing_folder(out) as unfinished:
        summaries = []
        for split in ("train", "validation"):
            arrays = load_arrays(synthetic, split, task)
            likely = predict(model, arrays.signals)
            names = {arrays.ids[place] for place in best_share(arrays.labels, likely, share)}
            chosen = (record for record in read_records(synthetic, split, manifest) if record.id in names)
            summaries += write_split(unfinished, split, chosen, len(names), manifest.leads, manifest.samples)
        finish_dataset(unfinished, description, summaries)


def best_share(labels: np.ndarray, probabilities: np.ndarray, share: float) -> np.ndarray:
    """Places, in order, of the share of records of each label whose label is the most probable.

    Args:
        labels: `(records, classes)` one-hot or multi-hot; records of equal labels compete with each other.
        probabilities: `(records, classes)`.
        share: Above 0, up to 1; every label keeps at least one record.
    """
    likely = np.clip(probabilities, 1e-7, 1 - 1e-7)
    fit = np.sum(labels * np.log(likely) + (1 - labels) * np.log(1 - likely), axis=1)
    kept = []
    for label in np.unique(labels, axis=0):
        members = np.flatnonzero((labels == label).all(axis=1))
        best = members[np.argsort(-fit[members], kind="stable")]
        kept.append(best[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
