"""Tasks: what a label is. A task maps diagnosis codes to classes when a data set is read (NumPy only).

Records keep the codes that their source wrote: SNOMED CT codes, PTB-XL's SCP-ECG statements, the words and abbreviations of
the PhysioNet/CinC challenges. A code is present when it is listed, whatever its likelihood: PTB-XL writes its rhythm statements
with likelihood 0. Tables: PhysioNet/CinC Challenge 2021 (`dx_mapping_*.csv`), PTB-XL (`scp_statements.csv`, Wagner et al.
2020), Chapman-Shaoxing (Zheng et al. 2020, whose merge of rhythms is `rhythm4`). A task of one's own is a TOML or CSV file
(`read_task`).
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_RHYTHM_CODES = {  # rhythm: its SNOMED CT codes, PTB-XL statement, challenge and Chapman abbreviations
    "SR": "426783006 SR NSR Normal",  # `Normal`: CPSC 2018's word for its sinus-rhythm class; PTB-XL's NORM is no rhythm
    "SBRAD": "426177001 SBRAD SB",
    "STACH": "427084000 STACH STach ST",
    "SARRH": "427393009 SARRH SA",
    "AFIB": "164889003 AFIB AF",  # `AF` as the challenges use it (only Chapman's table of names means flutter by it)
    "AFLT": "164890007 AFLT AFL",
    "SVTAC": "426761007 SVTAC SVT",
    "PSVT": "67198005 PSVT",
    "AT": "713422000 AT ATach",
    "AVNRT": "251166008 233896004 AVNRT",  # the challenge's code, then the Chapman CSV's
    "AVRT": "233897008 AVRT",
    "SAAWR": "17366009 195101003 SAAWR WAP",  # the challenge's code, then the Chapman CSV's (also wandering pacemaker)
    "PACE": "10370003 PACE PR",
    "SVARR": "63593006 SVARR SVPB",
    "BIGU": "11157007 BIGU VBig",
    "TRIGU": "251180001 TRIGU VTrig",
}

_SUPERCLASS_STATEMENTS = {  # PTB-XL, scp_statements.csv: the 44 rows with diagnostic == 1 by diagnostic_class
    "NORM": "NORM",
    "MI": "ALMI AMI ASMI ILMI IMI INJAL INJAS INJIL INJIN INJLA IPLMI IPMI LMI PMI",
    "STTC": "ANEUR DIG EL ISCAL ISCAN ISCAS ISCIL ISCIN ISCLA ISC_ LNGQT NDT NST_",
    "CD": "1AVB 2AVB 3AVB CLBBB CRBBB ILBBB IRBBB IVCD LAFB LPFB WPW",
    "HYP": "LAO/LAE LVH RAO/RAE RVH SEHYP",
}


@dataclass(frozen=True)
class Task:
    """A table from diagnosis codes to classes.

    A class of any task is also a code, `rhythm7:AFIB`: synthetic records carry it, and it counts in every other task in which
    all diagnosis codes of that class fall into one class.
    """

    name: str
    classes: tuple[str, ...]
    codes: Mapping[str, str]
    """Code to class; codes that are not there say nothing in this task."""
    multi_label: bool
    precedence: tuple[str, ...]
    """Single-label: the classes in the order in which they win on a record that has codes of several. Multi-label: empty."""
    rule: str
    """How labels are made, in a sentence for people."""

    def labels(self, codes: Sequence[Sequence[str]]) -> np.ndarray:
        """Labels `(len(codes), len(classes))` float32 of records with these codes.

        Multi-label: a 1 for each class that has a code. Single-label: one-hot, the first class of `precedence` that has a code;
        a row of zeros when none has (such a record is left out of the task).
        """
        labels = np.zeros((len(codes), len(self.classes)), np.float32)
        for row, record in zip(labels, codes, strict=True):
            present = {self.codes[code] for code in record if code in self.codes}
            if not self.multi_label:
                present = [name for name in self.precedence if name in present][:1]
            for name in present:
                row[self.classes.index(name)] = 1.0
        return labels

    def keeps(self, codes: Sequence[str]) -> bool:
        """Whether a record with these codes is part of the task: a single-label one leaves out what has none of its classes."""
        return self.multi_label or any(code in self.codes for code in codes)

    @property
    def reference(self) -> str | dict[str, Any]:
        """What `get_task` makes this task of again, as a JSON value: the name of a built-in task, the table of one's own."""
        if TASKS.get(self.name) == self:
            return self.name
        classes: dict[str, list[str]] = {name: [] for name in self.classes}
        for code, name in self.codes.items():
            classes[name].append(code)
        return {"name": self.name, "classes": classes, "multi_label": self.multi_label, "precedence": list(self.precedence)}

    def code_of(self, label: Sequence[float] | np.ndarray) -> tuple[str, ...]:
        """The codes to store with a synthetic record of this label `(classes,)`: `("rhythm4:SB",)`.

        Raises:
            ValueError: if the label has another length than `classes`.
        """
        label = np.asarray(label)
        if label.shape != (len(self.classes),):
            raise ValueError(f"expected a label of shape ({len(self.classes)},) for task {self.name}, received {label.shape}")
        return tuple(f"{self.name}:{name}" for name, value in zip(self.classes, label, strict=True) if value > 0.5)


def check_classes(labels: np.ndarray, task: Task, allow_empty: bool = False) -> None:
    """Refuses a task with nothing to learn: no class at all, or classes of a single-label task without training records."""
    empty = [name for name, count in zip(task.classes, labels.sum(axis=0), strict=True) if not count]
    if len(empty) == len(task.classes):
        raise ValueError(
            f"no training record has a class of task {task.name} ({', '.join(task.classes)}); choose another --task"
        )
    if empty and not (allow_empty or task.multi_label):
        raise ValueError(
            f"task {task.name} has no training records of {', '.join(empty)}; choose another --task, or accept it with --allow-empty"
        )


def get_task(task: str | Path | Mapping[str, Any] | Task) -> Task:
    """The built-in task of this name, the task in this `.toml` or `.csv` file, or that of this table (`Task.reference`).

    Raises:
        ValueError: if there is no such task, with the names of those there are; as `read_task`.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, Mapping):
        return _own_task(task)
    if Path(task).suffix.lower() in (".toml", ".csv"):
        return read_task(task)
    if task not in TASKS:
        raise ValueError(
            f"unknown task {task!r}; expected one of {', '.join(TASKS)}, or a .toml or .csv file of codes and classes"
        )
    return TASKS[task]


def read_task(path: str | Path) -> Task:
    """A task from a file.

    A CSV file has the columns `code` and `class`; its task has one label a record, the classes win in the order in which they
    first appear, and its name is the file's. A TOML file says more:

        name = "af"              # the file's name by default
        multi_label = false      # the default
        precedence = ["AF", "SR"]  # the order of the classes by default

        [classes]
        AF = ["164889003", "AFIB"]
        SR = ["426783006", "SR"]

    Raises:
        ValueError: if the file is missing, cannot be read, lacks something, or gives one code two classes.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected a task's table at {path}; it is not there")
    try:
        if path.suffix.lower() == ".csv":
            table: dict[str, Any] = {"classes": _read_classes(path)}
        else:
            table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return _own_task({"name": path.stem} | table)
    except (ValueError, csv.Error) as error:  # broken text and broken TOML are ValueErrors too
        raise ValueError(f"{path}: {error}") from error


def _read_classes(path: Path) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"code", "class"} <= set(reader.fieldnames or ()):
            raise ValueError(f"expected the columns code and class, found {', '.join(reader.fieldnames or ()) or 'none'}")
        for row in reader:
            classes.setdefault((row["class"] or "").strip(), []).append((row["code"] or "").strip())
    return classes


def _own_task(table: Mapping[str, Any]) -> Task:
    """A task from what a TOML file or a run's configuration says of it."""
    unknown = set(table) - {"name", "classes", "multi_label", "precedence"}
    if unknown:
        raise ValueError(f"expected name, classes, multi_label and precedence, found {', '.join(sorted(unknown))}")
    name, classes, multi_label = table.get("name"), table.get("classes"), table.get("multi_label", False)
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or ":" in name or name in TASKS:
        raise ValueError(f"expected a name of its own without ':' for the task, received {name!r}")
    if not isinstance(multi_label, bool):
        raise ValueError(f"expected true or false for multi_label, received {multi_label!r}")
    if not isinstance(classes, Mapping) or len(classes) < 2:
        raise ValueError('expected at least two classes with their codes, such as AF = ["164889003", "AFIB"]')
    for label, codes in classes.items():
        if (
            not isinstance(codes, list)
            or not codes
            or not all(isinstance(code, str) and code.strip() for code in (label, *codes))
        ):
            raise ValueError(f"expected a list of codes, each a text in quotes, for class {label!r}; received {codes!r}")
    precedence = table.get("precedence", [] if multi_label else list(classes))
    if not isinstance(precedence, list) or sorted(map(str, precedence)) != ([] if multi_label else sorted(classes)):
        raise ValueError(
            f"expected precedence to name {'no class' if multi_label else 'each class once'}, received {precedence}"
        )
    diagnoses: dict[str, str] = {}
    for code, label in ((code.strip(), label) for label, its in classes.items() for code in its):  # as records' codes are
        if diagnoses.setdefault(code, label) != label:
            raise ValueError(f"code {code!r} has two classes, {diagnoses[code]} and {label}; expected one")
    codes = {f"{name}:{label}": label for label in classes} | _merged_codes(diagnoses) | diagnoses
    precedence = tuple(map(str, precedence))  # classes may be called 1 and 2, which a TOML file may list as numbers
    return Task(name, tuple(classes), codes, multi_label, precedence, _rule(precedence))


def _rhythm_table(**classes: str) -> dict[str, str]:
    """Diagnosis codes by class, from the rhythms of each class."""
    return {name: " ".join(_RHYTHM_CODES[rhythm] for rhythm in rhythms.split()) for name, rhythms in classes.items()}


def _invert(table: Mapping[str, str]) -> dict[str, str]:
    """`{"AFIB": "164889003 AF"}` to `{"164889003": "AFIB", "AF": "AFIB"}`."""
    return {code: name for name, codes in table.items() for code in codes.split()}


_TWELVE = "SR AFIB STACH SARRH SBRAD PACE SVARR BIGU AFLT SVTAC PSVT TRIGU"

_TABLES = {  # task: {class: diagnosis codes}
    "rhythm4": _rhythm_table(SB="SBRAD", AFIB="AFIB AFLT", GSVT="STACH SVTAC PSVT AT AVNRT AVRT SAAWR", SR="SR SARRH"),
    "rhythm7": _rhythm_table(
        SR="SR", SB="SBRAD", ST="STACH", SA="SARRH", AFIB="AFIB", AFLT="AFLT", SVT="SVTAC PSVT AT AVNRT AVRT"
    ),
    "rhythm12": _rhythm_table(**{name: name for name in _TWELVE.split()}),
    "native": _rhythm_table(**{name: name for name in _RHYTHM_CODES}),  # every rhythm as the sources tell them apart
    "superclass": _SUPERCLASS_STATEMENTS,
}

_PRECEDENCE = {  # merging rhythm7's classes into rhythm4's gives rhythm4's labels, because the orders agree
    "rhythm4": ("AFIB", "GSVT", "SB", "SR"),
    "rhythm7": ("AFIB", "AFLT", "SVT", "ST", "SB", "SA", "SR"),
    "rhythm12": (),
    "native": (),
    "superclass": (),
}


def _merged_codes(diagnoses: Mapping[str, str]) -> dict[str, str]:
    """The classes of built-in tasks, as codes `task:CLASS`, all of whose diagnosis codes fall into one class of `diagnoses`."""
    codes = {}
    for task, table in _TABLES.items():
        for name, its in table.items():
            targets = {diagnoses.get(code) for code in its.split()}
            if len(targets) == 1 and None not in targets:
                codes[f"{task}:{name}"] = targets.pop()
    return codes


def _built_in(name: str) -> Task:
    """A task of the tables: its class names and the classes of all tasks are codes too."""
    diagnoses, precedence = _invert(_TABLES[name]), _PRECEDENCE[name]
    codes = {own: own for own in _TABLES[name]} | diagnoses | _merged_codes(diagnoses)
    return Task(name, tuple(_TABLES[name]), codes, not precedence, precedence, _rule(precedence))


def _rule(precedence: Sequence[str]) -> str:
    if precedence:
        return f"one class a record, the first present of {', '.join(precedence)}; a record with none of them is left out"
    return "every class of which a code is present; a record with none keeps a label of zeros"


TASKS: dict[str, Task] = {name: _built_in(name) for name in _TABLES}
"""The tasks by name: `rhythm4`, `rhythm7` (single-label), `rhythm12`, `native`, `superclass` (multi-label)."""
