"""The report's page: everything inside one file, readable without sight, escaped, and the same when it is built again."""

import io
import json
import re
import shutil
import subprocess
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import rc_context

from ecgtf.closeness.table import three_digits
from ecgtf.ecg import LEADS
from ecgtf.report import figures
from ecgtf.report.page import Section, _plot, add_sections, rebuild, save_page

RNG = np.random.default_rng(0)
METRIC = {
    "value": 2.0,
    "floor": 1.0,
    "low": 1.5,
    "high": 2.5,
    "group": "temporal",
    "unit": "mV",
    "better": "lower",
    "label": "a < b",
    "worse": True,
}
SUMMARY = {
    "schema": 1,
    "real": {"name": "real <set>", "train": 9, "reference": 5, "reference_splits": ["validation", "test"]},
    "synthetic": {
        "name": "made",
        "records": 7,
        "without_records_of": ["A<F"],
        "generator": {"run": "vqvae", "settings": {"guidance": 1.5}},
    },
    "metrics": {
        "some": METRIC,
        "none": METRIC
        | {"value": None, "floor": None, "low": None, "high": None, "worse": None, "reason": "too few & far between"},
        "bare": METRIC | {"low": None, "high": None, "group": "privacy", "worse": None},
        "nan": METRIC | {"value": 4.0, "floor": float("nan"), "low": float("nan"), "high": float("nan")},
    },
    "provenance": {"seed": 0, "versions": {"ecgtf": "0.1.0"}},
}


class Reader(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str):
        super().__init__()
        self.headings, self.images, self.addresses, self.scripts, self.language = [], [], [], 0, None
        self.plots = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(attributes)
        if tag == "svg":
            self.plots.append(attributes["aria-label"])
        if tag == "html":
            self.language = attributes.get("lang")
        self.scripts += tag == "script"
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]


@pytest.fixture
def page(tmp_path):
    signals = RNG.normal(size=(2, 500, 12))
    curves = [np.abs(RNG.normal(size=(20, 12))) for _ in range(2)]
    classes = RNG.integers(2, size=30)
    rates = {"SR": RNG.normal(70, 5, 30), "AFIB": np.full(3, np.nan)}
    scores = {"SR": {"n": 5, "auroc": 0.9, "low": 0.8, "high": 1.0}, "AFIB": {"n": 0, "reason": "no positives"}}
    drawn = [
        figures.ecg_pairs(signals, signals, 100.0, LEADS, "SR <x> $5"),
        figures.class_histograms(rates, rates, np.arange(20, 241, 8), "heart rate (beats/min)"),
        figures.measurement_histograms(rates, rates),
        figures.lead_ranges(signals[0], signals[1], LEADS, "amplitude (mV)"),
        figures.confusion_figure({"real": np.array([[3, 1], [0, 2]]), "both": np.eye(2)}, ("SR", "AFIB")),
        figures.psd_figure(np.arange(20.0), *curves, LEADS),
        figures.autocorrelation_figure(np.arange(20) / 100, *curves, LEADS),
        figures.feature_map(RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2)), classes, classes, ("SR", "AFIB"), "axis"),
        figures.class_scores_figure(scores, scores),
        figures.neighbour_pairs([(signals[0], signals[1])], 100.0, LEADS),
    ]
    sections = [
        Section(
            "Pictures",
            "of <all> kinds",
            figures=[(f"caption {k}", f"alternative {k}", figure) for k, figure in enumerate(drawn)],
        ),
        Section("Numbers", tables=[("rates", ["class", "n"], [["SR", np.int64(3)], ["<b>", 4]])]),
    ]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "closeness.json").write_text(json.dumps(SUMMARY))
    return save_page(tmp_path / "report", title="A & B", sections=sections)


def test_a_later_section_comes_last_and_nothing_else_changes(page):
    before = page.read_text()
    add_sections(page.parent, [Section("A later study", tables=[("scores", ["class", "AUROC"], [["SR", 0.9]])])])
    after = page.read_text()
    assert re.findall("<h2[^>]*>(.*?)</h2>", after) == ["Metrics", "Pictures", "Numbers", "A later study", "Provenance"]
    assert '<a href="#section-3">A later study</a>' in after
    without = after.replace(after[after.index('<h2 id="section-3">') : after.index('<h2 id="provenance">')], "")
    assert without.replace('<li><a href="#section-3">A later study</a></li>', "").split() == before.split()


def test_nothing_leaves_the_page(page):
    reader = Reader(page.read_text())
    assert reader.scripts == 0
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in reader.addresses)
    written = re.sub('base64,[^"]*', "", page.read_text())
    assert len(written) < 20_000
    assert not re.search(r"https?:|url\(|@import|//\w", written)


def test_the_page_reads_without_sight(page):
    reader = Reader(page.read_text())
    assert reader.language == "en"
    assert reader.headings[0] == 1
    assert reader.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(reader.headings, reader.headings[1:], strict=False))
    assert len(reader.images) == 10
    assert all(image["alt"].startswith("alternative") for image in reader.images)


def test_what_is_not_computed_says_why_and_text_is_escaped(page):
    text = page.read_text()
    assert "not computed: too few &amp; far between" in text
    assert "<b>" not in text
    assert "real &lt;set&gt;" in text
    assert "A &amp; B" in text
    assert "1.5 to 2.5" in text


def test_what_is_worse_and_what_is_missing_is_said_first(page):
    text = re.sub(r"\s+", " ", page.read_text())
    assert "<strong>2</strong> of 2 metrics" in text
    assert "▲ worse" in text
    assert "<strong>No synthetic records of A&lt;F</strong>: distances leave this class out." in text
    assert text.index("No synthetic records") < text.index("<h2")


def test_every_link_leads_somewhere(page):
    text = page.read_text()
    targets = re.findall('href="#([^"]+)"', text)
    assert len(targets) == 1 + 1 + 2 + 1  # skip link, metrics, two sections, provenance
    assert all(f'id="{target}"' in text for target in targets)


def test_the_small_plots_are_told_in_words_and_hold_no_nan(page):
    assert Reader(page.read_text()).plots == [
        "value 2, interval 1.5 to 2.5, floor 1",
        "value 4, no floor",
        "value 2, floor 1",
    ]
    assert not re.search(r"\bnan\b", re.sub('base64,[^"]*', "", page.read_text()))


def test_numbers_have_three_digits_and_no_exponent_where_one_is_needless():
    assert list(map(three_digits, (0.01234, -12.345, 999.4, 999.6, 12345.6, None))) == [
        "0.0123", "-12.3", "999", "1000", "12346", "-"
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "floor", "zero"), [(-2.0, -1.0, 96.0), (2.0, 1.0, 4.0)])
def test_the_scale_of_a_small_plot_holds_zero(value, floor, zero):
    places = _plot({"value": value, "floor": floor, "low": None, "high": None})
    assert places == {"value": 100.0 - zero, "floor": 50.0, "low": None, "high": None}


def test_heart_rates_beyond_the_scale_count_in_the_outer_bins():
    figure = figures.class_histograms({"SR": np.array([5.0, 300.0])}, {"SR": np.full(2, np.nan)}, np.arange(20, 241, 8), "bpm")
    heights = [patch.get_xy()[:, 1].max() for patch in figure.axes[0].patches]
    assert heights == [0.5]
    assert figure.axes[0].patches[0].get_xy()[-3, 1] == 0.5  # the last bin


def test_legends_name_both_sides_where_the_first_class_lacks_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = figures.class_histograms({"SR": np.full(3, np.nan)}, {"SR": np.full(3, 60.0)}, np.arange(20, 241, 8), "bpm")
    assert [text.get_text() for text in rates.axes[0].get_legend().get_texts()] == ["real", "synthetic"]
    known = {"n": 5, "auroc": 0.9, "low": 0.8, "high": 1.0}
    scores = figures.class_scores_figure({"SR": known}, {"SR": {"n": 5, "reason": "no positives"}})
    assert [text.get_text() for text in scores.legends[0].get_texts()] == ["trained on real", "trained on synthetic"]


def test_names_of_classes_are_no_formulas():
    """`$\\frac$` is no TeX that Matplotlib can set: drawing it would end an evaluation whose work is done."""
    names = ("ST $\\frac$", "$5 and $6")
    numbers, points = np.array([0, 1]), np.zeros((2, 2))
    rates = dict.fromkeys(names, np.array([60.0, 70.0]))
    score = {"n": 5, "auroc": 0.9, "low": 0.8, "high": 1.0}
    for figure in (
        figures.class_histograms(rates, rates, np.arange(20, 241, 8), "bpm"),
        figures.confusion_figure({"real": np.eye(2)}, names),
        figures.feature_map(points, points, numbers, numbers, names, "axis"),
        figures.class_scores_figure(dict.fromkeys(names, score), dict.fromkeys(names, score)),
        figures.ecg_pairs(np.zeros((1, 100, 12)), np.zeros((1, 100, 12)), 100.0, LEADS, names[0]),
    ):
        drawn = io.StringIO()
        with rc_context({"svg.fonttype": "none"}):
            figure.savefig(drawn, format="svg")
        assert "ST $\\frac$" in drawn.getvalue()  # as it stands


def test_histograms_say_what_they_count():
    rates = {"SR": np.array([60.0, 70.0])}
    assert figures.class_histograms(rates, rates, np.arange(20, 241, 8), "bpm").get_supylabel() == "share of records"
    assert figures.measurement_histograms(rates, rates).get_supylabel() == "share of records"


def test_every_class_of_the_feature_map_looks_different():
    classes = tuple("ABCDEFGHIJKL")
    numbers = np.arange(12)
    figure = figures.feature_map(RNG.normal(size=(12, 2)), RNG.normal(size=(12, 2)), numbers, numbers, classes, "axis")
    looks = {(handle.get_color(), handle.get_marker()) for handle in figure.legends[0].legend_handles}
    assert len(looks) == 12


def test_as_many_real_as_synthetic_records_are_drawn():
    with pytest.raises(ValueError, match="as many real as synthetic"):
        figures.ecg_pairs(np.zeros((2, 100, 12)), np.zeros((1, 100, 12)), 100.0, LEADS, "SR")


def test_the_page_is_built_again_to_the_same_bytes(page):
    before = page.read_bytes()
    page.unlink()
    assert rebuild(page.parent).read_bytes() == before


def test_a_folder_without_a_report_is_refused(page, tmp_path):
    with pytest.raises(ValueError, match="holds no report"):
        rebuild(tmp_path)
    next((page.parent / "figures").glob("*.png")).unlink()
    with pytest.raises(ValueError, match="is missing"):
        rebuild(page.parent)


@pytest.mark.parametrize("name", ["closeness.json", "page.json"])
def test_a_broken_report_is_refused_by_name(page, name):
    for broken in (b"{", b"\xff"):
        (page.parent / name).write_bytes(broken)
        with pytest.raises(ValueError, match=f"{name} is broken"):
            rebuild(page.parent)
    for other in ("{}", "[]"):
        (page.parent / name).write_text(other)
        with pytest.raises(ValueError, match="holds a broken report"):
            rebuild(page.parent)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not there")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_errors_requests_or_overflow(page, tmp_path, width):
    """On a phone and on a desk: what is wider than the window scrolls in a box of its own."""
    asked = "document.title = [document.documentElement.scrollWidth, innerWidth, document.images.length].join(' ')"
    probe = tmp_path / "probe.html"
    probe.write_text(page.read_text().replace("</body>", f"<script>{asked}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += [
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    options += [f"--window-size={width},900", f"--log-net-log={tmp_path / 'net.json'}", "--dump-dom", probe.as_uri()]
    shown = subprocess.run(["chromium", *options], capture_output=True, text=True, timeout=120, check=True)
    wide, window, images = map(int, re.search("<title>(.*?)</title>", shown.stdout).group(1).split())
    assert wide <= window
    assert images == 10
    assert "CONSOLE" not in shown.stderr
    # Chromium asks its maker's hosts by itself; what a page asks for has the page as its origin.
    assert set(re.findall('"initiator":"([^"]*)"', (tmp_path / "net.json").read_text())) <= {"not an origin"}
