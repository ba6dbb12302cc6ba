"""Tasks: what a label is. A task maps diagnosis codes to classes when a data set is read (NumPy only).

Records keep the codes that their source wrote: SNOMED CT codes, PTB-XL's SCP-ECG statements, the words and abbreviations of
the PhysioNet/CinC challenges. A code is present when it is listed, whatever its likelihood: PTB-XL writes its rhythm statements
with likelihood 0. Tables: PhysioNet/CinC Challenge 2021 (`dx_mapping_*.csv`), PTB-XL (`scp_statements.csv`, Wagner et al.
2020), Chapman-Shaoxing (Zheng et al. 2020, whose merge of rhythms is `rhythm4`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def get_task(name: str | Task) -> Task:
    """The task of this name (a `Task` passes through).

    Raises:
        ValueError: if there is no such task; the message names those there are.
    """
    if isinstance(name, Task):
        return name
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]


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
    "superclass": _SUPERCLASS_STATEMENTS,
}

_PRECEDENCE = {  # merging rhythm7's classes into rhythm4's gives rhythm4's labels, because the orders agree
    "rhythm4": ("AFIB", "GSVT", "SB", "SR"),
    "rhythm7": ("AFIB", "AFLT", "SVT", "ST", "SB", "SA", "SR"),
    "rhythm12": (),
    "superclass": (),
}


def _codes(name: str) -> dict[str, str]:
    """Every code of a task: its diagnosis codes, its class names, and the classes of all tasks as `task:CLASS`."""
    diagnoses = _invert(_TABLES[name])
    codes = {own: own for own in _TABLES[name]} | diagnoses
    for other, table in _TABLES.items():
        for other_class, other_codes in table.items():
            targets = {diagnoses.get(code) for code in other_codes.split()}
            if len(targets) == 1 and None not in targets:
                codes[f"{other}:{other_class}"] = targets.pop()
    return codes


def _task(name: str) -> Task:
    precedence = _PRECEDENCE[name]
    if precedence:
        rule = f"one class a record, the first present of {', '.join(precedence)}; a record with none of them is left out"
    else:
        rule = "every class of which a code is present; a record with none keeps a label of zeros"
    return Task(name, tuple(_TABLES[name]), _codes(name), not precedence, precedence, rule)


TASKS: dict[str, Task] = {name: _task(name) for name in _TABLES}
"""The tasks by name: `rhythm4`, `rhythm7` (single-label), `rhythm12`, `superclass` (multi-label)."""
