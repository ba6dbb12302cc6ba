"""The run folder of a training: what was asked for and what came of it.

A run folder holds `config.json` (what was asked, with versions and seed), `log.csv`, `tensorboard/`, `checkpoints/<stage>/`, the
final `.keras` files, `trained_on.txt` (hashed ids of the training records) and, of a classifier, `chosen_by.txt` (of the validation
records).
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras

from ecgtf.atomic import check_free, is_empty, remove_folder, replacing, write_atomically, write_json
from ecgtf.manifest import FILE_NAME, Folders, listed, read_manifest


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on, and a digest of this package's sources, which may differ between
    two states of one version (but for those of commands and of the preparation of data sets, which have checksums)."""
    found = {"python": platform.python_version(), "source": _source_digest()}
    for name in ("ecgtf", "tensorflow", "keras", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


@cache
def _source_digest() -> str:
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] not in ("cli", "data_prep"):  # these lie elsewhere in a checkout
            digest.update(place.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def check_replaceable(folder: Path, overwrite: bool, use: str = "--overwrite to replace it") -> None:
    """As `check_free`, of runs."""
    check_free(folder, "run", (folder / "config.json").exists, overwrite, use)


@dataclass
class Run:
    """A run folder: what was asked for and what came of it."""

    folder: Path
    config: dict = field(default_factory=dict)
    writes: bool = True
    """False for the workers of a cluster that share the folder with the one that writes."""

    @classmethod
    def open(
        cls,
        folder: str | Path,
        config: dict,
        *,
        resume: bool = False,
        overwrite: bool = False,
        writes: bool = True,
        unsaid: Mapping[str, Any] | None = None,
    ) -> Run:
        """Starts a run in `folder`, or goes on with the one that is there.

        Args:
            folder: The run folder.
            config: What was asked for; compared with what is there when resuming.
            resume: Go on with an unfinished run of the same configuration (a new one is started where there is none).
            overwrite: Delete what is there first.
            writes: False leaves all of this, and what is written later, to another worker that opens the same run.
            unsaid: What settings were of runs that are older than these settings and do not name them.

        Raises:
            ValueError: if the folder is not empty (without `resume` or `overwrite`, of which one may be given), or holds a run of
                another configuration, or one whose data sets hold other records since (by `checksums` in the configuration).
        """
        if resume and overwrite:
            raise ValueError("--resume goes on with a run and --overwrite replaces it: give one of the two")
        folder = Path(folder)
        config = json.loads(json.dumps(config))
        if not writes:
            there = resume and (folder / "config.json").exists()
            return cls(folder, cls.load(folder).config if there else config | {"finished": False}, writes)
        if not resume:
            check_replaceable(folder, overwrite, "--resume to go on with its run, --overwrite to replace it")
            if overwrite:
                remove_folder(folder)
        elif folder.exists() and not is_empty(folder):
            there = cls.load(folder)
            there.config = dict(unsaid or {}) | there.config
            other = sorted(key for key in config.keys() - {"checksums"} if there.config.get(key) != config[key])
            if other:
                changes = "; ".join(f"{key}: {_short(there.config.get(key))} there, {_short(config[key])} now" for key in other)
                raise ValueError(
                    f"{folder} holds a run of another configuration ({changes}): name another --out or use --overwrite"
                )
            known = there.config.get("checksums", {})
            for source, checksum in config.get("checksums", {}).items():
                if known.get(source, checksum) != checksum:
                    raise ValueError(
                        f"{source} is not what the run in {folder} began with: name another --out or use --overwrite"
                    )
            return there
        folder.resolve().mkdir(parents=True, exist_ok=True)  # also where a link leads to nothing
        run = cls(folder, config | {"schema": 1, "versions": versions(), "finished": False})
        run.write_config()
        return run

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """The run in a folder.

        Raises:
            ValueError: if there is none.
        """
        folder = Path(folder)
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder} is not a run folder: it has no config.json; expected the --out of a training command")
        try:
            return cls(folder, json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}); train again with --overwrite") from error

    @property
    def what(self) -> str:
        """What made the run, in words."""
        return f"a run of {self.config['command']}" if "command" in self.config else "no run: its config.json names no command"

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.config.get("finished"))

    def write_config(self) -> None:
        """Writes `config.json`."""
        if self.writes:
            write_json(self.folder / "config.json", self.config)

    def finish(self, **results) -> None:
        """Marks the run as finished, with what is worth knowing of its end."""
        self.config |= {"finished": True} | results
        self.write_config()

    def save_model(self, model: keras.Model, name: str = "model") -> Path:
        """Saves a model as `<name>.keras`, without its optimizer, under a temporary name first."""
        path = self.folder / f"{name}.keras"
        if not self.writes:
            return path
        bare = model.__class__.from_config(model.get_config())
        bare.set_weights(model.get_weights())
        with replacing(path, ".keras") as temporary:
            bare.save(temporary)
        return path

    def load_model(self, name: str = "model") -> keras.Model:
        """The model saved as `<name>.keras`.

        Raises:
            ValueError: if the run has none yet, or a damaged one.
        """
        path = self.folder / f"{name}.keras"
        if not path.is_file():
            raise ValueError(f"{self.folder} holds no {path.name}: its training has not come to an end; go on with --resume")
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is damaged; train again with --overwrite")
        return keras.models.load_model(path, compile=False)

    def write_trained_on(self, hashed_ids: Iterable[str]) -> None:
        """Keeps the hashed ids of the training records, one a line."""
        if self.writes:
            write_atomically(self.folder / "trained_on.txt", "".join(f"{value}\n" for value in sorted(hashed_ids)))

    def trained_on(self) -> list[str]:
        """The hashed ids of the training records.

        Raises:
            ValueError: if they are missing: the run would count as trained on nothing.
        """
        path = self.folder / "trained_on.txt"
        if not path.is_file():
            raise ValueError(
                f"{self.folder} holds no {path.name}, the ids of the records that it was trained on and cannot be tested on: "
                "put the file back, or train again with --overwrite"
            )
        return path.read_text().split()

    def write_chosen_by(self, hashed_ids: Iterable[str]) -> None:
        """Keeps the hashed ids of the validation records, by which the weights were chosen, one a line."""
        if self.writes:
            write_atomically(self.folder / "chosen_by.txt", "".join(f"{value}\n" for value in sorted(hashed_ids)))

    def chosen_by(self) -> list[str]:
        """The hashed ids of the validation records; none where the run does not know them (a generator's)."""
        path = self.folder / "chosen_by.txt"
        return path.read_text().split() if path.is_file() else []


def is_finished(folder: str | Path) -> bool:
    """Whether a folder holds a run that came to its end, whatever was asked for.

    Raises:
        ValueError: as `Run.load`, if its `config.json` is damaged.
    """
    return (Path(folder) / "config.json").is_file() and Run.load(folder).finished


def checksums(*sources: Folders | None) -> dict[str, str]:
    """What data sets hold, and the weights of runs to start from, by folder: by that a run knows whether they are still the same."""
    folders = [str(folder) for given in sources if given is not None for folder in listed(given)]
    return {folder: checksum for folder in folders if (checksum := _checksum(Path(folder)))}


def _checksum(folder: Path) -> str | None:
    if (folder / FILE_NAME).is_file():
        return read_manifest(folder).checksum
    model = folder / "model.keras"
    if not zipfile.is_zipfile(model):
        return None
    with zipfile.ZipFile(model) as archive:  # whose metadata tells the time
        return hashlib.sha256(archive.read("model.weights.h5")).hexdigest()


def is_outdated(folder: str | Path) -> bool:
    """Whether a folder holds a run of sources that are no longer what they were; those that are gone are not."""
    if not (Path(folder) / "config.json").is_file():
        return False
    known = Run.load(folder).config.get("checksums", {})
    return not checksums(list(known)).items() <= known.items()


def check_apart(start: str | Path | None, out: str | Path) -> None:
    """Refuses a run to start from that would be written over."""
    if start is not None and Path(start).resolve() == Path(out).resolve():
        raise ValueError(f"{out} is the run to start from, which stays as it is: name another --out")


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
