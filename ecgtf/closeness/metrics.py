"""Every metric of an evaluation by group: its name, unit, which way is better, and how it is computed from the shared results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ecgtf.closeness import distribution, temporal
from ecgtf.closeness.measurements import MEASUREMENTS

if TYPE_CHECKING:
    from ecgtf.closeness.results import Results


class Metric(NamedTuple):
    """What is said of a number beside its value."""

    label: str
    unit: str
    better: str
    """`lower`, `higher`, or the value that is best."""
    compute: Callable[[Results], dict]
    """Gives `value`, `floor`, `low`, `high` and, where value and floor are compared pair by pair, `gap_low` and `gap_high`.

    Raises:
        ValueError: with the reason why there is no number.
    """
    least: float = 0.0
    most: float = math.inf
    """What is possible: intervals end there."""
    resolution: float = 0.0
    """Differences up to this are none: what storage and arithmetic leave where two sets are equally good."""


def _on_features(function: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Results], dict]:
    return lambda results: results.feature_difference(function)


class Quantity(NamedTuple):
    """Something of a set that is made of what each record gives by itself."""

    terms: Callable[[np.ndarray, float], np.ndarray]
    """`terms(signals, rate)`, per record."""
    of_set: Callable[[np.ndarray], np.ndarray]
    """The quantity of the set that these records make."""


AUTOCORRELATION = Quantity(lambda signals, rate: temporal.autocorrelation_terms(signals), temporal.autocorrelation_from_terms)
SPECTRUM = Quantity(temporal.spectrum_terms, temporal.spectrum_from_terms)
LEAD_CORRELATION = Quantity(lambda signals, rate: temporal.lead_terms(signals), temporal.lead_correlation_from_terms)
SHAPE = Quantity(lambda signals, rate: temporal.moment_terms(signals), temporal.shape_from_terms)
DIRECTION = Quantity(temporal.direction_terms, temporal.direction_from_terms)


def _on_quantity(quantity: Quantity, difference: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Results], dict]:
    return lambda results: results.quantity_difference(quantity, difference)


def _neighbourhoods(name: str) -> Callable[[Results], dict]:
    return lambda results: results.neighbourhoods[name]


def _measured(name: str) -> Metric:
    measurement = MEASUREMENTS[name]
    label = f"Wasserstein distance of the {measurement.label}"
    return Metric(label, measurement.unit, "lower", lambda results: results.measured_distance(name))


METRICS: Mapping[str, Mapping[str, Metric]] = {
    "distribution": {
        "frechet_distance": Metric(
            "Frechet distance of features",
            "",
            "lower",
            _on_features(lambda real, other: distribution.frechet_distance(real, other).distance),
        ),
        "mmd_squared": Metric(
            "squared maximum mean discrepancy of features", "", "lower", _on_features(distribution.mmd), least=-math.inf
        ),
        "kid": Metric("kernel distance of features", "", "lower", _on_features(distribution.kid), least=-math.inf),
        "sliced_wasserstein": Metric(
            "sliced Wasserstein distance of features", "", "lower", _on_features(distribution.sliced_wasserstein)
        ),
        "precision": Metric("precision", "share", "higher", _neighbourhoods("precision"), most=1.0),
        "recall": Metric("recall", "share", "higher", _neighbourhoods("recall"), most=1.0),
        "density": Metric("density", "", "higher", _neighbourhoods("density")),
        "coverage": Metric("coverage", "share", "higher", _neighbourhoods("coverage"), most=1.0),
    },
    "temporal": {
        "autocorrelation_difference": Metric(
            "autocorrelation difference",
            "",
            "lower",
            _on_quantity(AUTOCORRELATION, temporal.autocorrelation_difference),
        ),
        "marginal_difference": Metric(
            "marginal distribution difference, all times together",
            "1/mV",
            "lower",
            lambda results: results.marginal_difference(),
        ),
        "spectrum_difference": Metric(
            "difference of the unit-power spectra",
            "",
            "lower",
            _on_quantity(SPECTRUM, temporal.spectrum_difference),
        ),
        "log_spectrum_difference": Metric(
            "difference of the log spectra",
            "log10",
            "lower",
            _on_quantity(SPECTRUM, temporal.log_spectrum_difference),
        ),
        "lead_correlation_difference": Metric(
            "difference of the correlations between leads",
            "",
            "lower",
            _on_quantity(LEAD_CORRELATION, temporal.lead_correlation_difference),
        ),
        "skewness_difference": Metric(
            "difference of the skewness",
            "",
            "lower",
            _on_quantity(SHAPE, lambda real, other: temporal.shape_differences(real, other)[0]),
        ),
        "kurtosis_difference": Metric(
            "difference of the kurtosis",
            "",
            "lower",
            _on_quantity(SHAPE, lambda real, other: temporal.shape_differences(real, other)[1]),
        ),
        "direction_difference": Metric(
            "difference of the direction in time",
            "",
            "lower",
            _on_quantity(DIRECTION, temporal.direction_difference),
        ),
    },
    "physiology": {
        **{f"{name}_distance": _measured(name) for name in MEASUREMENTS},
        "beats_not_found": Metric(
            "records in which no rhythm is found", "share", "lower", lambda results: results.without_beats()
        ),
        "lead_inconsistency": Metric(
            "departure from the limb-lead equations, relative",
            "",
            "lower",
            lambda results: results.lead_inconsistency(),
            resolution=1e-6,  # leads that fit exactly, in float32
        ),
    },
    "utility": {
        "trtr_macro_auroc": Metric(
            "macro-AUROC, trained on real, tested on real", "", "higher", lambda results: results.auroc("trtr")
        ),
        "tstr_macro_auroc": Metric(
            "macro-AUROC, trained on synthetic, tested on real", "", "higher", lambda results: results.auroc("tstr")
        ),
        "trts_macro_auroc": Metric(
            "macro-AUROC, trained on real, tested on synthetic", "", "higher", lambda results: results.auroc("trts")
        ),
        "tr_plus_s_macro_auroc": Metric(
            "macro-AUROC, trained on both, tested on real", "", "higher", lambda results: results.auroc("tr_plus_s")
        ),
        "tstr_over_trtr": Metric("TSTR over TRTR", "", "higher", lambda results: results.auroc_ratio()),
        "discriminative_score": Metric(
            "discriminative score of a classifier of real against synthetic",
            "",
            "lower",
            lambda results: results.discriminative_score(),
        ),
        "predictive_score": Metric(
            "error of real samples predicted from synthetic ones", "mV", "lower", lambda results: results.predictive_score()
        ),
    },
    "privacy": {
        "near_copy_rate": Metric(
            "near copies of training records", "share", "lower", lambda results: results.leaks.near_copy_rate()
        ),
        "exact_copy_rate": Metric(
            "exact copies of training records", "share", "lower", lambda results: results.leaks.exact_copy_rate()
        ),
        "share_closer_to_train": Metric(
            "records nearer to the training than to the held-out set",
            "share",
            "0.5",
            lambda results: results.leaks.share_closer_to_train(),
        ),
        "distance_ratio": Metric(
            "nearest over second nearest training record, 5th percentile",
            "",
            "higher",
            lambda results: results.leaks.distance_ratio(),
        ),
        "attack_auc": Metric("AUC of the membership-inference attack", "", "0.5", lambda results: results.leaks.attack_auc()),
        "attack_tpr": Metric(
            "members found by the attack with 1 % false alarms", "share", "lower", lambda results: results.leaks.attack_tpr()
        ),
    },
}

GROUPS = tuple(METRICS)


def is_worse(entry: Mapping[str, float | None], better: str, resolution: float = 0.0) -> bool | None:
    """Whether the value is worse than its floor by more than chance; None where there is no interval to tell.

    A difference up to `resolution` (see `Metric`) is none.

    The 95 % interval of value minus floor decides where there is one, else whether the value's own interval leaves the floor out.
    """
    if entry["value"] is None or entry["floor"] is None:
        return None
    gap_low, gap_high = entry.get("gap_low"), entry.get("gap_high")
    if gap_low is None and entry["low"] is not None:
        gap_low, gap_high = entry["low"] - entry["floor"], entry["high"] - entry["floor"]
    if gap_low is None:
        return None
    if abs(entry["value"] - entry["floor"]) <= resolution:
        return False
    return bool(gap_high < 0) if better == "higher" else bool(gap_low > 0)
