"""What the options of models may be: each check refuses all else in one line.

Options come from the command line as JSON values or text, so that a type is looked at, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def check_whole(least: int = 1, **options: Any) -> None:
    """Refuses options, given by name, that are no whole number of at least `least`."""
    for name, value in options.items():
        if not _is_whole(value, least):
            raise ValueError(f"expected {name} as a whole number >= {least}, received {value!r}")


def check_wholes(number: int | None = None, least: int = 1, **options: Any) -> None:
    """Refuses options that are no row of whole numbers of at least `least`: of this many, or of any number of them but none."""
    for name, value in options.items():
        row = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
        if not row or number not in (None, len(row)) or not all(_is_whole(part, least) for part in row):
            many = "" if number is None else f"{number} "
            raise ValueError(f"expected {name} as {many}whole numbers >= {least}, received {value!r}")


def check_share(**options: Any) -> None:
    """Refuses options that are no number from 0 to 1."""
    for name, value in options.items():
        if not _is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"expected {name} from 0 to 1, received {value!r}")


def check_positive(**options: Any) -> None:
    """Refuses options that are no finite number above 0; None is one that is not used."""
    for name, value in options.items():
        if value is not None and not (_is_number(value) and value > 0):
            raise ValueError(f"expected {name} above 0, received {value!r}")


def check_weight(**options: Any) -> None:
    """Refuses options that are no finite number of 0 or more."""
    for name, value in options.items():
        if not (_is_number(value) and value >= 0):
            raise ValueError(f"expected {name} of 0 or more, received {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least
