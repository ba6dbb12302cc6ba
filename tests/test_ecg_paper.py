"""ECG paper: scale, layout, and that any title or signal can be drawn."""

import gc
import re
import subprocess
import sys
import weakref

import numpy as np
import pytest

from ecgtf.ecg import INDEPENDENT_LEADS, LEADS
from ecgtf.report.ecg_paper import ecg_figure, ecg_grid, ecg_image, save_ecg

RATE = 100


def clock(seconds: float = 10.0, leads: int = 12) -> np.ndarray:
    """A signal whose value is its own time: 0.1 mV a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    return np.repeat(0.1 * time[:, None], leads, axis=1).astype(np.float32)


def traces(figure) -> list[np.ndarray]:
    """The drawn signals `(samples, 2)` in mm of paper, in drawing order."""
    return [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) > 20]


def names(figure, leads=LEADS) -> list[tuple[str, float, float]]:
    return [(text.get_text(), *text.get_position()) for text in figure.axes[0].texts if text.get_text() in leads]


def test_axes_are_millimetres_of_paper():
    figure = ecg_figure(clock(), rate=RATE)
    width, height = figure.get_size_inches() * 25.4
    axes = figure.axes[0]
    assert axes.get_position().bounds == (0, 0, 1, 1)
    assert np.allclose((*axes.get_xlim(), *axes.get_ylim()), (0, width, 0, height))


def test_ten_seconds_are_250_mm_and_a_millivolt_10_mm():
    strip = traces(ecg_figure(clock(), rate=RATE))[-1]
    assert len(strip) == 10 * RATE
    assert np.allclose(np.diff(strip[:, 0]), 25 / RATE)
    assert np.ptp(strip[:, 0]) == pytest.approx(250 - 25 / RATE)
    assert np.allclose(np.diff(strip[:, 1]), 10 * 0.1 / RATE, atol=1e-5)


def test_clinical_layout():
    placed = names(ecg_figure(clock(), rate=RATE))
    rows = sorted({y for _, _, y in placed}, reverse=True)
    in_order = [[name for name, _, _ in sorted((p for p in placed if p[2] == y), key=lambda p: p[1])] for y in rows]
    assert in_order == [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"], ["II"]]


def test_columns_follow_one_another_in_time():
    *columns, strip = traces(ecg_figure(clock(), rate=RATE))
    assert len(columns) == 12
    baselines = {}
    for column in columns:
        start = (column[0, 0] - strip[0, 0]) / 25  # s, from its place on paper
        assert start / 2.5 == pytest.approx(round(start / 2.5))
        drawn = column[:, 1] - 10 * 0.1 * (start + np.arange(len(column)) / RATE)  # flat if it shows the time of its place
        assert np.ptp(drawn) < 1e-3
        baselines.setdefault(round(drawn[0] / 5), []).append(round(start, 3))
    assert sorted(baselines.values()) == [[0.0, 2.5, 5.0, 7.5]] * 3


def test_leads_are_taken_by_name():
    signal = np.zeros((1000, 12), np.float32)
    order = LEADS[::-1]
    signal[::2, order.index("II")] = 0.5
    strip = traces(ecg_figure(signal, rate=RATE, leads=order))[-1]
    assert np.ptp(strip[:, 1]) == pytest.approx(5)


@pytest.mark.parametrize("leads", [("II",), ("I", "V5"), INDEPENDENT_LEADS])
def test_fewer_leads_have_rows_of_their_own(leads):
    figure = ecg_figure(clock(leads=len(leads)), rate=RATE, leads=leads)
    assert [len(trace) for trace in traces(figure)] == [1000] * len(leads)
    placed = sorted(names(figure), key=lambda place: -place[2])
    assert [name for name, _, _ in placed] == list(leads)


@pytest.mark.parametrize(("seconds", "strips"), [(2.5, 1), (5, 1), (12, 2), (60, 6)])
def test_other_durations(seconds, strips):
    drawn = traces(ecg_figure(clock(seconds), rate=RATE))
    assert len(drawn) == 12 + strips
    assert sum(np.ptp(trace[:, 0]) for trace in drawn[12:]) == pytest.approx(25 * seconds, abs=1)
    assert all(np.ptp(trace[:, 0]) == pytest.approx(62.5, abs=0.5) for trace in drawn[:12])


def test_tall_waves_get_more_paper():
    tall = clock() * 0
    tall[500::100, LEADS.index("V3")] = 3.0
    flat, high = (ecg_figure(signal, rate=RATE).get_size_inches()[1] for signal in (clock() * 0, tall))
    assert (high - flat) * 25.4 == pytest.approx(20)


@pytest.mark.parametrize("title", ["$", r"costs $5 \frac{ and x_$", "a < b & c > d", "two\nlines\t\x00", "心電図 é", "x" * 500])
def test_any_title_is_drawn_as_it_stands(title, tmp_path):
    image = ecg_image(ecg_figure(clock(), rate=RATE, title=title, dpi=50))
    assert not np.array_equal(image, ecg_image(ecg_figure(clock(), rate=RATE, title=" ", dpi=50)))
    save_ecg(tmp_path / "a.svg", clock(), rate=RATE, title=title)
    assert ecg_image(ecg_grid([clock()], rate=RATE, titles=[title], dpi=50)).ndim == 3


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 30.0])
def test_faulty_signals_can_be_looked_at(value):
    signal = clock()
    signal[200:400, :6] = value
    signal[:, 6] = value
    assert ecg_image(ecg_figure(signal, rate=RATE, dpi=50)).size
    assert ecg_image(ecg_grid(signal[None], rate=RATE, dpi=50)).size


def test_image_is_pixels():
    figure = ecg_figure(clock(), rate=RATE, dpi=101.6)  # 4 pixels a mm
    image = ecg_image(figure)
    width, height = figure.get_size_inches() * 25.4
    assert image.shape == (round(height * 4), round(width * 4), 3)
    assert image.dtype == np.uint8
    assert image.min() < 40  # ink
    assert (image[..., 0] > image[..., 1]).mean() > 0.2  # pink paper


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signal": np.zeros(1000)}, r"expected a signal \(time, 12\).*received shape \(1000,\)"),
        ({"signal": np.zeros((1000, 8))}, r"received shape \(1000, 8\)"),
        ({"signal": np.zeros((0, 12))}, r"received shape \(0, 12\)"),
        ({"rate": 0}, "expected a sampling rate above 0 Hz, received 0"),
        ({"signal": np.zeros((40000, 12))}, "at most 300 s, received 400 s"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ecg_figure(**{"signal": clock(), "rate": RATE} | arguments)


def test_grid_draws_the_leads_that_are_there():
    signals = np.stack([clock()] * 3)
    figure = ecg_grid(signals, rate=RATE, titles=["a", "b", "c"])
    assert len(traces(figure)) == 3 * 4
    assert [name for name, _, _ in names(figure)] == ["I", "II", "V1", "V5"] * 3
    some = ecg_grid(signals[..., :3], rate=RATE, leads=("V5", "V6", "II"))
    assert [name for name, _, _ in names(some)] == ["II", "V5"] * 3
    none = ecg_grid(signals[..., :5], rate=RATE, leads=("V6", "V4", "V3", "V2", "aVR"))
    assert [name for name, _, _ in names(none)] == ["V6", "V4", "V3", "V2"] * 3


def test_grid_is_to_its_own_scale():
    figure = ecg_grid([clock()], rate=RATE)
    width = np.diff(figure.axes[0].get_xlim())[0]
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(0.5 * width)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signals": []}, "at least one signal"),
        ({"titles": ["a", "b"]}, "expected 1 titles, one for each signal, received 2"),
        ({"leads": ["II"]}, r"expected a signal \(time, 1\) for leads II"),
    ],
)
def test_what_makes_no_grid_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ecg_grid(**{"signals": [clock()], "rate": RATE} | arguments)


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_files_are_whole_and_the_same_each_time(suffix, magic, tmp_path):
    first, second = (save_ecg(tmp_path / f"{name}{suffix}", clock(), rate=RATE, title="$1") for name in "ab")
    assert first.read_bytes().startswith(magic)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_print_is_true_to_scale(tmp_path):
    points = 72 / 25.4
    figure = ecg_figure(clock(), rate=RATE)
    width, height = figure.get_size_inches() * 25.4
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", save_ecg(tmp_path / "a.pdf", clock(), rate=RATE).read_bytes())
    assert [float(length) for length in box.groups()] == pytest.approx([width * points, height * points], abs=0.1)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', save_ecg(tmp_path / "a.svg", clock(), rate=RATE).read_text())
    assert [float(length) for length in size.groups()] == pytest.approx([width * points, height * points], abs=0.1)


def test_unknown_file_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends with .png, .svg or .pdf, received 'a.jpg'"):
        save_ecg(tmp_path / "a.jpg", clock(), rate=RATE)
    assert list(tmp_path.iterdir()) == []


def test_figures_are_freed():
    figure = ecg_figure(clock(), rate=RATE, dpi=50)
    ecg_image(figure)
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None


def test_pyplot_is_not_involved():
    code = (
        "import sys, numpy as np; from ecgtf.report.ecg_paper import *; ecg_image(ecg_grid(np.ones((1, 500, 12)), rate=100)); "
    )
    code += "sys.exit(int('matplotlib.pyplot' in sys.modules or 'tensorflow' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
