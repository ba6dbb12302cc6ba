from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.quality import QUALITY_COLUMNS, quality, quality_fault
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, select_leads
from ecgtf.generators.simulator import simulate_records
from ecgtf.wfdb_io import read_record

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def clean():
    return [record.signal for record in simulate_records(14, seed=2, rate=500, seconds=10)]


def exchanged(signal):
    """What is recorded with the electrodes of the arms exchanged."""
    place = {lead: number for number, lead in enumerate(LEADS)}
    order = [place[lead] for lead in ("I", "III", "II", "aVL", "aVR", "aVF", *LEADS[6:])]
    return signal[:, order] * np.where(np.arange(12) == 0, -1, 1).astype(np.float32)


def test_simulated_records_are_good(clean):
    for signal in clean:
        measures = quality(signal, LEADS, 500)
        assert tuple(measures) == QUALITY_COLUMNS
        assert quality_fault(measures) is None
        assert measures["clipped"] < 0.01
        assert measures["einthoven_mv"] < 1e-3
        assert measures["peak_mv"] == pytest.approx(np.abs(signal).max())


def test_clipped_leads_are_found(clean):
    signal = clean[0].copy()
    level = np.quantile(signal[:, 7], 0.9)
    signal[:, 7] = np.minimum(signal[:, 7], level)
    measures = quality(signal, LEADS, 500)
    assert measures["clipped"] == pytest.approx(0.1, abs=0.02)
    assert quality_fault(measures).startswith("clipped: ")


def test_a_lead_that_is_off_for_seconds_is_found(clean):
    signal = clean[1].copy()
    signal[1000:2750, 9] = signal[1000, 9]
    measures = quality(signal, LEADS, 500)
    assert measures["disconnected_s"] == pytest.approx(3.5, abs=0.2)
    assert quality_fault(measures) == f"a lead is disconnected for {measures['disconnected_s']:.1f} s (more than 3)"
    resting = clean[1].copy()
    resting[1000:2750] = resting[1000]  # all leads at rest: the heart's pause, not an electrode's
    assert quality(resting, LEADS, 500)["disconnected_s"] < 0.5


def test_contradicting_limb_leads_are_found_and_offsets_are_not(clean):
    signal = clean[2].copy()
    signal[:, 2] += 0.3
    assert quality(signal, LEADS, 500)["einthoven_mv"] < 1e-3
    signal[:, 2] = clean[3][:, 2] + np.float32(0.5) * clean[4][:, 8]
    measures = quality(signal, LEADS, 500)
    expected = signal[:, 2] - signal[:, 1] + signal[:, 0]
    assert measures["einthoven_mv"] == pytest.approx(expected.std(), rel=1e-3)


def test_noise_and_wander_in_millivolts():
    time = np.arange(5000)[:, None] / 500
    signal = np.float32(0.2 * np.sin(2 * np.pi * 60 * time) + 0.5 * np.sin(2 * np.pi * 0.3 * time) + np.zeros((1, 8)) + 2)
    measures = quality(signal, INDEPENDENT_LEADS, 500)
    assert measures["noise_mv"] == pytest.approx(0.2 / np.sqrt(2), rel=0.01)
    assert measures["wander_mv"] == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    assert np.isnan(measures["einthoven_mv"])
    assert np.isnan(measures["swapped_limbs"])
    assert quality_fault(measures | {"clipped": 0.0}) is None


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real records in ../shared/data")
@pytest.mark.parametrize(("folder", "taken"), [("ptb-xl/records500", 0), ("cpsc2018", 2), ("ludb", 0)])
def test_limits_leave_real_records_and_exchanged_arms_are_seen(folder, taken):
    faults, swapped, seen = 0, [], []
    for header in sorted((DATA / folder).rglob("*.hea")):
        signal, leads, rate = read_record(header)
        signal = select_leads(signal, leads, LEADS)
        measures = quality(signal, LEADS, rate)
        faults += quality_fault(measures) is not None
        swapped.append(measures["swapped_limbs"])
        seen.append(quality(exchanged(signal), LEADS, rate)["swapped_limbs"])
    assert faults == taken
    assert sum(swapped) == 0
    assert np.mean(seen) > 0.6
