"""Chapman-Shaoxing in its two forms: PhysioNet's WFDB records (with Ningbo), and figshare's CSV files with `Diagnostics.xlsx`.

Zheng et al., "A 12-lead electrocardiogram database for arrhythmia research covering more than 10,000 patients", Scientific Data
7:48 (2020), https://doi.org/10.6084/m9.figshare.c.4560497; Zheng et al., "A large scale 12-lead electrocardiogram database for
arrhythmia study", https://physionet.org/content/ecg-arrhythmia/.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from ecgtf.data_prep.wfdb_folder import SEXES, age_in_years, file_names, leads_outside, read_records
from ecgtf.data_prep.xlsx import read_xlsx
from ecgtf.ecg import LEADS, Record, Rejection, canonical_leads

SOURCE = {
    "name": "chapman",
    "licence": "CC BY 4.0",
    "citation": (
        "Zheng et al., A 12-lead electrocardiogram database for arrhythmia research covering more than 10,000 patients, "
        "Scientific Data 7:48 (2020); Zheng et al., A large scale 12-lead electrocardiogram database for arrhythmia study, "
        "PhysioNet (2022)"
    ),
}

CSV_RATE = 500.0
"""Samples per second of the CSV files, which do not say it."""

BEAT = "Beat:"
"""What the codes of the column `Beat` begin with: `Beat:STTC`, so that PTB-XL's statements of the same name stay apart."""

_TABLES = ("Diagnostics.xlsx", "Diagnostics.csv")
_COLUMNS = ("FileName", "Rhythm", "Beat", "PatientAge", "Gender")
_FOLDERS = ("ECGData", "ECGDataDenoised")  # a record that is in both is read from the first, the raw one
_RHYTHMS = {  # abbreviations of the column `Rhythm`: SNOMED CT codes, as in ConditionNames_SNOMED-CT.csv
    "SB": "426177001",
    "SR": "426783006",
    "AFIB": "164889003",
    "AF": "164890007",  # atrial flutter here; the challenges mean fibrillation by the same letters
    "ST": "427084000",
    "SA": "427393009",
    "SI": "427393009",
    "SVT": "426761007",
    "AT": "713422000",
    "AVNRT": "233896004",
    "AVRT": "233897008",
    "SAAWR": "195101003",
}
_MAX_CSV_BYTES = 50 * 10**6
_MICROVOLTS_PER_MV = np.float32(1000)


def read_chapman(root: str | Path) -> Iterator[Record | Rejection]:
    """The records of either form, without signals.

    PhysioNet's: every `*.hea` below `root`, in order of the paths, with the SNOMED CT codes of its `#Dx:`. (Two of its 45,152
    headers are malformed, JS01052 and JS23074; they are rejected.)

    Figshare's: the rows of `Diagnostics.xlsx` (or `Diagnostics.csv`) in their order, each with the CSV file of its name below
    `root`: `ECGData/NAME.csv` (raw), else `ECGDataDenoised/NAME.csv`. `path` is that file with its suffix; `read_csv_signal`
    reads it. The rhythm is a SNOMED CT code, so that Chapman's AF is the atrial flutter that it means; beat abbreviations are
    codes after `BEAT`. Every record is of another patient.

    Raises:
        ValueError: if `root` is no folder, holds neither form or both, or the table cannot be used.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"expected a folder of Chapman-Shaoxing, but {root} is no folder; unpack it and give its folder")
    table = next((root / name for name in _TABLES if (root / name).is_file()), None)
    headers = file_names(root, ".hea")
    if table and headers:
        raise ValueError(
            f"{root} holds both {table.name} and WFDB records ({headers[0]}.hea); give a folder with only one form"
        )
    if headers:
        return read_records(root, headers, SOURCE["name"])
    files = [name for name in file_names(root, ".csv") if f"{name}.csv" not in _TABLES]
    if table is None or not files:
        raise ValueError(
            f"expected Chapman-Shaoxing's WFDBRecords/ (*.hea), or Diagnostics.xlsx beside ECGData/ or ECGDataDenoised/ (*.csv); "
            f"found {table.name if table else 'no Diagnostics.xlsx'}, {len(files) or 'no'} CSV files and no *.hea below {root}; "
            "unpack the collection and give its folder"
        )
    return _read_rows(root, table.name, _read_table(table), files)


def read_csv_signal(path: str | Path) -> tuple[np.ndarray, tuple[str, ...], float]:
    """One CSV file of 12 leads in microvolts: `(signal, leads, rate)`.

    `signal` is `(time, 12)` float32 in millivolts, with NaN where a cell says so. The raw files name their leads in a first row;
    the denoised ones have none, and the leads are in the order of `LEADS`.

    Raises:
        ValueError: in one line, if the file is missing, larger than 50 MB or empty, if a row has another number of cells, a
            cell is no number, or a lead is unknown.
    """
    path = Path(path)
    shown = path.name if path.name.isprintable() else ascii(path.name)
    try:
        text = _read_text(path)
        if not text:
            raise ValueError("the file holds no samples")
        first, _, rest = text.partition("\n")
        cells = [cell.strip().strip('"') for cell in first.split(",")]
        if len(cells) != len(LEADS):
            raise ValueError(f"expected {len(LEADS)} columns, found {len(cells)}")
        leads = LEADS
        if not any(map(_is_number, cells)):
            leads, text = canonical_leads(cells), rest
        if not text.strip():
            raise ValueError("the file holds no samples")
        signal = np.loadtxt(io.StringIO(text), np.float32, comments=None, delimiter=",", ndmin=2)
        if np.isinf(signal).any():
            raise ValueError("a cell holds no finite number")
    except ValueError as error:
        why = " ".join(str(error).split("; use")[0].split())[:160]  # without NumPy's advice to programmers
        raise ValueError(f"{why} ({shown})") from error
    return signal / _MICROVOLTS_PER_MV, leads, CSV_RATE


def _read_text(path: Path) -> str:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ValueError("expected a plain file")
        if status.st_size > _MAX_CSV_BYTES:
            raise ValueError(f"expected at most {_MAX_CSV_BYTES} bytes, found {status.st_size}")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"the CSV file cannot be read: {error.strerror or type(error).__name__}") from error
    except UnicodeDecodeError:
        raise ValueError("the CSV file is no text") from None
    return text.replace("\r\n", "\n").lstrip()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of the table of diagnoses, each with all of `_COLUMNS`."""
    if path.suffix == ".xlsx":
        names, rows = read_xlsx(path)
    else:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                names, rows = list(reader.fieldnames or ()), list(reader)
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise ValueError(f"{path} is no readable CSV file: {error}") from error
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(_COLUMNS)} in its first row")
    return [{name: (row.get(name) or "").strip() for name in _COLUMNS} for row in rows]


def _read_rows(root: Path, table: str, rows: list[dict[str, str]], files: list[str]) -> Iterator[Record | Rejection]:
    by_name: dict[str, str] = {}
    for file in sorted(files, key=_preference, reverse=True):  # the best comes last and stays
        by_name[PurePosixPath(file).name] = file
    source, inside = SOURCE["name"], root.resolve()
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        name = row["FileName"].removesuffix(".csv")
        file = by_name.get(name)
        shown = name if name.isprintable() else ascii(name)
        record_id = f"{source}/{file or shown or f'line {line}'}"
        if not name:
            yield Rejection(record_id, f"has no FileName in {table}")
        elif name in seen:
            yield Rejection(record_id, f"stands twice in {table}")
        elif file is None:
            yield Rejection(record_id, f"is in {table}, but there is no CSV file of that name")
        elif leads_outside(path := root / f"{file}.csv", inside):
            yield Rejection(record_id, "the CSV file lies outside the folder; refused")
        else:
            age, sex = age_in_years(row["PatientAge"]), SEXES.get(row["Gender"].lower())
            yield Record(record_id, _codes(row), sampling_rate=CSV_RATE, path=path, age=age, sex=sex)
        seen.add(name)
    in_use = {str(PurePosixPath(by_name[name]).parent) for name in seen & set(by_name)}
    for file in files:  # other CSV files, such as tables, lie elsewhere
        if PurePosixPath(file).name not in seen and str(PurePosixPath(file).parent) in in_use:
            yield Rejection(f"{source}/{file}", f"is not in {table}")


def _preference(file: str) -> tuple[int, str]:
    folder = PurePosixPath(file).parent.name
    return (_FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS), file)


def _codes(row: Mapping[str, str]) -> tuple[str, ...]:
    """The rhythm's code, then the beat abbreviations (`RBBB TWC`; `NONE` is none)."""
    rhythm = row["Rhythm"]
    codes = [_RHYTHMS.get(rhythm.upper(), rhythm)] if rhythm else []
    beats = row["Beat"].replace(",", " ").replace(";", " ").split()
    return tuple(dict.fromkeys(codes + [BEAT + beat for beat in beats if beat.upper() != "NONE"]))
