"""Files are whole: they appear under their name when they are, and a checksum tells whether they still are (standard library)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """A temporary file name to write to, which is renamed to `path` when the block ends and deleted when it fails.

    The name is hidden, so that no reader takes it for a file of its kind; it has the process in it, so that two processes that
    write the same file do not mix; and it ends with `.tmp` (and `suffix`), by which what a killed process leaves is known.

    Args:
        path: The file's final place; its folder must be there.
        suffix: What the temporary name must end with, for writers that go by it (`.keras`, `.npz`).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write to, which takes the place of `folder` when the block ends and is deleted when it fails.

    It is there and empty, as are the folders above it, and its name is as that of `replacing`. What was there stays until then; a
    link stays a link, to the new one. Of processes that write the same folder at the same time, the last one stays; they must not
    end at once. What a killed process leaves under the hidden name stays.

    Raises:
        ValueError: if the folder cannot be replaced: it is, or holds, the current folder, or another disk begins there.
    """
    folder = _replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process of the same number
    unfinished.mkdir()
    try:
        yield unfinished
        old = _out_of_the_way(folder)
        try:
            os.replace(unfinished, folder)
        except BaseException:
            if old is not None:
                old.rename(folder)
            raise
        if old is not None:
            shutil.rmtree(old)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Deletes a folder, if it is there; whoever is killed meanwhile leaves nothing under its name that counts as the whole folder.

    It gets a hidden name first. What is left under such a name is deleted by the next call for the same folder; no two processes
    may delete it at once. A link stays, to an empty folder.

    Raises:
        ValueError: as `replacing_folder`.
    """
    place = _replaceable(folder)
    old = _out_of_the_way(place)
    if folder.is_symlink():
        place.mkdir(exist_ok=True)
    if old is not None:
        shutil.rmtree(old)


def _replaceable(folder: Path) -> Path:
    """Where a folder lies, behind all links."""
    place = folder.resolve()
    if place in (Path.cwd(), *Path.cwd().parents):
        raise ValueError(f"{folder} is, or holds, the current folder, which cannot be replaced: name another one")
    if place.is_mount():
        raise ValueError(f"{folder} is where another disk begins, which cannot be replaced: name a folder inside it")
    return place


def _out_of_the_way(folder: Path) -> Path | None:
    """Gives a folder, if it is there, a hidden name; deletes what was left under such a name before."""
    ours = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.deleted\.tmp")
    for left in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if ours.fullmatch(left.name):
            shutil.rmtree(left)
    if not folder.is_dir():
        return None
    return folder.rename(folder.with_name(f".{folder.name}.{os.getpid()}.deleted.tmp"))


def check_free(
    folder: Path, what: str, ours: Callable[[], bool], overwrite: bool = False, use: str = "--overwrite to replace it"
) -> None:
    """Nothing is overwritten unasked, and nothing that is not `what` is written there.

    Args:
        folder: Where it will be written; it need not be there.
        what: What will be written, in a word or two.
        ours: Whether what the folder holds, if it holds something, is that; it may raise a `ValueError` of its own.
        overwrite: Whether replacing it was asked for.
        use: What to use where it is there already.

    Raises:
        ValueError: if the folder is a file, holds something else, or holds `what` and `overwrite` was not asked for.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder for the {what}")
    if is_empty(folder):
        return
    if not ours():
        raise ValueError(f"{folder} is not empty and holds no {what}; it is left as it is: name another folder")
    if not overwrite:
        raise ValueError(f"{folder} holds a {what} already; use {use}, or name another folder")


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing, or nothing but temporary files of killed processes."""
    return all(map(is_temporary, folder.iterdir()))


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is unfinished, by its name."""
    return path.name.startswith(".") and ".tmp" in path.name


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` (text as UTF-8) to `path`; a reader sees the old file or the whole new one, never half of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits, by which it is known to be whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict) -> None:
    """Writes `content` to `path` as indented JSON, as `write_atomically` does."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")
