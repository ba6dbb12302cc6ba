"""ECGs on ECG paper: 25 mm/s, 10 mm/mV, twelve leads in the clinical 3 x 4 layout over a rhythm strip, true to scale in print.

Every figure has one pair of axes whose data units are millimetres of paper, so time and voltage become lengths once, in
`_draw_trace`. Figures are made without pyplot: nothing is registered, and a figure is freed when its last reference is gone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from ecgtf.atomic import write_atomically
from ecgtf.ecg import LEADS

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0

CLINICAL_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
"""The rows of the 3 x 4 layout; the columns follow one another in time."""

_RHYTHM_LEAD = "II"
_GRID_LEADS = ("I", "II", "V1", "V5")
_GRID_COLUMNS, _GRID_SCALE = 2, 0.5  # of true scale
_PAGE_SECONDS = 10.0  # the longest strip; longer records continue on the next line
_MAX_SECONDS = 300.0  # 30 lines: as much as one picture can show
_MARGIN, _TITLE, _FOOTER = 5.0, 10.0, 5.0  # mm
_LEFT = 15.0  # mm before the traces: the margin, the calibration pulse and a gap
_PAPER, _FINE, _COARSE, _INK = "#fffafa", "#f9d3d3", "#ee9f9f", "#101018"
_UNTOLD = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_FONT = "DejaVu Sans"  # comes with matplotlib, so that pages look the same everywhere


def ecg_figure(
    signal: np.ndarray,
    *,
    rate: float,
    leads: Sequence[str] = LEADS,
    title: str = "",
    dpi: float = 203.2,
) -> Figure:
    """One ECG as a cardiologist reads it.

    With all 12 leads, columns of 2.5 s each stand over a full-length strip of lead II; with fewer, each lead has a row
    of its own. Beyond 10 s, strips continue on further lines (the columns show the first 10 s); columns of a record below 10 s
    overlap in time. Each lead's median is subtracted, as an electrocardiograph's high-pass filter does; NaN leaves a gap.

    Args:
        signal: `(time, leads)` in mV.
        rate: Samples per second.
        leads: Names of the signal's leads, in any order.
        title: Shown as it stands; shortened to fit.
        dpi: Pixels per inch; the default draws 1 mm as 8 pixels.

    Raises:
        ValueError: for a signal that does not fit `leads`, a rate that is not positive, or more than 300 s.
    """
    signal, leads = _checked(signal, rate, leads)
    seconds = len(signal) / rate
    if seconds > _MAX_SECONDS:
        raise ValueError(f"one figure shows at most {_MAX_SECONDS:g} s, received {seconds:.4g} s; cut the signal")
    if set(LEADS) <= set(leads):
        column = min(2.5, seconds)
        starts = [place * (min(seconds, _PAGE_SECONDS) - column) / 3 for place in range(4)]
        rows = [[(lead, start, start + column) for lead, start in zip(row, starts, strict=True)] for row in CLINICAL_ROWS]
        rows += [[(_RHYTHM_LEAD, *span)] for span in _lines(seconds)]
    else:
        rows = [[(lead, *span)] for span in _lines(seconds) for lead in leads]

    spans = [[_extent(_piece(signal, rate, leads, *cell)) for cell in row] for row in rows]
    heights = [_row_height(row, 40) for row in spans]
    longest = max(sum(end - start for _, start, end in row) for row in rows)
    width = _LEFT + _ceil5(longest * MM_PER_SECOND) + _MARGIN
    top = _TITLE if title else _MARGIN
    figure, axes = _page(width, top + sum(up + down for up, down in heights) + _FOOTER, 1.0, dpi)
    y = axes.get_ylim()[1] - top
    for row, (up, down) in zip(rows, heights, strict=True):
        y -= up  # now the zero line of the row, on a coarse line of the grid
        _draw_calibration(axes, _LEFT - 7.5, y)
        x = _LEFT
        for lead, start, end in row:
            _draw_trace(axes, x, y, _piece(signal, rate, leads, lead, start, end), rate)
            if x > _LEFT:
                axes.plot([x, x], [y - 2.5, y + 2.5], color=_INK, linewidth=0.8)
            _draw_text(axes, x + 1, y + up - 3.5, lead, 9, weight="bold")
            x += (end - start) * MM_PER_SECOND
        y -= down
    _draw_text(axes, _LEFT, 1.5, f"25 mm/s    10 mm/mV    {rate:g} Hz", 7)
    if title:
        _draw_text(axes, _LEFT, axes.get_ylim()[1] - 6, _shorten(title, (width - _LEFT) / 2.1), 10)
    return figure


def ecg_grid(
    signals: np.ndarray | Sequence[np.ndarray],
    *,
    rate: float,
    leads: Sequence[str] = LEADS,
    titles: Sequence[str] | None = None,
    dpi: float = 152.4,
) -> Figure:
    """Several ECGs on one compact sheet, two side by side at half of true scale, for TensorBoard and reports.

    Of each, the first 10 s of the leads I, II, V1 and V5 are drawn, as many of them as there are; of the first four leads where
    there are none.

    Args:
        signals: `(batch, time, leads)` in mV, or a sequence of `(time, leads)`.
        rate: Samples per second.
        leads: Names of the signals' leads.
        titles: One for each signal.
        dpi: Pixels per inch.

    Raises:
        ValueError: if there is no signal, one does not fit `leads`, or `titles` has another length.
    """
    if len(signals) == 0:
        raise ValueError("expected at least one signal to draw, received none")
    if titles is not None and len(titles) != len(signals):
        raise ValueError(f"expected {len(signals)} titles, one for each signal, received {len(titles)}")
    checked = [_checked(signal, rate, leads)[0] for signal in signals]
    shown = [lead for lead in _GRID_LEADS if lead in leads] or list(leads[:4])
    columns = min(_GRID_COLUMNS, len(checked))
    rows = math.ceil(len(checked) / columns)
    seconds = min(_PAGE_SECONDS, max(len(signal) for signal in checked) / rate)
    panel_width = _LEFT + _ceil5(seconds * MM_PER_SECOND)
    title_height = 10.0 if titles is not None else 0.0
    cells = [[(lead, _piece(signal, rate, leads, lead, 0.0, seconds)) for lead in shown] for signal in checked]
    heights = []  # of each lead's strip in each row of panels: panels side by side share them
    for row in range(rows):
        panels = cells[row * columns : (row + 1) * columns]
        heights.append([_row_height([_extent(panel[k][1]) for panel in panels], 25) for k in range(len(shown))])
    height = sum(title_height + _MARGIN + sum(up + down for up, down in row) for row in heights)
    figure, axes = _page(columns * panel_width + _MARGIN, height, _GRID_SCALE, dpi)
    y_top = axes.get_ylim()[1]
    for row, strips in enumerate(heights):
        for column in range(columns):
            index = row * columns + column
            if index >= len(cells):
                break
            x, y = column * panel_width + _LEFT, y_top - title_height
            if titles is not None:
                _draw_text(axes, x, y + 3, _shorten(titles[index], panel_width * _GRID_SCALE / 1.7), 8)
            for (lead, piece), (up, down) in zip(cells[index], strips, strict=True):
                y -= up
                _draw_trace(axes, x, y, piece, rate, width=0.6)
                _draw_text(axes, x - 11, y - 1, lead, 6.5, weight="bold")
                y -= down
        y_top -= title_height + _MARGIN + sum(up + down for up, down in strips)
    return figure


def ecg_image(figure: Figure) -> np.ndarray:
    """The figure as pixels, `(height, width, 3)` uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def save_ecg(path: str | Path, signal: np.ndarray, **options) -> Path:
    """Writes `ecg_figure(signal, **options)` to `path`: .png, .svg or .pdf. Same input, same bytes.

    Raises:
        ValueError: for another suffix, or as `ecg_figure` does.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"expected a file name that ends with .png, .svg or .pdf, received {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, figure_bytes(ecg_figure(signal, **options), kind))
    return path


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Any figure as `png`, `svg` or `pdf`, without date and program version: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "ecgtf"}):
        figure.savefig(buffer, format=kind, dpi=figure.dpi, metadata=_UNTOLD[kind])
    return buffer.getvalue()


def _checked(signal: np.ndarray, rate: float, leads: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    signal, leads = np.asarray(signal), tuple(leads)
    if signal.ndim != 2 or signal.shape[1] != len(leads) or 0 in signal.shape:
        raise ValueError(f"expected a signal (time, {len(leads)}) for leads {', '.join(leads)}, received shape {signal.shape}")
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"expected a sampling rate above 0 Hz, received {rate}")
    return signal, leads


def _lines(seconds: float) -> list[tuple[float, float]]:
    """The spans of time that the lines of a strip show."""
    count = max(1, math.ceil(seconds / _PAGE_SECONDS - 1e-9))
    return [(line * _PAGE_SECONDS, min(seconds, (line + 1) * _PAGE_SECONDS)) for line in range(count)]


def _piece(signal: np.ndarray, rate: float, leads: Sequence[str], lead: str, start: float, end: float) -> np.ndarray:
    """One lead from `start` to `end` (s) in mV, about its median over the whole record."""
    trace = signal[:, leads.index(lead)]
    known = trace[np.isfinite(trace)]
    first = round(start * rate)
    # One sample more than the span holds, so that neighbouring pieces meet.
    return trace[first : round(end * rate) + 1] - (np.median(known) if known.size else 0.0)


def _extent(piece: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest value in mV, a few stray samples left aside."""
    known = piece[np.isfinite(piece)]
    return tuple(np.percentile(known, [0.2, 99.8])) if known.size else (0.0, 0.0)


def _row_height(extents: Sequence[tuple[float, float]], most: float) -> tuple[float, float]:
    """Paper in mm above and below the zero line of a row: whole coarse boxes, at most `most` mm; beyond it the rows overlap."""
    low, high = min(low for low, _ in extents), max(high for _, high in extents)
    return tuple(float(np.clip(_ceil5(length * MM_PER_MV + 2), least, most)) for length, least in ((high, 15), (-low, 10)))


def _ceil5(length: float) -> float:
    return 5.0 * math.ceil(length / 5 - 1e-6)


def _page(width: float, height: float, scale: float, dpi: float) -> tuple[Figure, Axes]:
    """An empty sheet of ECG paper of `width` x `height` mm, drawn at `scale`; data units of its axes are mm."""
    figure = Figure(figsize=(width * scale / 25.4, height * scale / 25.4), dpi=dpi, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    x, y = np.arange(0, width + 0.5), np.arange(0, height + 0.5)
    for every, colour, line in ((False, _FINE, 0.25), (True, _COARSE, 0.5)):
        lines = [[(a, 0), (a, height)] for a in x[(x % 5 == 0) == every]] + [
            [(0, b), (width, b)] for b in y[(y % 5 == 0) == every]
        ]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=line * max(scale, 0.7)), autolim=False)
    return figure, axes


def _draw_trace(axes: Axes, x: float, y: float, piece: np.ndarray, rate: float, width: float = 0.8) -> None:
    axes.plot(
        x + np.arange(len(piece)) * (MM_PER_SECOND / rate),
        y + piece * MM_PER_MV,
        color=_INK,
        linewidth=width,
        solid_joinstyle="round",
        scalex=False,
        scaley=False,
    )


def _draw_calibration(axes: Axes, x: float, y: float) -> None:
    """The pulse of 1 mV and 0.2 s that tells the scale."""
    along, up = np.array([(-1, 0), (0, 0), (0, MM_PER_MV), (5, MM_PER_MV), (5, 0), (6, 0)]).T
    axes.plot(x + along, y + up, color=_INK, linewidth=0.8, solid_joinstyle="miter", scalex=False, scaley=False)


def _draw_text(axes: Axes, x: float, y: float, text: str, size: float, weight: str = "normal") -> None:
    """Text as it stands: `$` and `\\` start no formula, and what the font lacks is a box."""
    font = get_font(findfont(_FONT))
    text = "".join(character if character.isprintable() else " " for character in text)
    text = "".join(character if font.get_char_index(ord(character)) else "□" for character in text)
    axes.text(x, y, text, size=size, weight=weight, family=_FONT, color=_INK, parse_math=False, usetex=False)


def _shorten(text: str, length: float) -> str:
    return text if len(text) <= length else text[: max(1, int(length) - 1)].rstrip() + "…"
