"""Draws synthetic ECGs from a trained generator: as arrays, as a data set, as WFDB records or as an npz file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from ecgtf.atomic import check_free, is_temporary, replacing, replacing_folder
from ecgtf.conditions import check_told, draw_rates, encode, of_split
from ecgtf.dataset import finish_dataset, read_labels, read_manifest, write_split
from ecgtf.ecg import Record, lead_matrix, select_leads
from ecgtf.generators.base import Generator
from ecgtf.generators.presets import PRESETS  # and with it every model, by which Keras finds them
from ecgtf.manifest import FILE_NAME as MANIFEST
from ecgtf.precision import restoring_precision, set_precision
from ecgtf.progress import Progress
from ecgtf.run_folder import Run
from ecgtf.tasks import get_task
from ecgtf.wfdb_io import write_record

FORMATS = ("tfrecord", "wfdb", "npz")

_EVEN_MICROVOLTS = 0.002  # mV


class TrainedGenerator:
    """A generator read from its run folder, ready to draw.

    >>> generator = load_run("runs/vqvae")  # doctest: +SKIP
    >>> signals, labels = generator.generate(per_class=10, seed=1)  # doctest: +SKIP
    """

    def __init__(self, run: Run, batch_size: int = 64, precision: str = "float32"):
        self.run = run
        missing = [name for name in ("kind", "task", "classes", "sampling", "versions") if name not in run.config]
        if missing:
            raise ValueError(f"{run.folder / 'config.json'} is damaged (no {', '.join(missing)}); train again with --overwrite")
        if run.config["kind"] not in PRESETS:
            raise ValueError(f"{run.folder} holds a generator {run.config['kind']!r}; expected one of {', '.join(PRESETS)}")
        self.model: Generator = _loaded(run, precision)
        self.task = get_task(run.config["task"])
        self.classes = tuple(run.config["classes"])
        self.conditions = tuple(self.model.conditions)
        self.defaults = dict(run.config["sampling"])
        self.batch_size = batch_size
        self._compiled: dict = {}

    def batches(
        self, labels: np.ndarray, seed: int = 0, conditions: Mapping[str, Sequence] | None = None, **options
    ) -> Iterator[np.ndarray]:
        """Millivolts `(up to batch_size, time, leads)` for labels `(n, classes)`, batch after batch, through one compiled graph.

        `conditions` are values of those that the generator knows, one a record: age (years), sex, heart rate (beats/min). What is not
        given is unknown, but for the heart rate, which is drawn as training records of the class have it: told of a rate, networks
        keep it.

        What a record looks like depends on its label, its place, the seed and the batch size alone: fewer records than a batch are the
        first ones of one, but for rounding (by which Time-VQVAE may, rarely, choose another token), and cost less.

        Raises:
            ValueError: if there are no labels, they are no numbers or have another number of classes, the seed is none, or an option
                is not one of this generator's.
        """
        labels = self.checked(labels)
        _check_seed(seed)
        told = dict(conditions or {})
        if "heart_rate" in self.conditions and "heart_rate" not in told:
            places = np.random.default_rng(seed).uniform(size=len(labels))
            told["heart_rate"] = draw_rates(self.run.config.get("heart_rates", {}), labels, self.classes, places)
        labels = np.concatenate([labels, encode(self.conditions, told, len(labels))], axis=1)
        options = self.sampling(**options)
        key = tuple(sorted((name, tuple(np.atleast_1d(value))) for name, value in options.items()))
        if key not in self._compiled:
            self._compiled[key] = tf.function(lambda label, seed: self.model.sample(label, seed, **options))
        # Stateless draws of a few rows are the first rows of a larger draw. A graph for each power of two, not for each number.
        size = min(self.batch_size, 1 << max(0, len(labels) - 1).bit_length())
        for number, start in enumerate(range(0, len(labels), size)):
            part = labels[start : start + size]
            full = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            drawn = self._compiled[key](tf.constant(full), tf.constant([seed, number], tf.int32)).numpy()[: len(part)]
            yield self._storable(drawn)

    def checked(self, labels: np.ndarray) -> np.ndarray:
        """The labels `(n, classes)` in float32.

        Raises:
            ValueError: if there are none, they have another number of classes, or one is no number.
        """
        labels = np.asarray(labels, "float32")
        if labels.ndim != 2 or labels.shape[1] != len(self.classes) or not len(labels):
            raise ValueError(
                f"expected labels (n, {len(self.classes)}) of at least 1 record for {', '.join(self.classes)}, received shape "
                f"{labels.shape}"
            )
        if not np.isfinite(labels).all():
            (first, *_) = np.flatnonzero(~np.isfinite(labels).all(axis=1))
            raise ValueError(f"expected labels that are numbers, received {labels[first].tolist()} for record {first}")
        return labels

    def sampling(self, **options) -> dict:
        """The run's sampling options, with those that are given (and not None) in place of its own.

        Raises:
            ValueError: if one is not possible.
        """
        given = {name: value for name, value in options.items() if value is not None}
        defaults = dict(self.defaults)
        if given.get("sampler", defaults.get("sampler")) != defaults.get("sampler"):
            defaults.pop("steps", None)  # the recommended steps are those of the recommended sampler
        options = defaults | given
        self.model.check_sampling(options)
        return options

    def _storable(self, signals: np.ndarray) -> np.ndarray:
        """Signals whose limb leads still fit together when each lead is stored in whole microvolts: the modelled leads in steps of
        two, the derived ones computed from them."""
        if self.model.model_leads != "independent":
            return signals
        have, want = self.model.modelled_leads, self.model.leads
        modelled = np.round(select_leads(signals, want, have).astype(np.float64) / _EVEN_MICROVOLTS) * _EVEN_MICROVOLTS
        return (modelled @ lead_matrix(have, want)).astype(np.float32)

    def generate(self, labels: np.ndarray | None = None, *, per_class: int | None = None, seed: int = 0, **options):
        """Draws ECGs for labels `(n, classes)`, or `per_class` of each class; `conditions` and other options as in `batches`.

        Returns:
            signals `(n, time, leads)` float32 in millivolts and labels `(n, classes)`.
        """
        if (labels is None) == (per_class is None):
            raise ValueError("give labels or per_class, one of the two")
        if labels is None:
            labels = class_labels(len(self.classes), per_class)
        labels = self.checked(labels)
        return np.concatenate(list(self.batches(labels, seed, **options))), labels


def _check_seed(seed: int) -> None:
    """Refuses what the 32 bits of a seed cannot tell apart."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**31:
        raise ValueError(f"expected a whole number from 0 to {2**31 - 1} as seed, received {seed}")


@restoring_precision
def _loaded(run: Run, precision: str) -> Generator:
    set_precision(precision)
    return run.load_model()


def load_run(folder: str | Path, precision: str = "float32") -> TrainedGenerator:
    """The generator trained in a run folder, which draws in a precision: `float32`, `bfloat16` or `float16`.

    Raises:
        ValueError: if the folder holds no finished generator, or there is no such precision.
    """
    run = Run.load(folder)
    if run.config.get("command") != "train-generator":
        raise ValueError(f"{folder} is {run.what}; expected a run of train-generator")
    return TrainedGenerator(run, precision=precision)


def class_labels(classes: int, per_class: int) -> np.ndarray:
    """One-hot labels `(classes * per_class, classes)`, the classes taking turns (so that every shard holds all of them)."""
    if per_class < 1:
        raise ValueError(f"expected at least 1 record of each class, received {per_class}")
    return np.tile(np.eye(classes, dtype="float32"), (per_class, 1))


def labels_like(like: str, task) -> np.ndarray:
    """The labels of a split, given as `data/X:train` (`data/X` means its training split)."""
    folder, _, split = str(like).partition(":")
    labels = read_labels(folder, split or "train", task)
    return labels if task.multi_label else labels[labels.any(axis=1)]


def conditions_like(like: str, task, names: Sequence[str]) -> dict[str, list]:
    """The conditions of the records whose labels `labels_like` gives."""
    folder, _, split = str(like).partition(":")
    return of_split(names, folder, split or "train", task)


def generate(
    run: str | Path,
    out: str | Path,
    *,
    per_class: int | None = None,
    like: str | None = None,
    labels: np.ndarray | None = None,
    age: float | None = None,
    sex: str | None = None,
    heart_rate: float | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    sampler_steps: int | Sequence[int] | None = None,
    eta: float | None = None,
    parts: int | None = None,
    temperature: tuple[float, float] | None = None,
    sharpness: float | None = None,
    format: str = "tfrecord",
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "float32",
    validation_share: float = 0.1,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Writes synthetic ECGs, streamed: the memory used does not grow with their number.

    Args:
        run: Run folder of a trained generator.
        out: Folder to write (a file for `npz`).
        per_class: Records of each class; 100 where neither this nor one of the next two is given.
        like: Draw the labels of this split, `data/X:train`, instead, and the conditions that the generator knows.
        labels: Draw these labels `(records, classes)` instead.
        age: Years, the same for all records, where the generator knows this condition; so for the next two.
        sex: `male` or `female`.
        heart_rate: Beats/min; where the generator knows it and neither this nor `like` tells it, it is drawn as training records of
            the class have it.
        guidance: Weight of classifier-free guidance; by default what the run recommends, as for the next six.
        sampler: Of diffusion (`ddpm`, `ddim`, `dpmpp`, `fast`) and flow models (`euler`, `heun`).
        sampler_steps: Evaluations of a diffusion or flow model; decoding steps of the low and high tokens of Time-VQVAE.
        eta: Noise of the sampler `ddim`, from 0 to 1.
        parts: Of a diffusion or flow model that was trained with a prefix: parts of a record that are drawn one after another.
        temperature: Decoding temperatures of the low and high tokens of Time-VQVAE.
        sharpness: Factor on its logits.
        format: `tfrecord` (a data set), `wfdb` or `npz`.
        seed: Fixes the draws; from 0 to 2**31 - 1.
        batch_size: Records drawn at once.
        precision: `float32`, `bfloat16` or `float16`, whatever the run was trained in.
        validation_share: Share that goes to the set's validation split; 0 or more, below 1.
        overwrite: Replace what is there.
        quiet: Show no progress.

    Raises:
        ValueError: if the run is not finished, an option is not possible or `out` is not empty; what is there stays.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    given = [name for name, value in (("per_class", per_class), ("like", like), ("labels", labels)) if value is not None]
    if len(given) > 1:
        raise ValueError(f"give one of per_class, like and labels, not {' and '.join(given)}")
    _check_seed(seed)
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"expected a batch_size of at least 1 record, received {batch_size}")
    if not 0 <= validation_share < 1:
        raise ValueError(f"expected a validation_share of 0 or more and below 1, received {validation_share}")
    for name, value in (("age", age), ("heart_rate", heart_rate)):
        if value is not None:
            check_told(name, value)
    generator = load_run(run, precision)
    generator.batch_size = batch_size
    trained_on = generator.run.trained_on()
    if like is not None:
        labels = labels_like(like, generator.task)
    elif labels is None:
        labels = class_labels(len(generator.classes), 100 if per_class is None else per_class)
    labels = generator.checked(labels)
    options = generator.sampling(
        guidance=guidance,
        sampler=sampler,
        steps=sampler_steps,
        eta=eta,
        parts=parts,
        temperature=temperature,
        sharpness=sharpness,
    )
    told = {"age": age, "sex": sex, "heart_rate": heart_rate}
    told = {name: [value] * len(labels) for name, value in told.items() if value is not None}
    conditions = (conditions_like(like, generator.task, generator.conditions) if like is not None else {}) | told
    encode(generator.conditions, conditions, len(labels))
    out = Path(out)
    if format == "npz" and out.suffix != ".npz":
        out = out.with_name(out.name + ".npz")
    _check_replaceable(out, format, overwrite)
    settings = (
        options
        | {"seed": seed, "batch_size": batch_size, "precision": precision}
        | {name: values[0] for name, values in told.items()}
    )

    with Progress("generating", len(labels), "records", quiet) as progress:
        records = _records(generator, labels, conditions, seed, options, progress)
        if format == "npz":
            _write_npz(out, records, labels, generator)
            return out
        with replacing_folder(out) as unfinished:
            if format == "wfdb":
                _write_wfdb(unfinished, records)
            else:
                description = _description(out.name, generator, settings, trained_on)
                _write_dataset(unfinished, records, len(labels), validation_share, description)
    return out


def _records(
    generator: TrainedGenerator, labels: np.ndarray, conditions: dict, seed: int, options: dict, progress: Progress
) -> Iterator[Record]:
    """Synthetic records in order, drawn batch by batch."""
    number, unknown = 0, [None] * len(labels)
    for batch in generator.batches(labels, seed, conditions, **options):
        for signal in batch:
            yield Record(
                id=f"synthetic/{number:07d}",
                codes=generator.task.code_of(labels[number]),
                signal=signal,
                leads=generator.model.leads,
                sampling_rate=generator.model.sampling_rate,
                age=conditions.get("age", unknown)[number],
                sex=conditions.get("sex", unknown)[number],
            )
            number += 1
        progress.update(number)


def _description(name: str, generator: TrainedGenerator, settings: dict, trained_on: list[str]) -> dict:
    """What the manifest of a set says of it."""
    model, config = generator.model, generator.run.config
    return {
        "name": name,
        "sampling_rate": model.sampling_rate,
        "seconds": model.samples / model.sampling_rate,
        "leads": model.leads,
        "sources": [{"name": f"synthetic ({config['kind']})", "licence": "as the training data", "citation": ""}],
        "provenance": {"command": "generate", "versions": config["versions"]},
        "generator": {
            "run": generator.run.folder.name,
            "kind": config["kind"],
            "task": generator.task.reference,
            "settings": settings,
            "trained_on": trained_on,
        },
    }


def _write_dataset(folder: Path, records: Iterator[Record], count: int, validation_share: float, description: dict) -> None:
    """A data set of so many records, the last of which are its validation split."""
    held_out, samples = round(count * validation_share), round(description["seconds"] * description["sampling_rate"])
    summaries = []
    for split, size in (("train", count - held_out), ("validation", held_out)):
        summaries += write_split(folder, split, records, size, description["leads"], samples)
    finish_dataset(folder, description, summaries)


def _write_wfdb(folder: Path, records: Iterable[Record]) -> None:
    """WFDB records, with their class as a diagnosis."""
    for record in records:
        comments = [f"Dx: {','.join(record.codes)}"]
        write_record(folder, record.id.rsplit("/", 1)[-1], record.signal, record.leads, record.sampling_rate, comments)


def _write_npz(out: Path, records: Iterable[Record], labels: np.ndarray, generator: TrainedGenerator) -> None:
    """An npz archive with signals (streamed), labels, classes, leads and sampling rate."""
    model = generator.model
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("signals.npy", "w", force_zip64=True) as file:
            _npy_header(file, (len(labels), model.samples, len(model.leads)))
            for record in records:
                file.write(np.ascontiguousarray(record.signal, "<f4").tobytes())
        rest = {"labels": labels, "classes": generator.classes, "leads": model.leads, "sampling_rate": model.sampling_rate}
        for name, value in rest.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def _npy_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _check_replaceable(out: Path, format: str, overwrite: bool) -> None:
    """Nothing is overwritten unasked, and nothing that `generate` did not write."""
    if format == "npz":
        if out.exists() and not overwrite:
            raise ValueError(f"{out} is there already; use --overwrite to replace it, or name another --out")
        return
    if format == "wfdb":
        check_free(out, "set of synthetic records", lambda: _holds_only(out, r"\d{7}\.(hea|dat)"), overwrite)
        return
    shards = r"(train|validation)\.tfrecord-\d{5}-of-\d{5}"  # what an interrupted `generate` once left

    def is_ours() -> bool:
        return _holds_only(out, shards) or ((out / MANIFEST).is_file() and read_manifest(out).synthetic)

    check_free(out, "synthetic data set", is_ours, overwrite)


def _holds_only(folder: Path, names: str) -> bool:
    """Whether all files of a folder that are not temporary have such names."""
    return all(is_temporary(path) or re.fullmatch(names, path.name) for path in folder.iterdir())
