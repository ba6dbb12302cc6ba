"""The figures of a study. Each source has its colour and its marker in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ecgtf.classifiers.metrics import FEW_POSITIVES
from ecgtf.report.figures import COLOURS, as_they_stand
from ecgtf.studies import words
from ecgtf.studies.analysis import Analysis, Comparison, Score
from ecgtf.studies.cells import Cell
from ecgtf.studies.comparisons import Families
from ecgtf.studies.config import FOREST, SCRATCH, renamed
from ecgtf.studies.pooling import TUNED
from ecgtf.studies.rows import learning_rows, present_classes, shown_arms

DPI = 150
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PLAIN, _TUNED, _FOREST = ("#999999", "x"), ("#000000", "*"), ("#555555", "d")
_ZERO = {"color": "#777777", "linewidth": 0.8, "linestyle": ":"}


def augmentation_gains(analysis: Analysis, found: Families) -> Figure:
    """What adding synthetic records changes, by their ratio to real ones: a row of panels a collection, a panel a recipe and mixing."""
    planned = {name: found[f"own-{name}"] for name in analysis.config.all_collections if found.get(f"own-{name}")}
    shown = {name: known for name, all_ in planned.items() if (known := [each for each in all_ if each.difference])} or planned
    collections = list(shown)
    every = [each for known in shown.values() for each in known]
    kinds = dict.fromkeys(
        (each.first.classifier, each.first.recipe, each.first.mixing) for each in every if each.first.source != SCRATCH
    ) or dict.fromkeys((each.first.classifier, each.second.recipe, "") for each in every)
    ratios = sorted({each.first.ratio for each in every if each.first.ratio})
    figure, panels = _grid(len(collections), len(kinds), width=3.6, height=2.5)
    for place, name in enumerate(collections):
        for panel, (classifier, recipe, mixing) in zip(panels[place], kinds, strict=True):
            mine = [each for each in shown[name] if each.first.classifier == classifier]
            added = [each for each in mine if (each.first.recipe, each.first.mixing) == (recipe, mixing)]
            others = [each for each in mine if each.first.source == SCRATCH and each.second.recipe == recipe]
            panel.set_visible(bool(added) or not mixing)
            panel.tick_params(labelbottom=True, labelleft=True)  # the one below or beside may not be there
            _gains(panel, added, ratios, analysis)
            _other_recipes(panel, others)
            title = [f"on {name}", mixing, *([recipe] if len({kind[1] for kind in kinds}) > 1 else [])]
            title += [classifier] if len({kind[0] for kind in kinds}) > 1 else []
            panel.set_title(", ".join(filter(None, title)), fontsize=9, parse_math=False)
    figure.supxlabel("synthetic records for each real one", fontsize=9)
    figure.supylabel("change of macro-AUROC against real only", fontsize=9)
    _legend(figure)
    return figure


def _gains(panel: Axes, compared: Sequence[Comparison], ratios: Sequence[float], analysis: Analysis) -> None:
    sources = _sources(analysis)
    step = 0.03 * (max(ratios, default=1) or 1)
    for place, source in enumerate(sources):
        mine = sorted((each for each in compared if each.first.source == source), key=lambda each: each.first.ratio)
        shift = step * (place - (len(sources) - 1) / 2)
        _points(panel, [(each.first.ratio + shift, each.difference) for each in mine], *sources[source], label=source)
    panel.axhline(0, **_ZERO)
    panel.set_xticks([0, *ratios])
    panel.set_xlim(-2 * step, max(ratios, default=1) + step * (len(sources) / 2 + 1))


def _other_recipes(panel: Axes, compared: Sequence[Comparison]) -> None:
    for place, each in enumerate(compared):
        marker = "*hp8"[place % 4]
        _points(panel, [(0, each.difference)], "#000000", marker, label=f"real only, {each.first.recipe}")


def learning_curves(analysis: Analysis) -> Figure:
    """Macro-AUROC by the share of real records with bands of the intervals, a panel a network and collection."""
    figure, panels = _panels(analysis, _with_scores(analysis), width=4.3, height=4.0)
    for panel, name, network in panels:
        for key, arms in _lines(analysis, name, network).items():
            colour, marker, label = _look(analysis, *key)
            known = [(share, score) for share, arm in sorted(arms.items()) if (score := analysis.score(arm, name))]
            if known:
                _curve(panel, known, colour, marker, label, dashed=key[3] == "all")
        _share_axis(panel, {arm.fraction for arm in analysis.pools.arms})
    figure.supxlabel("real records learnt from", fontsize=9)
    figure.supylabel("macro-AUROC", fontsize=9)
    _legend(figure)
    return figure


def _with_scores(analysis: Analysis) -> list[str]:
    """The collections of which something is there to show; all that are planned, before there is anything."""
    planned = {arm.collection for arm in analysis.pools.arms}
    scored = {arm.collection for arm in analysis.pools.arms if analysis.score(arm, arm.collection)}
    return [name for name in analysis.config.all_collections if name in (scored or planned)]


def _networks(analysis: Analysis) -> list[str]:
    """The networks that are trained; the forest, where there is none."""
    return [*dict.fromkeys(arm.classifier for arm in analysis.pools.arms if arm.classifier != FOREST)] or [FOREST]


def _panels(analysis: Analysis, collections: Sequence[str], width: float, height: float, share: bool = True) -> tuple:
    """A figure, and its panels with their collection and network: a row a network, a column a collection; one collection is one row."""
    networks = _networks(analysis)
    rows, columns = (1, len(networks)) if len(collections) == 1 else (len(networks), len(collections))
    figure, grid = _grid(rows, columns, width, height, share)
    of_panels = [(name, network) for network in networks for name in collections]
    trained = {(arm.collection, arm.classifier) for arm in analysis.pools.arms}
    panels = []
    for panel, (name, network) in zip(grid.ravel(), of_panels, strict=False):
        panel.set_visible((name, network) in trained)
        panel.tick_params(labelbottom=True)  # the one below may not be there
        panel.set_title(f"on {name}" + (f", {network}" if len(networks) > 1 else ""), fontsize=9, parse_math=False)
        panels += [(panel, name, network)] if panel.get_visible() else []
    return figure, panels


def _lines(analysis: Analysis, collection: str, network: str) -> dict[tuple, dict[float, Cell]]:
    """The rows of a network, and of the forest, that have a line: tuned training, and from scratch the plain one beside it."""
    rows = {}
    for key, arms in learning_rows(analysis, collection).items():
        source, classifier, recipe, _ = key
        if classifier not in (network, FOREST):
            continue
        arm = next(iter(arms.values()))
        alone = len(analysis.pools.recipes(arm)) == 1
        if alone or recipe == TUNED or (source == SCRATCH and recipe == analysis.pools.plain(arm)):
            rows[key] = arms
    return rows


def _look(analysis: Analysis, source: str, classifier: str, recipe: str, saw: str) -> tuple[str, str, str]:
    """Colour, marker and label of a line."""
    if classifier == FOREST:
        return *_FOREST, "feature forest"
    if source == SCRATCH:
        return *(_TUNED if recipe == TUNED else _PLAIN), f"scratch{', tuned' if recipe == TUNED else ''}"
    return *_sources(analysis)[source], f"{_source_label(source, analysis)}{f' (saw {saw})' if saw else ''}"


def _curve(panel: Axes, known: Sequence[tuple[float, Score]], colour: str, marker: str, label: str, dashed: bool) -> None:
    shares = [100 * share for share, _ in known]
    values = [score.macro_auroc for _, score in known]
    style = {"linestyle": "--", "markerfacecolor": "white"} if dashed else {"linestyle": "-"}
    panel.plot(shares, [value.value for value in values], marker=marker, color=colour, label=label, linewidth=1.3, **style)
    if all(value.low is not None for value in values):
        panel.fill_between(
            shares, [value.low for value in values], [value.high for value in values], color=colour, alpha=0.08, linewidth=0
        )


def transfer_gains(analysis: Analysis, found: Families) -> Figure:
    """Differences to tuned training from scratch on the same share of real records, a panel a network and collection."""
    collections = [name for name in analysis.config.all_collections if found.get(f"tuned-{name}")]
    figure, panels = _panels(analysis, collections, width=4.3, height=4.0)
    for panel, name, network in panels:
        lines: dict[tuple, list[Comparison]] = {}
        for arm, each in ((each.first, each) for each in found[f"tuned-{name}"]):
            if arm.classifier in (network, FOREST):
                lines.setdefault((arm.source, arm.classifier, arm.recipe, analysis.pools.saw(arm)), []).append(each)
        for place, (key, mine) in enumerate(lines.items()):
            colour, marker, label = _look(analysis, *key)
            shift = 1.045 ** (place - (len(lines) - 1) / 2)
            points = [(100 * each.first.fraction * shift, each.difference) for each in mine]
            _points(panel, points, colour, marker, label=label, hollow=key[3] == "all")
        panel.axhline(0, **_ZERO)
        _share_axis(panel, {arm.fraction for arm in analysis.pools.arms if arm.fraction})
    figure.supxlabel("real records learnt from", fontsize=9)
    figure.supylabel("change of macro-AUROC against scratch, tuned", fontsize=9)
    _legend(figure)
    return figure


def class_scores(analysis: Analysis, study: str, fraction: float = 1.0) -> Figure:
    """AUROC of each class at one ratio (the largest) or share of real records, a panel a network and collection."""
    collections = _with_scores(analysis)
    classes = {name: present_classes(analysis, analysis.arms, name) for name in collections}
    most = max((len(names) for names in classes.values()), default=1)
    figure, panels = _panels(analysis, collections, width=4.0, height=0.7 * max(1, most) + 1.0, share=False)
    for panel, name, network in panels:
        looks = _of_classes(analysis, study, name, network, fraction)
        for place, (label, (score, colour, marker, hollow)) in enumerate(looks.items()):
            shift = 0.75 * ((place + 0.5) / len(looks) - 0.5)
            for row, one in enumerate(classes[name]):
                auroc = score.per_class[one].auroc
                if auroc.low is not None:
                    panel.plot([auroc.low, auroc.high], [row + shift] * 2, color=colour, linewidth=1.1)
                face = "white" if hollow else colour
                shown = label if row == 0 else None
                panel.plot(auroc.value, row + shift, marker, color=colour, markerfacecolor=face, markersize=4, label=shown)
        ticks = [f"{one}\nn {n}{' (few)' if classes[name][one] < FEW_POSITIVES else ''}" for one, n in classes[name].items()]
        panel.set_yticks(range(len(ticks)), ticks, fontsize=8, parse_math=False)
        panel.invert_yaxis()
    figure.supxlabel("AUROC", fontsize=9)
    _legend(figure)
    return figure


def _of_classes(analysis: Analysis, study: str, collection: str, network: str, fraction: float) -> Mapping[str, tuple]:
    """Label to score, colour, marker and whether it is hollow, of one arm for each source: plain (augmentation) or tuned (transfer)."""
    found = {}
    if study == "transfer":
        for key, arms in _lines(analysis, collection, network).items():
            score = analysis.score(arms[fraction], collection) if fraction in arms else None
            if score is not None:
                colour, marker, label = _look(analysis, *key)
                found[label] = (score, colour, marker, key[3] == "all")
        return found
    arms = [
        arm
        for arm in shown_arms(analysis, collection)
        if arm.classifier == FOREST or (arm.classifier, arm.recipe) == (network, analysis.pools.plain(arm))
    ]
    for arm in sorted(arms, key=lambda arm: arm.ratio):
        score = analysis.score(arm, collection)
        if score is not None:
            look = _FOREST if arm.classifier == FOREST else _TUNED if arm.source == SCRATCH else _sources(analysis)[arm.source]
            found[words.source(arm, study, analysis.pools)] = (score, *look, False)
    return found


def _sources(analysis: Analysis) -> dict[str, tuple[str, str]]:
    """Colour and marker of each source."""
    names = dict.fromkeys(arm.source for arm in analysis.pools.arms if arm.source != SCRATCH)
    looks = {}
    for name in names:
        kind = _source_label(name, analysis)  # the other collection looks the same on both
        place = len(looks) if kind not in looks else list(looks).index(kind)
        looks[kind] = (COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)])
    return {name: looks[_source_label(name, analysis)] for name in names}


def _source_label(name: str, analysis: Analysis) -> str:
    collections = analysis.config.all_collections
    return renamed(name, lambda stage: "other real collection" if stage in collections else stage)


def _points(panel: Axes, points: Sequence[tuple], colour: str, marker: str, label: str, hollow: bool = False) -> None:
    """Differences with their intervals; those not yet run are left out."""
    for x, each in points:
        if each is None:
            continue
        if each.low is not None:
            panel.plot([x, x], [each.low, each.high], color=colour, linewidth=1.2)
        face = "white" if hollow else colour
        panel.plot(x, each.value, marker, color=colour, markerfacecolor=face, markersize=5, label=label)


def _share_axis(panel: Axes, fractions: set[float]) -> None:
    """An axis of shares, logarithmic; none at all stands one tick before the smallest."""
    ticks = sorted(fractions)
    if ticks[0] == 0:
        panel.set_xscale("symlog", linthresh=100 * min(ticks[1:], default=1), linscale=0.4)
    else:
        panel.set_xscale("log")
    panel.set_xticks([100 * share for share in ticks], [words.percent(share) for share in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.margins(x=0.08)
    low, high = panel.get_xlim()  # around what is there to show, which may stand beside its tick, or lack a share
    panel.set_xlim(min(low, 95 * ticks[0]), max(high, 105 * ticks[-1]))
    if len(ticks) == 1:
        panel.set_xlim(*((50 * ticks[0], 200 * ticks[0]) if ticks[0] else (-1, 1)))


def _grid(rows: int, columns: int, width: float, height: float, share: bool = True) -> tuple[Figure, np.ndarray]:
    """A figure with panels `(rows, columns)`."""
    rows, columns = max(1, rows), max(1, columns)
    figure = Figure(figsize=(max(5.0, width * columns) + 0.4, height * rows + 1.0), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=share, sharey="row" if share else False, squeeze=False)
    for panel in panels.ravel():
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _legend(figure: Figure) -> None:
    """One legend for all panels, each label once."""
    handles: dict[str, object] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        widest = 0.5 + 0.07 * max(map(len, handles))  # inches, of a marker and a label
        columns = max(1, int(figure.get_figwidth() / widest))
        legend = figure.legend(handles.values(), handles, fontsize=8, frameon=False, ncols=columns, loc="outside upper center")
        as_they_stand(legend)
