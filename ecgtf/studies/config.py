"""What a study is asked for: collections, sources, generators, recipes, and the grids that combine them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecgtf.augment import Augmentation
from ecgtf.classifiers import AUGMENT, KINDS, MIXINGS
from ecgtf.classifiers.fitting import check_training
from ecgtf.classifiers.networks import PRESETS
from ecgtf.classifiers.transfer import MODES, TOGETHER
from ecgtf.conditions import check_names
from ecgtf.generators import diffusion, flow
from ecgtf.generators.presets import get_preset
from ecgtf.precision import PRECISIONS
from ecgtf.tasks import Task, get_task
from ecgtf.training import check_limits

FOREST = "feature_forest"
"""The classifier that is no network: a random forest on what a cardiologist measures."""

SCRATCH = "none"
"""The source of a training on real records alone."""

OTHER = "other"
"""The source that is the other real collection."""


BEFORE, WITH = ">", "+"
"""Signs in a text such as `simulator>+vqvae`: one source is learnt before the next, and the last one together with the real records."""


def in_turn(source: str) -> list[str]:
    """The names of the sources in such a text."""
    *before, last = source.split(BEFORE)
    return [*before, last.removeprefix(WITH)]


def with_real(source: str) -> bool:
    """Whether the last source of such a text is learnt together with the real records."""
    return source.split(BEFORE)[-1].startswith(WITH)


def renamed(source: str, name: Callable[[str], str]) -> str:
    """Such a text with other names of the sources."""
    *before, last = map(name, in_turn(source))
    return BEFORE.join([*before, (WITH if with_real(source) else "") + last])


@dataclass(frozen=True)
class Recipe:
    """How classifiers are trained; what is None is the preset's."""

    preset: str = "small"
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    balance: float = 0.0
    augment: str = AUGMENT
    patience: int = 10
    pretrain_steps: int | None = None
    """Steps on each source before real records, or together with them (`+`), at the recipe's learning rate; by default the preset's."""
    finetune_steps: int | None = None
    """Steps on real records after it; by default half the preset's."""
    finetune_rate: float | None = None
    """Peak learning rate of them; by default a quarter of the preset's."""
    mode: str = "full"
    """`full`, or `unfreeze`: the head first."""
    balance_sources: float = 0.4
    """How often real records come beside those of a source that is learnt together with them (`+`): 0 as they are, 1 equally often."""
    keep: float = 1.0
    """Share of a generator's records of each class that is kept: those which a classifier trained on the real records of the same
    training finds most probable."""
    rehearsal: float = 0.0
    """Synthetic records that stay in the fine-tuning, for each real one."""

    def __post_init__(self):
        Augmentation.parse(self.augment)
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; expected one of {', '.join(PRESETS)}")
        modes = [mode for mode in MODES if mode != TOGETHER]
        if self.mode not in modes:
            raise ValueError(f"unknown mode {self.mode!r}; expected one of {', '.join(modes)}")
        if not 0 < self.keep <= 1 or not 0 <= self.rehearsal < np.inf:
            raise ValueError(
                f"expected keep above 0 and up to 1 and rehearsal of 0 or more, received {self.keep} and {self.rehearsal}"
            )
        if self.patience < 1:
            raise ValueError(f"expected a patience of at least 1, received {self.patience}")
        for steps in (self.steps, self.pretrain_steps, self.finetune_steps):
            check_training(_or(steps, 1), _or(self.batch_size, 1), self.balance, balance_sources=self.balance_sources)
        for rate in (self.learning_rate, self.finetune_rate):
            check_limits(rate, None)


@dataclass(frozen=True)
class GeneratorPlan:
    """How a generator is trained on the training records of a fold, and drawn from."""

    kind: str
    preset: str = "small"
    objective: str | None = None
    steps: tuple[int, ...] | None = None
    start: str | None = None
    """Run folder to start from, of a generator that saw none of the records to test on; `simulated` comes with the package."""
    conditions: tuple[str, ...] = ()
    batch_size: int | None = None
    learning_rate: float | None = None
    precision: str = "float32"
    balance: float = 0.5
    guidance: float | None = None
    sampler: str | None = None
    sampler_steps: int | tuple[int, ...] | None = None

    def __post_init__(self):
        preset = get_preset(self.kind, self.preset, self.objective).with_lengths(self.steps)
        check_training(1, _or(self.batch_size, 1), self.balance)
        check_limits(self.learning_rate, None)
        check_names(self.conditions)
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; expected one of {', '.join(PRECISIONS)}")
        if self.guidance is not None and not 0 <= self.guidance < np.inf:
            raise ValueError(f"expected a guidance weight of 0 or more, received {self.guidance}")
        samplers = {None: (), "flow": flow.SAMPLERS}.get(preset.objective, diffusion.SAMPLERS)
        if self.sampler is not None and self.sampler not in samplers:
            raise ValueError(f"unknown sampler {self.sampler!r}; {self.kind} has {', '.join(samplers) or 'none'}")
        steps = np.atleast_1d(_or(self.sampler_steps, 1))
        if not steps.size or steps.min() < 1:
            raise ValueError(f"expected at least 1 sampler step, received {self.sampler_steps}")


@dataclass(frozen=True)
class ReadySource:
    """Records that need no training, such as simulated ones."""

    data: tuple[str, ...]
    task: str | None = None
    """Of the pre-training, where the records have no labels of the study's task."""

    def __post_init__(self):
        if not self.data:
            raise ValueError("expected at least one data set, as in data = ['data/simulated'], received none")


@dataclass(frozen=True)
class Grid:
    """A block of cells: every combination of its lists, for every fold and seed."""

    classifiers: tuple[str, ...] = ("resnet1d",)
    recipes: tuple[str, ...] = ()
    sources: tuple[str, ...] = (SCRATCH,)
    """`none`, names of sources and generators, `other` (the other collection), or, in transfer, several in turn as in `simulator>vqvae`;
    there `+simulator` is learnt in one training with the real records, also as the last of several."""
    collections: tuple[str, ...] = ()
    """All of them where none is named."""
    seeds: int = 1
    ratios: tuple[float, ...] = (1.0,)
    """Augmentation: synthetic records for each real one."""
    mixings: tuple[str, ...] = ("proportional",)
    fractions: tuple[float, ...] = (1.0,)
    """Transfer: share of the real training and validation records; at 0 a classifier is tested as its sources left it."""
    seen: tuple[str, ...] = ("all",)
    """Transfer: real training records that the generator learnt from, `all` or the `same` share as the classifier."""

    def __post_init__(self):
        if (
            self.seeds < 1
            or not all(0 <= ratio < np.inf for ratio in self.ratios)
            or not all(0 <= part <= 1 for part in self.fractions)
        ):
            raise ValueError(
                "expected at least 1 seed, ratios of 0 or more and fractions from 0 to 1, "
                f"received {self.seeds}, {list(self.ratios)} and {list(self.fractions)}"
            )


@dataclass(frozen=True)
class StudyConfig:
    """A study's settings.

    Raises:
        ValueError: if a name is unknown or a number is not possible.
    """

    name: str
    task: str
    collections: Mapping[str, tuple[str, ...]]
    """Names and the data sets that each is made of."""
    recipes: Mapping[str, Recipe]
    merge: bool = False
    """Whether there is a further collection of all records."""
    folds: int = 5
    """Folds of the cross-validation; 0 takes the data sets' own splits."""
    validation: float = 0.15
    """Share of the records of the other folds that choose weights and recipes: one of so many equal parts, 0.15 is a seventh."""
    seed: int = 0
    pool_per_class: int = 100
    """Synthetic records of each class there are at least."""
    work: str = ""
    """Folder of folds, generators and synthetic sets, shared by the studies; `runs/study-NAME` by default."""
    sources: Mapping[str, ReadySource] = field(default_factory=dict)
    generators: Mapping[str, GeneratorPlan] = field(default_factory=dict)
    grids: Mapping[str, tuple[Grid, ...]] = field(default_factory=dict)
    """The blocks of each study."""

    def __post_init__(self):
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"expected folds = 0 (the data sets' own splits) or at least 2, received {self.folds}")
        if not 0 < self.validation <= 0.5:
            raise ValueError(f"expected a validation share above 0 and up to 0.5, received {self.validation}")
        if not self.collections:
            raise ValueError("expected at least one collection, as in [collections] A = ['data/ptbxl']")
        for name, folders in self.collections.items():
            if not folders:
                raise ValueError(
                    f"expected at least one data set for the collection {name}, as in {name} = ['data/ptbxl'], received none"
                )
        if self.merge and len(self.collections) == 1:
            raise ValueError("merge = true needs several collections, received one")
        named = [*self.collections, *self.sources, *self.generators, SCRATCH, OTHER]
        double = {name for name in named if named.count(name) > 1}
        if double:
            raise ValueError(f"{sorted(double)[0]!r} names two things; expected different names")
        for name in (*named, *self.recipes):
            if not name.replace("_", "").isalnum():
                raise ValueError(f"expected names of letters, digits and _, received {name!r}")
        if self.pool_per_class < 1:
            raise ValueError(f"expected a pool_per_class of at least 1, received {self.pool_per_class}")
        for study, grids in self.grids.items():
            for grid in grids:
                self._check_grid(study, grid)

    def _check_grid(self, study: str, grid: Grid) -> None:
        single = [
            name
            for source in grid.sources
            if source != SCRATCH
            for name in (in_turn(source) if study == "transfer" else [source])
        ]
        known = [*self.sources, *self.generators, *([OTHER] if study == "transfer" else [])]
        for what, given, expected in (
            ("classifier", grid.classifiers, (*KINDS, FOREST)),
            ("recipe", grid.recipes, self.recipes),
            ("source", single, known),
            ("collection", grid.collections, self.all_collections),
            ("mixing", grid.mixings, MIXINGS),
            ("seen", grid.seen, ("all", "same")),
        ):
            for name in given:
                if name not in expected:
                    raise ValueError(f"unknown {what} {name!r}; expected one of {', '.join(expected)}")
        if OTHER in single and len(self.collections) != 2:
            raise ValueError(f"the source {OTHER!r} needs two collections, received {len(self.collections)}")
        if not grid.recipes and set(grid.classifiers) != {FOREST}:
            raise ValueError(f"expected recipes in each grid, names of {', '.join(self.recipes) or '[recipes.NAME]'}")
        if study == "transfer" and 0 in grid.fractions:
            self._check_without_real(grid)
        rehearsing = any(self.recipes[name].rehearsal for name in grid.recipes)
        for source in grid.sources:
            beside = study == "augmentation" or rehearsing or with_real(source)
            if beside and self._of_another_task(source):
                raise ValueError(
                    f"the source {source!r} ends with labels of another task than {self.task}; they cannot stand beside real ones"
                )

    def check_idle(self) -> None:
        """Refuses settings that would change nothing, when they are read; a study that was begun with some can still be reported."""
        for study, grids in self.grids.items():
            for grid in grids:
                self._check_idle(study, grid)

    def _check_idle(self, study: str, grid: Grid) -> None:
        idle, other = {
            "augmentation": (("fractions", "seen"), "transfer"),
            "transfer": (("ratios", "mixings"), "augmentation"),
        }[study]
        for name in idle:
            if getattr(grid, name) != getattr(Grid(), name):
                raise ValueError(f"{name} changes nothing in [[{study}.grid]]: leave it out, it is of [[{other}.grid]]")
        together = [source for source in grid.sources if with_real(source)]
        for recipe in grid.recipes if together else ():
            for name in ("mode", "rehearsal"):
                if getattr(self.recipes[recipe], name) != getattr(Recipe(), name):
                    raise ValueError(
                        f"{name} of the recipe {recipe!r} changes nothing with the source {together[0]!r}, which is learnt together with "
                        "the real records: take another recipe for it, in a grid of its own"
                    )

    def _check_without_real(self, grid: Grid) -> None:
        """Refuses what cannot be tested without having learnt from real records."""
        choosing = [name for name in grid.recipes if self.recipes[name].keep < 1]
        if choosing:
            raise ValueError(
                f"the recipe {choosing[0]!r} keeps what a classifier of the real records finds probable; expected fractions above 0"
            )
        for source in grid.sources:
            if self._of_another_task(source):
                raise ValueError(
                    f"the source {source!r} ends with labels of another task than {self.task}; expected fractions above 0"
                )

    def _of_another_task(self, source: str) -> bool:
        """Whether the last of the sources in turn is learnt by labels that are not the study's."""
        ready = self.sources.get(in_turn(source)[-1])
        return ready is not None and ready.task not in (None, self.task)

    @property
    def all_collections(self) -> tuple[str, ...]:
        """The names of the collections, the merged one last."""
        return (*self.collections, *((self.merged,) if self.merge else ()))

    @property
    def merged(self) -> str:
        """The name of the collection of all records."""
        return "+".join(self.collections)

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The folders of all collections."""
        return tuple(folder for folders in self.collections.values() for folder in folders)

    @property
    def the_task(self) -> Task:
        """The task, looked up."""
        return get_task(self.task)

    @property
    def work_folder(self) -> Path:
        """Where folds, generators and synthetic sets lie."""
        return Path(self.work or f"runs/study-{self.name}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return asdict(self)


def _or(value: Any, instead: Any) -> Any:
    return instead if value is None else value
