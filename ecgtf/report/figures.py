"""The figures of a report, each a function of arrays. Real is blue and solid, synthetic vermilion and dashed, in every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ecgtf.report.ecg_paper import ecg_grid

REAL, SYNTHETIC = "#0072B2", "#D55E00"  # Okabe & Ito: told apart by colour-blind readers too
_CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_CLASS_MARKERS = {"real": ("o", "s", "^"), "synthetic": ("x", "+", "1")}  # the next one when the colours are used up
_DPI = 110
_SHOWN_LEADS = ("I", "II", "V1", "V5")


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
    shown = [lead for lead in _SHOWN_LEADS if lead in leads] or list(leads[:4])
    return ecg_grid(signals, rate=rate, leads=leads, titles=titles, show_leads=shown, dpi=150)


def heart_rate_figure(real: Mapping[str, np.ndarray], synthetic: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of the heart rate in beats/min, a panel a class."""
    figure, panels = _panels(len(real), width=2.6, height=2.0)
    edges = np.arange(20, 241, 8)
    for panel, name in zip(panels, real, strict=True):
        for values, colour, style in ((real[name], REAL, "-"), (synthetic[name], SYNTHETIC, "--")):
            known = values[np.isfinite(values)]
            if len(known):
                weights = np.full(len(known), 1 / len(known))
                # What is faster than the last bin, which ends at 236, counts in it.
                panel.hist(np.clip(known, 20, 235), edges, weights=weights, histtype="step", color=colour, linestyle=style)
        panel.set_title(name, fontsize=9)
        panel.set_yticks([])
    _legend(panels[0])
    figure.supxlabel("heart rate (beats/min)", fontsize=9)
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
    real: np.ndarray, synthetic: np.ndarray, real_classes: np.ndarray, synthetic_classes: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Features `(n, d)` on the two principal axes of the real ones; a colour a class, real as circles and synthetic as crosses."""
    centre = real.mean(axis=0)
    axes = np.linalg.svd(real - centre, full_matrices=False)[2][:2].T
    figure = Figure(figsize=(8.0, 4.2), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, points, numbers, title in (
        (panels[0], real, real_classes, "real"),
        (panels[1], synthetic, synthetic_classes, "synthetic"),
    ):
        markers = _CLASS_MARKERS[title]
        places = (points - centre) @ axes
        for k in range(len(classes)):
            rows = numbers == k
            if rows.any():
                colour, marker = _CLASS_COLOURS[k % len(_CLASS_COLOURS)], markers[k // len(_CLASS_COLOURS) % len(markers)]
                panel.scatter(places[rows, 0], places[rows, 1], s=14, marker=marker, color=colour, alpha=0.7, linewidths=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("principal axis 1", fontsize=9)
    panels[0].set_ylabel("principal axis 2", fontsize=9)
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
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside right upper")
    return figure


def class_scores_figure(real: Mapping[str, dict], synthetic: Mapping[str, dict]) -> Figure:
    """AUROC of each class with its interval, trained on real and trained on synthetic records."""
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
    axes.set_yticks(range(len(names)), [f"{name} (n {real[name]['n']})" for name in names])
    axes.invert_yaxis()
    axes.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("AUROC", fontsize=9)
    handles = [
        Line2D([], [], color=colour, linestyle=style, marker=marker, label=f"trained on {kind}")
        for (*_, colour, style, marker), kind in zip(sides, ("real", "synthetic"), strict=True)
    ]
    figure.legend(handles=handles, fontsize=8, frameon=False, ncols=2, loc="outside upper center")
    return figure


def near_copy_figure(pairs: Sequence[tuple[np.ndarray, np.ndarray]], rate: float, leads: Sequence[str]) -> Figure:
    """Pairs of a synthetic and a training record `(time, leads)`, side by side on ECG paper."""
    signals = np.stack([signal for pair in pairs for signal in pair])
    titles = [f"pair {k + 1}, {kind}" for k in range(len(pairs)) for kind in ("synthetic", "training")]
    shown = [lead for lead in _SHOWN_LEADS if lead in leads] or list(leads[:4])
    return ecg_grid(signals, rate=rate, leads=leads, titles=titles, show_leads=shown, dpi=150)


def _curves(x: np.ndarray, real: np.ndarray, synthetic: np.ndarray, leads: Sequence[str]) -> Figure:
    figure, panels = _panels(len(leads), width=2.2, height=1.5)
    for k, (panel, lead) in enumerate(zip(panels, leads, strict=True)):
        panel.plot(x, real[:, k], color=REAL, linewidth=1.2)
        panel.plot(x, synthetic[:, k], color=SYNTHETIC, linewidth=1.2, linestyle="--")
        panel.set_title(lead, fontsize=9)
    _legend(panels[0])
    return figure


def _legend(panel: Axes) -> None:
    """Names both curves, also where this panel lacks one of them."""
    sides = (("real", REAL, "-"), ("synthetic", SYNTHETIC, "--"))
    handles = [Line2D([], [], color=colour, linestyle=style, label=name) for name, colour, style in sides]
    panel.legend(handles=handles, fontsize=7, frameon=False)


def _panels(count: int, width: float, height: float):
    """A figure with `count` panels, four to a row, on common axes."""
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), dpi=_DPI, layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel())
    for panel in panels:
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]
