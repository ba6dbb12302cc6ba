"""What a folder of results or of work is for: a later start must agree with it (no TensorFlow of its own)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ecgtf.atomic import check_free, sha256, write_json
from ecgtf.manifest import read_manifest
from ecgtf.run_folder import versions
from ecgtf.studies import STUDIES
from ecgtf.studies.config import GeneratorPlan, ReadySource, Recipe, StudyConfig
from ecgtf.studies.results import TABLE
from ecgtf.tasks import get_task

SETTINGS = "study.json"

_WORK = ("folds", "generators", "synthetic", "kept", "judges", "pretrained", "classifiers")
_PARTS = {"recipes": Recipe, "sources": ReadySource, "generators": GeneratorPlan}


def asked_for(study: str, config: StudyConfig) -> dict[str, Any]:
    """What results depend on: the study, its settings, what its tasks are, and checksums of its data sets' records and of the models
    that its generators start from."""
    folders = [*config.data_sets, *(folder for source in config.sources.values() for folder in source.data)]
    sums = {str(folder): read_manifest(folder).checksum for folder in folders if Path(folder, "dataset.json").is_file()}
    starts = [
        Path(plan.start) for plan in config.generators.values() if plan.start and Path(plan.start, "model.keras").is_file()
    ]
    sums |= {str(run): sha256(run / "model.keras") for run in starts}
    tasks = {
        name: get_task(name).reference for name in [config.task, *(source.task for source in config.sources.values())] if name
    }
    return json.loads(json.dumps({"study": study, "settings": config.as_dict(), "tasks": tasks, "data": sums}))


def check_folders(out: Path, work: Path, asked: dict[str, Any]) -> None:
    """Refuses folders that hold something else than what was asked for; what has no results yet may be of other settings.

    Raises:
        ValueError: if one does.
    """
    if (out / TABLE).is_file():
        check_same(out, asked, "name another --out")
    else:
        check_free(out, "study", (out / SETTINGS).is_file, overwrite=True)
    if (work / SETTINGS).is_file() and _has_work(work):
        check_same(work, asked | {"study": settings_of(work)["study"]}, "name another folder by the setting work, or delete it")


def check_same(folder: Path, asked: dict[str, Any], advice: str) -> None:
    """Refuses a folder whose cells depend on other settings than those asked for; grids may differ.

    Raises:
        ValueError: naming the first of them.
    """
    there = settings_of(folder)
    for name in ("study", "task", "collections", "merge", "folds", "validation", "seed", "pool_per_class"):
        old, new = (content["settings"].get(name, content.get(name)) for content in (there, asked))
        if old != new:
            raise ValueError(f"{folder} holds a study of another {name} ({old} there, {new} now): {advice}")
    for name, kind in _PARTS.items():
        # a setting that did not exist yet was what it is where nobody names it
        old = {part: _defaults(kind) | values for part, values in there["settings"].get(name, {}).items()}
        new = asked["settings"][name]
        changed = [part for part in old if part in new and old[part] != new[part]]
        if changed:
            raise ValueError(
                f"{folder} holds a study with other {name}: {changed[0]} was {old[changed[0]]}, is {new[changed[0]]}: "
                f"give it another name, or {advice}"
            )
    for task, classes in asked["tasks"].items():
        if there.get("tasks", {}).get(task, classes) != classes:
            raise ValueError(f"{folder} holds a study of another task: {task} was changed since: {advice}")
    for data, checksum in asked["data"].items():
        if there.get("data", {}).get(data, checksum) != checksum:
            raise ValueError(f"{folder} holds a study of other records: {data} was made anew since: {advice}")


def _defaults(kind: type) -> dict[str, Any]:
    values = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    return json.loads(json.dumps(values))


def keep_settings(folders: Iterable[Path], asked: dict[str, Any]) -> None:
    """Writes what was asked for into folders; recipes, sources, generators, tasks and data sets of earlier starts stay known, for
    what was made by them is still there."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        known = settings_of(folder) if (folder / SETTINGS).is_file() and _has_work(folder) else {}
        parts = {}
        for name in _PARTS:  # those of this start first, in their order: it says which recipe is the plain one
            now = asked["settings"][name]
            parts[name] = now | {part: old for part, old in known.get("settings", {}).get(name, {}).items() if part not in now}
        more = {name: known.get(name, {}) | asked[name] for name in ("tasks", "data")}
        # figures of one seed may differ in their last digits between two states of the package: all that took part stay known
        before = [*known.get("earlier_versions", []), *([known["versions"]] if "versions" in known else [])]
        more |= {"versions": versions(), "earlier_versions": [each for each in before if each != versions()]}
        write_json(folder / SETTINGS, asked | {"settings": asked["settings"] | parts} | more)


def _has_work(folder: Path) -> bool:
    """Whether a folder of results or of work holds anything that was made by its settings."""
    return (folder / TABLE).is_file() or any((folder / name).is_dir() for name in _WORK)


def settings_of(folder: Path) -> dict[str, Any]:
    """What `keep_settings` wrote.

    Raises:
        ValueError: if it is missing or damaged.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise ValueError(f"{folder} holds no study: {SETTINGS} is missing")
    try:
        content = json.loads(path.read_text())
        if not (isinstance(content, dict) and isinstance(content.get("settings"), dict) and content.get("study") in STUDIES):
            raise ValueError(f"expected a study, one of {', '.join(STUDIES)}, and its settings")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): take it from another part of the study, or name another --out"
        ) from error
    return content
