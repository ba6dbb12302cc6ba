"""What synthetic records are good for: a classifier trained on them (TSTR) against one trained on as many real ones (TRTR).

Both are tested on the same held-out real records (Esteban, Hyland & Ratsch 2017). What trains is handed in as a function, so that
the comparison needs no network; `ClassifierTrainer` is the one that trains ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgtf.classifiers.metrics import classification_metrics, macro_auroc

if TYPE_CHECKING:
    import keras

TrainAndPredict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes training signals `(n, time, leads)`, their labels `(n, classes)` and test signals; gives probabilities of the latter."""

_RATIO_RESAMPLES = 300
_DRAWS_PER_RESAMPLE = 20  # resamples that miss a class are drawn again at most so often


@dataclass(frozen=True)
class Utility:
    """The two trainings compared."""

    tstr: dict
    """`classification_metrics` of the classifier trained on synthetic records."""
    trtr: dict
    """The same of the one trained on real records."""
    ratio: float
    """Macro-AUROC of TSTR over that of TRTR; NaN where no class can be tested."""
    ratio_low: float
    ratio_high: float
    records: int
    """Training records of each."""


def compare_trainings(
    train_and_predict: TrainAndPredict,
    real: tuple[np.ndarray, np.ndarray],
    synthetic: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: Sequence[str],
    *,
    multi_label: bool,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Utility:
    """Trains on synthetic and on equally many real records, and tests both on the same real ones.

    Where one side has more records, a seeded choice of it is taken. The interval of the ratio comes from resamples of the test
    records, the same for both.

    Args:
        train_and_predict: Trains a classifier and predicts.
        real: Training signals `(n, time, leads)` mV and labels `(n, classes)`.
        synthetic: The same of synthetic records.
        test: The same of held-out real records.
        classes: Names of the classes.
        multi_label: Whether the classes are independent.
        bootstrap: Resamples behind the intervals of the metrics.
        seed: Fixes choices and resamples.

    Raises:
        ValueError: if a side has no records, or the labels are not usable.
    """
    if not (len(real[0]) and len(synthetic[0]) and len(test[0])):
        raise ValueError(
            f"expected records to train on and to test on, received {len(real[0])} real, {len(synthetic[0])} synthetic and "
            f"{len(test[0])} test records with a class"
        )
    records = min(len(real[0]), len(synthetic[0]))
    rng = np.random.default_rng(seed)
    predictions = []
    for signals, labels in (synthetic, real):
        chosen = np.sort(rng.permutation(len(signals))[:records])
        predictions.append(np.asarray(train_and_predict(signals[chosen], labels[chosen], test[0])))
    options = {"multi_label": multi_label, "bootstrap": bootstrap, "seed": seed}
    tstr, trtr = (classification_metrics(test[1], scores, classes, **options) for scores in predictions)
    ratio, low, high = _ratio(test[1], *predictions, rng)
    return Utility(tstr, trtr, ratio, low, high, records)


def _ratio(labels: np.ndarray, first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Ratio of two macro-AUROCs with a paired bootstrap interval, NaNs where it is not defined."""
    usable = labels.any(axis=0) & ~labels.all(axis=0)
    labels, first, second = labels[:, usable], first[:, usable], second[:, usable]
    if not usable.any():
        return float("nan"), float("nan"), float("nan")
    ratios = []
    for _ in range(_RATIO_RESAMPLES * _DRAWS_PER_RESAMPLE):
        chosen = rng.integers(len(labels), size=len(labels))
        if labels[chosen].any(axis=0).all() and not labels[chosen].all(axis=0).any():
            ratios.append(macro_auroc(labels[chosen], first[chosen]) / macro_auroc(labels[chosen], second[chosen]))
        if len(ratios) == _RATIO_RESAMPLES:
            break
    low, high = np.percentile(ratios, (2.5, 97.5)) if len(ratios) >= 20 else (np.nan, np.nan)
    return macro_auroc(labels, first) / macro_auroc(labels, second), float(low), float(high)


@dataclass
class ClassifierTrainer:
    """Trains this package's classifiers on records in memory; call it as `TrainAndPredict`.

    Each training has a run folder of its own under `folder`, named by a hash of its records and settings: asked for the same
    again, it reads the model that is there.

    Args:
        folder: Where the run folders go.
        classes: Names of the classes.
        multi_label: Whether they are independent.
        rate: Samples per second.
        leads: Names of the leads.
        task: Name of the task, for the run folder.
        kind: Network.
        preset: Its size and the length of the training.
        seed: Fixes weights, order and draws.
        quiet: Show no progress.
    """

    folder: Path
    classes: Sequence[str]
    multi_label: bool
    rate: float
    leads: Sequence[str]
    task: str
    kind: str = "resnet1d"
    preset: str = "small"
    seed: int = 0
    quiet: bool = True
    runs: list[Path] = field(default_factory=list)
    """The run folders of the trainings asked for, in order."""

    def __call__(self, signals: np.ndarray, labels: np.ndarray, test_signals: np.ndarray) -> np.ndarray:
        """Trains, and predicts probabilities `(tests, classes)`."""
        from ecgtf.classifiers.classifier import predict

        return predict(self.train(signals, labels), test_signals)

    def train(self, signals: np.ndarray, labels: np.ndarray, trained_on: Iterable[str] = ()) -> keras.Model:
        """A classifier trained on `(n, time, leads)` mV and `(n, classes)`, a tenth of them held out to choose its weights by.

        Args:
            signals: Training signals.
            labels: Their labels.
            trained_on: Hashed ids of the records, kept with the run.
        """
        import keras

        from ecgtf.classifiers.classifier import PRESETS, fit_classifier, new_classifier
        from ecgtf.classifiers.examples import Examples, hold_out
        from ecgtf.training import Run

        config = {
            "command": "train-classifier",
            "kind": self.kind,
            "preset": self.preset,
            "task": self.task,
            "classes": list(self.classes),
            "multi_label": self.multi_label,
            "leads": list(self.leads),
            "sampling_rate": self.rate,
            "samples": signals.shape[1],
            "seed": self.seed,
            "records": len(signals),
            "records_sha256": _fingerprint(signals, labels),
        }
        name = hashlib.sha256(repr(sorted(config.items())).encode()).hexdigest()[:12]
        folder = Path(self.folder) / name
        self.runs.append(folder)
        unfinished = (folder / "config.json").exists()
        run = Run.open(folder, config, resume=unfinished)
        run.write_trained_on(trained_on)
        if run.finished:
            return run.load_model()
        train, validation = hold_out(Examples(signals, labels, [str(place) for place in range(len(signals))]), self.seed)
        keras.utils.set_random_seed(self.seed)
        model = new_classifier(self.kind, train, self.classes, self.multi_label, self.preset)
        settings = {name: PRESETS[self.preset][name] for name in ("steps", "batch_size", "learning_rate")}
        settings |= {"balance": 1.0, "seed": self.seed}  # rare classes count as much as common ones, whatever the shares
        done = fit_classifier(model, train, validation, run=run, resume=unfinished, quiet=self.quiet, **settings)
        run.save_model(model)
        run.finish(steps_done=done)
        return model


def _fingerprint(signals: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in (signals, labels):
        digest.update(np.ascontiguousarray(array, np.float32))
    return digest.hexdigest()
