"""The sections of the report's page: which pictures and tables tell what the numbers mean."""

from __future__ import annotations

import numpy as np

from ecgtf.closeness import temporal
from ecgtf.closeness.privacy import PERCENTILE
from ecgtf.closeness.results import Results
from ecgtf.report import figures
from ecgtf.report.page import Section

SHOWN = 3
"""Records of each class that are drawn."""


def sections(results: Results) -> list[Section]:
    """All sections whose numbers there are; what cannot be drawn is left out, as its metric says why."""
    made = []
    for make in (_ecgs, _rhythms, _waveforms, _feature_map, _scores, _copies):
        try:
            section = make(results)
        except ValueError:
            continue
        if section is not None:
            made.append(section)
    return made


def _ecgs(results: Results) -> Section:
    comparison = results.comparison
    pictures = []
    for name, real, made in _by_class(results):
        if not len(real) or not len(made):
            continue
        count = min(SHOWN, len(real), len(made))
        signals = (comparison.reference.signals[real[:count]], comparison.synthetic.signals[made[:count]])
        figure = figures.ecg_pairs(*signals, comparison.rate, comparison.leads, name)
        alt = f"{count} real and {count} synthetic ECGs of class {name} on ECG paper, leads side by side"
        pictures.append(
            (f"{name}: held-out real records on the left, synthetic ones on the right; the first of each set.", alt, figure)
        )
    text = "A small square is 0.04 s and 0.1 mV. The real records were not seen in the training of the generator."
    return Section("Real and synthetic ECGs", text, figures=pictures)


def _rhythms(results: Results) -> Section | None:
    if "physiology" not in _groups(results):
        return None
    rates = results.beats("heart_rate")
    real, made = {}, {}
    for name, reference, synthetic in _by_class(results):
        real[name], made[name] = rates["reference"][reference], rates["synthetic"][synthetic]
    rows = [[name, *_summary(real[name]), *_summary(made[name])] for name in real]
    header = ["class", "real n", "real median", "real 5-95 %", "synthetic n", "synthetic median", "synthetic 5-95 %"]
    return Section(
        "Heart rate",
        "Beats per minute by the median RR interval, measured by the same detector in both sets.",
        figures=[
            (
                "Heart rate by class.",
                "Distributions of the heart rate of real and synthetic records for each class; numbers are in the table below",
                figures.heart_rate_figure(real, made),
            )
        ],
        tables=[("Heart rate in beats/min", header, rows)],
    )


def _waveforms(results: Results) -> Section | None:
    if "temporal" not in _groups(results):
        return None
    comparison = results.comparison
    frequencies, real, made = results.spectra()
    lags = np.arange(64) / comparison.rate
    real_acf, made_acf = (temporal.autocorrelation(part.signals) for part in (comparison.reference, comparison.synthetic))
    return Section(
        "Spectrum and autocorrelation",
        "Of the whole sets, each lead at unit power.",
        figures=[
            (
                "Power spectrum by lead.",
                "Power spectra of real and synthetic records in each lead, one curve over the other",
                figures.psd_figure(frequencies, real, made, comparison.leads),
            ),
            (
                "Autocorrelation by lead.",
                f"Autocorrelation of real and synthetic records in each lead up to {lags[-1]:.2f} s",
                figures.autocorrelation_figure(lags, real_acf, made_acf, comparison.leads),
            ),
        ],
    )


def _feature_map(results: Results) -> Section | None:
    if "distribution" not in _groups(results):
        return None
    comparison, rows = results.comparison, results.comparison.drawn(0)
    sides = []
    for name, part in (("reference", comparison.reference), ("synthetic", comparison.synthetic)):
        labels = np.zeros((len(part), 1)) if part.labels is None else part.labels
        sides.append((results.features[name][rows[name]], labels[rows[name]].argmax(axis=1)))
    (real, real_classes), (made, made_classes) = sides
    figure = figures.feature_map(real, made, real_classes, made_classes, comparison.classes or ("all",))
    return Section(
        "Map of the features",
        "Features of the frozen classifier on the two principal axes of the real records; equal numbers, classes in equal shares.",
        figures=[
            ("Real and synthetic records in feature space.", "Scatter plot of real and synthetic features by class", figure)
        ],
    )


def _scores(results: Results) -> Section | None:
    if "utility" not in _groups(results):
        return None
    real, made = (results.scores[name]["per_class"] for name in ("trtr", "tstr"))
    rows = [[name, real[name]["n"], _auroc(real[name]), _auroc(made[name])] for name in results.comparison.classes]
    return Section(
        "Classifiers trained on real and on synthetic records",
        "The same network and budget, tested on the same held-out real records. Classes of fewer than 10 records support no claim.",
        figures=[
            (
                "AUROC by class with 95 % intervals.",
                "AUROC of each class for the classifier trained on real and the one trained on synthetic records",
                figures.class_scores_figure(real, made),
            )
        ],
        tables=[("AUROC by class", ["class", "n", "trained on real", "trained on synthetic"], rows)],
    )


def _copies(results: Results) -> Section | None:
    if "privacy" not in _groups(results):
        return None
    (copies, synthetic, train), comparison = results.copies, results.comparison
    pairs = [(made, real) for made, real, *_ in copies.pairs[:SHOWN]]  # nearest first
    text = (
        f"{copies.rate:.1%} of the synthetic records lie nearer to a training record than {PERCENTILE:g} % of the held-out real records "
        "do, at any gain and a shift in time of up to 1 s. Distances alone do not show that data is anonymous."
    )
    pictures = []
    if pairs:
        figure = figures.near_copy_figure(
            [(synthetic[made], train[real]) for made, real in pairs], comparison.rate, comparison.leads
        )
        pictures.append(
            ("The nearest pairs: synthetic and training record.", "Pairs of synthetic and training ECGs drawn together", figure)
        )
    return Section("Near copies of training records", text, figures=pictures)


def _groups(results: Results) -> set[str]:
    return {entry["group"] for entry in results.metrics.values() if entry["value"] is not None}


def _by_class(results: Results) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Each class with the rows of its reference and synthetic records; one class of all where there are no labels."""
    comparison = results.comparison
    if comparison.reference.labels is None:
        return [("all", np.arange(len(comparison.reference)), np.arange(len(comparison.synthetic)))]
    rows = [(part.labels > 0).T for part in (comparison.reference, comparison.synthetic)]
    return [
        (name, np.flatnonzero(real), np.flatnonzero(made)) for name, real, made in zip(comparison.classes, *rows, strict=True)
    ]


def _summary(values: np.ndarray) -> list[str]:
    known = values[np.isfinite(values)]
    if not len(known):
        return [str(len(values)), "-", "-"]
    low, middle, high = np.percentile(known, [5, 50, 95])
    return [str(len(values)), f"{middle:.0f}", f"{low:.0f} to {high:.0f}"]


def _auroc(entry: dict) -> str:
    if "reason" in entry:
        return entry["reason"]
    interval = "" if entry["low"] is None else f" ({entry['low']:.3f} to {entry['high']:.3f})"
    return f"{entry['auroc']:.3f}{interval}"
