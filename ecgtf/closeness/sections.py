"""The sections of the report's page: which pictures and tables tell what the numbers mean."""

from __future__ import annotations

import numpy as np

from ecgtf.closeness.measurements import MEASUREMENTS
from ecgtf.closeness.metrics import AUTOCORRELATION, SPECTRUM
from ecgtf.closeness.privacy import PERCENTILE
from ecgtf.closeness.results import Results
from ecgtf.closeness.temporal import LAGS, spectrum_frequencies
from ecgtf.report import figures
from ecgtf.report.page import Section

SHOWN = 3
"""Records of each class, and pairs of neighbours, that are drawn."""

_HEART_RATES = np.arange(20, 241, 8)
_MOST_POINTS = 800  # of each set in a map: more cover each other
_WAYS = {
    "trtr": "real, tested on real",
    "tstr": "synthetic, tested on real",
    "tr_plus_s": "both, tested on real",
    "trts": "real, tested on synthetic",
}


def sections(results: Results, found: dict) -> list[Section]:
    """All sections whose numbers there are in `found`; what cannot be drawn says why."""
    groups = {entry["group"] for entry in found["metrics"].values() if entry["value"] is not None}
    made = [_ecgs(results)]
    for group, make in (
        ("physiology", _physiology),
        ("temporal", _waveforms),
        ("distribution", _maps),
        ("utility", _scores),
        ("privacy", _neighbours),
    ):
        if group in groups:
            try:
                made.append(make(results, found))
            except Exception as error:  # no picture may cost the page
                made.append(Section(f"Pictures of the group {group}", f"Not drawn: {error}"))
    return made


def _ecgs(results: Results) -> Section:
    comparison = results.comparison
    pictures = []
    for name, rows in comparison.by_class():
        real, made = rows["reference"], rows["synthetic"]
        count = min(SHOWN, len(real), len(made))
        if not count:
            continue
        signals = (comparison.reference.signals[real[:count]], comparison.synthetic.signals[made[:count]])
        figure = figures.ecg_pairs(*signals, comparison.rate, comparison.leads, name)
        alt = f"{count} real and {count} synthetic ECGs of class {name} on ECG paper, leads side by side"
        pictures.append(
            (f"{name}: held-out real records on the left, synthetic ones on the right; the first of each set.", alt, figure)
        )
    text = "A small square is 0.04 s and 0.1 mV. "
    if comparison.about["synthetic"]["generator"]:
        text += "The real records were not seen in the training of the generator."
    else:
        text += "Whether a generator saw these real records is not known."
    return Section("Real and synthetic ECGs", text, figures=pictures)


def _physiology(results: Results, found: dict) -> Section:
    if "physiology" not in found:
        raise ValueError("no heart rate was found in one of the sets, and nothing else is measured without")
    comparison, by_class, drawn = results.comparison, results.comparison.by_class(), results.comparison.drawn(0)
    sides = {"real": results.measured["reference"], "synthetic": results.measured["synthetic"]}
    rows = {"real": drawn["reference"], "synthetic": drawn["synthetic"]}
    rates = [
        {name: sides[side].heart_rate[rows[part]] for name, rows in by_class}
        for side, part in (("real", "reference"), ("synthetic", "synthetic"))
    ]
    single = [name for name in found["physiology"][by_class[0][0]] if name != "heart_rate"]
    panels = [{_with_unit(name): getattr(sides[side], name)[rows[side]] for name in single} for side in sides]
    amplitudes = (sides[side].amplitude[rows[side]] for side in sides)
    pictures = [
        (
            "Heart rate by class.",
            "Distributions of the heart rate of real and synthetic records for each class; numbers are in the table below",
            figures.class_histograms(*rates, _HEART_RATES, "heart rate (beats/min)"),
        ),
        (
            "Other measurements, all classes together, in equal shares.",
            "Distributions of intervals, durations and the axis in real and synthetic records; numbers are in the table below",
            figures.measurement_histograms(*panels),
        ),
        (
            "Amplitude of the QRS complex by lead: median and 5 to 95 %.",
            "Peak-to-peak amplitude of the QRS complex in each lead, real beside synthetic",
            figures.lead_ranges(*amplitudes, comparison.leads, "amplitude (mV)"),
        ),
    ]
    header = ["class", "measurement", "real n", "real median (5 to 95 %)", "synthetic n", "synthetic median (5 to 95 %)"]
    cells = [
        [label, _with_unit(name), *_cells(entry["real"]), *_cells(entry["synthetic"])]
        for label, entries in found["physiology"].items()
        for name, entry in entries.items()
    ]
    text = (
        "Measured by the same detector and delineator in both sets, from each record's average beat. n counts the records in which "
        "the measurement could be taken."
    )
    return Section("Physiology", text, figures=pictures, tables=[("Measurements by class", header, cells)])


def _waveforms(results: Results, found: dict) -> Section:
    comparison = results.comparison
    frequencies = spectrum_frequencies(comparison.reference.signals.shape[1], comparison.rate)
    lags = np.arange(LAGS) / comparison.rate
    return Section(
        "Spectrum and autocorrelation",
        "Of equally many records of each class, each lead at unit power.",
        figures=[
            (
                "Power spectrum by lead.",
                "Power spectra of real and synthetic records in each lead, one curve over the other",
                figures.psd_figure(frequencies, *results.curves(SPECTRUM), comparison.leads),
            ),
            (
                "Autocorrelation by lead.",
                f"Autocorrelation of real and synthetic records in each lead up to {lags[-1]:.2f} s",
                figures.autocorrelation_figure(lags, *results.curves(AUTOCORRELATION), comparison.leads),
            ),
        ],
    )


def _maps(results: Results, found: dict) -> Section:
    comparison = results.seen_from_outside
    rows = comparison.drawn(0)
    sides = {name: rows[name][:: -(-len(rows[name]) // _MOST_POINTS)] for name in ("reference", "synthetic")}
    real, made = (results.features[name][chosen] for name, chosen in sides.items())
    numbers = [comparison.stratum(name)[chosen].astype(int) for name, chosen in sides.items()]
    classes = comparison.classes if any(part.any() for part in numbers) else ("all",)
    return Section(
        "Maps of the features",
        "Features of the frozen classifier; equal numbers of both sets, classes in equal shares. The principal axes are those of the "
        "real records; t-SNE places neighbours together, and its distances between clusters mean nothing.",
        figures=[
            (
                f"Real and synthetic records by {method}.",
                f"Scatter plots of real and of synthetic records by class, {method}",
                figures.feature_map(*points, *numbers, classes, label),
            )
            for method, label, points in (
                ("principal component analysis", "principal axis", _principal_axes(real, made)),
                ("t-SNE", "t-SNE", _tsne(real, made, comparison.seed)),
            )
        ],
    )


def _principal_axes(real: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets on the two principal axes of the real one."""
    from sklearn.decomposition import PCA

    fitted = PCA(2).fit(real)
    return fitted.transform(real), fitted.transform(made)


def _tsne(real: np.ndarray, made: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in one plane by t-SNE (van der Maaten & Hinton 2008)."""
    from sklearn.manifold import TSNE

    together = np.concatenate([real, made])
    perplexity = min(30.0, (len(together) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(together)
    return points[: len(real)], points[len(real) :]


def _scores(results: Results, found: dict) -> Section:
    scores, classes = found.get("scores", {}), results.comparison.classes
    ways = [way for way in _WAYS if way in scores]
    if not ways:
        raise ValueError("no classifier was trained")
    pictures = []
    if {"trtr", "tstr"} <= set(ways):
        per_class = (scores[way]["per_class"] for way in ("trtr", "tstr"))
        pictures.append(
            (
                "AUROC by class with 95 % intervals.",
                "AUROC of each class for the classifier trained on real and the one trained on synthetic records",
                figures.class_scores_figure(*per_class),
            )
        )
    matrices = {_WAYS[way]: np.array(scores[way]["confusion"]) for way in ways if "confusion" in scores[way]}
    if matrices:
        alt = "; ".join(f"trained on {name}: {_correct(matrix)}" for name, matrix in matrices.items())
        pictures.append(
            (
                "Confusion matrices by what was trained on.",
                f"Confusion matrices: {alt}",
                figures.confusion_figure(matrices, classes),
            )
        )
    tables = [
        (
            "AUROC by class, by what was trained on",
            ["class", "n real", *(_WAYS[way] for way in ways)],
            [
                [name, scores[ways[0]]["per_class"][name]["n"], *(_auroc(scores[way]["per_class"][name]) for way in ways)]
                for name in classes
            ],
        ),
        (
            "All classes together, by what was trained on",
            ["score", *(_WAYS[way] for way in ways)],
            [
                [label, *(_interval(scores[way][key]) for way in ways)]
                for key, label in _SCORES.items()
                if all(key in scores[way] for way in ways)
            ],
        ),
    ]
    text = "The same network and budget each time. Classes of fewer than 10 records support no claim."
    return Section("Classifiers trained on real and on synthetic records", text, figures=pictures, tables=tables)


_SCORES = {
    "macro_auroc": "macro-AUROC",
    "macro_f1": "macro-F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
}


def _neighbours(results: Results, found: dict) -> Section:
    (copies, synthetic, train), comparison = results.leaks.copies, results.comparison
    nearest = np.argsort(copies.distances, kind="stable")[:SHOWN]
    text = (
        f"{copies.rate:.1%} of the synthetic records lie nearer to a training record than {PERCENTILE:g} % of the held-out real records "
        f"do ({copies.floor:.1%} of other held-out records do), at any gain and a shift in time of up to 1 s. Below are the nearest "
        "pairs, copies or not. Distances alone do not show that data is anonymous."
    )
    if (left_out := comparison.about["real"]["train"] - len(comparison.train)) > 0:
        text += f" {left_out} training records were left out (--max-records): copies of those are not found."
    figure = figures.neighbour_pairs(
        [(synthetic[place], train[copies.places[place]]) for place in nearest], comparison.rate, comparison.leads
    )
    distances = ", ".join(f"{copies.distances[place]:.2f}" for place in nearest)
    caption = (
        f"The nearest pairs of a synthetic and a training record, at {distances}; below {copies.threshold:.2f} is a near copy."
    )
    alt = "Pairs of a synthetic ECG and the training ECG that is nearest to it, on ECG paper"
    return Section("Nearest training records", text, figures=[(caption, alt, figure)])


def _with_unit(name: str) -> str:
    measurement = MEASUREMENTS[name]
    return f"{measurement.label} ({measurement.unit})" if measurement.unit else measurement.label


def _cells(entry: dict) -> list[str]:
    """Number of records with the measurement, and its median and range."""
    if entry["median"] is None:
        return ["0", "-"]
    known = round(entry["n"] * (1.0 - entry["failed"]))
    return [str(known), f"{entry['median']:.3g} ({entry['low']:.3g} to {entry['high']:.3g})"]


def _correct(matrix: np.ndarray) -> str:
    return f"{int(np.trace(matrix))} of {int(matrix.sum())} right"


def _interval(entry: dict) -> str:
    interval = "" if entry["low"] is None else f" ({entry['low']:.3f} to {entry['high']:.3f})"
    return "-" if entry["value"] is None else f"{entry['value']:.3f}{interval}"


def _auroc(entry: dict) -> str:
    return entry["reason"] if "reason" in entry else _interval(entry | {"value": entry["auroc"]})
