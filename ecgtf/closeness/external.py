"""Synthetic ECGs that somebody else made: an npz file or a folder of WFDB records, in place of a data set."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ecgtf.closeness.comparison import Part, joined, part_of
from ecgtf.dataset import Manifest, load_arrays
from ecgtf.ecg import LEADS, canonical_leads, select_leads
from ecgtf.tasks import Task

_NAMED = 5  # faulty records that a message names


def is_external(path: str | Path) -> bool:
    """Whether this is an npz file, or a folder with WFDB records and no data set."""
    path = Path(path)
    if path.is_file():
        return path.suffix == ".npz"
    return path.is_dir() and not (path / "dataset.json").exists() and next(path.rglob("*.hea"), None) is not None


def read_external(path: str | Path, real: Manifest, task: Task) -> tuple[Part, dict]:
    """The records of an external set, with the rate, length and leads of the real set, and what is said of them in the results.

    WFDB records are converted as `ecgtf prepare wfdb` does it, but nothing is left out for poor quality; classes come from their
    `#Dx:` comments. An npz file holds `signals` `(records, time, leads)` in millivolts and `sampling_rate`; `leads` where they are
    not the standard 12; and, for what compares classes, `labels`: `(records, classes)` with `classes`, or a name for each record.
    Records without a class of a single-label task are left out and counted.

    Raises:
        ValueError: if the file is broken, or its signals do not fit the real set.
    """
    path = Path(path)
    part, rejected = _read_npz(path, real, task) if path.is_file() else _read_wfdb(path, real, task)
    return part, {"name": path.name, "records": len(part), "generator": None, "provenance": "external", "rejected": rejected}


def _read_wfdb(folder: Path, real: Manifest, task: Task) -> tuple[Part, int]:
    from ecgtf.data_prep.prepare import prepare

    with TemporaryDirectory() as scratch:
        made = Path(scratch) / "set"
        shape = {"rate": real.sampling_rate, "seconds": real.seconds, "leads": real.leads}
        manifest = prepare("wfdb", folder, made, **shape, checks=False)
        part = joined([part_of(load_arrays(made, split, task)) for split in manifest.splits])
        if not part.labels.any():  # no record has a class of the task: they are compared without classes
            part = joined([part_of(load_arrays(made, split)) for split in manifest.splits])
    return part, manifest.rejected + manifest.records - len(part)


def _read_npz(path: Path, real: Manifest, task: Task) -> tuple[Part, int]:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no readable npz file of plain arrays ({error})") from error
    missing = [name for name in ("signals", "sampling_rate") if name not in content]
    if missing:
        raise ValueError(
            f"{path} lacks {' and '.join(missing)}; expected signals (records, time, leads) in mV and sampling_rate, "
            f"received {', '.join(content) or 'nothing'}"
        )
    rates = np.ravel(content["sampling_rate"])
    if len(rates) != 1 or rates.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected sampling_rate to be a number, received {content['sampling_rate']!r}")
    signals, rate = np.asarray(content["signals"], np.float32), float(rates[0])
    have = canonical_leads([str(name) for name in content["leads"]]) if "leads" in content else LEADS
    expected = f"signals (records, {real.samples}, {len(have)}) at {real.sampling_rate:g} Hz, as the real set has them"
    if signals.ndim != 3 or signals.shape[1:] != (real.samples, len(have)) or rate != real.sampling_rate:
        raise ValueError(f"{path}: expected {expected}; received shape {signals.shape} at {rate:g} Hz")
    bad = np.flatnonzero(~np.isfinite(signals).all(axis=(1, 2)))
    if len(bad):
        named = ", ".join(map(str, bad[:_NAMED])) + (" ..." if len(bad) > _NAMED else "")
        raise ValueError(f"{path}: {len(bad)} of {len(signals)} records hold NaN or infinity (records {named}); leave them out")
    try:
        signals = select_leads(signals, have, real.leads)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; the real set has {', '.join(real.leads)}") from error
    part = Part(signals, _labels(path, content, len(signals), task), [f"{path.name}/{row}" for row in range(len(signals))])
    if part.labels is None or task.multi_label:
        return part, 0
    known = np.flatnonzero(part.labels.any(axis=1))  # as data sets leave out records without a class
    return part.take(known), len(part) - len(known)


def _labels(path: Path, content: Mapping[str, np.ndarray], records: int, task: Task) -> np.ndarray | None:
    """Labels `(records, classes)` in the order of the task, None where the file has none."""
    if "labels" not in content:
        return None
    labels = content["labels"]
    if labels.ndim == 1 and labels.dtype.kind in "US":
        names = sorted(set(labels.tolist()))
        labels = labels[:, None] == np.array(names)
    elif "classes" in content:
        names = [str(name) for name in content["classes"]]
    else:
        raise ValueError(f"{path} has labels without classes; expected their names in the order of the labels' columns")
    if labels.shape != (records, len(names)):
        raise ValueError(f"{path}: expected labels ({records}, {len(names)}), received shape {labels.shape}")
    unknown = [name for name in names if name not in task.classes]
    if unknown:
        raise ValueError(
            f"{path}: class {', '.join(unknown)} is not of the task {task.name} ({', '.join(task.classes)}); choose another --task"
        )
    if not np.isin(labels, (0, 1)).all() or (not task.multi_label and (labels.sum(axis=1) > 1).any()):
        expected = "zeros and ones" if task.multi_label else "at most one 1 in each row, for the classes exclude each other"
        raise ValueError(f"{path}: expected labels of {expected}")
    found = np.zeros((records, len(task.classes)), np.float32)
    found[:, [task.classes.index(name) for name in names]] = labels
    return found
