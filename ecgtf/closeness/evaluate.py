"""How close, how useful and how private synthetic ECGs are: every metric with its floor and interval, as numbers and as a page."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ecgtf.closeness import distribution, physiology, temporal
from ecgtf.closeness.comparison import compare_arrays, compare_folders
from ecgtf.ecg import LEADS
from ecgtf.manifest import read_manifests
from ecgtf.tasks import Task, get_task

GROUPS = ("distribution", "temporal", "physiology", "utility", "privacy")
SCHEMA = 1

ABOUT = {  # metric: its label, unit and which way is better
    "frechet_distance": ("Frechet distance of features", "", "lower"),
    "mmd_squared": ("squared maximum mean discrepancy of features", "", "lower"),
    "kid": ("kernel distance of features", "", "lower"),
    "precision": ("precision", "share", "higher"),
    "recall": ("recall", "share", "higher"),
    "density": ("density", "", "higher"),
    "coverage": ("coverage", "share", "higher"),
    "autocorrelation_difference": ("autocorrelation difference", "", "lower"),
    "marginal_difference": ("marginal distribution difference", "1/mV", "lower"),
    "spectrum_difference": ("difference of the unit-power spectra", "", "lower"),
    "log_spectrum_difference": ("difference of the log spectra", "log10", "lower"),
    "lead_correlation_difference": ("difference of the correlations between leads", "", "lower"),
    "skewness_difference": ("difference of the skewness", "", "lower"),
    "kurtosis_difference": ("difference of the kurtosis", "", "lower"),
    "heart_rate_distance": ("Wasserstein distance of the heart rate", "beats/min", "lower"),
    "rmssd_distance": ("Wasserstein distance of the RMSSD", "ms", "lower"),
    "p_wave_distance": ("Wasserstein distance of the P-wave score", "", "lower"),
    "qrs_duration_distance": ("Wasserstein distance of the QRS duration", "ms", "lower"),
    "beats_not_found": ("records in which no rhythm is found", "share", "lower"),
    "lead_inconsistency": ("departure from the limb-lead equations, relative", "", "lower"),
    "trtr_macro_auroc": ("macro-AUROC, trained on real, tested on real", "", "higher"),
    "tstr_macro_auroc": ("macro-AUROC, trained on synthetic, tested on real", "", "higher"),
    "tstr_over_trtr": ("TSTR over TRTR", "", "higher"),
    "near_copy_rate": ("near copies of training records", "share", "lower"),
    "share_closer_to_train": ("records nearer to the training than to the held-out set", "share", "0.5"),
}


def evaluate(
    real: str | Path | list | np.ndarray,
    synthetic: str | Path | list | np.ndarray,
    *,
    task: str | Task | None = None,
    groups: Sequence[str] | None = None,
    extractor: str | Path | None = None,
    preset: str = "small",
    out: str | Path | None = None,
    overwrite: bool = False,
    max_records: int | None = None,
    rate: float = 100.0,
    leads: Sequence[str] = LEADS,
    seed: int = 0,
    quiet: bool = True,
) -> dict:
    """Compares synthetic with held-out real ECGs.

    Args:
        real: Folder(s) of real data sets, or an array `(records, time, leads)` in millivolts.
        synthetic: Folder(s) of synthetic data sets, or an array.
        task: What the classes are; by default the task of the generator, else rhythm7.
        groups: Which of `GROUPS` to compute; all by default.
        extractor: Run folder of a classifier whose features the distribution group compares; by default one is trained on the
            real training split, with the budget of `preset`, and kept in `out`.
        preset: Budget of the classifiers of the distribution and utility groups.
        out: Report folder: `closeness.json` and `index.html`.
        overwrite: Replace the report that is there.
        max_records: At most this many records of each part.
        rate, leads: Of arrays (data sets know theirs).
        seed: Of draws and classifiers.
        quiet: Show no progress.

    Returns:
        `{"schema", "real", "synthetic", "metrics": {name: {"value", "floor", "low", "high", "group", "unit", "better", "label"}},
        "provenance"}`; a metric that cannot be computed has the value None and a `reason`.

    Raises:
        ValueError: if the sets do not fit together, or the generator was trained on held-out records.
    """
    groups = GROUPS if groups is None else tuple(groups)
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"unknown group {', '.join(unknown)}; expected some of {', '.join(GROUPS)}")
    if isinstance(real, np.ndarray) and isinstance(synthetic, np.ndarray):
        comparison = compare_arrays(real, synthetic, rate=rate, leads=tuple(leads), seed=seed)
    else:
        chosen = get_task(task or ("rhythm7" if isinstance(synthetic, np.ndarray) else _task_of(synthetic)))
        comparison = compare_folders(real, synthetic, chosen, max_records=max_records, seed=seed)
    if out is not None:
        _make_folder(Path(out), overwrite)

    from ecgtf.closeness.results import Results

    with TemporaryDirectory() as scratch:
        results = Results(comparison, Path(out or scratch), preset, None if extractor is None else Path(extractor), quiet)
        for group in groups:
            _collect(results, group, quiet)
        content = results.content(SCHEMA)
        if out is not None:
            results.write(content)
    return content


def _make_folder(out: Path, overwrite: bool) -> None:
    """Makes the report folder; classifiers that an interrupted evaluation left in it are used again.

    Raises:
        ValueError: if it holds a report (unless `overwrite`) or something else.
    """
    if not out.is_dir():
        if out.exists():
            raise ValueError(f"{out} is a file; expected a folder for the report")
        out.mkdir(parents=True)
        return
    ours = {"closeness.json", "trained_on_real", "trained_on_synthetic"}
    names = {path.name for path in out.iterdir()}
    if names and not names & ours:
        raise ValueError(f"{out} holds something else than a report; name another --out")
    if "closeness.json" in names:
        if not overwrite:
            raise ValueError(f"{out} holds a report already; use --overwrite to replace it, or name another --out")
        shutil.rmtree(out)
        out.mkdir()


def _task_of(synthetic) -> str:
    """The task of the generator behind a synthetic set."""
    folders = [synthetic] if isinstance(synthetic, str | Path) else list(synthetic)
    made = read_manifests(folders)[0][1].generator
    return (made or {}).get("task", "rhythm7")


def _collect(results, group: str, quiet: bool) -> None:
    """Adds the metrics of a group; a group that fails says why and takes nothing from the others."""
    for name, compute in METRICS[group].items():
        label, unit, better = ABOUT[name]
        try:
            entry = compute(results)
            # JSON knows no NaN
            entry = {key: number if number is not None and math.isfinite(number) else None for key, number in entry.items()}
            if entry["value"] is None:
                entry["reason"] = "no record gives this number"
        except ValueError as error:
            entry = {"value": None, "floor": None, "low": None, "high": None, "reason": str(error)}
        results.metrics[name] = entry | {"group": group, "unit": unit, "better": better, "label": label}


def _on_features(function: Callable) -> Callable:
    return lambda results: results.comparison.metric(function, results.features)


def _on_terms(terms: Callable, difference: Callable) -> Callable:
    """A metric of something that each record gives by itself, computed once and then averaged over each draw's records."""
    return lambda results: results.comparison.metric(difference, results.terms(terms))


def _on_beats(name: str) -> Callable:
    return lambda results: results.comparison.metric(physiology.distribution_distance, results.beats(name))


def _prdc(name: str) -> Callable:
    return _on_features(lambda a, b: getattr(distribution.precision_recall_density_coverage(a, b), name))


def _autocorrelation(real: np.ndarray, synthetic: np.ndarray) -> float:
    sides = (temporal.autocorrelation_from_terms(terms) for terms in (real, synthetic))
    return temporal.autocorrelation_difference(*sides).mean


def _spectrum(difference: Callable) -> Callable:
    return lambda real, synthetic: difference(*(temporal.spectrum_from_terms(terms) for terms in (real, synthetic))).mean


def _lead_correlation(real: np.ndarray, synthetic: np.ndarray) -> float:
    return temporal.lead_correlation_difference(*(temporal.lead_correlation_from_terms(terms) for terms in (real, synthetic)))


def _shape(which: int) -> Callable:
    sides = temporal.shape_from_terms
    return lambda real, synthetic: temporal.shape_differences(sides(real), sides(synthetic))[which].mean


METRICS: dict[str, dict[str, Callable]] = {
    "distribution": {
        "frechet_distance": _on_features(lambda a, b: distribution.frechet_distance(a, b).distance),
        "mmd_squared": _on_features(distribution.mmd),
        "kid": _on_features(distribution.kid),
        "precision": _prdc("precision"),
        "recall": _prdc("recall"),
        "density": _prdc("density"),
        "coverage": _prdc("coverage"),
    },
    "temporal": {
        "autocorrelation_difference": _on_terms(lambda x, rate: temporal.autocorrelation_terms(x), _autocorrelation),
        "marginal_difference": lambda results: results.comparison.metric(
            lambda a, b: temporal.pooled_marginal_difference(a, b).mean, results.comparison.signals()
        ),
        "spectrum_difference": _on_terms(temporal.spectrum_terms, _spectrum(temporal.spectrum_difference)),
        "log_spectrum_difference": _on_terms(temporal.spectrum_terms, _spectrum(temporal.log_spectrum_difference)),
        "lead_correlation_difference": _on_terms(lambda x, rate: temporal.lead_terms(x), _lead_correlation),
        "skewness_difference": _on_terms(lambda x, rate: temporal.moment_terms(x), _shape(0)),
        "kurtosis_difference": _on_terms(lambda x, rate: temporal.moment_terms(x), _shape(1)),
    },
    "physiology": {
        "heart_rate_distance": _on_beats("heart_rate"),
        "rmssd_distance": _on_beats("rmssd"),
        "p_wave_distance": _on_beats("p_wave"),
        "qrs_duration_distance": _on_beats("qrs_duration"),
        "beats_not_found": lambda results: results.failures(),
        "lead_inconsistency": lambda results: results.lead_inconsistency(),
    },
    "utility": {
        "trtr_macro_auroc": lambda results: results.utility("trtr"),
        "tstr_macro_auroc": lambda results: results.utility("tstr"),
        "tstr_over_trtr": lambda results: results.utility_ratio(),
    },
    "privacy": {
        "near_copy_rate": lambda results: results.near_copy_rate(),
        "share_closer_to_train": lambda results: results.share_closer_to_train(),
    },
}
