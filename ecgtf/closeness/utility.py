"""How useful synthetic ECGs are: a classifier trained on them and tested on real ones (TSTR), against one trained on real ones (TRTR).

Both classifiers have the same network, number of steps and rule for choosing weights (a held-out tenth of their own training
records), and are tested on the same held-out real records (Esteban et al. 2017). The one trained on real records is also the frozen
feature extractor of the distribution metrics.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from ecgtf.classifiers.examples import Examples, hold_out
from ecgtf.classifiers.fitting import fit_classifier
from ecgtf.classifiers.metrics import classification_metrics
from ecgtf.classifiers.networks import PRESETS as BUDGETS
from ecgtf.classifiers.networks import features, load_classifier, new_classifier, predict
from ecgtf.closeness.comparison import Comparison, Part
from ecgtf.manifest import hash_id
from ecgtf.run_folder import Run

MOST_FEATURES = 64


def budgeted_classifier(part: Part, comparison: Comparison, folder: Path, preset: str, quiet: bool) -> Run:
    """A classifier trained on these records with the budget of `preset`, in a run folder; one that is there already is used again."""
    task = comparison.task
    config = {
        "command": "train-classifier",
        "kind": "resnet1d",
        "preset": preset,
        "seed": comparison.seed,
        "task": task.name,
        "classes": list(task.classes),
        "multi_label": task.multi_label,
        "leads": list(comparison.leads),
        "sampling_rate": comparison.rate,
        "samples": part.signals.shape[1],
        "data": [hash_id("\n".join(part.ids)), len(part)],
    }
    run = Run.open(folder, config, resume=True)
    if run.finished:
        return run
    train, validation = hold_out(Examples(part.signals, part.labels, part.ids, ["real"] * len(part)), comparison.seed)
    keras.utils.set_random_seed(comparison.seed)
    model = new_classifier("resnet1d", train, task.classes, task.multi_label, preset)
    signature = {"rate": comparison.rate, "leads": comparison.leads}
    options = {"seed": comparison.seed, "resume": True, "quiet": quiet, **BUDGETS[preset]}
    fit_classifier(model, train, validation, run=run, **signature, **options)
    run.write_trained_on(hash_id(name) for name in part.ids)
    run.save_model(model)
    run.finish()
    return run


def feature_vectors(run: Path, comparison: Comparison) -> dict[str, np.ndarray]:
    """Features of the three parts from a frozen classifier, on the (at most 64) principal axes of the training records.

    Raises:
        ValueError: if the classifier takes signals of another shape.
    """
    model = load_classifier(run)
    expected = tuple(model.input_shape[1:])
    shape = comparison.reference.signals.shape[1:]
    if shape != expected:
        raise ValueError(f"the feature extractor {run} takes signals of shape {expected}, received {shape}")
    raw = {name: features(model, signals).astype(np.float64) for name, signals in comparison.signals().items()}
    size = max(2, min(MOST_FEATURES, raw["train"].shape[1], len(comparison.reference) // 3))
    centre = raw["train"].mean(axis=0)
    axes = np.linalg.svd(raw["train"] - centre, full_matrices=False)[2][:size].T
    return {name: (values - centre) @ axes for name, values in raw.items()}


def train_test_scores(real_run: Path, synthetic_run: Path, comparison: Comparison) -> dict[str, dict]:
    """`trtr` and `tstr`: `classification_metrics` of both classifiers on the reference."""
    reference, task = comparison.reference, comparison.task
    return {
        name: classification_metrics(
            reference.labels,
            predict(load_classifier(run), reference.signals),
            task.classes,
            multi_label=task.multi_label,
            seed=comparison.seed,
        )
        for name, run in (("trtr", real_run), ("tstr", synthetic_run))
    }
