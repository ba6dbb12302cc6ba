import numpy as np
import pytest

from ecgtf.data_prep.filters import BandPass, Notch
from ecgtf.data_prep.signals import resample
from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_records


def tone(frequency, rate=500, seconds=40):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)[:, None].astype(np.float32)


def band_pass(signal, rate, low=None, high=None):
    return resample(signal, rate, rate, (BandPass(low, high),))


def notch(signal, rate, mains=50.0):
    return resample(signal, rate, rate, (Notch(mains),))


def gain(filtered, frequency, rate=500):
    """In dB, from the middle half."""
    quarter = len(filtered) // 4
    middle, whole = filtered[quarter:-quarter], tone(frequency, rate)[quarter:-quarter]
    return 20 * np.log10(np.linalg.norm(middle) / np.linalg.norm(whole))


@pytest.mark.parametrize("rate", [100, 250, 500])
def test_three_decibels_at_the_corners_and_flat_between(rate):
    for frequency in (0.5, 40.0):
        assert gain(band_pass(tone(frequency, rate), rate, 0.5, 40), frequency, rate) == pytest.approx(-3.01, abs=0.1)
    for frequency in (1.3, 5, 10, 15.3):
        assert abs(gain(band_pass(tone(frequency, rate), rate, 0.5, 40), frequency, rate)) < 0.15


def test_attenuation_beyond_the_band():
    measured = band_pass(tone(0.1, seconds=400), 500, 1.0)
    middle = slice(len(measured) // 4, -len(measured) // 4)
    assert 20 * np.log10(np.abs(measured[middle]).max()) < -65
    assert gain(band_pass(tone(200), 500, None, 20), 200) < -65


def test_no_wave_moves_and_the_ends_do_not_swing():
    impulse = np.zeros((2001, 1), np.float32)
    impulse[1000] = 1
    for filtered in (band_pass(impulse, 500, 0.5, 40), notch(impulse, 500, 50)):
        np.testing.assert_allclose(filtered, filtered[::-1], atol=1e-4)
        assert filtered[:, 0].argmax() == 1000
    drift = np.linspace(1, 3, 5000)[:, None].astype(np.float32)  # the wander of a whole record
    assert np.abs(band_pass(drift, 500, 0.5)).max() < 0.02


def test_limb_leads_stay_consistent_and_wander_and_hum_go():
    signal = next(simulate_records(1, seed=4, rate=500, seconds=10)).signal
    clean = notch(band_pass(signal, 500, 0.5), 500)
    one, two, three = (clean[:, LEADS.index(lead)] for lead in ("I", "II", "III"))
    np.testing.assert_allclose(two - one, three, atol=1e-4)
    time = np.arange(5000)[:, None] / 500
    dirty = signal + np.float32(0.2 * np.sin(2 * np.pi * 50 * time) + 0.5 * np.sin(0.6 * time))
    np.testing.assert_allclose(notch(band_pass(dirty, 500, 0.5), 500)[1000:-1000], clean[1000:-1000], atol=0.03)


def test_the_notch_is_deep_and_narrow():
    assert gain(notch(tone(50), 500, 50), 50) < -60
    assert gain(notch(tone(50 * (1 + 1 / 60)), 500, 50), 50 * (1 + 1 / 60)) == pytest.approx(-6.02, abs=0.3)
    assert abs(gain(notch(tone(40), 500, 50), 40)) < 0.2
    assert gain(notch(tone(60), 500, 60), 60) < -60


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda signal: band_pass(signal, 100), "received none"),
        (lambda signal: band_pass(signal, 100, 0.5, 50), "high corner above 0 and below 50 Hz"),
        (lambda signal: band_pass(signal, 100, 0), "low corner above 0"),
        (lambda signal: band_pass(signal, 100, 30, 20), "low corner below the high one"),
        (lambda signal: notch(signal, 100, 50), "leave the notch out"),
    ],
)
def test_impossible_corners_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(tone(1, 100, 2))


def test_short_records_are_filtered_too():
    assert band_pass(tone(5, 100, 0.3), 100, 0.5, 40).shape == (30, 1)
    assert band_pass(tone(5, 100, 0.3), 100, 0.5, 40).dtype == np.float32
