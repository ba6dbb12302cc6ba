"""The cells of a study: one training of a classifier each, independent of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product

from ecgtf.studies.config import FOREST, OTHER, SCRATCH, Grid, StudyConfig, in_turn, renamed, with_real


@dataclass(frozen=True, order=True)
class Cell:
    """A training of a classifier: everything that it depends on beside the study's settings."""

    collection: str
    fold: int
    classifier: str
    recipe: str
    """Name of a recipe; empty for the feature forest."""
    source: str = SCRATCH
    """What is added to the real records (augmentation) or learnt before them (transfer): several by `>` where in turn, `+` in front of the
    one that is learnt together with them."""
    ratio: float = 0.0
    """Synthetic records for each real one (augmentation)."""
    mixing: str = ""
    """How they are dealt to the classes: `proportional` or `balancing` (augmentation)."""
    fraction: float = 1.0
    """Share of the real training and validation records (transfer); at 0 the classifier is as its sources left it."""
    seen: float = 1.0
    """Share of the real training records that the generator learnt from."""
    seed: int = 0

    @property
    def name(self) -> str:
        """A name that is a file name, different for different cells."""
        parts = [self.collection, f"fold{self.fold}", self.classifier, self.recipe, self.source.replace(">", "~")]
        parts += [f"ratio{self.ratio:g}", self.mixing, f"real{self.fraction:g}", f"seen{self.seen:g}", f"seed{self.seed}"]
        return "-".join(part for part in parts if part)

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the sources, in turn; none for a training from scratch."""
        return () if self.source == SCRATCH else tuple(in_turn(self.source))

    @property
    def together(self) -> bool:
        """Whether the last source and the real records are learnt in one training."""
        return with_real(self.source)


COLUMNS = tuple(item.name for item in fields(Cell))
"""The columns of a table of cells."""


def augmentation_cells(config: StudyConfig) -> list[Cell]:
    """The cells of the augmentation study, in the order of their work; a ratio of 0 is a training without a source."""
    cells = []
    for grid in config.grids.get("augmentation", ()):
        for collection, fold, classifier, recipe, seed in _trainings(config, grid):
            for source, ratio, mixing in product(grid.sources, grid.ratios, grid.mixings):
                if ratio and source != SCRATCH and classifier != FOREST:
                    cells.append(Cell(collection, fold, classifier, recipe, source, ratio, mixing, seed=seed))
                else:
                    cells.append(Cell(collection, fold, classifier, recipe, seed=seed))
    return _in_order(cells, config)


def transfer_cells(config: StudyConfig) -> list[Cell]:
    """The cells of the transfer study, in the order of their work; without real records there are only those that have a source."""
    cells = []
    for grid in config.grids.get("transfer", ()):
        for collection, fold, classifier, recipe, seed in _trainings(config, grid):
            for source, fraction, seen in product(grid.sources, grid.fractions, grid.seen):
                source = SCRATCH if classifier == FOREST else source
                other = _other(collection, config)
                if other is None and OTHER in in_turn(source):  # the merged collection has no other
                    continue
                named = renamed(source, lambda name, other=other: other if name == OTHER else name)
                share = fraction if seen == "same" and not config.generators.keys().isdisjoint(in_turn(named)) else 1.0
                cell = Cell(collection, fold, classifier, recipe, named, fraction=fraction, seen=share, seed=seed)
                if not fraction and (cell.source == SCRATCH or cell.together or not share):  # there is nothing to learn from
                    continue
                cells.append(cell)
    return _in_order(cells, config)


def tested_on(cell: Cell, config: StudyConfig) -> tuple[str, ...]:
    """The collections whose fold a cell is tested on: each by itself, and all together what was trained on all."""
    names = tuple(config.collections)
    return (*names, config.merged) if cell.collection == config.merged and len(names) > 1 else names


def study_cells(study: str, config: StudyConfig) -> list[Cell]:
    """The cells of a study, `augmentation` or `transfer`.

    Raises:
        ValueError: if its settings ask for none.
    """
    cells = {"augmentation": augmentation_cells, "transfer": transfer_cells}[study](config)
    if not cells:
        raise ValueError(f"expected at least one [[{study}.grid]] in the settings, received none")
    return cells


def _trainings(config: StudyConfig, grid: Grid) -> Iterator[tuple[str, int, str, str, int]]:
    """Collections, folds, classifiers, recipes and seeds of a grid; the forest has no recipe."""
    for collection, fold, classifier in product(
        grid.collections or config.all_collections, range(config.folds or 1), grid.classifiers
    ):
        for recipe, seed in product(("",) if classifier == FOREST else grid.recipes, range(grid.seeds)):
            yield collection, fold, classifier, recipe, seed


def _other(collection: str, config: StudyConfig) -> str | None:
    others = [name for name in config.collections if name != collection]
    return others[0] if len(others) == 1 and collection in config.collections else None


def _in_order(cells: Sequence[Cell], config: StudyConfig) -> list[Cell]:
    """Each cell once: first those that need no generator, seed by seed, then source by source those that do, so that a study which is
    ended early has whole rows in its tables, and no generator is trained for a few of its cells."""
    places = {name: place for place, name in enumerate(config.all_collections)}
    generators = list(config.generators)

    def order(cell: Cell) -> tuple:
        needed = [generators.index(stage) for stage in cell.stages if stage in generators]
        late = (max(needed), cell.seen, places[cell.collection]) if needed else ()
        return late, cell.seed, cell.fold, places[cell.collection]

    return sorted(dict.fromkeys(cells), key=order)


def part_of(cells: Sequence[Cell], part: str | None) -> list[Cell]:
    """The cells of part `I/N` (1/4 to 4/4): all of one fold of a collection stay together, for they share a generator's training.

    Raises:
        ValueError: if the part is not of this form, or there is nothing left for some of so many.
    """
    if part is None:
        return list(cells)
    number, _, parts = part.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise ValueError(f"expected a part as 1/4, 2/4, 3/4 or 4/4, received {part!r}")
    folds: dict[tuple[str, int], int] = {}
    for cell in cells:
        folds[cell.collection, cell.fold] = folds.get((cell.collection, cell.fold), 0) + 1
    if int(parts) > len(folds):
        raise ValueError(f"expected at most {len(folds)} parts, one for each fold of a collection, received {part}")
    loads = [0] * int(parts)
    mine = set()
    for fold in sorted(folds, key=lambda fold: (-folds[fold], fold)):
        least = loads.index(min(loads))
        loads[least] += folds[fold]
        if least == int(number) - 1:
            mine.add(fold)
    return [cell for cell in cells if (cell.collection, cell.fold) in mine]
