"""Made-up results of studies, whose true differences are known, written as a study writes them (no TensorFlow)."""

import zlib
from dataclasses import replace

import numpy as np

from ecgtf.studies.cells import study_cells
from ecgtf.studies.config import GeneratorPlan, Grid, ReadySource, Recipe, StudyConfig
from ecgtf.studies.pooling import arm_of
from ecgtf.studies.results import Predictions, Results, Row

CLASSES = 4  # of rhythm4
SHARES = (0.3, 0.3, 0.36, 0.04)


def made_config(**changes):
    """Settings of both studies: two collections and the merged one, a simulator and two generators."""
    grids = {
        "augmentation": (
            Grid(
                recipes=("plain",),
                sources=("none", "simulator", "vqvae", "diff_wave"),
                ratios=(0.0, 0.5, 1.0),
                mixings=("proportional", "balancing"),
                seeds=3,
            ),
            Grid(recipes=("plain", "classical"), seeds=3),
            Grid(classifiers=("feature_forest",), seeds=2),
        ),
        "transfer": (
            Grid(recipes=("plain", "balanced"), fractions=(0.05, 0.2, 1.0), seeds=3),
            Grid(recipes=("plain", "balanced"), sources=("simulator", "other"), fractions=(0.05, 0.2, 1.0), seeds=3),
            Grid(
                recipes=("plain", "balanced"),
                sources=("vqvae", "diff_wave", "simulator>vqvae"),
                fractions=(0.05, 0.2, 1.0),
                seen=("all", "same"),
                seeds=3,
            ),
            Grid(classifiers=("feature_forest",), fractions=(0.05, 0.2, 1.0), seeds=2),
        ),
    }
    settings = {
        "name": "made-up",
        "task": "rhythm4",
        "collections": {"A": ("data/a",), "B": ("data/b",)},
        "recipes": {"plain": Recipe(augment=""), "classical": Recipe(), "balanced": Recipe(augment="", balance=1.0)},
        "merge": True,
        "sources": {"simulator": ReadySource(("data/simulated",))},
        "generators": {"vqvae": GeneratorPlan("vqvae"), "diff_wave": GeneratorPlan("diffwave")},
        "grids": grids,
    }
    return StudyConfig(**settings | changes)


def one_collection(**changes):
    """Settings of one collection, A, without grids."""
    return made_config(**{"collections": {"A": ("data/a",)}, "merge": False, "grids": {}} | changes)


class Maker:
    """Writes predictions of cells.

    The score of a class is `strength` where the record has it, plus what all arms of a seed share, plus what is the arm's own, so
    that equally strong arms differ by chance alone.
    """

    def __init__(self, folder, config, *, records=400, shared=0.8, own=0.6, by_seed=0.0, seed=0):
        self.results, self.config = Results(folder), config
        self.shared, self.own, self.by_seed, self.seed = shared, own, by_seed, seed
        rng = np.random.default_rng(seed)
        self.records = {}
        for place, name in enumerate(config.collections):
            size = records if isinstance(records, int) else records[place]
            labels = np.eye(CLASSES)[rng.choice(CLASSES, size=size, p=SHARES)]
            labels[:CLASSES] = np.eye(CLASSES)
            noise = rng.normal(size=(size, CLASSES))
            folds = np.arange(size) % (config.folds or 1)
            self.records[name] = (np.array([f"{name}/{number:05d}" for number in range(size)]), labels, noise, folds)
        if config.merge:
            self.records[config.merged] = tuple(np.concatenate(parts) for parts in zip(*self.records.values(), strict=True))

    def write(self, cells, strength, validation=lambda cell: 0.9, tests=None):
        """Results of cells: `strength(cell, test_on)` standard deviations between positives and negatives."""
        rows = []
        for cell in cells:
            for test_on in tests or self.records:
                ids, labels, noise, folds = self.records[test_on]
                rng = np.random.default_rng([self.seed, zlib.crc32(f"{arm_of(cell).name} {cell.seed} {test_on}".encode())])
                own = rng.normal(size=noise.shape)
                better = strength(cell, test_on) + self.by_seed * rng.normal()
                logits = better * labels + self.shared * noise + self.own * own
                mine = folds == cell.fold
                scores = np.exp(logits[mine])
                scores /= scores.sum(axis=1, keepdims=True)
                self.results.save_predictions(cell, test_on, Predictions(ids[mine], labels[mine], scores))
                rows.append(Row(cell, test_on, "", int(mine.sum()), 0.5, 0.5, 0.5, validation(cell)))
        self.results.append(rows)
        return self


def realistic_strength(cell, test_on):
    """Standard deviations between classes as a study may give them."""
    strength = 2.2 if cell.classifier == "feature_forest" else 2.0
    share = max(cell.fraction, 0.01)
    strength += 0.35 * np.log10(share)
    if cell.classifier != "feature_forest" and cell.source != "none":
        strength += {"simulator": 0.0, "vqvae": 0.06, "diff_wave": -0.05, "other": 0.25}.get(cell.source, 0.1)
        strength += -0.25 * np.log10(share) * (1 if cell.seen == 1 else 0.6)
    strength += {"classical": 0.05, "balanced": 0.1 * (cell.fraction < 0.5)}.get(cell.recipe, 0.0)
    return strength - (0.4 if test_on != cell.collection and "+" not in cell.collection + test_on else 0.0)


def arms_with_seeds(arm, config, seeds=1):
    """The cells of an arm."""
    return [replace(arm, fold=fold, seed=seed) for seed in range(seeds) for fold in range(config.folds or 1)]


def planned(config, study):
    """The cells of a study."""
    return study_cells(study, config)
