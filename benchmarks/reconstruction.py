"""How well a trained tokenizer rebuilds ECGs: `python benchmarks/reconstruction.py RUN DATA`.

For each record and lead, band-passed to 0.5-40 Hz: Pearson correlation of the rebuilt with the original signal, and the ratio of their
largest amplitudes (R, or S where it is deeper). Prints medians for the validation records and, for the gap, as many training records.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from scipy.signal import butter, sosfiltfilt

import ecgtf.generators.time_vqvae  # noqa: F401  (registers the tokenizer)
from ecgtf.dataset import load_arrays
from ecgtf.run_folder import Run


def scores(model, signals: np.ndarray, rate: float) -> dict[str, np.ndarray]:
    """`correlation` and `amplitude` ratio, `(records, leads)` each."""
    rebuilt = np.concatenate(
        [keras.ops.convert_to_numpy(model.reconstruct(part)) for part in np.array_split(signals, -(-len(signals) // 64))]
    )
    band = butter(3, [0.5, 40.0], "band", fs=rate, output="sos")
    real, made = (sosfiltfilt(band, part, axis=1) for part in (signals, rebuilt))
    real, made = (part - part.mean(axis=1, keepdims=True) for part in (real, made))
    size = np.sqrt((real**2).sum(axis=1) * (made**2).sum(axis=1))
    return {
        "correlation": (real * made).sum(axis=1) / np.maximum(size, 1e-12),
        "amplitude": np.abs(made).max(axis=1) / np.maximum(np.abs(real).max(axis=1), 1e-12),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data")
    arguments = parser.parse_args()
    model = Run.load(arguments.run).load_model("tokenizer")
    validation = load_arrays(arguments.data, "validation")
    train = load_arrays(arguments.data, "train", limit=len(validation))
    print("| records | n | median r | 10th percentile | worst lead | median amplitude ratio |")
    print("|---|---|---|---|---|---|")
    for name, part in (("validation", validation), ("training", train)):
        result = scores(model, part.signals, part.manifest.sampling_rate)
        by_lead = np.median(result["correlation"], axis=0)
        worst = int(by_lead.argmin())
        print(
            f"| {name} | {len(part)} | {np.median(result['correlation']):.3f} | {np.percentile(result['correlation'], 10):.3f} "
            f"| {part.manifest.leads[worst]} {by_lead[worst]:.3f} | {np.median(result['amplitude']):.3f} |"
        )


if __name__ == "__main__":
    main()
