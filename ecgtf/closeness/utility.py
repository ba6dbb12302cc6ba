"""How useful synthetic ECGs are to classifiers, and whether one can tell them from real ones.

The four ways of Esteban et al. (2017): trained and tested on real records (TRTR), trained on synthetic and tested on real (TSTR),
trained on real and tested on synthetic (TRTS), trained on both and tested on real (TR+S). All classifiers have the same network,
number of steps and rule for choosing weights (a held-out tenth of their own training records). One more, trained on half of the
training people, is the frozen feature extractor of the distribution metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from ecgtf.classifiers.examples import Examples, hold_out
from ecgtf.classifiers.examples import mix as mix_examples
from ecgtf.classifiers.fitting import fit_classifier
from ecgtf.classifiers.metrics import classification_metrics
from ecgtf.classifiers.networks import PRESETS as BUDGETS
from ecgtf.classifiers.networks import features, load_classifier, new_classifier, predict
from ecgtf.closeness.comparison import Comparison, Part
from ecgtf.manifest import check_no_leak, hash_id
from ecgtf.run_folder import Run

MOST_FEATURES = 64
ORIGINS = ("real", "synthetic")


def budgeted_classifier(
    part: Part, comparison: Comparison, folder: Path, preset: str, quiet: bool, *, origin: bool = False
) -> Run:
    """A classifier trained on these records with the budget of `preset`, in a run folder; one that is there already is used again.

    With `origin` the classes are not those of the comparison's task but `ORIGINS`.
    """
    task = comparison.task
    name, classes, multi_label = ("origin", ORIGINS, False) if origin else (task.name, task.classes, task.multi_label)
    config = {
        "command": "train-classifier",
        "kind": "resnet1d",
        "preset": preset,
        "seed": comparison.seed,
        "task": name,
        "classes": list(classes),
        "multi_label": multi_label,
        "leads": list(comparison.leads),
        "sampling_rate": comparison.rate,
        "samples": part.signals.shape[1],
        "data": [part.digest(), len(part)],
    }
    run = Run.open(folder, config, resume=True)
    if run.finished:
        return run
    train, validation = hold_out(_examples(part), comparison.seed)
    keras.utils.set_random_seed(comparison.seed)
    model = new_classifier("resnet1d", train, classes, multi_label, preset)
    signature = {"rate": comparison.rate, "leads": comparison.leads}
    options = {"seed": comparison.seed, "resume": True, "quiet": quiet, **BUDGETS[preset]}
    fit_classifier(model, train, validation, run=run, **signature, **options)
    run.write_trained_on(hash_id(name) for name in part.ids)
    run.save_model(model)
    run.finish()
    return run


def mixed(real: Part, synthetic: Part, multi_label: bool, seed: int) -> Part:
    """The real records and, for each of them, one synthetic record of its class."""
    return real.plus(_part(mix_examples(_examples(real), _examples(synthetic), 1.0, multi_label, seed)))


def of_two_origins(real: Part, other: Part, rng: np.random.Generator) -> tuple[Part, Part]:
    """Two sets as the discriminative score takes them: records of half of the people to train on, of the others to test on.

    Both hold equally many records of either origin; labels say of which each is.
    """
    halves = []
    for sides in zip(real.split_people(0.5, rng), other.split_people(0.5, rng), strict=True):
        size = min(map(len, sides))
        sides = [side.take(rng.permutation(len(side))[:size]) for side in sides]
        labels = np.repeat(np.eye(2, dtype=np.float32), size, axis=0)
        ids = [f"{name}/{id_}" for name, side in zip(ORIGINS, sides, strict=True) for id_ in side.ids]
        halves.append(Part(np.concatenate([side.signals for side in sides]), labels, ids))
    return halves[0], halves[1]


def discriminative_score(accuracy: float, low: float | None, high: float | None) -> dict[str, float | None]:
    """`|accuracy - 1/2|` of telling real from synthetic records, 0 when they look alike (Yoon et al. 2019), with its interval."""
    if low is None or high is None:
        return {"value": abs(accuracy - 0.5), "low": None, "high": None}
    ends = sorted((abs(low - 0.5), abs(high - 0.5)))
    return {"value": abs(accuracy - 0.5), "low": 0.0 if low <= 0.5 <= high else ends[0], "high": ends[1]}


def load_extractor(run: Path, comparison: Comparison) -> keras.Model:
    """The classifier of a run, as a feature extractor of these records.

    Raises:
        LeakError: if it was trained on reference records.
        ValueError: if it takes signals of another shape.
    """
    check_no_leak(Run.load(run).trained_on(), comparison.reference.ids)
    model = load_classifier(run)
    expected, shape = tuple(model.input_shape[1:]), comparison.reference.signals.shape[1:]
    if shape != expected:
        raise ValueError(f"the feature extractor {run} takes signals of shape {expected}, received {shape}")
    return model


def feature_vectors(run: Path, comparison: Comparison) -> dict[str, np.ndarray]:
    """Features of the three parts from a frozen classifier, on the principal axes of held-out and training records.

    There are `MOST_FEATURES` at most, and no more than a sixth of the records of a draw: half-samples of it still have three records
    for each.

    Raises:
        ValueError: as `load_extractor`.
    """
    model = load_extractor(run, comparison)
    raw = {name: features(model, signals).astype(np.float64) for name, signals in comparison.signals().items()}
    size = max(2, min(MOST_FEATURES, raw["train"].shape[1], len(comparison.drawn(0)["reference"]) // 6))
    real = np.concatenate([raw["train"], raw["reference"]])
    centre = real.mean(axis=0)
    axes = np.linalg.svd(real - centre, full_matrices=False)[2][:size].T
    return {name: (values - centre) @ axes for name, values in raw.items()}


def probabilities(run: Path, signals: np.ndarray) -> np.ndarray:
    """Probabilities `(records, classes)` that the classifier of a run gives."""
    return predict(load_classifier(run), signals)


def scores(part: Part, predicted: np.ndarray, classes: Sequence[str], multi_label: bool, seed: int) -> dict:
    """`classification_metrics` of predictions for these records."""
    return classification_metrics(part.labels, predicted, classes, multi_label=multi_label, seed=seed)


def _examples(part: Part) -> Examples:
    return Examples(part.signals, part.labels, part.ids, [""] * len(part))


def _part(examples: Examples) -> Part:
    return Part(examples.signals, examples.labels, examples.ids)
