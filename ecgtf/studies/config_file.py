"""A study's settings from a TOML file, or from what a study's folder holds of them: every value is what it must be."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ecgtf.studies import STUDIES
from ecgtf.studies.config import GeneratorPlan, Grid, ReadySource, Recipe, StudyConfig

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read_config(path: str | Path) -> StudyConfig:
    """The settings in a TOML file, or those of a name that come with the package, such as `small`.

    Raises:
        ValueError: if there is no such file, it is no TOML, or a setting is missing, unknown or not possible.
    """
    shipped, path = shipped_configs(), Path(path)
    if str(path) in shipped and not path.exists():
        path = shipped[str(path)]
    if not path.is_file():
        raise ValueError(
            f"expected a study's settings at {path}, but there is no such file, and {path} is not one of {', '.join(shipped)}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    try:
        config = _built(content, path.stem)
        config.check_idle()
        return config
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def config_of(settings: Mapping[str, Any]) -> StudyConfig:
    """The settings whose `as_dict` this is, as a study's folder holds it.

    Raises:
        ValueError: as `read_config`.
    """
    content = dict(settings)
    grids = content.pop("grids", {})
    return _built(content | {study: {"grid": grids.get(study, ())} for study in STUDIES}, settings.get("name", ""))


def shipped_configs() -> dict[str, Path]:
    """The settings that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "configs").glob("*.toml"))}


def _built(content: dict[str, Any], name: str) -> StudyConfig:
    written = [item.name for item in fields(StudyConfig) if item.name != "grids"]
    _check_names(content, [*written, *STUDIES], "the file")
    values = {"name": name} | content
    values["collections"] = {
        key: tuple(_fitting(folders, tuple[str, ...], f"collections.{key}"))
        for key, folders in _table(values.get("collections", {}), "collections").items()
    }
    for key, kind in (("recipes", Recipe), ("sources", ReadySource), ("generators", GeneratorPlan)):
        values[key] = {
            part: _made(kind, settings, f"{key}.{part}") for part, settings in _table(values.get(key, {}), key).items()
        }
    values["grids"] = {study: _grids(values.pop(study, {}), study) for study in STUDIES}
    if "task" not in values:
        raise ValueError("expected a task, as in task = 'rhythm4'")
    return _made(StudyConfig, values, "the file")


def _grids(blocks: Any, study: str) -> tuple[Grid, ...]:
    unknown = [name for name in _table(blocks, study) if name != "grid"]
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r} in {study}; expected blocks [[{study}.grid]]")
    grids = blocks.get("grid", ())
    if not isinstance(grids, list | tuple):
        raise ValueError(f"expected blocks [[{study}.grid]], received {json.dumps(grids)}")
    return tuple(_made(Grid, grid, f"{study}.grid") for grid in grids)


def _made(kind: type, settings: Any, where: str):
    """A dataclass of settings, each of which has the type that it is annotated with; lists become tuples."""
    _check_names(settings, [item.name for item in fields(kind)], where)
    hints = get_type_hints(kind)
    values = {name: _fitting(value, hints[name], f"{where}.{name}") for name, value in settings.items()}
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
    except ValueError as error:
        raise error if kind is StudyConfig else ValueError(f"{where}: {error}") from error


def _check_names(settings: Any, known: Sequence[str], where: str) -> None:
    unknown = [name for name in _table(settings, where) if name not in known]
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r} in {where}; expected some of {', '.join(known)}")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table for {where}, received {json.dumps(value)}")
    return value


def _fitting(value: Any, hint: Any, where: str) -> Any:
    """The value, if it is what the type says."""
    if not _fits(value, hint):
        raise ValueError(f"expected {_words(hint)} for {where}, received {json.dumps(value)}")
    return value


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, get_origin(hint) or hint)


def _words(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(_words(each) for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is tuple:
        return f"a list with {_words(get_args(hint)[0])} each"
    return _WORDS[hint]
