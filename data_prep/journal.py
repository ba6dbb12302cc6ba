"""The journal of a preparation, `prepare.json`: its settings and the shards that are done, so that it can be continued."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ecgtf.atomic import check_free, sha256, write_atomically
from ecgtf.ecg import Rejection
from ecgtf.manifest import FILE_NAME as MANIFEST
from ecgtf.manifest import ShardSummary
from ecgtf.record_table import FILE_NAME as RECORDS

FILE_NAME = "prepare.json"
REJECTED = "rejected.csv"
_SCHEMA = 1
_TABLES = ".*.tfrecord-?????-of-?????.csv"


class Journal:
    """What is done of a preparation in `folder`.

    Args:
        folder: the output folder; made if it is not there.
        settings: all that the shards depend on, as JSON values. A journal of other settings is not continued.
        overwrite: start anew instead of continuing, or in place of a finished data set.

    Raises:
        ValueError: if the folder is in other use (see `check_folder`), or holds an unfinished preparation of other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool = False):
        check_folder(folder, overwrite)
        self.folder, self.settings = folder, dict(settings)
        self.finished: dict[str, tuple[ShardSummary, list[Rejection]]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            self.clear()
        elif (folder / FILE_NAME).exists():
            self._continue()
        for leftover in folder.glob("*.tmp"):
            leftover.unlink()
        self._write()

    def add(self, summary: ShardSummary, rejections: list[Rejection]) -> None:
        """Notes a shard as done."""
        self.finished[summary.file] = summary, rejections
        self._write()

    def clear(self) -> None:
        """Removes what a preparation leaves in the folder, the manifest first."""
        for name in (MANIFEST, FILE_NAME, REJECTED, RECORDS):
            (self.folder / name).unlink(missing_ok=True)
        for pattern in ("*.tfrecord-?????-of-?????", _TABLES):
            for file in self.folder.glob(pattern):
                file.unlink()
        self.finished.clear()

    def close(self) -> None:
        """Ends the journal once the manifest is there."""
        (self.folder / FILE_NAME).unlink(missing_ok=True)
        for table in self.folder.glob(_TABLES):
            table.unlink()

    def _continue(self) -> None:
        path = self.folder / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ValueError(f"schema {content['schema']!r}")
            settings = dict(content["settings"])
            finished = {
                name: (ShardSummary(**{**entry["summary"], "codes": Counter(entry["summary"]["codes"])}), entry["rejected"])
                for name, entry in content["finished"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is broken ({error}); start anew with --overwrite") from error
        if settings != self.settings:
            names = [name for name in self.settings if settings.get(name) != self.settings[name]]
            changes = ", ".join(f"{name} {settings.get(name)!r} instead of {self.settings[name]!r}" for name in names)
            raise ValueError(
                f"{self.folder} holds an unfinished preparation of other settings ({changes}); start anew with --overwrite"
            )
        for name, (summary, rejected) in finished.items():
            shard, rows = self.folder / name, self.folder / f".{name}.csv"
            # they are not there if the machine stopped before they were on disk
            if shard.is_file() and rows.is_file() and sha256(shard) == summary.sha256:
                self.finished[name] = summary, [Rejection(*pair) for pair in rejected]

    def _write(self) -> None:
        finished = {
            name: {"summary": vars(summary), "rejected": [[item.id, item.reason] for item in rejections]}
            for name, (summary, rejections) in self.finished.items()
        }
        text = json.dumps({"schema": _SCHEMA, "settings": self.settings, "finished": finished})
        write_atomically(self.folder / FILE_NAME, text)


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Whether a preparation may write to `folder`.

    Raises:
        ValueError: if it is a file, holds a finished data set (unless `overwrite`), or holds something else.
    """
    finished = (folder / MANIFEST).exists()
    unfinished = (folder / FILE_NAME).exists() and not finished
    check_free(folder, "data set", lambda: finished or unfinished, overwrite or unfinished)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keeps a second process from preparing into the same folder at the same time, where the system can tell.

    Raises:
        ValueError: if another process is at it.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another process is preparing {folder} now; wait for it or choose another folder") from None
    except OSError:  # some network file systems lock no folders
        pass
    try:
        yield
    finally:
        os.close(handle)
