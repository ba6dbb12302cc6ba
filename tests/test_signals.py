import csv
from pathlib import Path

import numpy as np
import pytest

from ecgtf.data_prep.signals import FLAT_MV, cut, fault, pad, resample
from ecgtf.ecg import LEADS
from ecgtf.wfdb_io import read_record

PTBXL = Path(__file__).parents[2] / "shared" / "data" / "ptb-xl"


def tone(frequency, rate, seconds=10.0, leads=2):
    time = np.arange(round(rate * seconds)) / rate
    return np.sin(2 * np.pi * frequency * time + np.arange(leads)[:, None]).T.astype(np.float32)


@pytest.mark.parametrize(("rate", "new_rate"), [(500, 100), (257, 100), (1000, 360), (100, 500), (128.5, 100), (500, 499)])
def test_a_tone_in_the_passband_is_the_same_tone_at_the_new_rate(rate, new_rate):
    resampled = resample(tone(7.3, rate), rate, new_rate)
    expected = tone(7.3, new_rate)
    assert resampled.dtype == np.float32
    assert resampled.shape == expected.shape
    inner = slice(round(0.2 * new_rate), -round(0.2 * new_rate))
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=2e-3)


def test_a_tone_above_the_new_nyquist_frequency_vanishes_instead_of_aliasing():
    resampled = resample(tone(60.0, 500), 500, 100)  # would alias to 40 Hz
    assert np.abs(resampled[20:-20]).max() < 2e-3
    assert np.abs(tone(60.0, 500)[::5]).max() > 0.5  # taking every fifth sample does alias


def decibels(signal, seconds_off):
    """Amplitude of a tone at 100 Hz, so many seconds from the ends."""
    inner = slice(round(100 * seconds_off), -round(100 * seconds_off))
    return 20 * np.log10(np.sqrt(2 * np.mean(np.square(signal[inner]))))


def test_the_passband_is_flat_and_the_stop_band_deep():
    for frequency in np.arange(0.5, 40.0, 1.73):
        expected = decibels(tone(frequency, 100, leads=1), 0.2)
        assert decibels(resample(tone(frequency, 500, leads=1), 500, 100), 0.2) == pytest.approx(expected, abs=1e-3)
    for frequency in np.arange(50.0, 250.0, 3.7):
        stopped = resample(tone(frequency, 500, leads=1), 500, 100)
        assert decibels(stopped, 0.2) < -68
        assert decibels(stopped, 0.5) < -81


def test_the_ends_of_a_drifting_signal_stay_in_place():
    ramp = np.linspace(-1, 3, 5000, dtype=np.float32)[:, None]
    np.testing.assert_allclose(resample(ramp, 500, 100), ramp[::5], atol=1e-4)


def test_a_constant_stays_exactly_as_large_and_short_signals_work():
    for samples in (1, 2, 7, 5000):
        constant = np.full((samples, 3), 1.5, np.float32)
        resampled = resample(constant, 500, 100)
        assert resampled.shape == (-(-samples // 5), 3)
        np.testing.assert_allclose(resampled, 1.5, atol=1e-5)


def test_equal_rates_leave_the_signal_alone():
    signal = tone(5, 100)
    assert resample(signal, 100, 100.0) is signal


def test_a_lead_is_resampled_the_same_whatever_stands_beside_it():
    signal = np.random.default_rng(0).normal(size=(5000, 12)).astype(np.float32)
    np.testing.assert_allclose(resample(signal, 500, 100)[:, [3]], resample(signal[:, [3]], 500, 100), atol=1e-5)


@pytest.mark.parametrize(("rate", "new_rate"), [(0, 100), (500, -1), (float("nan"), 100), (1e-3, 100), (500, 1e6)])
def test_impossible_rates_are_refused_before_any_memory_is_taken(rate, new_rate):
    with pytest.raises(ValueError, match="cannot resample"):
        resample(np.zeros((1000, 1), np.float32), rate, new_rate)


def excerpts(*arguments):
    return [(first, part[:, 0].tolist()) for first, part in cut(np.arange(100)[:, None], *arguments)]


def test_cut_takes_the_first_the_middle_or_all_seconds():
    assert excerpts(10, 4) == [(0, list(range(40)))]
    assert excerpts(10, 4, "centre") == [(30, list(range(30, 70)))]
    assert excerpts(10, 4, "all") == [(0, list(range(40))), (40, list(range(40, 80)))]
    assert excerpts(10, 2.5, "all") == [(first, list(range(first, first + 25))) for first in (0, 25, 50, 75)]
    assert excerpts(10, 10, "all") == excerpts(10, 10) == [(0, list(range(100)))]
    # at 10 Hz, 0.95 s are 9.5 samples: excerpts start where they should, to the sample
    assert [first for first, _ in excerpts(10, 0.95, "all")] == [0, 9, 19, 28, 38, 47, 57, 66, 76, 85]
    assert {len(part) for _, part in excerpts(10, 0.95, "all")} == {10}


def test_short_signals_are_refused_or_come_back_whole_to_be_padded():
    with pytest.raises(ValueError, match=r"lasts 10 s, shorter than the 10\.1 s"):
        excerpts(10, 10.1)
    for window in ("first", "centre", "all"):
        assert excerpts(10, 11, window, "pad") == [(0, list(range(100)))]
    with pytest.raises(ValueError, match="unknown window 'last'; expected one of first, centre, all"):
        excerpts(10, 1, "last")
    with pytest.raises(ValueError, match="unknown choice 'drop' for short records; expected one of refuse, pad"):
        excerpts(10, 1, "first", "drop")
    signal = np.array([[1.0, 5.0], [2.0, 4.0]], np.float32)
    assert pad(signal, 4).tolist() == [[1, 5], [2, 4], [2, 4], [2, 4]]
    assert pad(signal, 1).tolist() == [[1, 5]]


def test_rounding_of_the_rate_does_not_ask_for_one_sample_too_many():
    assert len(cut(np.zeros((3, 1)), 0.1, 30)[0][1]) == 3  # 0.1 * 30 is 3.0000000000000004


def test_faults_name_the_leads():
    leads = ("I", "II", "V1")
    signal = tone(5, 100, leads=3)
    assert fault(signal, leads) is None
    broken = signal.copy()
    broken[10:12, 1] = np.nan
    assert fault(broken, leads) == "missing samples in II (2 of 1000 in II)"
    broken[10:12, 1] = np.inf
    assert fault(broken, leads) == "missing samples in II (2 of 1000 in II)"
    broken[:, [0, 1]] = 0.3
    broken[5, 0] += FLAT_MV / 2
    assert fault(broken, leads) == "flat lead I, II (spans less than 0.01 mV)"
    broken = signal.copy()
    broken[7, 2] = -32.8
    assert fault(broken, leads) == "amplitude of 32.8 mV in V1 (more than 32.767 mV)"
    broken[7, 2] = -32.767
    assert fault(broken, leads) is None


@pytest.mark.skipif(not PTBXL.is_dir(), reason="the PTB-XL part is not here")
def test_500_hz_records_of_ptbxl_become_its_own_100_hz_records():
    with open(PTBXL / "ptbxl_database.csv", newline="") as file:
        rows = [(PTBXL / row["filename_hr"], PTBXL / row["filename_lr"]) for row in csv.DictReader(file)]
    pairs = [(high, low) for high, low in rows if Path(f"{high}.hea").exists() and Path(f"{low}.hea").exists()]
    assert len(pairs) == 242
    shift = np.exp(2j * np.pi * np.arange(1001) / 2000 * 0.125)[:, None]  # the 100 Hz files run 1.25 ms ahead
    errors = []
    for high, low in pairs:
        ours, theirs = resample(read_record(high)[0], 500, 100), read_record(low)[0]
        periodic = np.concatenate([ours, 2 * ours[-1:] - ours[::-1]])
        ahead = np.fft.irfft(np.fft.rfft(periodic, axis=0) * shift, 2000, axis=0)[:1000]
        errors.append(np.sqrt(np.mean((ahead - theirs)[20:-20] ** 2)))
    assert len(LEADS) == ours.shape[1]
    assert np.median(errors) < 0.8e-3
    assert np.quantile(errors, 0.95) < 1.5e-3
