"""The report of a study: sentences, tables in three forms, figures and the page, of finished and unfinished studies."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from study_results import Maker, made_config, one_collection, planned, realistic_strength

from ecgtf.report.ecg_paper import figure_bytes
from ecgtf.studies import words
from ecgtf.studies.analysis import Analysis, Comparison, Difference, Estimate
from ecgtf.studies.cells import Cell
from ecgtf.studies.comparisons import families
from ecgtf.studies.config import Grid
from ecgtf.studies.figures import _legend, _share_axis, augmentation_gains, class_scores, learning_curves
from ecgtf.studies.page import write_report
from ecgtf.studies.pooling import Pools
from ecgtf.studies.results import Results, Row
from ecgtf.studies.sentences import change, raised, tally
from ecgtf.studies.tables import Column, Table, as_csv, as_latex, as_markdown

SMALL = {
    "augmentation": (
        Grid(recipes=("plain",), sources=("none", "simulator", "vqvae"), ratios=(0.0, 1.0), seeds=2),
        Grid(recipes=("plain", "classical"), seeds=2),
        Grid(classifiers=("feature_forest",)),
    ),
    "transfer": (
        Grid(recipes=("plain", "balanced"), sources=("none", "simulator", "other"), fractions=(0, 0.2, 1.0), seeds=2),
        Grid(
            recipes=("plain", "balanced"),
            sources=("vqvae", "simulator>diff_wave"),
            fractions=(0, 0.2, 1.0),
            seen=("all", "same"),
            seeds=2,
        ),
        Grid(recipes=("plain",), sources=("+simulator", "+other"), fractions=(0.2, 1.0), seeds=2),
        Grid(classifiers=("feature_forest",), fractions=(0.2, 1.0)),
    ),
}
STUDIES = ("augmentation", "transfer")


class Reader(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.images, self.addresses, self.ids, self.scripts = [], [], [], [], 0
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.open.append(tag)
        self.scripts += tag == "script"
        self.images += [attributes] if tag == "img" else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[name] for name in ("href", "src") if name in attributes]

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        self.open = self.open[:-1] if data.strip() else self.open


@pytest.fixture(scope="module", params=STUDIES)
def report(request, tmp_path_factory):
    """A finished study of each kind: folder, name, settings and cells."""
    folder, study = tmp_path_factory.mktemp(request.param), request.param
    config = made_config(grids=SMALL, folds=2)
    cells = planned(config, study)
    Maker(folder, config, records=(240, 160)).write(cells, realistic_strength, lambda cell: 0.9 + 0.01 * (len(cell.recipe) % 2))
    write_report(folder, study, config, cells, bootstrap=100)
    return folder, study, config, cells


def test_everything_is_written(report):
    folder, study, *_ = report
    names = {path.stem for path in (folder / "tables").glob("*.csv")}
    each = {"augmentation": ("own", "classes"), "transfer": ("curves", "within", "plain", "tuned", "classes")}[study]
    expected = {f"{kind}-{collection}" for kind in each for collection in ("A", "B", "A+B")} | {"cross", "rivals", "recipes"}
    assert names == expected | ({"full", "alone"} if study == "transfer" else set())
    for ending in ("md", "tex"):
        assert {path.stem for path in (folder / "tables").glob(f"*.{ending}")} == names
    pictures = {path.name for path in (folder / "figures").iterdir()}
    drawn = ("gains", "classes", *(["curves"] if study == "transfer" else []))
    assert pictures == {f"{name}.{ending}" for name in drawn for ending in ("png", "svg")}


def test_the_page_stands_alone(report):
    folder, *_ = report
    page = Reader((folder / "index.html").read_text())
    assert {"Answers", "Figures", "Tables", "How it is measured", "Settings"} <= set(page.headings)
    assert page.scripts == 0
    assert all(image["alt"] for image in page.images)
    assert page.images
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "http" not in re.sub(r'"data:[^"]*"', "", (folder / "index.html").read_text())


def test_the_same_results_give_the_same_files(report):
    folder, study, config, cells = report
    files = [
        path for path in sorted(folder.rglob("*")) if path.suffix in (".csv", ".md", ".tex", ".png", ".svg", ".html", ".json")
    ]
    before = {path: path.read_bytes() for path in files}
    write_report(folder, study, config, cells, bootstrap=100)
    assert [path.name for path in files if path.read_bytes() != before[path]] == []


def test_no_number_is_missing_or_nan(report):
    folder, *_ = report
    for path in (folder / "tables").iterdir():
        assert not re.search(r"\b(nan|None|inf)\b", path.read_text()), path
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert summary["progress"]["done"] == summary["progress"]["planned"]
    assert all(score["macro_auroc"]["low"] is not None for score in summary["scores"])


def test_tables_have_as_many_cells_in_every_row(report):
    folder, *_ = report
    for path in (folder / "tables").glob("*.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert len({len(row) for row in rows}) == 1, path
        assert len(rows[0]) == len(set(rows[0])), path
        lines = [line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, path
        assert len(lines) == len(rows) + 1
        latex = [line for line in path.with_suffix(".tex").read_text().splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in latex}) == 1, path
        assert len(latex) == len(rows)


def test_every_question_has_an_answer(report):
    folder, study, *_ = report
    answers = {one["question"]: one["sentences"] for one in json.loads((folder / "summary.json").read_text())["answers"]}
    assert len(answers) == {"augmentation": 8, "transfer": 8}[study]
    for sentences in answers.values():
        assert all(re.match(r"[A-Z].*\.$", sentence) and "  " not in sentence for sentence in sentences)
    assert any("2411.18456" in sentence for sentence in answers["How does this stand to the paper?"])


@pytest.mark.parametrize("report", ["transfer"], indirect=True)
def test_what_a_generator_saw_is_in_every_row(report):
    folder, *_ = report
    rows = list(csv.DictReader(io.StringIO((folder / "tables" / "full.csv").read_text())))
    saw = {row["generator saw"] for row in rows if row["source"] == "vqvae" and row["real records"] == "20 %"}
    assert saw == {"all", "same (20 %)"}
    assert {row["generator saw"] for row in rows if row["source"] in ("scratch", "simulator", "A (real)")} == {""}
    assert all((float(row["difference"]) > -0.01) == (row["above -0.01"] == "yes") for row in rows)
    assert all((float(row["difference low"]) > -0.01) == (row["non-inferior"] == "yes") for row in rows)


@pytest.mark.parametrize("report", ["transfer"], indirect=True)
def test_what_was_learnt_with_the_real_records_stands_beside_what_was_learnt_before_them(report):
    folder, _, config, cells = report
    page = (folder / "index.html").read_text()
    for name in ("curves-A", "within-A", "plain-A", "tuned-A", "full", "rivals", "cross"):
        assert "+: learnt together with the real records, in one training" in (folder / "tables" / f"{name}.md").read_text()
    curves = (folder / "tables" / "curves-A.md").read_text()
    assert "| +simulator |" in curves
    assert "| +B (real) |" in curves
    assert "before real ones or with them" in page
    answers = {each["question"]: each["sentences"] for each in json.loads((folder / "summary.json").read_text())["answers"]}
    for question in list(answers)[:3]:  # against scratch by the same recipe, tuned, and against all real records
        for source in ("sources that need no generator", "generators that saw the same share", "generators that saw all real"):
            assert sum(source in sentence for sentence in answers[question]) >= 2, (question, source)  # on A and on B
    analysis = Analysis(Pools(Results(folder), cells, config), bootstrap=20)
    drawn = [text.get_text() for text in learning_curves(analysis).legends[0].get_texts()]
    assert {"simulator", "+simulator", "other real collection", "+other real collection"} <= set(drawn)


@pytest.mark.parametrize("report", ["transfer"], indirect=True)
def test_training_on_synthetic_records_alone_stands_beside_training_on_all_real_ones(report):
    folder, *_ = report
    alone = list(csv.DictReader(io.StringIO((folder / "tables" / "alone.csv").read_text())))
    assert {row["real records"] for row in alone} == {"0 %"}
    assert {row["source"] for row in alone if row["collection"] == "A"} == {
        "simulator",
        "B (real)",
        "vqvae",
        "simulator>diff_wave",
    }
    for row in alone:
        share = float(row["TSTR macro-AUROC"]) / float(row["TRTR macro-AUROC"])
        assert float(row["TSTR over TRTR"]) == pytest.approx(share, rel=1e-4)
        assert float(row["TSTR over TRTR low"]) < share < float(row["TSTR over TRTR high"])
    compared = list(csv.DictReader(io.StringIO((folder / "tables" / "tuned-A.csv").read_text())))
    assert {row["real records"] for row in compared} == {"20 %", "100 %"}  # from scratch there is nothing at 0 %


FEW_ARMS = {
    "two recipes": ("augmentation", Grid(recipes=("plain", "classical"), ratios=(0.0,), seeds=2)),
    "no real only": ("augmentation", Grid(recipes=("plain",), sources=("simulator", "vqvae"), seeds=2)),
    "forest": ("augmentation", Grid(classifiers=("feature_forest",))),
    "scratch": ("transfer", Grid(recipes=("plain", "classical"), fractions=(0.2, 1.0), seeds=2)),
    "no scratch": ("transfer", Grid(recipes=("plain",), sources=("simulator", "vqvae"), fractions=(0.2,), seeds=2)),
    "not all": ("transfer", Grid(recipes=("plain",), sources=("none", "simulator"), fractions=(0.2,), seeds=2)),
    "alone": ("transfer", Grid(recipes=("plain",), sources=("simulator",), fractions=(0.0,), seeds=2)),
}


@pytest.mark.parametrize("name", FEW_ARMS)
def test_a_finished_study_of_few_arms_lacks_nothing(tmp_path, name):
    study, grid = FEW_ARMS[name]
    config = one_collection(grids={study: (grid,)}, folds=2)
    cells = planned(config, study)
    Maker(tmp_path, config, records=120).write(cells, realistic_strength)
    page = write_report(tmp_path, study, config, cells, bootstrap=20).read_text()
    assert "not yet run" not in page
    assert "not yet run" not in "".join(path.read_text() for path in (tmp_path / "tables").glob("*.md"))


def test_a_study_whose_synthetic_cells_are_to_come_has_a_page(tmp_path):
    config = one_collection(grids={"augmentation": SMALL["augmentation"]}, folds=2)
    cells = planned(config, "augmentation")
    done = [cell for cell in cells if cell.source == "none"]
    Maker(tmp_path, config, records=120).write(done, realistic_strength)
    assert "not yet run" in write_report(tmp_path, "augmentation", config, cells, bootstrap=20).read_text()


@pytest.mark.parametrize("study", STUDIES)
def test_an_unfinished_study_says_what_is_missing(tmp_path, study):
    config = one_collection(grids={"augmentation": SMALL["augmentation"], "transfer": (SMALL["transfer"][1],)}, folds=2)
    cells = planned(config, study)
    maker = Maker(tmp_path, config, records=120)
    done = [cell for cell in cells if cell.source in ("none", "simulator") or cell.fold == 0]
    maker.write(done, realistic_strength)
    failed = next(cell for cell in cells if cell not in done)
    Results(tmp_path).append([Row(failed, "A", error="ValueError: <loss> is NaN & gone")])
    page = write_report(tmp_path, study, config, cells, bootstrap=50).read_text()
    assert f"<strong>{len(done)}</strong> of {len(cells)} cells are done, 1 failed" in page
    assert "&lt;loss&gt; is NaN &amp; gone" in page
    assert failed.name in page
    assert "not yet run" in page
    tables = "".join(path.read_text() for path in (tmp_path / "tables").glob("*.md"))
    assert "not yet run" in tables


def test_figures_have_panels_for_collections_with_results_only(tmp_path):
    config = made_config(grids=SMALL, folds=2)
    cells = planned(config, "transfer")
    Maker(tmp_path, config, records=(240, 160)).write([cell for cell in cells if cell.collection == "A"], realistic_strength)
    analysis = Analysis(Pools(Results(tmp_path), cells, config), bootstrap=20)
    for figure in (learning_curves(analysis), class_scores(analysis, "transfer")):
        assert [panel.get_title() for panel in figure.axes] == ["on A"]


def test_names_in_the_legend_are_no_formulas():
    figure = Figure()
    figure.subplots().plot([0, 1], label="my $\\frac$")
    _legend(figure)
    assert b"my $\\frac$" in figure_bytes(figure, "svg")  # Matplotlib keeps the text beside its outlines


@pytest.mark.parametrize("fractions", [{0.5, 1.0}, {0.0, 0.2, 1.0}, {1.0}])
def test_every_share_has_its_tick_where_there_is_one_result(fractions):
    panel = Figure().subplots()
    panel.plot(100 / 1.1, 0.5, "o")  # drawn beside its tick, as the first of several lines is
    _share_axis(panel, fractions)
    low, high = panel.get_xlim()
    assert all(low <= tick <= high for tick in panel.get_xticks())
    assert len(panel.get_xticks()) == len(fractions)


def test_gains_are_drawn_where_there_are_results(tmp_path):
    config = made_config(grids=SMALL, folds=2)
    cells = planned(config, "augmentation")
    done = [cell for cell in cells if cell.collection == "B" and cell.source != "vqvae"]
    Maker(tmp_path, config, records=(240, 160)).write(done, realistic_strength)
    analysis = Analysis(Pools(Results(tmp_path), cells, config), bootstrap=20)
    (panel,) = augmentation_gains(analysis, families(analysis, "augmentation")).axes
    assert panel.get_title() == "on B, proportional"
    assert list(panel.get_xticks()) == [0, 1]
    Maker(tmp_path, config, records=(240, 160), seed=1).write(
        [cell for cell in cells if cell.collection == "A" and cell.source == "none"], realistic_strength
    )
    analysis = Analysis(Pools(Results(tmp_path), cells, config), bootstrap=20)
    panels = augmentation_gains(analysis, families(analysis, "augmentation")).axes
    assert [panel.get_title() for panel in panels if panel.get_visible()] == ["on B, proportional"]


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_that_has_not_begun_has_a_page(tmp_path, study):
    config = made_config(grids=SMALL, folds=2)
    page = write_report(tmp_path / "new", study, config, planned(config, study)).read_text()
    assert "<strong>0</strong> of" in page


@pytest.mark.parametrize("study", STUDIES)
def test_one_seed_is_no_claim_either_way(tmp_path, study):
    config = made_config(grids={study: tuple(replace(grid, seeds=1) for grid in SMALL[study])}, folds=2)
    cells = planned(config, study)
    Maker(tmp_path, config, records=(240, 160)).write(cells, realistic_strength)
    write_report(tmp_path, study, config, cells, bootstrap=50)
    answers = " ".join(
        line for answer in json.loads((tmp_path / "summary.json").read_text())["answers"] for line in answer["sentences"]
    )
    assert "is best" in answers
    assert "of one seed, so no claim" in answers
    assert "is beyond chance" not in answers
    assert "beyond what chance gives" not in answers


def test_names_are_escaped():
    rows = (("simulator>diff_wave | x+y & 5 % \\", Difference(-0.004, -0.012, 0.003, 0.3, 0.9)), ("none", None))
    table = Table("odd_name", "A_B", "Note.", (Column("source"), Column("difference", "difference")), rows)
    assert r"simulator\>diff\_wave \| x+y & 5 % \\ | -0.004 (-0.012 to +0.003) | 0.300 | 0.900 |" in as_markdown(table)
    assert "| none | not yet run | – | – |" in as_markdown(table)
    latex = as_latex(table)
    assert r"simulator\textgreater{}diff\_wave \textbar{} x+y \& 5 \% \textbackslash{} & $-$0.004 ($-$0.012 to +0.003)" in latex
    assert r"\label{tab:odd-name}" in latex
    read = list(csv.reader(io.StringIO(as_csv(table))))
    assert read[0] == ["source", *(f"difference{part}" for part in ("", " low", " high", " p", " Holm p"))]
    assert read[1] == [rows[0][0], "-0.004", "-0.012", "0.003", "0.3", "0.9"]
    assert read[2] == ["none", "", "", "", "", ""]


def test_a_change_has_its_sign_and_an_estimate_none():
    within = Estimate(0.013, -0.002, 0.02)
    table = Table("t", "T", "N.", (Column("it", "estimate"), Column("within folds", "change")), ((within, within), (None, "–")))
    assert "| 0.013 (-0.002 to 0.020) | +0.013 (-0.002 to +0.020) |" in as_markdown(table)
    assert "| not yet run | – |" in as_markdown(table)
    assert as_csv(table).splitlines()[:2] == [
        "it,it low,it high,within folds,within folds low,within folds high",
        "0.013,-0.002,0.02,0.013,-0.002,0.02",
    ]


def test_sentences_claim_no_more_than_the_numbers():
    assert change(Difference(-0.004, -0.012, 0.003, 0.2, 0.4, seeds=3), "this") == (
        "this changed macro-AUROC by -0.004 (-0.012 to +0.003; Holm p = 0.400): no difference that these data could show"
    )
    assert change(Difference(0.02, 0.01, 0.03, 0.0001, 0.0004, seeds=3), "this") == (
        "this raised macro-AUROC by 0.020 (0.010 to 0.030; Holm p < 0.001)"
    )
    assert change(Difference(-0.02, -0.03, -0.01, 0.01, 0.03, seeds=3), "this") == (
        "this lowered macro-AUROC by 0.020 (-0.030 to -0.010; Holm p = 0.030)"
    )
    one = change(Difference(0.02, 0.01, 0.03, 0.0001, 0.0004, seeds=1), "this")
    assert one == "this changed macro-AUROC by +0.020 (+0.010 to +0.030; Holm p < 0.001): of one seed, so no claim"
    assert "too few records" in change(Difference(0.1), "this")


def test_numbers_are_spelt():
    assert words.signed(-0.0002) == "0.000"
    assert words.with_interval(Estimate(0.9)) == "0.900"
    assert words.p_value(0.0004) == "< 0.001"
    assert words.percent(0.05) == "5 %"
    assert words.ratio(replace(Cell("A", 0, "resnet1d", "plain"), ratio=0.5)) == "0.5:1"


def test_gains_are_counted_among_those_that_could_be_called_one():
    arm = Cell("A", 0, "resnet1d", "plain", "vqvae", 1.0, "proportional")
    gain = Difference(0.05, 0.03, 0.07, 0.001, 0.001)
    several, loss = replace(gain, seeds=3), replace(gain, value=-0.05, seeds=3)
    found = [Comparison(arm, arm, "A", each) for each in (several, loss, gain, None)]
    assert raised(found[:2]) == "1 of 2"
    assert raised(found) == "1 of 2 (1 of one seed, so no claim, 1 not yet run)"
    assert raised(found[2:]) == "none (1 of one seed, so no claim, 1 not yet run)"
    best = replace(found[2], difference=replace(gain, value=0.3))  # of one seed: what is claimed goes first
    assert tally([found[0], best], "here", lambda each: "it").endswith(
        "at best, it raised macro-AUROC by 0.050 (0.030 to 0.070; Holm p = 0.001)"
    )
