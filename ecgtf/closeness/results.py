"""What the metrics of one evaluation share (features, beats, classifiers), and what is written of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from ecgtf.closeness import physiology, privacy, temporal, utility
from ecgtf.closeness.comparison import Comparison
from ecgtf.training import versions, write_json

MOST_FOR_COPIES = 1000
"""Records of each part among which near copies are searched."""


class Results:
    """The metrics of one comparison; what several of them need is computed once, when first asked for."""

    def __init__(self, comparison: Comparison, folder: Path, preset: str, extractor: Path | None, quiet: bool):
        self.comparison, self.folder, self.preset, self.extractor, self.quiet = comparison, folder, preset, extractor, quiet
        self.metrics: dict[str, dict] = {}

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
        """Feature vectors of the three parts."""
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
    def _beats(self) -> dict[str, dict[str, np.ndarray]]:
        signals = self.comparison.signals()
        return {name: physiology.beat_features(part, self.comparison.rate, self.comparison.leads) for name, part in signals.items()}

    def beats(self, name: str) -> dict[str, np.ndarray]:
        """One beat feature of every record of the three parts; NaN where it is not found."""
        return {part: values[name] for part, values in self._beats.items()}

    def failures(self) -> dict:
        """Share of records without a measurable rhythm."""
        missing = {part: np.isnan(values) for part, values in self.beats("heart_rate").items()}
        return _share(missing["synthetic"]) | {"floor": float(missing["reference"].mean())}

    def lead_inconsistency(self) -> dict:
        """Departure from the limb-lead equations of the synthetic records; the floor is that of the reference."""
        made, real = (
            physiology.lead_consistency(part.signals, self.comparison.leads)["mean"]
            for part in (self.comparison.synthetic, self.comparison.reference)
        )
        return {"value": made, "floor": real, "low": None, "high": None}

    # -- privacy --------------------------------------------------------------------------------------------------------------

    @cached_property
    def copies(self) -> dict:
        """Near copies of training records among the synthetic ones."""
        parts = [
            part.signals[np.random.default_rng(self.comparison.seed).permutation(len(part))[:MOST_FOR_COPIES]]
            for part in (self.comparison.synthetic, self.comparison.train, self.comparison.reference)
        ]
        return privacy.near_copies(*parts, self.comparison.rate) | {"signals": parts}

    def near_copy_rate(self) -> dict:
        """Share of near copies; the floor is the share among held-out records."""
        low, high = _binomial_interval(self.copies["rate"], min(MOST_FOR_COPIES, len(self.comparison.synthetic)))
        return {"value": self.copies["rate"], "floor": self.copies["floor"], "low": low, "high": high}

    def share_closer_to_train(self, share: Callable) -> dict:
        """Share nearer (in features) to the training than to the held-out set, both of one size; the floor is that of held-out records."""
        features, size = self.features, len(self.comparison.reference)
        train = features["train"][np.random.default_rng(self.comparison.seed).permutation(len(features["train"]))[: size // 2]]
        halves = np.array_split(np.random.default_rng(self.comparison.seed + 1).permutation(size), 2)
        first, second = (features["reference"][half] for half in halves)
        floor = share(second, train[: len(first)], first)
        value = share(features["synthetic"], train[: len(first)], first)
        low, high = _binomial_interval(value, len(features["synthetic"]))
        return {"value": value, "floor": floor, "low": low, "high": high}

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
        write_json(self.folder / "closeness.json", content)
        from ecgtf.closeness.sections import sections
        from ecgtf.report.page import save_page

        save_page(self.folder, title="Synthetic against real ECGs", summary=content, sections=sections(self))

    def spectra(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frequencies and the unit-power spectra of reference and synthetic records."""
        frequencies, real = temporal.power_spectrum(self.comparison.reference.signals, self.comparison.rate)
        return frequencies, real, temporal.power_spectrum(self.comparison.synthetic.signals, self.comparison.rate)[1]


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
