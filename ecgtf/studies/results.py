"""What a study's cells gave: `results.csv`, a line for each cell and collection tested on, and the predictions behind it."""

from __future__ import annotations

import csv
import fcntl
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ecgtf.atomic import replacing, write_atomically
from ecgtf.record_table import cell_text
from ecgtf.studies.cells import COLUMNS, Cell, tested_on
from ecgtf.studies.config import StudyConfig

TABLE = "results.csv"
PREDICTIONS = "predictions"
SECONDS = "seconds.csv"

_TYPES = {item.name: {"int": int, "float": float}.get(item.type, str) for item in fields(Cell)}


@dataclass(frozen=True)
class Predictions:
    """Probabilities `(records, classes)` of records that were tested on, with their labels and ids."""

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Row:
    """A line of `results.csv`."""

    cell: Cell
    test_on: str
    """The collection tested on."""
    error: str = ""
    """Why the cell failed; empty where it did not."""
    n: int = 0
    """Records tested on."""
    macro_auroc: float | None = None
    macro_f1: float | None = None
    accuracy: float | None = None
    validation_score: float | None = None
    """What recipes are chosen by: macro-AUROC on the validation records less a thousandth of the loss there."""


_SCORES = [item.name for item in fields(Row) if item.name != "cell"]
HEADER = (*COLUMNS, *_SCORES)


class Results:
    """The table of a study's folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / TABLE

    def rows(self) -> list[Row]:
        """The lines of the table, each cell and collection once; a line that a killed process left half-written counts as none.

        Raises:
            ValueError: if the table is not one of a study.
        """
        if not self.path.is_file():
            return []
        whole = self.path.read_text(encoding="utf-8").rpartition("\n")[0]
        lines = list(csv.reader(whole.splitlines()))
        if not lines:
            return []
        if tuple(lines[0]) != HEADER:
            raise ValueError(f"{self.path} is no table of this program's: expected the columns {', '.join(HEADER)}")
        rows = {}
        for line in lines[1:]:
            if len(line) == len(HEADER):
                row = _read(dict(zip(HEADER, line, strict=True)))
                rows.setdefault((row.cell, row.test_on), row)
        return list(rows.values())

    def done(self, config: StudyConfig) -> set[str]:
        """The names of cells that are not to be run again: failed ones, and those with a line for every collection tested on."""
        lines: dict[Cell, set[str]] = {}
        done = set()
        for row in self.rows():
            there = lines.setdefault(row.cell, set())
            there.add(row.test_on)
            if row.error or there.issuperset(tested_on(row.cell, config)):
                done.add(row.cell.name)
        return done

    def append(self, rows: Iterable[Row]) -> None:
        """Adds the lines of a cell behind what other processes wrote."""
        lines = "".join(_line(_values(row)) for row in rows)
        with self._alone(), self.path.open("a+b") as file:
            size = file.seek(0, 2)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # what a killed process left
                    _cut_to_whole_lines(file)
            head = _line(HEADER) if file.seek(0, 2) == 0 else ""
            file.write((head + lines).encode())

    def rewrite(self, order: Sequence[Cell]) -> None:
        """Writes the table again in the order of the cells; those that are not among them come last."""
        places = {cell.name: place for place, cell in enumerate(order)}
        with self._alone():
            self._write(sorted(self.rows(), key=lambda row: places.get(row.cell.name, len(places))))

    def forget(self, names: Collection[str]) -> None:
        """Takes cells out of the table, so that they are run again."""
        if names and self.path.is_file():
            with self._alone():
                self._write(row for row in self.rows() if row.cell.name not in names)

    def _write(self, rows: Iterable[Row]) -> None:
        write_atomically(self.path, _line(HEADER) + "".join(_line(_values(row)) for row in rows))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds other processes off the table."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def note_seconds(self, cell: Cell, seconds: float) -> None:
        """Keeps how long a cell took, what it had to make first included; not in the table, which is the same on every machine."""
        with (self.folder / SECONDS).open("a") as file:
            file.write(f"{cell.name},{seconds:.1f}\n")

    def save_predictions(self, cell: Cell, test_on: str, predictions: Predictions) -> None:
        """Keeps what a cell's classifier made of the records of a collection."""
        path = self._file(cell, test_on)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, ".npz") as file:
            np.savez_compressed(
                file,
                ids=np.array(predictions.ids),
                labels=np.asarray(predictions.labels, np.uint8),
                probabilities=np.asarray(predictions.probabilities, np.float32),
            )

    def predictions(self, cell: Cell, test_on: str) -> Predictions:
        """What `save_predictions` kept.

        Raises:
            ValueError: if the file is missing or damaged.
        """
        path = self._file(cell, test_on)
        try:
            with np.load(path) as content:
                return Predictions(content["ids"], content["labels"], content["probabilities"].astype(np.float64))
        except (OSError, ValueError, KeyError, EOFError, NotImplementedError, BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is missing or damaged ({error}); delete its cell's lines from {TABLE}") from error

    def _file(self, cell: Cell, test_on: str) -> Path:
        return self.folder / PREDICTIONS / f"{cell.name}-on-{test_on}.npz"


def _cut_to_whole_lines(file: Any) -> None:
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def _line(values: Iterable[object]) -> str:
    return ",".join(_quoted(str(value)) for value in values) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def _values(row: Row) -> list[object]:
    """Texts of a row; numbers so that they are read back as they are, to six digits."""
    cell = [getattr(row.cell, name) for name in COLUMNS]
    scores = [getattr(row, name) for name in _SCORES]
    return [cell_text(value) for value in (*cell, *scores)]


def _read(line: dict[str, str]) -> Row:
    cell = Cell(**{name: _TYPES[name](line[name]) for name in COLUMNS})
    numbers = {name: float(line[name]) if line[name] else None for name in _SCORES[3:]}
    return Row(cell, line["test_on"], line["error"], int(line["n"]), **numbers)
