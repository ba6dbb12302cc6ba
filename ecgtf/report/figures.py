"""The figures of a report, each a function of arrays. Real is blue and solid, synthetic vermilion and dashed, in every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from ecgtf.report.ecg_paper import ecg_grid

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito's: told apart by colour-blind readers too."""

REAL, SYNTHETIC = COLOURS[:2]
_CLASS_COLOURS = (*COLOURS, "#000000")
_CLASS_MARKERS = {"real": ("o", "s", "^"), "synthetic": ("x", "+", "1")}  # the next one when the colours are used up
_DPI = 110
_SHARE = "share of records"


def ecg_pairs(real: np.ndarray, synthetic: np.ndarray, rate: float, leads: Sequence[str], name: str) -> Figure:
    """Real records `(n, time, leads)` on the left, synthetic ones on the right, on ECG paper.

    Raises:
        ValueError: if there are not as many of one as of the other.
    """
    if np.shape(real) != np.shape(synthetic):
        raise ValueError(
            f"expected as many real as synthetic signals, received shapes {np.shape(real)} and {np.shape(synthetic)}"
        )
    signals = np.stack([real, synthetic], axis=1).reshape(-1, *real.shape[1:])
    titles = [f"{name}, {kind} {k + 1}" for k in range(len(real)) for kind in ("real", "synthetic")]
    return ecg_grid(signals, rate=rate, leads=leads, titles=titles, dpi=150)


def class_histograms(
    real: Mapping[str, np.ndarray], synthetic: Mapping[str, np.ndarray], edges: np.ndarray, label: str
) -> Figure:
    """Histograms of a measurement, a panel a class, on one scale; what lies beyond the ends counts in the outer bins."""
    figure, panels = _panels(len(real), width=2.6, height=2.0)
    for panel, name in zip(panels, real, strict=True):
        _histograms(panel, real[name], synthetic[name], edges)
        panel.set_title(name, fontsize=9, parse_math=False)
    _legend(panels[0])
    figure.supxlabel(label, fontsize=9)
    figure.supylabel(_SHARE, fontsize=9)
    return figure


def measurement_histograms(real: Mapping[str, np.ndarray], synthetic: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of several measurements `(records,)`, a panel each, between the 0.5 and 99.5 percentiles of both sets."""
    figure, panels = _panels(len(real), width=2.6, height=2.0, share=False)
    for panel, name in zip(panels, real, strict=True):
        known = np.concatenate([side[name][np.isfinite(side[name])] for side in (real, synthetic)])
        ends = np.percentile(known, (0.5, 99.5)) if len(known) else (0.0, 1.0)
        _histograms(panel, real[name], synthetic[name], np.linspace(ends[0], max(ends[1], ends[0] + 1e-6), 31))
        panel.set_xlabel(name, fontsize=8)
    _legend(panels[0])
    figure.supylabel(_SHARE, fontsize=9)
    return figure


def lead_ranges(real: np.ndarray, synthetic: np.ndarray, leads: Sequence[str], label: str) -> Figure:
    """Median and 5 to 95 % of a measurement `(records, leads)`, lead by lead."""
    figure = Figure(figsize=(7.5, 2.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    sides = (("real", real, REAL, "-", "o", -0.12), ("synthetic", synthetic, SYNTHETIC, "--", "s", 0.12))
    for name, values, colour, style, marker, shift in sides:
        for place, column in enumerate(values.T):
            known = column[np.isfinite(column)]
            if len(known):
                low, median, high = np.percentile(known, (5, 50, 95))
                axes.plot([place + shift] * 2, [low, high], color=colour, linestyle=style, linewidth=1.4)
                axes.plot(place + shift, median, marker, color=colour, markersize=4)
        axes.plot([], [], color=colour, linestyle=style, marker=marker, label=name)
    axes.set_xticks(range(len(leads)), leads, fontsize=8)
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, frameon=False, ncols=2, loc="outside upper center")
    return figure


def confusion_figure(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Confusion matrices `(true, predicted)` of counts, side by side; the shade is the share of the row."""
    size = 0.9 + 0.42 * len(classes)
    figure = Figure(figsize=(size * len(matrices), size + 0.5), dpi=_DPI, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(matrices), sharey=True))
    for panel, (name, matrix) in zip(panels, matrices.items(), strict=True):
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        panel.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.55 else "black"
            panel.text(column, row, str(int(count)), ha="center", va="center", fontsize=7, color=colour)
        panel.set_xticks(range(len(classes)), classes, fontsize=7, rotation=90, parse_math=False)
        panel.set_title(name, fontsize=9)
    panels[0].set_yticks(range(len(classes)), classes, fontsize=7, parse_math=False)
    panels[0].set_ylabel("true class", fontsize=8)
    figure.supxlabel("predicted class", fontsize=8)
    return figure


def psd_figure(frequencies: np.ndarray, real: np.ndarray, synthetic: np.ndarray, leads: Sequence[str]) -> Figure:
    """Spectra `(frequencies, leads)` of unit power on a logarithmic scale, a panel a lead."""
    figure = _curves(frequencies, 10 * np.log10(real + 1e-9), 10 * np.log10(synthetic + 1e-9), leads)
    figure.supxlabel("frequency (Hz)", fontsize=9)
    figure.supylabel("power (dB)", fontsize=9)
    return figure


def autocorrelation_figure(lags: np.ndarray, real: np.ndarray, synthetic: np.ndarray, leads: Sequence[str]) -> Figure:
    """Autocorrelations `(lags, leads)`, a panel a lead; lags in seconds."""
    figure = _curves(lags, real, synthetic, leads)
    figure.supxlabel("lag (s)", fontsize=9)
    figure.supylabel("autocorrelation", fontsize=9)
    return figure


def feature_map(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_classes: np.ndarray,
    synthetic_classes: np.ndarray,
    classes: Sequence[str],
    label: str,
) -> Figure:
    """Points `(n, 2)` of real and of synthetic records side by side; a colour a class, real as circles and synthetic as crosses."""
    figure = Figure(figsize=(8.0, 4.2), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, points, numbers, title in (
        (panels[0], real, real_classes, "real"),
        (panels[1], synthetic, synthetic_classes, "synthetic"),
    ):
        markers = _CLASS_MARKERS[title]
        for k in range(len(classes)):
            rows = numbers == k
            if rows.any():
                colour, marker = _CLASS_COLOURS[k % len(_CLASS_COLOURS)], markers[k // len(_CLASS_COLOURS) % len(markers)]
                panel.scatter(points[rows, 0], points[rows, 1], s=14, marker=marker, color=colour, alpha=0.7, linewidths=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(f"{label} 1", fontsize=9)
    panels[0].set_ylabel(f"{label} 2", fontsize=9)
    present = [k for k in range(len(classes)) if np.any(real_classes == k) or np.any(synthetic_classes == k)]
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            color=_CLASS_COLOURS[k % len(_CLASS_COLOURS)],
            marker=_CLASS_MARKERS["real"][k // len(_CLASS_COLOURS) % 3],
            label=classes[k],
        )
        for k in present
    ]
    as_they_stand(figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside right upper"))
    return figure


def class_scores_figure(real: Mapping[str, dict], synthetic: Mapping[str, dict]) -> Figure:
    """AUROC of each class on real records with its interval, trained on real and trained on synthetic records."""
    names = [name for name in real if "reason" not in real[name]]
    figure = Figure(figsize=(6.5, 0.45 * max(1, len(names)) + 1.0), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    sides = ((-0.12, real, REAL, "-", "o"), (0.12, synthetic, SYNTHETIC, "--", "s"))
    for shift, entries, colour, style, marker in sides:
        for row, name in enumerate(names):
            entry = entries[name]
            if "reason" in entry:
                continue
            if entry["low"] is not None:
                axes.plot([entry["low"], entry["high"]], [row + shift] * 2, color=colour, linewidth=1.5, linestyle=style)
            axes.plot(entry["auroc"], row + shift, marker, color=colour)
    axes.set_yticks(range(len(names)), [f"{name} (n {real[name]['n']})" for name in names], parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("AUROC", fontsize=9)
    handles = [
        Line2D([], [], color=colour, linestyle=style, marker=marker, label=f"trained on {kind}")
        for (*_, colour, style, marker), kind in zip(sides, ("real", "synthetic"), strict=True)
    ]
    figure.legend(handles=handles, fontsize=8, frameon=False, ncols=2, loc="outside upper center")
    return figure


def as_they_stand(legend: Legend) -> None:
    """Names are no formulas, whatever signs they hold: without this a legend takes what is between dollar signs for TeX."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def neighbour_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]], rate: float, leads: Sequence[str]) -> Figure:
    """Pairs of a synthetic record and the training record next to it `(time, leads)`, side by side on ECG paper."""
    signals = np.stack([signal for pair in pairs for signal in pair])
    titles = [f"pair {k + 1}, {kind}" for k in range(len(pairs)) for kind in ("synthetic", "training")]
    return ecg_grid(signals, rate=rate, leads=leads, titles=titles, dpi=150)


def _curves(x: np.ndarray, real: np.ndarray, synthetic: np.ndarray, leads: Sequence[str]) -> Figure:
    figure, panels = _panels(len(leads), width=2.2, height=1.5)
    for k, (panel, lead) in enumerate(zip(panels, leads, strict=True)):
        panel.plot(x, real[:, k], color=REAL, linewidth=1.2)
        panel.plot(x, synthetic[:, k], color=SYNTHETIC, linewidth=1.2, linestyle="--")
        panel.set_title(lead, fontsize=9)
    _legend(panels[0])
    return figure


def _histograms(panel: Axes, real: np.ndarray, synthetic: np.ndarray, edges: np.ndarray) -> None:
    for values, colour, style in ((real, REAL, "-"), (synthetic, SYNTHETIC, "--")):
        known = values[np.isfinite(values)]
        if len(known):
            weights = np.full(len(known), 1 / len(known))
            inside = np.clip(known, edges[0], np.nextafter(edges[-1], edges[0]))
            panel.hist(inside, edges, weights=weights, histtype="step", color=colour, linestyle=style)
    panel.set_yticks([])


def _legend(panel: Axes) -> None:
    """Names both curves, also where this panel lacks one of them."""
    sides = (("real", REAL, "-"), ("synthetic", SYNTHETIC, "--"))
    handles = [Line2D([], [], color=colour, linestyle=style, label=name) for name, colour, style in sides]
    panel.legend(handles=handles, fontsize=7, frameon=False)


def _panels(count: int, width: float, height: float, share: bool = True):
    """A figure with `count` panels, four to a row, on common axes if `share`."""
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), dpi=_DPI, layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(rows, columns, sharex=share, sharey=share)).ravel())
    for panel in panels:
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]
