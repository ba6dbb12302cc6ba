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


@pytest.mark.parametrize(("most", "told"), [(None, ""), (6, "9 training records were left out (--max-records)")])
def test_training_records_that_no_copy_is_looked_for_among_are_counted(tmp_path, most, told):
    signals = np.random.default_rng(0).normal(0, 0.3, (30, 200, 12)).astype("float32")
    compared = compare_arrays(signals, signals[:4], rate=100, leads=LEADS, max_records=most)
    results = Results(compared, tmp_path, "tiny", None, True)
    found = {"metrics": {"near_copy_rate": {"group": "privacy", "value": 0.0}}}
    text = sections(results, found)[-1].text
    assert told in text if told else "left out" not in text


def test_records_without_beats_are_told_where_physiology_would_be_drawn(tmp_path):
    signals = np.random.default_rng(0).normal(0, 0.3, (8, 500, 12)).astype("float32")
    results = Results(compare_arrays(signals, signals[:4], rate=100, leads=LEADS), tmp_path, "tiny", None, True)
    found = {"metrics": {"beats_not_found": {"group": "physiology", "value": 1.0}}}
    assert sections(results, found)[-1].text.startswith("Not drawn: no heart rate was found")
