"""Tables of a study, and how they are written: CSV with a column for each number, Markdown and LaTeX for people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecgtf.atomic import write_atomically
from ecgtf.studies import words
from ecgtf.studies.analysis import Difference, Estimate

Value = str | int | float | Estimate | None
"""Of a cell; None is what is not yet run."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    ">": r"\textgreater{}",
    "<": r"\textless{}",
    "|": r"\textbar{}",
    "–": "--",
    "\n": " ",
}
_PARTS = {
    "text": ("",),
    "number": ("",),
    "estimate": ("", " low", " high"),
    "change": ("", " low", " high"),
    "difference": ("", " low", " high", " p", " Holm p"),
}
"""The CSV columns of a kind of column."""


@dataclass(frozen=True)
class Column:
    """A column: of `text`, `number` (to three digits), `estimate`, `change` (an estimate with its sign) or `difference`."""

    title: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table of a study."""

    name: str
    """Of its files."""
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]

    def header(self) -> list[str]:
        """The titles of the columns as people see them: a difference is followed by its p-values."""
        return [title for column in self.columns for title in _titles(column)]

    def texts(self) -> list[list[str]]:
        """The cells as people see them."""
        return [
            [text for column, value in zip(self.columns, row, strict=True) for text in _texts(column, value)]
            for row in self.rows
        ]


def _titles(column: Column) -> tuple[str, ...]:
    return (column.title, "p", "Holm p") if column.kind == "difference" else (column.title,)


def _texts(column: Column, value: Value) -> tuple[str, ...]:
    """What stands under the titles of a column."""
    rest = (words.NOTHING,) * (len(_titles(column)) - 1)
    if value is None:
        return (words.NOT_YET, *rest)
    if isinstance(value, Difference):
        return words.with_interval(value, words.signed), words.p_value(value.p), words.p_value(value.holm)
    if isinstance(value, Estimate):
        return (words.with_interval(value, words.signed if column.kind == "change" else words.figure),)
    return (words.figure(value) if isinstance(value, float) else str(value), *rest)


def as_csv(table: Table) -> str:
    """The numbers, to six digits; empty where something is not yet run or does not apply."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([f"{column.title}{part}" for column in table.columns for part in _PARTS[column.kind]])
    for row in table.rows:
        writer.writerow([part for column, value in zip(table.columns, row, strict=True) for part in _csv_parts(column, value)])
    return buffer.getvalue()


def _csv_parts(column: Column, value: Value) -> Iterator[str]:
    parts = _PARTS[column.kind]
    if isinstance(value, Estimate):
        numbers = (value.value, value.low, value.high, *((value.p, value.holm) if isinstance(value, Difference) else ()))
        yield from ("" if number is None else f"{number:.6g}" for number in numbers)
    elif value is None or value == words.NOTHING:
        yield from ("",) * len(parts)
    else:
        yield f"{value:.6g}" if isinstance(value, float) else str(value)
        yield from ("",) * (len(parts) - 1)


def as_markdown(table: Table) -> str:
    """The table with its title and note."""
    lines = [f"**{_markdown(table.title)}**", "", _markdown_row(table.header())]
    lines.append("|" + " --- |" * len(table.header()))
    lines += [_markdown_row(row) for row in table.texts()]
    return "\n".join([*lines, "", _markdown(table.note)]).rstrip() + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown(cell) for cell in cells) + " |"


def _markdown(text: str) -> str:
    for mark in "\\|_*`<>":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")


def as_latex(table: Table) -> str:
    """A `table` that needs no package."""
    header = table.header()
    kinds = [column.kind for column in table.columns for _ in _titles(column)]
    lines = [
        r"\begin{table}",
        rf"\caption{{{latex(table.title)}. {latex(table.note)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{{''.join('l' if kind == 'text' else 'r' for kind in kinds)}}}",
        r"\hline",
        " & ".join(latex(cell) for cell in header) + r" \\",
        r"\hline",
    ]
    lines += [" & ".join(latex(cell) for cell in row) + r" \\" for row in table.texts()]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", r"\end{table}"]) + "\n"


def latex(text: str) -> str:
    """Text with the marks that LaTeX takes for its own escaped; a minus is not a hyphen."""
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", "".join(_LATEX.get(mark, mark) for mark in text))


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Writes each table as CSV, Markdown and LaTeX."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for ending, content in (("csv", as_csv(table)), ("md", as_markdown(table)), ("tex", as_latex(table))):
            write_atomically(folder / f"{table.name}.{ending}", content)
