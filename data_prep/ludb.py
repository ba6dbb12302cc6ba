"""The Lobachevsky University database (LUDB 1.0.1): 200 records of 10 s, whose headers say the diagnoses in sentences.

Kalyakulina et al., "LUDB: A New Open-Access Validation Tool for Electrocardiogram Delineation Algorithms", IEEE Access
8:186181-186190 (2020); https://physionet.org/content/ludb/.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ecgtf.data_prep.wfdb_folder import find_records, read_records
from ecgtf.ecg import Record, Rejection

SOURCE = {
    "name": "ludb",
    "licence": "ODC-By 1.0",
    "citation": (
        "Kalyakulina et al., LUDB: A New Open-Access Validation Tool for Electrocardiogram Delineation Algorithms, "
        "IEEE Access 8:186181-186190 (2020)"
    ),
}

_RHYTHMS = {  # the rhythm sentences that are one rhythm of the tasks: SNOMED CT codes
    "sinus rhythm": "426783006",
    "sinus bradycardia": "426177001",
    "sinus tachycardia": "427084000",
    "sinus arrhythmia": "427393009",
    "atrial fibrillation": "164889003",
    "atrial flutter": "164890007",
    "atrial flutter, typical": "164890007",
}


def read_ludb(root: str | Path) -> Iterator[Record | Rejection]:
    """Every `*.hea` below `root`, in order of the paths, without signals.

    The rhythm sentence (`#Rhythm: Sinus bradycardia.`) becomes a SNOMED CT code. The other findings, and rhythm sentences
    without such a code, are codes as they are written, without the final full stop: `Left ventricular hypertrophy`. Among them
    are `Irregular sinus rhythm` (2 records), which the database tells apart from sinus arrhythmia (8 records), and `Wandering
    atrial pacemaker` (3 records), which it states beside the rhythm of the record and which must not outrank that.

    No header names a patient; every record counts as a patient of its own.

    Args:
        root: the database's folder (records in `data/`), or the folder that its records are in.

    Raises:
        ValueError: if `root` is no folder or holds no record.
    """
    root = Path(root)
    return read_records(root, find_records(root, "LUDB's folder (data/*.hea)"), SOURCE["name"], _codes)


def _codes(comments: Sequence[str]) -> tuple[str, ...]:
    """The findings among a header's comments; `<age>: 51`, `<sex>: F` and `<diagnoses>:` are none."""
    codes = []
    for comment in comments:
        if comment.startswith("<"):
            continue
        finding = " ".join(comment.split()).rstrip(" .")
        key, _, sentence = finding.partition(":")
        if key.strip().lower() == "rhythm":
            sentence = sentence.strip()
            finding = _RHYTHMS.get(sentence.lower(), sentence)
        if finding:
            codes.append(finding)
    return tuple(dict.fromkeys(codes))
