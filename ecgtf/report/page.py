"""The report's page: one HTML file with everything in it, that needs no network and no script."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ecgtf.atomic import write_atomically
from ecgtf.closeness.table import three_digits

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

PARTS = "page.json"
FIGURES = "figures"

_GROUPS = {
    "distribution": "Distribution",
    "temporal": "Time and frequency",
    "physiology": "Physiology",
    "utility": "Utility",
    "privacy": "Privacy",
}
_VERDICT = {True: "▲ worse", False: "not worse", None: ""}


@dataclass
class Section:
    """A part of the page.

    Figures are (caption, alternative text, picture) and tables (caption, header, rows).
    """

    heading: str
    text: str = ""
    figures: Sequence[tuple[str, str, Figure]] = ()
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]] = field(default_factory=list)


def save_page(folder: str | Path, *, title: str, sections: Sequence[Section]) -> Path:
    """Writes the figures, `page.json` and `index.html` of a report; returns the page.

    Args:
        folder: The report folder; `closeness.json` lies in it already.
        title: Of the page.
        sections: What follows the table of metrics, in order.

    Raises:
        ValueError: if there is no `closeness.json`, or a broken one.
    """
    folder = Path(folder)
    return _write_parts(folder, {"title": title, "sections": _drawn(folder, sections, first=0)})


def add_sections(folder: str | Path, sections: Sequence[Section]) -> Path:
    """Adds sections to the end of a report's page; returns the page.

    Raises:
        ValueError: if the folder holds no report, or a broken one.
    """
    folder = Path(folder)
    content = _read(folder / PARTS)
    content["sections"] += _drawn(folder, sections, first=len(content["sections"]))
    return _write_parts(folder, content)


def _drawn(folder: Path, sections: Sequence[Section], first: int) -> list[dict]:
    """Sections as `page.json` keeps them, their figures saved; `first` is the number of the first one."""
    (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    parts = []
    for place, section in enumerate(sections, start=first):
        figures = []
        for number, (caption, alt, figure) in enumerate(section.figures):
            name = f"{place:02d}-{number:02d}.png"
            write_atomically(folder / FIGURES / name, figure_png(figure))
            figures.append({"file": name, "caption": caption, "alt": alt})
        parts.append(asdict(Section(section.heading, section.text, figures, list(section.tables))))
    return parts


def _write_parts(folder: Path, content: dict) -> Path:
    # Cells of tables may be NumPy numbers, which JSON does not know: they are shown as text anyway.
    write_atomically(folder / PARTS, json.dumps(content, indent=1, default=str))
    return rebuild(folder)


def rebuild(folder: str | Path) -> Path:
    """Writes `index.html` again from `closeness.json`, `page.json` and the saved figures.

    Raises:
        ValueError: if the folder holds no report, or a broken one.
    """
    folder = Path(folder)
    missing = [name for name in ("closeness.json", PARTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} holds no report: {missing[0]} is missing; make one with: ecgtf evaluate")
    summary, parts = (_read(folder / name) for name in ("closeness.json", PARTS))
    try:
        page = _page(folder, summary, parts)
    except (KeyError, TypeError, AttributeError) as error:  # JSON, but of something else
        raise ValueError(f"{folder} holds a broken report ({error}); make it again with: ecgtf evaluate --overwrite") from error
    write_atomically(folder / "index.html", page)
    return folder / "index.html"


def _page(folder: Path, summary: dict, parts: dict) -> str:
    """The page's text."""
    for section in parts["sections"]:
        for figure in section["figures"]:
            path = folder / FIGURES / Path(figure["file"]).name
            if not path.is_file():
                raise ValueError(f"{path} is missing; make the report again with: ecgtf evaluate --overwrite")
            figure["data"] = base64.b64encode(path.read_bytes()).decode()
    return template("report/page.html.j2").render(
        title=parts["title"],
        real=summary["real"],
        synthetic=summary["synthetic"],
        groups=_by_group(summary["metrics"]),
        verdict=_verdict(summary["metrics"]),
        sections=parts["sections"],
        provenance=_flat({name: summary[name] for name in ("provenance", "real", "synthetic")}),
    )


def template(name: str) -> Template:
    """A page to fill in, by its place in the package, such as `report/page.html.j2`; what is filled in is escaped."""
    from jinja2 import Environment, PackageLoader

    layout = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return Environment(loader=PackageLoader("ecgtf", "."), autoescape=True, **layout).get_template(name)


def figure_png(figure: Figure) -> bytes:
    """The figure as PNG: the same figure gives the same bytes."""
    # Imported here: matplotlib takes a second that a page of saved figures need not wait for.
    from ecgtf.report.ecg_paper import figure_bytes

    return figure_bytes(figure, "png")


def _by_group(metrics: dict[str, dict]) -> list[tuple[str, list[dict]]]:
    """Headings with rows of the table: texts of the numbers, and where they lie on a small scale."""
    groups: dict[str, list[dict]] = {}
    for name, entry in metrics.items():
        row = {
            "name": name,
            "label": entry["label"],
            "unit": entry["unit"],
            "better": entry["better"],
        }
        numbers = {key: _known(entry[key]) for key in ("value", "floor", "low", "high")}
        if numbers["value"] is None:
            row["reason"] = entry.get("reason", "no number was given")
        else:
            row |= {key: "" if known is None else three_digits(known) for key, known in numbers.items()} | {
                "plot": _plot(numbers)
            }
            row |= {"spoken": _spoken(row), "worse": entry.get("worse"), "verdict": _VERDICT[entry.get("worse")]}
        groups.setdefault(_GROUPS.get(entry["group"], entry["group"]), []).append(row)
    return list(groups.items())


def _verdict(metrics: dict[str, dict]) -> dict[str, int]:
    """How many metrics there are whose interval tells them from the floor, and how many are worse."""
    judged = [entry["worse"] for entry in metrics.values() if entry.get("worse") is not None]
    return {"judged": len(judged), "worse": sum(judged)}


def _known(number: float | None) -> float | None:
    """The number, or None where it is missing, NaN or infinite: no place on a scale, no text of its own."""
    return number if number is not None and math.isfinite(number) else None


def _plot(numbers: dict[str, float | None]) -> dict[str, float | None]:
    """Places 4 to 96 of value, floor and interval on a scale that holds them and zero."""
    known = [0.0, *(number for number in numbers.values() if number is not None)]
    low, span = min(known), max(known) - min(known) or 1.0
    return {key: None if number is None else round(4 + 92 * (number - low) / span, 1) for key, number in numbers.items()}


def _spoken(row: dict) -> str:
    """What a small plot shows, in words."""
    words = f"value {row['value']}"
    if row["low"] and row["high"]:
        words += f", interval {row['low']} to {row['high']}"
    return words + (f", floor {row['floor']}" if row["floor"] else ", no floor")


def _flat(content: dict, before: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows of names and values."""
    rows = []
    for name, value in content.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{before}{name} / ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
            rows.append((f"{before}{name}", text))
    return rows


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken text and broken JSON
        raise ValueError(f"{path} is broken ({error}); make the report again with: ecgtf evaluate --overwrite") from error
