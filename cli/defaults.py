"""What a command takes when it is not told: the only fitting data set in `data/`, the newest fitting run in `runs/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ecgtf.atomic import is_temporary

DATA, RUNS, REPORTS = Path("data"), Path("runs"), Path("reports")
BY_FOLDER = "by its folder"
"""How a command is told of a data set or a report that it takes as an argument."""


def real_data(given: Sequence[Path] | None, choose: str = "with --data") -> list[Path]:
    """The data sets given, or the only real one in `data/`; `choose` says how the command is told of one.

    Raises:
        ValueError: if there is none, or several.
    """
    return list(given) if given else [_only(_data_sets(synthetic=False), "real data set", choose, "ecgtf prepare")]


def synthetic_data(given: Sequence[Path] | None) -> list[Path]:
    """The synthetic sets given, or the only one in `data/`.

    Raises:
        ValueError: if there is none, or several.
    """
    if given:
        return list(given)
    return [_only(_data_sets(synthetic=True), "synthetic data set", "with --synthetic", "ecgtf generate")]


def newest_run(given: Path | None, command: str) -> Path:
    """The run given, or the newest finished run of a command in `runs/`.

    Raises:
        ValueError: if there is none.
    """
    if given is not None:
        return given
    found = []
    for path in _whole(RUNS, "*/config.json"):
        config = read_json(path)
        if config.get("command") == command and config.get("finished"):
            found.append((path.stat().st_mtime, path.parent))
    if not found:
        raise ValueError(f"no finished run of {command} in {RUNS}/: name one with --run, or make one with: ecgtf {command}")
    return max(found)[1]


def is_finished(run: Path) -> bool:
    """Whether the folder holds a training that came to its end."""
    return bool(read_json(run / "config.json").get("finished"))


def only_report(given: Path | None) -> Path:
    """The report in the folder given, or in `reports/`: that folder itself, or the only report in one of its folders.

    Raises:
        ValueError: if there is none, or several.
    """
    made = ("closeness.json", "study.json")
    if given is not None and not any(found for name in made for found in _whole(given, f"*/{name}")):
        return given
    found = sorted(path.parent for name in made for path in _whole(given or REPORTS, f"**/{name}"))
    return _only(found, "report", BY_FOLDER, "ecgtf evaluate")


def _whole(folder: Path, pattern: str) -> Iterator[Path]:
    """The files below a folder that lie in none which a killed process left."""
    return (path for path in folder.glob(pattern) if not any(map(is_temporary, path.relative_to(folder).parents)))


def _data_sets(synthetic: bool) -> list[Path]:
    found = sorted(path.parent for path in _whole(DATA, "*/dataset.json"))
    return [folder for folder in found if (read_json(folder / "dataset.json").get("generator") is not None) == synthetic]


def read_json(path: Path) -> dict:
    """The content of a JSON file, empty where it is missing or broken."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _only(found: Sequence[Path], what: str, choose: str, make: str) -> Path:
    if not found:
        place = f"{Path.cwd().name}/{DATA if 'data' in what else REPORTS}"
        raise ValueError(f"no {what} in {place}: name one {choose}, or make one with: {make}")
    if len(found) > 1:
        raise ValueError(f"several {what}s fit ({', '.join(str(path) for path in found)}): choose one {choose}")
    return found[0]
