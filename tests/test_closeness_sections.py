"""The sections of the report's page."""

import numpy as np
import pytest

from ecgtf.closeness.loading import compare_arrays
from ecgtf.closeness.results import Results
from ecgtf.closeness.sections import sections
from ecgtf.ecg import LEADS


@pytest.mark.parametrize(("rate", "seconds"), [(100, "0.63"), (250, "0.25")])
def test_the_text_of_the_autocorrelation_names_its_longest_lag(tmp_path, rate, seconds):
    signals = np.random.default_rng(0).normal(0, 0.3, (8, 2 * rate, 12)).astype("float32")
    results = Results(compare_arrays(signals, signals[:4], rate=rate, leads=LEADS), tmp_path, "tiny", None, True)
    found = {"metrics": {"autocorrelation_difference": {"group": "temporal", "value": 0.0}}}
    texts = [alt for section in sections(results, found) for _, alt, _ in section.figures]
    assert f"Autocorrelation of real and synthetic records in each lead up to {seconds} s" in texts
