"""The page of a study: its answers, figures and tables in one HTML file that needs no network and no script."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgtf.atomic import write_atomically, write_json
from ecgtf.report.page import template
from ecgtf.studies.analysis import RESAMPLES, Analysis
from ecgtf.studies.cells import COLUMNS, Cell
from ecgtf.studies.comparisons import Families, families
from ecgtf.studies.config import StudyConfig
from ecgtf.studies.contents import study_tables
from ecgtf.studies.pooling import Pools
from ecgtf.studies.results import Results
from ecgtf.studies.sentences import FEW_REAL, Answer, answers
from ecgtf.studies.tables import write_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY, PAGE = "summary.json", "index.html"
TITLES = {
    "augmentation": "What synthetic ECGs add to real ones",
    "transfer": "What a classifier learns from synthetic ECGs, before real ones or with them",
}
HOW = (
    "Records are dealt to folds by patient; each is tested on by a classifier that never saw it, and the predictions of all folds of a "
    "seed are pooled. Figures are means over the seeds of which all folds are done.",
    "Each fold's scores are those of a classifier of its own. Where one's are higher throughout than another's, which happens above all "
    "after few records, pairs of records across folds count as mistaken that no classifier has mistaken. “Within folds” is AUROC over "
    "pairs of records of the same fold; p-values and sentences are of the pooled one.",
    "Intervals are 95 % percentile intervals over {resamples} bootstrap resamples of the test records and of the seeds together. Records, "
    "not patients, are resampled. The records of a resample are the same for all arms, so that differences are paired; of S seeds, "
    "S - 1 are drawn for each arm, which gives the mean of S seeds its right spread. With one seed, the interval holds the spread of "
    "records alone, and no difference is called one; where a few seeds differ much, intervals are as much wider as Student's law with "
    "Welch's and Satterthwaite's degrees of freedom asks. The spread between generators trained anew is in no interval, nor is that "
    "between draws of the real records of a share, which are the same for all seeds.",
    "p-values are two-sided, from the spread of the resampled differences by the same law; Holm's correction runs over all comparisons "
    "of a table, and “beyond chance” is said where it leaves p below 0.05.",
    "The macro mean runs over all classes with positives and negatives among the test records; a class with fewer than 10 positives is "
    "part of it, but its own figure supports no claim.",
    "A tuned arm takes, in each fold, the recipe with the best validation score (mean over seeds). Test records have no say in it. Where "
    "folds take different recipes, it loses by pooling what an arm of one recipe does not; “within folds” has no such loss. Where a "
    "sentence names the best of several arms, or a rival is the best, test scores have picked it, which favours it.",
)


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, caption and alternative text."""

    name: str
    caption: str
    alt: str
    figure: Figure


def write_report(
    folder: str | Path,
    study: str,
    config: StudyConfig,
    cells: Sequence[Cell],
    *,
    bootstrap: int = RESAMPLES,
) -> Path:
    """Writes `summary.json`, `tables/`, `figures/` and `index.html` from a study's results, finished or not; returns the page.

    Args:
        folder: The study's folder, with its results.
        study: `augmentation` or `transfer`.
        config: The study's settings.
        cells: All of its cells.
        bootstrap: Number of resamples; 0 gives no intervals and no p-values.

    Raises:
        ValueError: if results are damaged or do not fit together.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    analysis = Analysis(Pools(Results(folder), cells, config), bootstrap=bootstrap)
    found = families(analysis, study)
    told, tables = answers(analysis, study, found), study_tables(analysis, study, found)
    write_tables(tables, folder / "tables")
    pictures = _saved(_pictures(analysis, study, found), folder / "figures")
    write_json(folder / SUMMARY, _summary(analysis, study, found, told))
    page = template("studies/page.html.j2").render(
        title=TITLES[study],
        study=study,
        config=config,
        progress=analysis.pools.progress,
        answers=told,
        pictures=pictures,
        tables=tables,
        how=[line.format(resamples=bootstrap) for line in HOW],
        settings=json.dumps(config.as_dict(), indent=1),
    )
    write_atomically(folder / PAGE, page)
    return folder / PAGE


def _pictures(analysis: Analysis, study: str, found: Families) -> list[Picture]:
    # Imported here: matplotlib takes a second that `ecgtf study --help` need not wait for.
    from ecgtf.studies.figures import augmentation_gains, class_scores, learning_curves, transfer_gains

    where = f"on {', '.join(dict.fromkeys(arm.collection for arm in analysis.pools.arms))}"
    table = "The tables below have all its numbers."
    if study == "augmentation":
        return [
            Picture(
                "gains",
                "Change of macro-AUROC by synthetic records for each real one, with 95 % intervals; the dotted line is real only.",
                f"Points with intervals by ratio and source {where}. {table}",
                augmentation_gains(analysis, found),
            ),
            Picture(
                "classes",
                "AUROC of each class with 95 % intervals: real only, the feature forest, and each source at its largest ratio "
                "(the last mixing of the settings), by the plain recipe and the first classifier of the settings.",
                f"Points with intervals by class and source {where}. {table}",
                class_scores(analysis, study),
            ),
        ]
    fractions = {arm.fraction for arm in analysis.pools.arms}
    few = FEW_REAL if FEW_REAL in fractions else min(fractions - {0} or {0})
    saw = "Filled and solid: generators that saw the same share of the real records; hollow and dashed: those that saw all."
    return [
        Picture(
            "curves",
            f"Macro-AUROC by the share of real records learnt from, with bands of 95 %. {saw}",
            f"Learning curves of each source {where}. {table}",
            learning_curves(analysis),
        ),
        Picture(
            "gains",
            "Difference of macro-AUROC to tuned training from scratch on the same real records, with 95 % intervals. "
            "Filled: generators that saw the same share of the real records; hollow: those that saw all, as all do on 100 %.",
            f"Points with intervals by share and source {where}. {table}",
            transfer_gains(analysis, found),
        ),
        Picture(
            "classes",
            f"AUROC of each class with 95 % intervals, {100 * few:g} % of the real records learnt from.",
            f"Points with intervals by class and source {where}. {table}",
            class_scores(analysis, study, few),
        ),
    ]


def _saved(pictures: Sequence[Picture], folder: Path) -> list[dict[str, str]]:
    """Writes PNG and SVG of each picture; what the page needs of them."""
    from ecgtf.report.ecg_paper import figure_bytes

    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for picture in pictures:
        png = figure_bytes(picture.figure, "png")
        write_atomically(folder / f"{picture.name}.png", png)
        write_atomically(folder / f"{picture.name}.svg", figure_bytes(picture.figure, "svg"))
        shown.append({"caption": picture.caption, "alt": picture.alt, "data": base64.b64encode(png).decode()})
    return shown


def _summary(analysis: Analysis, study: str, found: Families, told: Sequence[Answer]) -> Mapping[str, Any]:
    """Everything as plain numbers."""
    scores = []
    for arm in analysis.arms:
        for test_on in analysis.pools.tests:
            if (score := analysis.score(arm, test_on)) is not None:
                content = {name: value for name, value in asdict(score).items() if not name.endswith("drawn")}
                scores.append(_arm(arm) | {"test_on": test_on} | content)
    compared = {
        name: [
            {"first": _arm(each.first), "second": _arm(each.second), "test_on": each.test_on}
            | {"difference": each.difference and asdict(each.difference)}
            for each in comparisons
        ]
        for name, comparisons in found.items()
    }
    return {
        "schema": 1,
        "study": study,
        "name": analysis.config.name,
        "progress": asdict(analysis.pools.progress),
        "answers": [asdict(answer) for answer in told],
        "scores": scores,
        "comparisons": compared,
        "settings": analysis.config.as_dict(),
    }


def _arm(arm: Cell) -> dict[str, Any]:
    return {name: getattr(arm, name) for name in COLUMNS if name not in ("fold", "seed")}
