"""Any folder tree of WFDB records, with diagnoses in the header comments, in a CSV file, or nowhere."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ecgtf.ecg import SPLITS, Record, Rejection
from ecgtf.wfdb_io import read_header

SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
"""A record's sex by what sources write, in lower case."""

OVER_89 = 90.0
"""The age of those who are older than 89; sources hide it behind a sign (PTB-XL writes 300, others >89) to protect the few there are."""

_UNKNOWN = {"", "unknown", "unknows", "nan", "none", "n/a", "na", "?"}


@dataclass
class _Row:
    """What a labels file says of one record."""

    codes: tuple[str, ...]
    patient: str | None = None
    split: str | None = None


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
    names = find_records(root, "a folder of WFDB records")
    source = name or root.resolve().name or "wfdb"
    records = read_records(root, names, source)
    if labels_csv is None:
        return records
    return _label(records, names, _read_labels(Path(labels_csv), names), source)


def find_records(root: Path, expected: str) -> list[str]:
    """The names of all WFDB records below `root` (see `file_names`).

    Args:
        root: the folder.
        expected: what it should be, for the error: `a folder of WFDB records`.

    Raises:
        ValueError: if `root` is no folder or holds no record.
    """
    if not root.is_dir():
        raise ValueError(f"expected {expected}, but {root} is no folder; unpack the collection and give its folder")
    names = file_names(root, ".hea")
    if not names:
        raise ValueError(
            f"expected {expected}, but there is no WFDB record (*.hea) below {root}; unpack the collection and give its folder"
        )
    return names


def file_names(root: Path, suffix: str) -> list[str]:
    """Paths below `root` of the files with this suffix, without it, with forward slashes, sorted."""
    names = []
    for folder, _, files in os.walk(root):
        below = Path(folder).relative_to(root)
        names += [(below / file.removesuffix(suffix)).as_posix() for file in files if file.endswith(suffix) and file != suffix]
    return sorted(names)


def leads_outside(file: Path, inside: Path) -> bool:
    """Whether a file is a symbolic link out of the folder `inside` (as `Path.resolve` gives it)."""
    return file.is_symlink() and not file.resolve().is_relative_to(inside)


def diagnoses(comments: Sequence[str]) -> tuple[str, ...]:
    """The codes of a header's `#Dx:` comments, as they are written, each once."""
    cells = [value for key, value in map(_key_and_value, comments) if key == "dx"]
    return tuple(
        dict.fromkeys(code for cell in cells for part in cell.split(",") if (code := part.strip()).lower() not in _UNKNOWN)
    )


def read_records(
    root: Path, names: Sequence[str], source: str, codes_of: Callable[[Sequence[str]], tuple[str, ...]] = diagnoses
) -> Iterator[Record | Rejection]:
    """One record for each name below `root`, without signal, or a rejection if its header cannot be read or lies elsewhere.

    Args:
        root: the folder.
        names: paths of records below it, without suffix.
        source: what record ids begin with.
        codes_of: finds the diagnosis codes in a header's comments.
    """
    inside = root.resolve()
    for name in names:
        path = root / name
        try:
            if leads_outside(path.with_name(path.name + ".hea"), inside):
                raise ValueError("the header lies outside the folder; refused")
            header = read_header(path)
        except (ValueError, OSError) as error:
            yield Rejection(f"{source}/{name}", str(error))
            continue
        age, sex = _age_and_sex(header.comments)
        yield Record(
            id=f"{source}/{name}",
            codes=codes_of(header.comments),
            leads=header.leads,
            sampling_rate=header.rate,
            path=path,
            age=age,
            sex=sex,
        )


def age_in_years(text: str) -> float | None:
    """Years; `>89` and PTB-XL's 300 are 90, impossible numbers and words unknown."""
    match = re.fullmatch(r"(>?)\s*(\d{1,3}(?:\.\d+)?)", text)
    if not match:
        return None
    age = float(match[2])
    if age == 300 or (match[1] and age == 89):
        return OVER_89
    return age if age <= 120 else None


def _age_and_sex(comments: Sequence[str]) -> tuple[float | None, str | None]:
    age = sex = None
    for key, value in map(_key_and_value, comments):
        if key == "age" and age is None:
            age = age_in_years(value)
        elif key in ("sex", "gender") and sex is None:
            sex = SEXES.get(value.lower())
    return age, sex


def _key_and_value(comment: str) -> tuple[str, str]:
    """`<Age>: 61` -> `("age", "61")`."""
    key, _, value = comment.partition(":")
    return key.strip(" <>").lower(), value.strip()


def _label(
    items: Iterable[Record | Rejection], names: Sequence[str], rows: dict[str, _Row], source: str
) -> Iterator[Record | Rejection]:
    """The records with what the labels file says of them."""
    for name, item in zip(names, items, strict=True):
        row = rows.pop(name, None)
        if row and isinstance(item, Record):
            item = replace(item, codes=row.codes, patient=row.patient, split=row.split)
        yield item
    for name in rows:
        yield Rejection(f"{source}/{name}", "is in the labels file, but not in the folder")


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
            if len(set(columns.values())) < len(reader.fieldnames or ()):
                raise ValueError(
                    f"{path}: a column is named twice in {', '.join(reader.fieldnames)}; call several codes code1, code2 ..."
                )
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
