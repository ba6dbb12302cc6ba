"""The records of a data set on disk: one feature spec for writing, reading and checking shards (NumPy only).

A shard is a TFRecord file of Examples with the features

| feature | type | meaning |
|---|---|---|
| `id` | bytes | the record's id |
| `signal` | bytes | `(time, leads)` int16, little endian, one microvolt a step |
| `codes` | bytes list | diagnosis codes |
| `age` | float | years, NaN when unknown |
| `sex` | int64 | 0 male, 1 female, -1 unknown |
| `patient` | bytes | the patient's id, empty when unknown |

Equal records give equal bytes: a shard holds no time, path or run name.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from ecgtf.atomic import replacing, sha256
from ecgtf.ecg import Record, select_leads
from ecgtf.manifest import RESOLUTION_MV, Manifest, ShardSummary, read_manifest
from ecgtf.tfrecord import decode_example, encode_example, frame, read_tfrecord

SHARD_BYTES = 64 * 2**20
_SEX_CODES = {"male": 0, "female": 1, None: -1}
_SEX_NAMES = {0: "male", 1: "female"}
_Decoded = TypeVar("_Decoded")
_LIMIT = np.iinfo(np.int16).max  # -32768 has no positive counterpart, so the range is symmetric


def shard_names(split: str, records: int, samples: int, leads: int, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """File names for a split's shards of about `shard_bytes` each; one even for an empty split."""
    count = max(1, math.ceil(records * samples * leads * 2 / shard_bytes))
    return [f"{split}.tfrecord-{number:05d}-of-{count:05d}" for number in range(count)]


def write_shard(path: str | os.PathLike, records: Iterable[Record], leads: Sequence[str], samples: int) -> ShardSummary:
    """Writes one shard under a temporary name and renames it when it is whole.

    Args:
        path: the file, named as `shard_names` says.
        records: with signals `(samples, record.leads)` in millivolts; a missing limb lead is derived.
        leads: the leads to store, in this order.
        samples: samples per record.

    Raises:
        ValueError: if a signal is missing, of another length, not finite or beyond 32.767 mV, or an id stands twice.
    """
    path = Path(path)
    summary = ShardSummary(path.name, 0, "", Counter(), [0] * len(leads), [0] * len(leads), 0)
    digest, ids = hashlib.sha256(), set()
    with replacing(path) as temporary, temporary.open("wb") as file:
        for record in records:
            if record.id in ids:
                raise ValueError(f"expected each record once, received {record.id} twice")
            ids.add(record.id)
            steps = quantise(record, leads, samples)
            data = frame(_encode(record, steps))
            file.write(data)
            digest.update(data)
            wide = steps.astype(np.int64)
            summary.records += 1
            summary.codes.update(set(record.codes))
            summary.sum = [total + int(value) for total, value in zip(summary.sum, wide.sum(0), strict=True)]
            summary.sumsq = [total + int(value) for total, value in zip(summary.sumsq, (wide**2).sum(0), strict=True)]
            summary.count += samples
    summary.sha256 = digest.hexdigest()
    return summary


def write_split(
    folder: Path, split: str, records: Iterable[Record], count: int, leads: Sequence[str], samples: int
) -> list[ShardSummary]:
    """Writes `count` records as the shards of a split, streamed; a split without records has none.

    Raises:
        ValueError: as `write_shard`.
    """
    names = shard_names(split, count, samples, len(leads)) if count else []
    parts = np.array_split(np.arange(count), max(1, len(names)))
    records = iter(records)
    return [
        write_shard(folder / name, islice(records, len(part)), leads, samples) for name, part in zip(names, parts, strict=False)
    ]


def quantise(record: Record, leads: Sequence[str], samples: int) -> np.ndarray:
    """The record's signal as `(samples, leads)` int16 steps of one microvolt.

    Raises:
        ValueError: if the signal is missing, of another shape, not finite or beyond 32.767 mV.
    """
    if record.signal is None:
        raise ValueError(f"record {record.id}: expected a signal, received none")
    expected = (samples, len(record.leads))
    if np.shape(record.signal) != expected:
        raise ValueError(f"record {record.id}: expected a signal of shape {expected}, received {np.shape(record.signal)}")
    # in float64, so that a millivolt value of three decimals is stored exactly
    steps = np.round(select_leads(np.asarray(record.signal, np.float64), record.leads, leads) / RESOLUTION_MV)
    if not np.isfinite(steps).all():
        raise ValueError(f"record {record.id}: expected finite values, received NaN or infinity")
    if np.abs(steps).max(initial=0) > _LIMIT:
        peak = np.abs(steps).max() * RESOLUTION_MV
        raise ValueError(f"record {record.id}: expected at most {_LIMIT * RESOLUTION_MV} mV, received {peak:g} mV")
    return steps.astype("<i2")


def read_records(folder: str | os.PathLike, split: str, manifest: Manifest | None = None) -> Iterator[Record]:
    """The records of a split, in order, checksums verified; nothing but the current one is in memory.

    Raises:
        ValueError: if the folder holds no data set or a shard is missing or damaged.
    """
    manifest = manifest or read_manifest(folder)
    for path in shard_paths(folder, manifest, split):
        yield from read_shard(path, partial(_decode, manifest=manifest, split=split))


def read_shard(path: Path, decode: Callable[[bytes], _Decoded]) -> Iterator[_Decoded]:
    """What `decode` makes of the bytes of each record of a shard, in order, checksums verified.

    Raises:
        ValueError: if a record is damaged; the message names the file and the record's number, counted from 0.
    """
    for number, data in enumerate(read_tfrecord(path)):
        try:
            decoded = decode(data)
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path}: record {number} is damaged ({error})") from error
        yield decoded


def shard_paths(folder: str | os.PathLike, manifest: Manifest, split: str) -> list[Path]:
    """The files of a split, in order.

    Raises:
        ValueError: if there is no such split, or a shard is missing.
    """
    paths = [Path(folder) / name for name in manifest.shards(split)]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"expected shard {path.name} in {folder}, but it is not there")
    return paths


def read_example(data: bytes) -> tuple[str, tuple[str, ...], bytes]:
    """Id, diagnosis codes and signal (the bytes of little-endian int16) of an encoded record.

    Raises:
        ValueError: if it is not one.
    """
    features = decode_example(data)
    missing = [name for name in ("id", "codes", "signal") if name not in features]
    if missing:
        raise ValueError(
            f"expected a record with the feature {missing[0]}, received the features {', '.join(features) or 'none'}"
        )
    (name,), (signal,) = features["id"], features["signal"]
    return name.decode(), tuple(code.decode() for code in features["codes"]), signal


def _encode(record: Record, steps: np.ndarray) -> bytes:
    if record.sex not in _SEX_CODES:
        raise ValueError(f"record {record.id}: expected sex male, female or None, received {record.sex!r}")
    return encode_example(
        {
            "id": [record.id.encode()],
            "signal": [steps.tobytes()],
            "codes": [code.encode() for code in record.codes],
            "age": [math.nan if record.age is None else float(record.age)],
            "sex": [_SEX_CODES[record.sex]],
            "patient": [(record.patient or "").encode()],
        }
    )


def _decode(data: bytes, manifest: Manifest, split: str) -> Record:
    features = decode_example(data)
    steps = np.frombuffer(features["signal"][0], "<i2").reshape(manifest.samples, len(manifest.leads))
    age = features["age"][0]
    return Record(
        id=features["id"][0].decode(),
        codes=tuple(code.decode() for code in features["codes"]),
        signal=steps.astype(np.float32) * np.float32(manifest.resolution_mv),
        leads=manifest.leads,
        sampling_rate=manifest.sampling_rate,
        patient=features["patient"][0].decode() or None,
        age=None if math.isnan(age) else age,
        sex=_SEX_NAMES.get(features["sex"][0]),
        split=split,
    )


def verify(folder: str | os.PathLike) -> list[str]:
    """Checks every shard against the manifest: the faults, one line each; an empty list when all is well.

    Raises:
        ValueError: if the folder holds no finished data set.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    faults, seen, listed = [], set(), set()
    if manifest.table is not None:
        table = folder / manifest.table["file"]
        if not table.is_file():
            faults.append(f"{table.name}: the table of records is missing")
        elif sha256(table) != manifest.table["sha256"]:
            faults.append(f"{table.name}: SHA-256 differs from the manifest")
    for split, content in manifest.splits.items():
        codes = Counter()
        for shard in content["shards"]:
            path = folder / shard["file"]
            listed.add(shard["file"])
            if not path.is_file():
                faults.append(f"{shard['file']}: the shard is missing")
                continue
            if sha256(path) != shard["sha256"]:
                faults.append(f"{shard['file']}: SHA-256 differs from the manifest")
            only_this = _one_shard(manifest, split, shard)
            count = 0
            try:
                for record in read_records(folder, split, only_this):
                    count += 1
                    codes.update(set(record.codes))
                    if record.id in seen:
                        faults.append(f"{shard['file']}: record {record.id} stands twice in the data set")
                    seen.add(record.id)
            except ValueError as error:
                faults.append(str(error))
            else:
                if count != shard["records"]:
                    faults.append(f"{shard['file']}: holds {count} records, the manifest says {shard['records']}")
        if not faults and dict(codes) != content["codes"]:
            faults.append(f"split {split}: the manifest's counts of codes differ from the records'")
    extra = {path.name for path in folder.glob("*.tfrecord*")} - listed
    faults.extend(f"{name}: the manifest does not list this shard" for name in sorted(extra))
    return faults


def _one_shard(manifest: Manifest, split: str, shard: dict) -> Manifest:
    """The manifest as if the split had this shard only."""
    return replace(manifest, splits={split: {**manifest.splits[split], "shards": [shard]}})
