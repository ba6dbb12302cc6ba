"""The table of a data set's records, `records.csv`: what is known of each without opening a shard (standard library only).

One row a stored record, in the order of the shards. Columns are `COLUMNS`, then one for each measure of signal quality.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgtf.atomic import replacing, sha256

FILE_NAME = "records.csv"
COLUMNS = (
    "id",
    "split",
    "codes",  # with semicolons between them
    "patient",
    "age",  # years
    "sex",
    "source_rate",  # samples per second before the preparation
    "source_seconds",  # length before the preparation
    "padded_seconds",  # how much of the record is its last value, held on
    "fingerprint",
)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Writes rows without a head; None is an empty cell, numbers have six digits."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            writer.writerow([cell_text(row.get(column)) for column in columns])


def join_rows(path: Path, parts: Iterable[Path], columns: Sequence[str]) -> str:
    """Writes the table of the rows in `parts` under a head with the columns; gives the table's SHA-256."""
    with replacing(path) as temporary:
        with temporary.open("wb") as table:
            table.write((",".join(columns) + "\n").encode())
            for part in parts:
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, table)
        return sha256(temporary)


def read_columns(path: Path, columns: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Columns of a table (all of them by default) as text, by name; rows that the reader does not want take no memory.

    Raises:
        ValueError: if the file is missing, is no such table, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            wanted = head if columns is None else list(columns)
            missing = [name for name in wanted if name not in head]
            if missing:
                raise ValueError(f"expected the columns {', '.join(missing)}, found {', '.join(head) or 'none'}")
            places = [head.index(name) for name in wanted]
            values: list[list[str]] = [[] for _ in places]
            for row in reader:
                if len(row) != len(head):
                    raise ValueError(f"line {reader.line_num}: expected {len(head)} cells, found {len(row)}")
                for column, place in zip(values, places, strict=True):
                    column.append(row[place])
    except FileNotFoundError:
        raise ValueError(f"expected a table of records at {path}; it is not there") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is no table of records: {error}") from error
    return dict(zip(wanted, values, strict=True))


def cell_text(value: Any) -> str:
    """What stands in a cell for a value: nothing for None, six digits of a float."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
