"""What the metrics of one evaluation share: features, measurements, classifiers; each computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgtf.classifiers.metrics import paired_difference
from ecgtf.closeness import physiology, temporal, utility
from ecgtf.closeness.comparison import Comparison, Part
from ecgtf.closeness.distribution import precision_recall_density_coverage
from ecgtf.closeness.leaks import Leaks, gap_of_intervals, share_entry
from ecgtf.closeness.measurements import MEASUREMENTS
from ecgtf.closeness.prediction import predictive_errors
from ecgtf.manifest import hash_id
from ecgtf.run_folder import Run

if TYPE_CHECKING:
    from ecgtf.closeness.metrics import Quantity

LEAST_RECORDS = 50
"""With fewer records of a side in a draw, distances of features are mostly bias and are not given."""


class Results:
    """The numbers of one comparison, and the classifiers behind them in run folders under `folder`.

    Args:
        comparison: What is compared.
        folder: Of the classifiers.
        preset: Their budget.
        extractor: Run folder of the frozen feature extractor; None for one that is trained on half of the training people.
        quiet: Show no progress.
    """

    def __init__(self, comparison: Comparison, folder: Path, preset: str, extractor: Path | None, quiet: bool):
        self.comparison, self.folder, self.preset, self.extractor, self.quiet = comparison, folder, preset, extractor, quiet
        self._terms: dict[Callable, dict[str, np.ndarray]] = {}
        self._predicted: dict[str, np.ndarray] = {}
        self._scores: dict[str, dict] = {}

    # -- distribution ---------------------------------------------------------------------------------------------------------

    @cached_property
    def extractor_run(self) -> Path:
        """Run folder of the frozen feature extractor; by default a classifier trained on half of the training people.

        The other half gives the floors: an extractor knows the records that it was trained on, and sets them apart.

        Raises:
            ValueError: if one cannot be trained without labels.
        """
        if self.extractor is not None:
            return self.extractor
        seen, _ = self.comparison.train.split_people(0.5, np.random.default_rng(self.comparison.seed))
        return self._trained(seen, "extractor").folder

    @cached_property
    def seen_from_outside(self) -> Comparison:
        """The comparison with those training records alone that the extractor was not trained on.

        Raises:
            ValueError: as `extractor_run`, or if a draw has too few records for distances of features.
        """
        known = set(Run.load(self.extractor_run).trained_on())
        unseen = np.flatnonzero([hash_id(name) not in known for name in self.comparison.train.ids])
        found = replace(self.comparison, train=self.comparison.train.take(unseen))
        size = len(found.drawn(0)["reference"])
        if size < LEAST_RECORDS:
            raise ValueError(
                f"{size} records of each part fit together; distances of features need at least {LEAST_RECORDS} held-out and "
                "synthetic records, and training records that the extractor was not trained on, of common classes"
            )
        return found

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Feature vectors of the three parts of `seen_from_outside`.

        Raises:
            ValueError: as `seen_from_outside`.
        """
        return utility.feature_vectors(self.extractor_run, self.seen_from_outside)

    def feature_difference(self, function: Callable[[np.ndarray, np.ndarray], float]) -> dict:
        """A distance of features."""
        return self.seen_from_outside.metric(function, self.features)

    @cached_property
    def neighbourhoods(self) -> dict[str, dict]:
        """Precision, recall, density and coverage."""
        return self.seen_from_outside.metrics(lambda a, b: precision_recall_density_coverage(a, b)._asdict(), self.features)

    # -- time and frequency ---------------------------------------------------------------------------------------------------

    def terms(self, function: Callable) -> dict[str, np.ndarray]:
        """`function(signals, rate)` of the three parts, per record; those of the last function are kept, for they are large."""
        if function not in self._terms:
            signals = self.comparison.signals()
            self._terms = {function: {name: function(part, self.comparison.rate) for name, part in signals.items()}}
        return self._terms[function]

    def quantity_difference(self, quantity: Quantity, difference: Callable[[np.ndarray, np.ndarray], float]) -> dict:
        """Difference of a quantity of the sets, which is a function of means over their records."""
        return self.comparison.metric(
            lambda real, other: difference(quantity.of_set(real), quantity.of_set(other)), self.terms(quantity.terms)
        )

    def curves(self, quantity: Quantity) -> tuple[np.ndarray, np.ndarray]:
        """The quantity of the reference and of the synthetic records of one draw: equally many of each class."""
        comparison, rows = self.comparison, self.comparison.drawn(0)
        sides = (comparison.signals()[name][rows[name]] for name in ("reference", "synthetic"))
        return tuple(quantity.of_set(quantity.terms(side, comparison.rate)) for side in sides)

    def marginal_difference(self) -> dict:
        """Difference of the amplitude densities, the bins reaching over all reference records."""
        reference = self.comparison.reference.signals
        ends = reference.min(axis=(0, 1)), reference.max(axis=(0, 1))
        terms = {name: temporal.marginal_terms(part, *ends) for name, part in self.comparison.signals().items()}
        return self.comparison.metric(temporal.marginal_difference, terms)

    # -- physiology -----------------------------------------------------------------------------------------------------------

    @cached_property
    def measured(self) -> dict[str, physiology.Physiology]:
        """The measurements of the three parts."""
        comparison = self.comparison
        return {
            name: physiology.measure(part, comparison.rate, comparison.leads) for name, part in comparison.signals().items()
        }

    def measured_distance(self, name: str) -> dict:
        """Distance of one measurement, class by class, averaged as the classes are frequent in the draw."""
        distance = MEASUREMENTS[name].distance
        columns = {
            part: np.column_stack([self.comparison.stratum(part), getattr(measured, name)])
            for part, measured in self.measured.items()
        }

        def by_class(real: np.ndarray, other: np.ndarray) -> float:
            strata, sizes = np.unique(real[:, 0], return_counts=True)
            sides = ([side[side[:, 0] == stratum, 1:] for side in (real, other)] for stratum in strata)
            found = np.array([distance(*pair) for pair in sides])
            known = np.isfinite(found)
            return float(np.average(found[known], weights=sizes[known])) if known.any() else float("nan")

        return self.comparison.metric(by_class, columns)

    def without_beats(self) -> dict:
        """Share of the records of a draw without a measurable rhythm."""
        rows = self.comparison.drawn(0)
        made, real = (self.measured[name].without_beats[rows[name]] for name in ("synthetic", "train"))
        return share_entry(made.mean(), len(made), real.mean(), len(real))

    def lead_inconsistency(self) -> dict:
        """Departure from the limb-lead equations, on average over the four."""

        def departure(reference: np.ndarray, other: np.ndarray) -> float:
            return float(physiology.consistency_from_terms(other).mean())

        return self.comparison.metric(
            departure,
            {
                name: physiology.consistency_terms(part, self.comparison.leads)
                for name, part in self.comparison.signals().items()
            },
        )

    # -- utility --------------------------------------------------------------------------------------------------------------

    def _trained(self, part: Part, name: str, origin: bool = False) -> Run:
        """The run `name` of a classifier trained on these records.

        Raises:
            ValueError: if the records have no labels.
        """
        if part.labels is None:
            raise ValueError("records without labels train no classifier: evaluate data sets, or give an --extractor")
        return utility.budgeted_classifier(part, self.comparison, self.folder / name, self.preset, self.quiet, origin=origin)

    def run(self, trained_on: str) -> Path:
        """Run folder of the classifier trained on `real`, `synthetic` or `both` kinds of records; trained when first asked for.

        Raises:
            ValueError: if the records have no labels, or some of its classes are in the real records only.
        """
        comparison = self.comparison
        part = comparison.train
        if trained_on != "real":
            self._check_classes()
            part = comparison.synthetic
        if trained_on == "both":
            part = utility.mixed(comparison.train, part, comparison.task.multi_label, comparison.seed)
        return self._trained(part, f"trained_on_{trained_on}").folder

    def _check_classes(self) -> None:
        if self.comparison.synthetic.labels is None:
            raise ValueError("the synthetic records have no labels")
        missing = self.comparison.about["synthetic"]["without_records_of"]
        if missing:
            raise ValueError(f"no synthetic records of {', '.join(missing)}")

    def predicted(self, way: str) -> np.ndarray:
        """Probabilities of the tested records in one of `WAYS`."""
        if way not in self._predicted:
            trained_on, tested_on = WAYS[way]
            if tested_on == "synthetic":
                self._check_classes()
            self._predicted[way] = utility.probabilities(self.run(trained_on), getattr(self.comparison, tested_on).signals)
        return self._predicted[way]

    def scores(self, way: str) -> dict:
        """`classification_metrics` of one of `WAYS`."""
        if way not in self._scores:
            comparison = self.comparison
            part, predicted = getattr(comparison, WAYS[way][1]), self.predicted(way)
            task = comparison.task
            self._scores[way] = utility.scores(part, predicted, task.classes, task.multi_label, comparison.seed)
        return self._scores[way]

    def auroc(self, way: str) -> dict:
        """Macro-AUROC of one of `WAYS` with its bootstrap interval; the floor is what training on real records gives.

        Raises:
            ValueError: as `run`, or if no class has records that are of it and records that are not.
        """
        entry, real = (self.scores(one)["macro_auroc"] for one in (way, "trtr"))
        if entry["value"] is None or real["value"] is None:
            raise ValueError("no class has both records that are of it and records that are not: there is no AUROC")
        if way == "trtr":
            return entry | {"floor": None}
        if WAYS[way][1] == "reference":
            gap = paired_difference(
                self.comparison.reference.labels, self.predicted(way), self.predicted("trtr"), seed=self.comparison.seed
            )
            ends = {"gap_low": gap["low"], "gap_high": gap["high"]}
        else:
            ends = gap_of_intervals(entry, real)
        return entry | {"floor": real["value"]} | ends

    def auroc_ratio(self) -> dict:
        """TSTR over TRTR."""
        real, made = self.auroc("trtr")["value"], self.auroc("tstr")
        ends = {end: None if made[end] is None else made[end] / real for end in ("low", "high", "gap_low", "gap_high")}
        return {"value": made["value"] / real, "floor": 1.0, **ends}

    def discriminative_score(self) -> dict:
        """How well a new classifier tells half of a draw from held-out records; the floor is that of real training records."""
        comparison, rows = self.comparison, self.comparison.drawn(0)
        if len(rows["reference"]) < LEAST_RECORDS:
            raise ValueError(f"{len(rows['reference'])} records of each part fit together; at least {LEAST_RECORDS} are needed")
        found = {}
        for name in ("synthetic", "train"):
            sides = comparison.reference.take(rows["reference"]), getattr(comparison, name).take(rows[name])
            fitted, tried = utility.of_two_origins(*sides, np.random.default_rng(comparison.seed))
            run = self._trained(fitted, f"told_from_{name}", origin=True)
            predicted = utility.probabilities(run.folder, tried.signals)
            accuracy = utility.scores(tried, predicted, utility.ORIGINS, False, comparison.seed)["accuracy"]
            found[name] = utility.discriminative_score(*(accuracy[key] for key in ("value", "low", "high")))
        made, real = found["synthetic"], found["train"]
        return made | {"floor": real["value"]} | gap_of_intervals(made, real)

    def predictive_score(self) -> dict:
        """Error in held-out records of a predictor fitted to synthetic records; the floor is that fitted to training records."""
        return self.comparison.metric(
            lambda tried, fitted: float(predictive_errors(fitted, tried).mean()), self.comparison.signals()
        )

    # -- privacy --------------------------------------------------------------------------------------------------------------

    @cached_property
    def leaks(self) -> Leaks:
        """What the synthetic records tell of the training records."""
        return Leaks(self.comparison, lambda: (self.seen_from_outside, self.features))


WAYS: Mapping[str, tuple[str, str]] = {
    "trtr": ("real", "reference"),
    "tstr": ("synthetic", "reference"),
    "trts": ("real", "synthetic"),
    "tr_plus_s": ("both", "reference"),
}
"""Ways to train and test: the records that train, and the part that tests."""
