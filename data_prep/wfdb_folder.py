"""Any folder tree of WFDB records, with diagnoses in the header comments, in a CSV file, or nowhere."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ecgtf.ecg import SPLITS, Record, Rejection
from ecgtf.wfdb_io import Header, read_header

_OVER_89 = 90.0  # the age of those whose true one is hidden behind a sign (300, >89)
_UNKNOWN = {"", "unknown", "unknows", "nan", "none", "n/a", "na", "?"}
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


@dataclass
class _Row:
    """What a labels file says of one record."""

    codes: tuple[str, ...]
    patient: str | None = None
    split: str | None = None
    found: bool = field(default=False, compare=False)


def read_wfdb(
    root: str | Path, labels_csv: str | Path | None = None, *, name: str | None = None
) -> Iterator[Record | Rejection]:
    """Every `*.hea` below `root`, in order of the paths, without signals. Symbolic links to folders are not followed.

    Codes, age and sex come from the header's comments (`#Dx: 426783006,164889003`, `# Age: 61`, `#<sex>: M`), in any case.

    Args:
        root: the folder.
        labels_csv: diagnoses in a table instead, with a column `record` (the path below `root`, with or without `.hea`, or the
            bare name where only one record has it), one or more columns whose names begin with `code` (several codes in a cell
            are parted by `;`) and, if known, `patient` and `split`. Records that it does not list keep what their header says.
        name: what record ids begin with; the folder's own name if None.

    Raises:
        ValueError: if `root` is no folder or holds no record, or the labels file cannot be used.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"expected a folder of WFDB records, but {root} is no folder")
    records = _record_names(root)
    if not records:
        raise ValueError(f"no WFDB record (*.hea) below {root}")
    rows = _read_labels(Path(labels_csv), records) if labels_csv is not None else {}
    return _read_records(root, records, rows, name or root.resolve().name or "wfdb")


def _read_records(root: Path, records: list[str], rows: dict[str, _Row], source: str) -> Iterator[Record | Rejection]:
    inside = root.resolve()
    for record in records:
        row = rows.get(record)
        if row:
            row.found = True
        path = root / record
        header_file = path.with_name(path.name + ".hea")
        try:
            if header_file.is_symlink() and not header_file.resolve().is_relative_to(inside):
                raise ValueError("the header lies outside the folder; refused")
            header = read_header(path)
        except (ValueError, OSError) as error:
            yield Rejection(f"{source}/{record}", str(error))
            continue
        codes, age, sex = _comments(header)
        yield Record(
            id=f"{source}/{record}",
            codes=row.codes if row else codes,
            leads=header.leads,
            sampling_rate=header.rate,
            path=path,
            patient=row.patient if row else None,
            age=age,
            sex=sex,
            split=row.split if row else None,
        )
    for record, row in rows.items():
        if not row.found:
            yield Rejection(f"{source}/{record}", "is in the labels file, but not in the folder")


def _record_names(root: Path) -> list[str]:
    """Paths below `root` without suffix, with forward slashes, sorted."""
    names = []
    for folder, _, files in os.walk(root):
        below = Path(folder).relative_to(root)
        names += [(below / file.removesuffix(".hea")).as_posix() for file in files if file.endswith(".hea") and file != ".hea"]
    return sorted(names)


def _comments(header: Header) -> tuple[tuple[str, ...], float | None, str | None]:
    """Codes, age and sex in a header's comments."""
    codes: list[str] = []
    age = sex = None
    for comment in header.comments:
        key, _, value = comment.partition(":")
        key, value = key.strip(" <>").lower(), value.strip()
        if key == "dx":
            codes += [code for part in value.split(",") if (code := part.strip()).lower() not in _UNKNOWN]
        elif key == "age" and age is None:
            age = _age(value)
        elif key in ("sex", "gender") and sex is None:
            sex = _SEXES.get(value.lower())
    return tuple(dict.fromkeys(codes)), age, sex


def _age(text: str) -> float | None:
    """Years; `>89` and PTB-XL's 300 are 90, impossible numbers and words unknown."""
    match = re.fullmatch(r"(>?)\s*(\d{1,3}(?:\.\d+)?)", text)
    if not match:
        return None
    age = float(match[2])
    if age == 300 or (match[1] and age == 89):
        return _OVER_89
    return age if age <= 120 else None


def _read_labels(path: Path, records: list[str]) -> dict[str, _Row]:
    """The rows of a labels file by record name."""
    by_name: dict[str, list[str]] = {}
    for record in records:
        by_name.setdefault(record.rsplit("/", 1)[-1], []).append(record)
    known, rows = set(records), {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
            if "record" not in columns.values() or not any(column.startswith("code") for column in columns.values()):
                raise ValueError(f"{path}: expected a column 'record' and one or more 'code...', found {', '.join(columns)}")
            for line, cells in enumerate(reader, start=2):
                values = {column: (cells[name] or "").strip() for name, column in columns.items()}
                record = values["record"].removesuffix(".hea").removeprefix("./")
                if record not in known and len(by_name.get(record, ())) == 1:
                    record = by_name[record][0]
                if record in rows:
                    raise ValueError(f"{path}, line {line}: record {record!r} is listed twice")
                split = values.get("split") or None
                if split is not None and split not in SPLITS:
                    raise ValueError(f"{path}, line {line}: expected a split of {', '.join(SPLITS)}, found {split!r}")
                cells_of_codes = [value for column, value in values.items() if column.startswith("code")]
                codes = [code.strip() for value in cells_of_codes for code in value.split(";") if code.strip()]
                rows[record] = _Row(tuple(dict.fromkeys(codes)), values.get("patient") or None, split)
    except FileNotFoundError:
        raise ValueError(f"expected a labels file at {path}; it is not there") from None
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} is no readable CSV file: {error}") from error
    return rows
