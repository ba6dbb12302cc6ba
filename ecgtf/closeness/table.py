"""The metrics of an evaluation as text for a terminal."""

from __future__ import annotations


def metrics_table(content: dict) -> str:
    """One line a metric: value with interval, floor, unit; or why it was not computed."""
    lines = []
    missing = content["synthetic"]["without_records_of"]
    if missing:
        lines.append(f"no synthetic records of {', '.join(missing)}: distances leave them out")
    group = None
    width = max(len(entry["label"]) for entry in content["metrics"].values())
    for entry in content["metrics"].values():
        if entry["group"] != group:
            group = entry["group"]
            lines.append(f"{group}{'':{max(1, width + 2 - len(group))}s}{'value':>10s}  {'interval':^21s}{'floor':>10s}")
        if entry["value"] is None:
            lines.append(f"  {entry['label']:{width}s} not computed: {entry['reason']}")
            continue
        value, floor = (f"{three_digits(entry[key]):>10s}" for key in ("value", "floor"))
        interval = "" if entry["low"] is None else f"{three_digits(entry['low'])} to {three_digits(entry['high'])}"
        verdict = "worse than the floor" if entry["worse"] else ""
        lines.append(f"  {entry['label']:{width}s}{value}  {interval:^21s}{floor} {entry['unit']:9s} {verdict}")
    return "\n".join(line.rstrip() for line in lines)


def three_digits(value: float | None) -> str:
    """Three significant digits, or a dash."""
    if value is None:
        return "-"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
