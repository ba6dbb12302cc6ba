"""What the metrics of one evaluation share (features, beats, classifiers), and what is written of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from ecgtf.atomic import write_json
from ecgtf.closeness import physiology, privacy, temporal, utility
from ecgtf.closeness.comparison import Comparison
from ecgtf.manifest import check_no_leak
from ecgtf.run_folder import Run, versions

MOST_FOR_COPIES = 1000
"""Synthetic and held-out records, at most, whose nearest training record is searched (among all of them)."""


class Results:
    """The metrics of one comparison; what several of them need is computed once, when first asked for."""

    def __init__(self, comparison: Comparison, folder: Path, preset: str, extractor: Path | None, quiet: bool):
        self.comparison, self.folder, self.preset, self.extractor, self.quiet = comparison, folder, preset, extractor, quiet
        self.metrics: dict[str, dict] = {}
        self._terms: dict[Callable, dict[str, np.ndarray]] = {}

    # -- classifiers ----------------------------------------------------------------------------------------------------------

    @cached_property
    def real_run(self) -> Path:
        """Run folder of the classifier trained on the real training records."""
        if self.comparison.task is None:
            raise ValueError("arrays without labels train no classifier: evaluate data sets, or give an --extractor")
        return utility.budgeted_classifier(
            self.comparison.train, self.comparison, self.folder / "trained_on_real", self.preset, self.quiet
        ).folder

    @cached_property
    def synthetic_run(self) -> Path:
        """Run folder of the classifier trained on the synthetic records."""
        if self.comparison.task is None:
            raise ValueError("arrays without labels train no classifier: evaluate data sets")
        missing = [
            name
            for name, real, made in zip(
                self.comparison.classes,
                self.comparison.train.labels.sum(axis=0),
                self.comparison.synthetic.labels.sum(axis=0),
                strict=True,
            )
            if real and not made
        ]
        if missing:
            raise ValueError(f"no synthetic records of {', '.join(missing)}")
        return utility.budgeted_classifier(
            self.comparison.synthetic, self.comparison, self.folder / "trained_on_synthetic", self.preset, self.quiet
        ).folder

    @cached_property
    def features(self) -> dict[str, np.ndarray]:
        """Feature vectors of the three parts.

        Raises:
            ValueError: if the extractor was trained on reference records.
        """
        if self.extractor is not None:
            check_no_leak(Run.load(self.extractor).trained_on(), self.comparison.reference.ids)
        return utility.feature_vectors(self.extractor or self.real_run, self.comparison)

    @cached_property
    def scores(self) -> dict[str, dict]:
        """Test metrics of both classifiers."""
        return utility.train_test_scores(self.real_run, self.synthetic_run, self.comparison)

    def utility(self, name: str) -> dict:
        """`trtr` or `tstr` with its bootstrap interval; the floor is what training on real records gives."""
        return self.scores[name]["macro_auroc"] | {"floor": self.scores["trtr"]["macro_auroc"]["value"]}

    def utility_ratio(self) -> dict:
        """TSTR over TRTR."""
        real, made = (self.scores[name]["macro_auroc"] for name in ("trtr", "tstr"))
        low, high = (None if made[end] is None else made[end] / real["value"] for end in ("low", "high"))
        return {"value": made["value"] / real["value"], "floor": 1.0, "low": low, "high": high}

    # -- physiology -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _beats(self) -> dict[str, physiology.Physiology]:
        return {name: physiology.measure(part, self.comparison.rate) for name, part in self.comparison.signals().items()}

    def beats(self, name: str) -> dict[str, np.ndarray]:
        """One measurement of `Physiology` for every record of the three parts; NaN where there is none."""
        return {part: getattr(measured, name) for part, measured in self._beats.items()}

    def failures(self) -> dict:
        """Share of records without a measurable rhythm; the floor is that of the reference."""
        return _share(self._beats["synthetic"].without_beats) | {"floor": float(self._beats["reference"].without_beats.mean())}

    def lead_inconsistency(self) -> dict:
        """Departure from the limb-lead equations of the synthetic records; the floor is that of the reference."""
        made, real = (
            float(physiology.lead_consistency(part.signals, self.comparison.leads).mean())
            for part in (self.comparison.synthetic, self.comparison.reference)
        )
        return {"value": made, "floor": real, "low": None, "high": None}

    # -- time and frequency ---------------------------------------------------------------------------------------------------

    def terms(self, function: Callable) -> dict[str, np.ndarray]:
        """`function(signals, rate)` of the three parts, per record; computed once for each function."""
        if function not in self._terms:
            signals = self.comparison.signals()
            self._terms[function] = {name: function(part, self.comparison.rate) for name, part in signals.items()}
        return self._terms[function]

    def spectra(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frequencies and the unit-power spectra of reference and synthetic records."""
        terms = self.terms(temporal.spectrum_terms)
        frequencies = temporal.spectrum_frequencies(self.comparison.reference.signals.shape[1], self.comparison.rate)
        return frequencies, *(temporal.spectrum_from_terms(terms[name]) for name in ("reference", "synthetic"))

    # -- privacy --------------------------------------------------------------------------------------------------------------

    @cached_property
    def copies(self) -> tuple[privacy.NearCopies, np.ndarray, np.ndarray]:
        """Near copies of training records, with the synthetic and the training signals among which they were searched."""
        synthetic, reference = (
            part.signals[np.random.default_rng(self.comparison.seed).permutation(len(part))[:MOST_FOR_COPIES]]
            for part in (self.comparison.synthetic, self.comparison.reference)
        )
        train = self.comparison.train.signals
        return privacy.near_copies(synthetic, train, reference, self.comparison.rate), synthetic, train

    def near_copy_rate(self) -> dict:
        """Share of near copies; the floor is that of the half of the held-out records that set no threshold."""
        found, synthetic, _ = self.copies
        low, high = _binomial_interval(found.rate, len(synthetic))
        return {"value": found.rate, "floor": found.floor, "low": low, "high": high}

    def share_closer_to_train(self) -> dict:
        """Share nearer (in features) to the training than to the held-out set, both of one size; the floor takes held-out records."""
        rng = np.random.default_rng(self.comparison.seed)
        features = {name: values[rng.permutation(len(values))] for name, values in self.features.items()}
        first, second = np.array_split(features["reference"], 2)
        size = min(len(second), len(features["train"]))
        sets = (features["train"][:size], second[:size])
        value = privacy.neighbours(features["synthetic"], *sets).share_closer_to_train
        low, high = _binomial_interval(value, len(features["synthetic"]))
        return {"value": value, "floor": privacy.neighbours(first, *sets).share_closer_to_train, "low": low, "high": high}

    # -- what is written ------------------------------------------------------------------------------------------------------

    def content(self, schema: int) -> dict:
        """The content of `closeness.json`."""
        about = self.comparison.about
        content = {
            "schema": schema,
            "real": about["real"],
            "synthetic": about["synthetic"],
            "metrics": self.metrics,
            "provenance": {
                "task": about["task"],
                "sampling": about["sampling"],
                "seed": self.comparison.seed,
                "preset": self.preset,
                "extractor": str(self.extractor) if self.extractor else "trained on the real training records",
                "versions": versions(),
            },
        }
        if "scores" in self.__dict__:
            content["scores"] = self.scores
        return content

    def write(self, content: dict) -> None:
        """Writes `closeness.json`, and `index.html` with its figures, into the report folder."""
        write_json(self.folder / "closeness.json", content)  # first, so that no figure can cost the numbers
        from ecgtf.closeness.sections import sections
        from ecgtf.report.page import save_page

        save_page(self.folder, title="Synthetic against real ECGs", sections=sections(self))


def _share(flags: np.ndarray) -> dict:
    value = float(flags.mean())
    low, high = _binomial_interval(value, len(flags))
    return {"value": value, "low": low, "high": high}


def _binomial_interval(share: float, size: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(share * (1 - share) / size + z * z / (4 * size * size)) / (1 + z * z / size)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
