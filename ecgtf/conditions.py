"""What a generator can be told of a record beside its classes: age, sex and heart rate, as columns behind the label (no TensorFlow).

A number becomes weights of knots, 1 shared between the two nearest, so that a label times a learned matrix is a piecewise linear
function of it; unknown is all zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgtf.closeness.physiology import heart_rate, r_peaks
from ecgtf.dataset import Folders, records_of
from ecgtf.ecg import Record
from ecgtf.tasks import Task

SEXES = ("male", "female")
KNOTS: dict[str, np.ndarray] = {"age": np.arange(0.0, 101.0, 20.0), "heart_rate": np.arange(40.0, 201.0, 20.0)}
"""Years and beats/min; what lies beyond the ends counts as the ends, and is not to be asked for (`check_told`)."""
CONDITIONS = ("age", "sex", "heart_rate")
QUANTILES = np.linspace(0.0, 1.0, 21)
UNITS = {"age": "years", "heart_rate": "beats/min"}


def columns(name: str) -> int:
    """The number of columns of a condition.

    Raises:
        ValueError: if there is no such condition.
    """
    if name not in CONDITIONS:
        raise ValueError(f"unknown condition {name!r}; expected one of {', '.join(CONDITIONS)}")
    return len(SEXES) if name == "sex" else len(KNOTS[name])


def check_names(names: Sequence[str]) -> None:
    """Refuses conditions that there are not, and one that is named twice.

    Raises:
        ValueError: if there is one.
    """
    for name in names:
        columns(name)
        if list(names).count(name) > 1:
            raise ValueError(f"condition {name} is named more than once in {','.join(names)}: name it once")


def check_told(name: str, value: float) -> None:
    """Refuses a number that somebody asks for and a generator cannot tell from the end of its knots; what is measured may lie there.

    Raises:
        ValueError: if it lies beyond them, or is none.
    """
    low, high = KNOTS[name][[0, -1]]
    if not low <= value <= high:
        what = f"{'an' if name == 'age' else 'a'} {name.replace('_', ' ')} of {low:g} to {high:g} {UNITS[name]}"
        raise ValueError(f"expected {what}, which is what generators tell apart; received {value:g}")


def of_split(names: Sequence[str], folders: Folders, split: str, task: Task | str | None = None) -> dict[str, list]:
    """The values of conditions for the records that `load_arrays` gives, without holding their signals.

    Age and sex are what the source tells, the heart rate (beats/min) is measured.
    """
    values: dict[str, list] = {name: [] for name in names}
    for _, record in records_of(folders, split, task) if names else ():
        for name in names:
            values[name].append(_heart_rate(record) if name == "heart_rate" else getattr(record, name))
    return values


def _heart_rate(record: Record) -> float:
    (peaks,) = r_peaks(record.signal[None], record.sampling_rate)
    return heart_rate(peaks, record.sampling_rate)


def rates_by_class(rates: Sequence[float], labels: np.ndarray, classes: Sequence[str]) -> dict[str, list[float]]:
    """Quantiles of the heart rate (beats/min, at `QUANTILES`) of the records of each class, and of all records as `""`."""
    rates, members = np.asarray(rates, float), [(name, labels[:, k] > 0) for k, name in enumerate(classes)]
    found = {}
    for name, rows in (("", np.ones(len(rates), bool)), *members):
        known = rates[rows & np.isfinite(rates)]
        if len(known):
            found[name] = np.quantile(known, QUANTILES).round(1).tolist()
    return found


def draw_rates(
    table: Mapping[str, Sequence[float]], labels: np.ndarray, classes: Sequence[str], uniform: np.ndarray
) -> np.ndarray:
    """Heart rates `(records,)` for labels `(records, classes)`: those of the first class of a record, at quantiles `uniform` `(records,)`.

    NaN, unknown, where the table tells nothing.
    """
    names = [classes[int(row.argmax())] if row.any() else "" for row in labels]
    nothing = np.full(len(QUANTILES), np.nan)
    tables = [table.get(name, table.get("", nothing)) for name in names]
    return np.array([np.interp(place, QUANTILES, values) for place, values in zip(uniform, tables, strict=True)])


def encode(names: Sequence[str], values: Mapping[str, Sequence[Any]], records: int) -> np.ndarray:
    """Columns `(records, sum of columns)` float32 of conditions, in the order of `names`.

    Args:
        names: The conditions to encode.
        values: For each, one value a record; None or NaN, or no entry, is unknown.
        records: Number of records.

    Raises:
        ValueError: if a condition is none of the names, or a value is not possible.
    """
    others = [name for name in values if name not in names]
    if others:
        raise ValueError(
            f"expected conditions among {', '.join(names) or '(none)'}, received {', '.join(others)}: a generator knows those that it "
            "was trained with (--conditions)"
        )
    parts = [_encode(name, values[name]) if name in values else np.zeros((records, columns(name))) for name in names]
    return np.concatenate([np.zeros((records, 0)), *parts], axis=1).astype(np.float32)


def _encode(name: str, values: Sequence[Any]) -> np.ndarray:
    if name == "sex":
        for value in values:
            if value is not None and value not in SEXES:
                raise ValueError(f"expected a sex of {' or '.join(SEXES)}, received {value!r}")
        return np.array([[value == sex for sex in SEXES] for value in values], float).reshape(len(values), len(SEXES))
    numbers = np.array([np.nan if value is None else value for value in values], float)
    impossible = numbers[np.isinf(numbers) | (numbers < 0)]
    if len(impossible):
        raise ValueError(f"expected {name.replace('_', ' ')} in {UNITS[name]}, 0 or more, received {impossible[0]:g}")
    knots = KNOTS[name]
    place = (np.clip(numbers, knots[0], knots[-1]) - knots[0]) / (knots[1] - knots[0])
    weights = np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(len(knots))))
    return np.where(np.isfinite(numbers)[:, None], weights, 0.0)
