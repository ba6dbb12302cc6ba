"""What a study is asked for: one TOML file, read and checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ecgtf.augment import Augmentation
from ecgtf.classifiers import KINDS, MIXINGS
from ecgtf.classifiers.networks import PRESETS
from ecgtf.generators.presets import get_preset
from ecgtf.studies import STUDIES
from ecgtf.tasks import Task, get_task

FOREST = "feature_forest"
"""The classifier that is no network: a random forest on what a cardiologist measures."""

SCRATCH = "none"
"""The source of a training on real records alone."""

OTHER = "other"
"""The source that is the other real collection."""


@dataclass(frozen=True)
class Recipe:
    """How classifiers are trained; what is None is the preset's."""

    preset: str = "small"
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    balance: float = 0.0
    augment: str = "gain=0.2,shift_seconds=1"
    patience: int = 10
    pretrain_steps: int | None = None
    """Steps on each source before real records, at the recipe's learning rate; by default the preset's."""
    finetune_steps: int | None = None
    """Steps on real records after it; by default half the preset's."""
    finetune_rate: float | None = None
    """Peak learning rate of them; by default a quarter of the preset's."""
    mode: str = "full"
    """`full`, or `unfreeze`: the head first."""
    keep: float = 1.0
    """Share of the synthetic records of each class that is kept: those which a classifier trained on the real records of the same
    training finds most probable."""
    rehearsal: float = 0.0
    """Synthetic records that stay in the fine-tuning, for each real one."""


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


@dataclass(frozen=True)
class ReadySource:
    """Records that need no training, such as simulated ones."""

    data: tuple[str, ...]
    task: str | None = None
    """Of the pre-training, where the records have no labels of the study's task."""


@dataclass(frozen=True)
class Grid:
    """A block of cells: every combination of its lists, for every fold and seed."""

    classifiers: tuple[str, ...] = ("resnet1d",)
    recipes: tuple[str, ...] = ()
    sources: tuple[str, ...] = (SCRATCH,)
    """`none`, names of sources and generators, `other` (the other collection), or several in turn as in `simulator>vqvae`."""
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
        if self.merge and len(self.collections) == 1:
            raise ValueError("merge = true needs several collections, received one")
        named = [*self.collections, *self.sources, *self.generators, SCRATCH, OTHER]
        double = {name for name in named if named.count(name) > 1}
        if double:
            raise ValueError(f"{sorted(double)[0]!r} names two things; expected different names")
        for name in (*named, *self.recipes):
            if not name.replace("_", "").isalnum():
                raise ValueError(f"expected names of letters, digits and _, received {name!r}")
        for plan in self.generators.values():
            get_preset(plan.kind, plan.preset, plan.objective).with_lengths(plan.steps)
        for recipe in self.recipes.values():
            Augmentation.parse(recipe.augment)
            if recipe.preset not in PRESETS:
                raise ValueError(f"unknown preset {recipe.preset!r}; expected one of {', '.join(PRESETS)}")
            if not 0 < recipe.keep <= 1 or recipe.rehearsal < 0:
                raise ValueError(f"expected keep above 0 and up to 1 and rehearsal of 0 or more, received {recipe}")
        for study, grids in self.grids.items():
            for grid in grids:
                self._check_grid(study, grid)

    def _check_grid(self, study: str, grid: Grid) -> None:
        single = [
            name for source in grid.sources if source != SCRATCH for name in source.split(">" if study == "transfer" else None)
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
        if grid.seeds < 1 or any(ratio < 0 for ratio in grid.ratios) or any(not 0 <= part <= 1 for part in grid.fractions):
            raise ValueError(
                "expected at least 1 seed, ratios of 0 or more and fractions from 0 to 1, "
                f"received {grid.seeds}, {list(grid.ratios)} and {list(grid.fractions)}"
            )
        if study == "transfer" and 0 in grid.fractions:
            self._check_without_real(grid)

    def _check_without_real(self, grid: Grid) -> None:
        """Refuses what cannot be tested without having learnt from real records."""
        choosing = [name for name in grid.recipes if self.recipes[name].keep < 1]
        if choosing:
            raise ValueError(
                f"the recipe {choosing[0]!r} keeps what a classifier of the real records finds probable; expected fractions above 0"
            )
        for source in grid.sources:
            ready = self.sources.get(source.split(">")[-1])
            if ready is not None and ready.task not in (None, self.task):
                raise ValueError(
                    f"the source {source!r} ends with labels of {ready.task}, the study has {self.task}; expected fractions above 0"
                )

    @property
    def all_collections(self) -> tuple[str, ...]:
        """The names of the collections, the merged one last."""
        return (*self.collections, *((self.merged,) if self.merge else ()))

    @property
    def merged(self) -> str:
        """The name of the collection of all records."""
        return "+".join(self.collections)

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


def read_config(path: str | Path) -> StudyConfig:
    """The settings in a TOML file, or those of a name that come with the package, such as `small`.

    Raises:
        ValueError: if there is no such file, it is no TOML, or a setting is missing, unknown or not possible.
    """
    shipped, path = shipped_configs(), Path(path)
    if str(path) in shipped and not path.exists():
        path = shipped[str(path)]
    if not path.is_file():
        raise ValueError(
            f"expected a study's settings at {path}, but there is no such file, and {path} is not one of {', '.join(shipped)}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    try:
        return _built(content, path.stem)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def config_of(settings: Mapping[str, Any]) -> StudyConfig:
    """The settings whose `as_dict` this is, as a study's folder holds it.

    Raises:
        ValueError: as `read_config`.
    """
    content = dict(settings)
    grids = content.pop("grids", {})
    return _built(content | {study: {"grid": grids.get(study, ())} for study in STUDIES}, settings.get("name", ""))


def shipped_configs() -> dict[str, Path]:
    """The settings that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.toml"))}


def _built(content: dict[str, Any], name: str) -> StudyConfig:
    values = {"name": name} | content
    values["collections"] = {
        key: tuple(_listed(folders, f"collections.{key}")) for key, folders in values.get("collections", {}).items()
    }
    for key, kind in (("recipes", Recipe), ("sources", ReadySource), ("generators", GeneratorPlan)):
        values[key] = {part: _made(kind, settings, f"{key}.{part}") for part, settings in values.get(key, {}).items()}
    values["grids"] = {
        study: tuple(_made(Grid, grid, f"{study}.grid") for grid in values.pop(study, {}).get("grid", ())) for study in STUDIES
    }
    if "task" not in values:
        raise ValueError("expected a task, as in task = 'rhythm4'")
    return _made(StudyConfig, values, "the file")


def _made(kind: type, settings: dict[str, Any], where: str):
    """A dataclass of settings; lists become tuples."""
    known = [item.name for item in fields(kind)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r} in {where}; expected some of {', '.join(known)}")
    lists = {item.name for item in fields(kind) if str(item.type).startswith("tuple")}
    for name in lists & settings.keys():
        if settings[name] is not None:
            _listed(settings[name], f"{where}.{name}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def _listed(value: Any, where: str) -> list | tuple:
    """The value, if it is a list."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list for {where}, as in [{json.dumps(value)}], received {json.dumps(value)}")
    return value
