"""What is written of an evaluation: the content of `closeness.json`, and the page beside it."""

from __future__ import annotations

import hashlib

import numpy as np

from ecgtf.atomic import write_json
from ecgtf.classifiers.networks import load_classifier
from ecgtf.closeness.measurements import MEASUREMENTS
from ecgtf.closeness.results import WAYS, Results
from ecgtf.run_folder import versions

SCHEMA = 2


def provenance(results: Results) -> dict:
    """What an evaluation depends on, known before its first number."""
    comparison = results.comparison
    return {
        "task": comparison.about["task"],
        "sampling": comparison.about["sampling"],
        "seed": comparison.seed,
        "rate": comparison.rate,
        "leads": list(comparison.leads),
        "preset": results.preset,
        "extractor": str(results.extractor) if results.extractor else "trained on half of the real training people",
        "records": {name: part.digest() for name, part in comparison.parts().items()},
        "versions": versions(),
    }


def content(results: Results, metrics: dict[str, dict]) -> dict:
    """The content of `closeness.json`."""
    comparison = results.comparison
    found = {
        "schema": SCHEMA,
        "real": comparison.about["real"],
        "synthetic": comparison.about["synthetic"],
        "metrics": metrics,
        "provenance": provenance(results),
    }
    computed = {name for name, entry in metrics.items() if entry["value"] is not None}
    for name, make, needed in (
        ("physiology", lambda: _by_class(results), "heart_rate_distance"),
        ("scores", lambda: {way: results.scores(way) for way in WAYS if f"{way}_macro_auroc" in computed}, "trtr_macro_auroc"),
    ):
        if needed in computed:
            found[name] = make()
    if "frechet_distance" in computed:
        found["provenance"]["extractor_sha256"] = _weights_hash(results)
    return found


def write(results: Results, found: dict) -> None:
    """Writes `closeness.json`, and `index.html` with its figures, into the report folder."""
    write_json(results.folder / "closeness.json", found)  # first, so that no figure can cost the numbers
    from ecgtf.closeness.sections import sections
    from ecgtf.report.page import save_page

    save_page(results.folder, title="Synthetic against real ECGs", sections=sections(results, found))


def _weights_hash(results: Results) -> str:
    """SHA-256 of the weights of the feature extractor, in the order of its layers."""
    digest = hashlib.sha256()
    for weights in load_classifier(results.extractor_run).get_weights():
        digest.update(np.ascontiguousarray(weights))
    return digest.hexdigest()


def _by_class(results: Results) -> dict[str, dict]:
    """Each class's measurements (those with one number a record) in real and synthetic records."""
    table = {}
    for name, rows in results.comparison.by_class():
        table[name] = {
            measure: {
                side: _summary(getattr(results.measured[part], measure)[rows[part]])
                for side, part in (("real", "reference"), ("synthetic", "synthetic"))
            }
            for measure in MEASUREMENTS
            if getattr(results.measured["reference"], measure).ndim == 1
        }
    return table


def _summary(values: np.ndarray) -> dict:
    """Number of records, share without the measurement, 5th, 50th and 95th percentile of the others."""
    known = values[np.isfinite(values)]
    low, median, high = np.percentile(known, (5, 50, 95)) if len(known) else (None, None, None)
    failed = 1.0 - len(known) / len(values) if len(values) else None
    return {"n": len(values), "failed": failed, "low": low, "median": median, "high": high}
