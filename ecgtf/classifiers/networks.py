"""The classifiers that there are: new ones, trained ones, their probabilities and features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ecgtf.classifiers import inception_time, resnet1d, xresnet1d
from ecgtf.classifiers.examples import Examples
from ecgtf.run_folder import Run
from ecgtf.tf_data import pipeline_options

_AT_A_TIME = 2048  # records: 100 MB for 10 s of 12 leads at 100 Hz

BUILDERS: dict[str, tuple[Callable[..., keras.Model], dict[str, dict]]] = {
    "resnet1d": (resnet1d.resnet1d, resnet1d.PRESETS),
    "inception_time": (inception_time.inception_time, inception_time.PRESETS),
    "xresnet1d": (xresnet1d.xresnet1d, xresnet1d.PRESETS),
}
"""Kind of network, as in `KINDS`: its builder and the builder's options by preset."""

PRESETS = {
    "tiny": {"steps": 100, "batch_size": 16, "learning_rate": 5e-3},
    "small": {"steps": 600, "batch_size": 32, "learning_rate": 2e-3},
    "base": {"steps": 6_000, "batch_size": 64, "learning_rate": 2e-3},
    "paper": {"steps": 20_000, "batch_size": 128, "learning_rate": 1e-3},
}
"""Lengths of the training by preset; the sizes of the networks are the builder's."""

LEARNING_RATES = {"xresnet1d": {"small": 5e-3, "base": 5e-3, "paper": 1e-2}}
"""Kinds whose learning rates differ from those of `PRESETS`: at 2e-3, the small xresnet1d is not done after 600 steps. The rate of
`paper` is the benchmark's."""


def new_classifier(
    kind: str, train: Examples, classes: Sequence[str], multi_label: bool, preset: str = "small", **options
) -> keras.Model:
    """A fresh network that normalises by the statistics of these training records; `options` replace the preset's."""
    check_kind(kind, preset)
    builder, presets = BUILDERS[kind]
    mean = train.signals.mean(axis=(0, 1), dtype=np.float64)
    square = np.stack([np.square(record, dtype=np.float64).mean(axis=0) for record in train.signals]).mean(axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0.0))  # without a float64 copy of all signals
    std = np.where(std > 0, std, 1.0)  # a lead that is flat everywhere stays flat
    return builder(train.signals.shape[1:], classes, multi_label, mean.tolist(), std.tolist(), **(presets[preset] | options))


def predict(model: keras.Model, signals: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Probabilities `(records, classes)`, by sigmoid or softmax as the task is, of signals `(records, time, leads)` in mV.

    Raises:
        ValueError: if the signals have another shape than the model was trained on.
    """
    expected = tuple(model.input_shape[1:])
    if np.ndim(signals) != 3 or tuple(np.shape(signals)[1:]) != expected:
        raise ValueError(f"the model takes signals (records, {expected[0]}, {expected[1]}), received shape {np.shape(signals)}")
    head = model.get_layer("logits")
    if not len(signals):
        return np.zeros((0, len(head.classes)), np.float32)
    return ops.convert_to_numpy(head.probabilities(_outputs(model, signals, batch_size)))


def features(model: keras.Model, signals: np.ndarray) -> np.ndarray:
    """The pooled features `(records, d)` float32 that a classifier's head sees, of signals `(records, time, leads)` in mV."""
    extractor = keras.Model(model.inputs, model.get_layer("features").output)
    return _outputs(extractor, signals)


def _outputs(model: keras.Model, signals: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """What a model makes of signals, some thousand at a time: a pipeline copies all that it is given."""
    step = max(batch_size, _AT_A_TIME // batch_size * batch_size)
    parts = (np.asarray(signals[start : start + step], np.float32) for start in range(0, max(1, len(signals)), step))
    pipelines = (tf.data.Dataset.from_tensor_slices(part).batch(batch_size).with_options(pipeline_options()) for part in parts)
    return np.concatenate([model.predict(pipeline, verbose=0) for pipeline in pipelines])


def load_classifier(run: str | Path | Run) -> keras.Model:
    """The classifier of a run folder; its layer `logits` knows the names of the classes (`.classes`) and `.multi_label`.

    Raises:
        ValueError: if the folder holds no finished classifier.
    """
    return classifier_run(run).load_model()


def classifier_run(run: str | Path | Run) -> Run:
    """The run in a folder, if it is that of a finished classifier; raises as `load_classifier`."""
    run = run if isinstance(run, Run) else Run.load(run)
    if run.config.get("command") not in ("train-classifier", "finetune"):
        raise ValueError(f"{run.folder} is {run.what}; expected a run of train-classifier or finetune")
    if not run.finished:
        raise ValueError(f"the training in {run.folder} has not come to its end; go on with --resume")
    return run


def training_preset(kind: str | None, preset: str) -> dict:
    """Steps, batch size and learning rate of a training of this kind of network."""
    return PRESETS[preset] | {"learning_rate": LEARNING_RATES.get(kind, {}).get(preset, PRESETS[preset]["learning_rate"])}


def check_kind(kind: str, preset: str) -> None:
    """Refuses networks and presets that do not exist, by naming those that do."""
    if kind not in BUILDERS:
        raise ValueError(f"unknown classifier {kind!r}; expected one of {', '.join(BUILDERS)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
