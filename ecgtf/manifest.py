"""The manifest of a data set, `dataset.json`: what is in the folder, where it comes from, what its generator saw (NumPy only).

The manifest is written last, so a folder that has one is finished.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ecgtf.atomic import write_atomically
from ecgtf.ecg import SPLITS, canonical_leads

SCHEMA = 1
FILE_NAME = "dataset.json"
RESOLUTION_MV = 0.001
"""Millivolts per step of the stored 16-bit integers."""

Folders = str | os.PathLike | Sequence[str | os.PathLike]


@dataclass
class ShardSummary:
    """What `write_shard` found while it wrote one shard; sums are exact, in steps of the resolution."""

    file: str
    records: int
    sha256: str
    codes: Counter[str] = field(default_factory=Counter)
    sum: list[int] = field(default_factory=list)
    """Per lead, over all samples."""
    sumsq: list[int] = field(default_factory=list)
    count: int = 0
    """Samples per lead."""

    @property
    def split(self) -> str:
        """The split, by the file's name `train.tfrecord-00000-of-00004`."""
        return self.file.split(".tfrecord")[0]


@dataclass
class Manifest:
    """The content of `dataset.json`."""

    name: str
    sampling_rate: float
    """Samples per second."""
    seconds: float
    leads: tuple[str, ...]
    splits: dict[str, dict[str, Any]]
    """`{split: {"records", "shards": [{"file", "records", "sha256"}], "codes": {code: records that carry it}}}`."""
    statistics: dict[str, list[float]]
    """`{"mean", "std"}` per lead in millivolts, over the training split (over all records where that split is empty)."""
    rejected: int = 0
    """Records of the source that could not be used."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """`[{"name", "licence", "citation"}]`."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """How the set was made."""
    generator: dict[str, Any] | None = None
    """None for real records; else `{"run", "kind", "task", "settings", "trained_on": hashed ids}`; of several sets as one, `run` and
    `settings` are lists, and `kind` and `task` are left out."""
    table: dict[str, str] | None = None
    """The table of records, `{"file", "sha256"}`, where there is one."""
    resolution_mv: float = RESOLUTION_MV
    schema: int = SCHEMA

    @property
    def synthetic(self) -> bool:
        """Whether a generator made (some of) the records."""
        return self.generator is not None

    @property
    def samples(self) -> int:
        """Samples per record."""
        return round(self.seconds * self.sampling_rate)

    @property
    def records(self) -> int:
        """Records of all splits."""
        return sum(split["records"] for split in self.splits.values())

    @property
    def checksum(self) -> str:
        """SHA-256 over those of the shards: the same wherever the same records were prepared into the same shards."""
        sums = [f"{name} {shard['sha256']}\n" for name, split in sorted(self.splits.items()) for shard in split["shards"]]
        return hashlib.sha256("".join(sums).encode()).hexdigest()

    def records_in(self, split: str) -> int:
        """Records of one split.

        Raises:
            ValueError: if there is no split of this name.
        """
        return self._split(split)["records"]

    def shards(self, split: str) -> list[str]:
        """File names of a split's shards, in order.

        Raises:
            ValueError: if there is no split of this name.
        """
        return [shard["file"] for shard in self._split(split)["shards"]]

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.splits:
            raise ValueError(f"data set {self.name} has no split {split!r}; expected one of {', '.join(self.splits)}")
        return self.splits[split]


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """The manifest of the data set in `folder`.

    Raises:
        ValueError: if the folder is missing, holds no finished data set, or its manifest is broken or of another schema.
    """
    folder = Path(folder)
    path = folder / FILE_NAME
    if not path.is_file():
        if not folder.is_dir():
            raise ValueError(f"expected a data set at {folder}, but there is no such folder")
        partly = any(folder.glob("*.tfrecord*")) or any(folder.glob("*.tmp"))
        state = "an unfinished data set (prepare it again to continue)" if partly else "no data set"
        raise ValueError(f"{folder} holds {state}: {FILE_NAME} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is broken: expected JSON ({error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise ValueError(f"{path}: expected a manifest of schema {SCHEMA}, received schema {schema!r}; prepare the data again")
    known = {item.name for item in fields(Manifest)}
    try:
        manifest = Manifest(**{name: value for name, value in content.items() if name in known})
        _check(manifest)
        manifest.leads = canonical_leads(manifest.leads)
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is broken: {error}") from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Raises ValueError (or TypeError, KeyError, AttributeError) on fields that later code could not use."""
    for name in ("sampling_rate", "seconds", "resolution_mv"):
        value = getattr(manifest, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"expected a number above 0 for {name}, received {value!r}")
    if not isinstance(manifest.name, str) or not isinstance(manifest.leads, list) or not manifest.leads:
        raise ValueError("expected a name and a list of leads")
    if set(manifest.splits) != set(SPLITS):
        raise ValueError(f"expected the splits {', '.join(SPLITS)}, received {', '.join(manifest.splits)}")
    for split, content in manifest.splits.items():
        for shard in content["shards"]:
            _check_file(shard)
        counts = [shard["records"] for shard in content["shards"]]
        if not all(_is_count(count) for count in (*counts, content["records"], *content["codes"].values())):
            raise ValueError(f"expected whole numbers of records in split {split}")
        if sum(counts) != content["records"]:
            raise ValueError(f"split {split} counts {content['records']} records, its shards {sum(counts)}")
    largest = 2**15 * manifest.resolution_mv  # of a 16-bit integer
    for name in ("mean", "std"):
        values = manifest.statistics[name]
        if len(values) != len(manifest.leads) or not all(isinstance(v, int | float) and abs(v) <= largest for v in values):
            raise ValueError(f"expected {len(manifest.leads)} numbers of at most {largest:g} mV as {name} of the leads")
    if not isinstance(manifest.sources, list) or not isinstance(manifest.provenance, dict) or not _is_count(manifest.rejected):
        raise ValueError("expected a list of sources, a table of provenance and a number of rejected records")
    if manifest.table is not None:
        _check_file(manifest.table)
    if manifest.generator is not None:
        trained_on = manifest.generator["trained_on"]
        if not isinstance(trained_on, list) or not all(isinstance(hashed, str) for hashed in trained_on):
            raise ValueError("expected a list of hashed ids in generator.trained_on")


def _check_file(entry: Mapping[str, Any]) -> None:
    """Refuses a file that may lie outside the data set's folder, or has no SHA-256."""
    file = entry["file"]
    if not isinstance(file, str) or Path(file).name != file or "\\" in file or file in ("", ".", ".."):
        raise ValueError(f"expected a plain file name inside the folder, received {file!r}")
    if not isinstance(entry["sha256"], str):
        raise ValueError(f"expected a SHA-256 for {file}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def finish_dataset(
    folder: str | os.PathLike, manifest_fields: Mapping[str, Any], summaries: Iterable[ShardSummary]
) -> Manifest:
    """Writes `dataset.json` of shards that lie in `folder` already, atomically: the folder then holds a finished data set.

    Args:
        folder: where the shards are.
        manifest_fields: `name`, `sampling_rate`, `seconds`, `leads` and, where known, `rejected`, `sources`, `table`,
            `provenance`, `generator` of the `Manifest`.
        summaries: what `write_shard` gave for each shard.

    Raises:
        ValueError: if a field is missing or unknown, a shard is missing or stands twice, or no record is left.
    """
    folder = Path(folder)
    summaries = sorted(summaries, key=lambda summary: summary.file)
    names = [summary.file for summary in summaries]
    if len(set(names)) != len(names):
        raise ValueError(f"expected each shard of {folder} once, received {', '.join(names)}")
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"expected shard {name} in {folder}, but it is not there")
    if not any(summary.records for summary in summaries):
        raise ValueError(f"no record is left for the data set {folder}")
    unknown = {summary.split for summary in summaries} - set(SPLITS)
    if unknown:
        raise ValueError(f"expected shards of {', '.join(SPLITS)}, received {', '.join(sorted(unknown))}")
    splits = {}
    for split in SPLITS:
        parts = [summary for summary in summaries if summary.split == split]
        codes = sum((Counter(part.codes) for part in parts), Counter())
        splits[split] = {
            "records": sum(part.records for part in parts),
            "shards": [{"file": part.file, "records": part.records, "sha256": part.sha256} for part in parts],
            "codes": dict(sorted(codes.items())),
        }
    training = [summary for summary in summaries if summary.split == "train" and summary.records]
    statistics = _statistics(training or [summary for summary in summaries if summary.records])
    try:
        manifest = Manifest(**manifest_fields, splits=splits, statistics=statistics)
    except TypeError as error:
        raise ValueError(f"manifest of {folder}: {error}") from error
    manifest.leads = list(manifest.leads)  # as JSON has it
    _check(manifest)
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / FILE_NAME, text)
    manifest.leads = tuple(manifest.leads)
    return manifest


def _statistics(summaries: Sequence[ShardSummary]) -> dict[str, list[float]]:
    """Mean and standard deviation per lead in millivolts, from exact integer sums."""
    count = sum(summary.count for summary in summaries)
    sums = [sum(values) for values in zip(*(summary.sum for summary in summaries), strict=True)]
    squares = [sum(values) for values in zip(*(summary.sumsq for summary in summaries), strict=True)]
    variances = [(square * count - total * total) / (count * count) for total, square in zip(sums, squares, strict=True)]
    return {
        "mean": [RESOLUTION_MV * total / count for total in sums],
        "std": [RESOLUTION_MV * math.sqrt(variance) for variance in variances],
    }


def listed(folders: Folders) -> list[str | os.PathLike]:
    """Folders as a list, one as a list of one."""
    return [folders] if isinstance(folders, str | os.PathLike) else list(folders)


def read_manifests(folders: Folders) -> list[tuple[Path, Manifest]]:
    """Each folder with its manifest, for sets that are used as one.

    Raises:
        ValueError: if no folder is given, one is given twice, or the sets differ in sampling rate, seconds or leads.
    """
    given = listed(folders)
    if not given:
        raise ValueError("expected at least one data set, received none")
    sets = [(Path(folder), read_manifest(folder)) for folder in given]
    if len({folder.resolve() for folder, _ in sets}) != len(sets):
        raise ValueError(f"expected different data sets, received one twice: {', '.join(str(folder) for folder in given)}")
    first_folder, first = sets[0]
    for folder, manifest in sets[1:]:
        for name in ("sampling_rate", "seconds", "leads", "resolution_mv"):
            mine, other = getattr(manifest, name), getattr(first, name)
            if mine != other:
                raise ValueError(f"data sets must agree on {name}: {folder} has {mine}, {first_folder} has {other}")
    return sets


def combined_manifest(folders: Folders) -> Manifest:
    """One manifest for several sets that are used as one: counts summed, statistics pooled, `trained_on` united.

    A single set's manifest comes back as it is. The combined one lists no shards (their files lie in different folders).

    Raises:
        ValueError: as `read_manifests`.
    """
    manifests = [manifest for _, manifest in read_manifests(folders)]
    first = manifests[0]
    if len(manifests) == 1:
        return first
    splits = {}
    for split in SPLITS:
        parts = [manifest.splits[split] for manifest in manifests]
        codes = sum((Counter(part["codes"]) for part in parts), Counter())
        splits[split] = {"records": sum(part["records"] for part in parts), "shards": [], "codes": dict(codes)}
    generators = [manifest.generator for manifest in manifests if manifest.generator]
    generator = None
    if generators:
        generator = {
            "run": [part.get("run") for part in generators],
            "settings": [part.get("settings") for part in generators],
            "trained_on": sorted({hashed for part in generators for hashed in part["trained_on"]}),
        }
    sources = [source for manifest in manifests for source in manifest.sources]
    return Manifest(
        name="+".join(manifest.name for manifest in manifests),
        sampling_rate=first.sampling_rate,
        seconds=first.seconds,
        leads=first.leads,
        splits=splits,
        statistics=_pooled([manifest for manifest in manifests if manifest.splits["train"]["records"]] or manifests),
        rejected=sum(manifest.rejected for manifest in manifests),
        sources=[source for place, source in enumerate(sources) if source not in sources[:place]],
        generator=generator,
    )


def _pooled(manifests: Sequence[Manifest]) -> dict[str, list[float]]:
    """Statistics of the union of training splits: the law of total variance."""
    weights = [manifest.splits["train"]["records"] or 1 for manifest in manifests]
    total = sum(weights)
    means, stds = [], []
    for lead in range(len(manifests[0].leads)):
        moments = [(manifest.statistics["mean"][lead], manifest.statistics["std"][lead]) for manifest in manifests]
        mean = sum(weight * mean for weight, (mean, _) in zip(weights, moments, strict=True)) / total
        square = sum(weight * (mean**2 + std**2) for weight, (mean, std) in zip(weights, moments, strict=True)) / total
        means.append(mean)
        stds.append(math.sqrt(max(square - mean**2, 0.0)))
    return {"mean": means, "std": stds}


def hash_id(record_id: str) -> str:
    """16 hexadecimal digits that stand for a record's id in manifests and run folders."""
    return hashlib.sha256(record_id.encode()).hexdigest()[:16]


class LeakError(ValueError):
    """Records to test on were trained on."""


def check_no_leak(trained_on: Iterable[str], test_ids: Iterable[str]) -> None:
    """Refuses test records that a generator, filter or feature extractor was trained on.

    Args:
        trained_on: hashed ids (`hash_id`), as manifests and run folders carry them.
        test_ids: ids of the test records.

    Raises:
        LeakError: naming how many test records were in the training.
    """
    trained_on, test_ids = set(trained_on), list(test_ids)
    seen = [record_id for record_id in test_ids if hash_id(record_id) in trained_on]
    if seen:
        raise LeakError(
            f"{len(seen)} of {len(test_ids)} test records were used in training (the first: {seen[0]}); "
            "expected none: train on the training split only, or test on other records"
        )
