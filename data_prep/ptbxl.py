"""PTB-XL in its own layout: `ptbxl_database.csv` beside `records100/` and `records500/`.

Wagner et al., "PTB-XL, a large publicly available electrocardiography dataset", Scientific Data 7:154 (2020);
https://physionet.org/content/ptb-xl/.
"""

from __future__ import annotations

import ast
import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ecgtf.data_prep.wfdb_folder import OVER_89
from ecgtf.ecg import Record, Rejection

SOURCE = {
    "name": "ptb-xl",
    "licence": "CC BY 4.0",
    "citation": "Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, Scientific Data 7:154 (2020)",
}

_TABLE = "ptbxl_database.csv"
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
_LOW_RATE = 100.0
_SEXES = {"0": "male", "1": "female"}
_MAX_CELL = 10_000


def read_ptbxl(root: str | Path, rate: float = 100.0) -> Iterator[Record | Rejection]:
    """The rows of PTB-XL's table in their order, without signals.

    Codes are the keys of `scp_codes` (a statement with likelihood 0 is present, as all rhythm statements are). Folds 1-8 are
    the training split, 9 validation, 10 test. A row without patient id is a patient of its own.

    Args:
        root: the folder with `ptbxl_database.csv`.
        rate: the sampling rate wanted. Up to 100 Hz the record is the 100 Hz file if it exists, else the 500 Hz file (to be
            resampled); above 100 Hz only the 500 Hz file serves.

    Raises:
        ValueError: if the table is missing, is no CSV file or lacks a column.
    """
    root = Path(root)
    rows = _rows(root / _TABLE)
    return _read_rows(root, rows, rate)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"expected PTB-XL's {_TABLE} in {path.parent}; it is not there")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
            return [{name: (row[name] or "").strip() for name in _COLUMNS} for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable CSV file: {error}") from error


def _read_rows(root: Path, rows: list[dict[str, str]], rate: float) -> Iterator[Record | Rejection]:
    seen = set()
    for row in rows:
        low, high = row["filename_lr"], row["filename_hr"]
        name = f"{SOURCE['name']}/{low or high or row['ecg_id']}"
        if row["ecg_id"] in seen:
            yield Rejection(name, f"ecg_id {row['ecg_id']} stands twice in {_TABLE}")
            continue
        seen.add(row["ecg_id"])
        try:
            file = _choose_file(root, low, high, rate)
            yield Record(
                id=f"{SOURCE['name']}/{file}",
                codes=_codes(row["scp_codes"]),
                path=root / file,
                patient=_patient(row["patient_id"]),
                age=_age(row["age"]),
                sex=_SEXES.get(row["sex"].removesuffix(".0")),
                split=_split(row["strat_fold"]),
            )
        except ValueError as error:
            yield Rejection(name, str(error))


def _choose_file(root: Path, low: str, high: str, rate: float) -> str:
    wanted = [low, high] if rate <= _LOW_RATE else [high]
    inside = root.resolve()
    for name in filter(None, wanted):
        path = root / f"{name}.hea"
        if not path.resolve().is_relative_to(inside):
            raise ValueError(f"file {name!r} lies outside the folder; refused")
        if path.is_file():
            return name
    if rate > _LOW_RATE and low and (root / f"{low}.hea").is_file():
        raise ValueError(f"only its 100 Hz file is there, {rate:g} Hz are asked for")
    raise ValueError(f"the record's files are missing ({', '.join(filter(None, (low, high))) or 'none is named'})")


def _codes(cell: str) -> tuple[str, ...]:
    """The statements of a cell such as `{'NORM': 100.0, 'SR': 0.0}`: literals only, nothing in it is run."""
    try:
        statements = ast.literal_eval(cell) if len(cell) <= _MAX_CELL else None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        statements = None
    if not isinstance(statements, Mapping) or not all(isinstance(code, str) and code.strip() for code in statements):
        raise ValueError(f"scp_codes: expected a table such as {{'NORM': 100.0, 'SR': 0.0}}, found {cell[:60]!r}")
    return tuple(code.strip() for code in statements)


def _split(cell: str) -> str:
    fold = _number(cell)
    if fold not in range(1, 11):
        raise ValueError(f"strat_fold: expected 1 to 10, found {cell[:60]!r}")
    return {9: "validation", 10: "test"}.get(int(fold), "train")


def _patient(cell: str) -> str | None:
    """`15709.0` -> `15709`; None when the cell is empty."""
    number = _number(cell)
    return cell.removesuffix(".0") if number is not None else cell or None


def _age(cell: str) -> float | None:
    age = _number(cell)
    if age is None or age < 0:
        return None
    return OVER_89 if age > 89 else age


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
