"""Beats where they were put, numbers that follow from them, and nothing at all on signals without beats."""

import time
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ecgtf.closeness.physiology import (
    Physiology,
    consistency_from_terms,
    consistency_terms,
    distribution_distance,
    heart_rate,
    measure,
    p_wave_score,
    r_peaks,
    rmssd,
)
from ecgtf.data_prep.ptbxl import read_ptbxl
from ecgtf.ecg import INDEPENDENT_LEADS, LEADS, derive_leads
from ecgtf.generators.simulator import simulate_records
from ecgtf.tasks import get_task
from ecgtf.wfdb_io import read_record

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "closeness.npz")
PTB_XL = Path(__file__).parents[2] / "shared" / "data" / "ptb-xl"


def wave(time, centre, width):
    return np.exp(-((time[:, None] - centre) ** 2) / (2 * width**2)).sum(axis=1)


def ecg(beats, rate, *, seconds=10.0, p_at=None, qrs_width=0.012, noise=0.02, seed=0):
    """`(time, 12)` mV with P, Q, R, S and T waves around the given times in s; `p_at` gives the P waves other times."""
    rng = np.random.default_rng(seed)
    t, beats = np.arange(round(seconds * rate)) / rate, np.asarray(beats)
    interval = np.diff(beats).mean() if len(beats) > 1 else 1.0
    p = 0.15 * wave(t, beats - 0.15 if p_at is None else np.asarray(p_at), 0.02)
    qrs = 1.2 * wave(t, beats, qrs_width) - 0.25 * wave(t, beats - 2.2 * qrs_width, qrs_width)
    qrs -= 0.3 * wave(t, beats + 2.2 * qrs_width, qrs_width)
    t_wave = 0.35 * wave(t, beats + min(0.28, 0.45 * interval), 0.05)
    wander = 0.2 * np.sin(2 * np.pi * 0.3 * t)
    gains = np.array([0.7, 1.0, -0.6, 0.4, 0.8, 1.3, 1.2, 0.9])
    signal = (p + qrs + t_wave)[:, None] * gains + wander[:, None] + rng.normal(0, noise, size=(len(t), 8))
    return derive_leads(signal).astype(np.float32)


def regular(bpm, seconds=10.0, first=0.31):
    return np.arange(first, seconds - 0.15, 60 / bpm)


@pytest.mark.parametrize("rate", [100, 250, 500])
@pytest.mark.parametrize("bpm", [40, 75, 130, 220])
def test_beats_are_found_where_they_are(bpm, rate):
    beats = regular(bpm)
    found = r_peaks(ecg(beats, rate)[None], rate)[0]
    assert len(found) == len(beats)
    assert np.abs(found / rate - beats).max() <= 0.02
    assert heart_rate(found, rate) == pytest.approx(bpm, rel=0.02)


def test_large_t_waves_ectopic_beats_and_a_bad_lead_do_no_harm():
    beats = regular(66)
    signal = ecg(beats, 250)
    t = np.arange(len(signal)) / 250
    signal += 0.9 * wave(t, beats + 0.28, 0.05)[:, None].astype(np.float32)
    signal += 2.5 * wave(t, beats[[3]] + 0.0, 0.03)[:, None].astype(np.float32)
    signal[:, 4] = 30 * np.random.default_rng(0).normal(size=len(signal))
    signal[:, 7] = np.nan
    np.testing.assert_allclose(r_peaks(signal[None], 250)[0] / 250, beats, atol=0.03)


def without_beats(rate=100, samples=1000):
    rng = np.random.default_rng(3)
    white = rng.normal(size=(samples, 12))
    pink = np.fft.irfft(np.fft.rfft(white, axis=0) / np.sqrt(np.arange(samples // 2 + 1).clip(1))[:, None], axis=0)
    mains = np.sin(2 * np.pi * 50.1 * np.arange(samples) / rate)[:, None] * np.ones(12)
    one = ecg([4.0], rate, noise=0)
    return {
        "flat": np.zeros((samples, 12)),
        "offset": np.full((samples, 12), 3.0),
        "nan": np.full((samples, 12), np.nan),
        "infinite": np.full((samples, 12), np.inf),
        "white noise": white,
        "pink noise": pink,
        "brown noise": white.cumsum(axis=0),
        "the same noise in all leads": np.repeat(pink[:, :1], 12, axis=1),
        "mains": mains,
        "one beat": one,
        "a step": np.repeat((np.arange(samples) > 500)[:, None], 12, axis=1).astype(float),
    }


@pytest.mark.parametrize("kind", list(without_beats()))
def test_no_beats_and_no_error_where_there_are_none(kind):
    signal = without_beats()[kind].astype(np.float32)
    (found,) = r_peaks(signal[None], 100)
    assert found.size == 0
    assert found.dtype.kind == "i"
    measured = measure(signal[None], 100)
    assert measured.without_beats.all()
    assert all(np.isnan(getattr(measured, field.name)).all() for field in fields(Physiology))
    assert measured.amplitude.shape == measured.st_level.shape == (1, 12)


def test_very_short_signals_give_nothing():
    assert all(found.size == 0 for found in r_peaks(np.ones((2, 3, 12), np.float32), 100))
    assert r_peaks(np.zeros((0, 1000, 12)), 100) == []
    assert measure(np.zeros((0, 1000, 12)), 100).heart_rate.shape == (0,)
    assert measure(np.zeros((0, 1000, 12)), 100).amplitude.shape == (0, 12)
    assert np.isnan(measure(np.ones((2, 3, 12), np.float32), 100).qt_interval).all()
    assert r_peaks(np.zeros((2, 0, 12)), 100)[0].size == 0
    assert r_peaks(np.zeros((2, 1000, 0)), 100)[0].size == 0


def test_numbers_of_known_beats():
    peaks = np.array([0, 100, 200, 280, 380])
    assert heart_rate(peaks, 100) == 60.0
    assert rmssd(peaks, 100) == pytest.approx(1000 * np.sqrt((0 + 0.2**2 + 0.2**2) / 3))
    assert np.isnan(heart_rate(peaks[:1], 100))
    assert np.isnan(rmssd(peaks[:3], 100))


def test_p_waves_before_every_beat_are_told_from_waves_anywhere():
    beats = regular(75)
    rng = np.random.default_rng(1)
    with_p = ecg(beats, 250)
    anywhere = ecg(beats, 250, p_at=rng.uniform(0, 10, size=60))
    peaks = np.round(beats * 250).astype(int)
    assert p_wave_score(with_p, peaks, 250) > 0.8
    assert p_wave_score(anywhere, peaks, 250) < 0.35
    assert np.isnan(p_wave_score(with_p, peaks[:2], 250))


def test_qrs_duration_grows_with_the_complex_and_hardly_with_the_rate():
    beats = regular(75)
    narrow, wide = (measure(ecg(beats, 500, qrs_width=width)[None], 500).qrs_duration[0] for width in (0.012, 0.02))
    assert 90 < narrow < 120
    assert 1.4 < wide / narrow < 2.0
    slow = measure(ecg(beats, 100)[None], 100).qrs_duration[0]
    assert slow == pytest.approx(narrow, abs=8)


def lead_consistency(signals, leads=LEADS):
    return consistency_from_terms(consistency_terms(signals, leads))


def test_lead_consistency_fixture():
    for side in ("real", "generated"):
        found = lead_consistency(FIXTURE[f"signals_{side}"])
        np.testing.assert_allclose(found, FIXTURE[f"lead_consistency.{side}"], rtol=1e-6)
        assert found.mean() == pytest.approx(float(FIXTURE[f"lead_consistency.{side}_mean"]), rel=1e-6)


def test_lead_consistency_is_zero_for_derived_leads_and_needs_them_all():
    signal = derive_leads(np.random.default_rng(0).normal(size=(3, 100, 8)))
    assert lead_consistency(signal).max() < 1e-12
    shuffled = [LEADS[place] for place in (5, 0, 7, 2, 1, 3, 4)]
    assert lead_consistency(signal[..., [LEADS.index(lead) for lead in shuffled]], shuffled).max() < 1e-12
    with pytest.raises(ValueError, match="III, aVR, aVL, aVF is missing"):
        lead_consistency(signal[..., :8], INDEPENDENT_LEADS)


def test_lead_consistency_takes_little_memory_beside_the_signals():
    signals = np.ones((400, 1000, 12), np.float32)
    tracemalloc.start()
    consistency_terms(signals, LEADS)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.1 * signals.nbytes


def test_distribution_distance_ignores_records_without_beats():
    assert distribution_distance(np.array([60.0, np.nan, 80]), np.array([65.0, 85, np.nan])) == pytest.approx(5.0)
    assert np.isnan(distribution_distance(np.array([np.nan]), np.array([60.0])))


def test_a_thousand_records_take_seconds():
    signals = np.stack([ecg(regular(bpm), 100) for bpm in (50, 70, 90, 110)] * 250)
    started = time.process_time()
    measured = measure(signals, 100)
    assert time.process_time() - started < 40  # 4 s on a quiet core
    np.testing.assert_allclose(measured.heart_rate, [50, 70, 90, 110] * 250, rtol=0.03)


def medians_by_class(signals, labels, rate):
    measured = measure(signals, rate)
    assert measured.without_beats.mean() < 0.01
    return {
        name: {
            key: float(np.nanmedian(getattr(measured, key)[labels[:, place] > 0])) for key in ("heart_rate", "rmssd", "p_wave")
        }
        for place, name in enumerate(get_task("rhythm7").classes)
        if labels[:, place].any()
    }


def check_rhythms(median):
    assert 38 < median["SB"]["heart_rate"] < 60 < median["SR"]["heart_rate"] < 100 < median["ST"]["heart_rate"] < 160
    assert median["AFIB"]["rmssd"] > 100 > 50 > median["SR"]["rmssd"]
    assert median["SA"]["rmssd"] > 2 * median["SR"]["rmssd"]
    assert median["AFIB"]["p_wave"] < 0.15 < 0.6 < median["SR"]["p_wave"]


def test_rhythms_of_the_simulator_are_measured_as_such():
    records = list(simulate_records(140, seed=5, rate=100))
    labels = get_task("rhythm7").labels([record.codes for record in records])
    median = medians_by_class(np.stack([record.signal for record in records]), labels, 100)
    check_rhythms(median)
    assert 150 < median["SVT"]["heart_rate"] < 230


@pytest.mark.skipif(not PTB_XL.is_dir(), reason="the part of PTB-XL is not there")
def test_rhythms_of_real_records_are_measured_as_such():
    records, signals, per_class = [], [], {}
    for record in read_ptbxl(PTB_XL):
        codes = getattr(record, "codes", ())
        label = get_task("rhythm7").labels([codes])[0]
        kind = int(label.argmax()) if label.any() else -1
        per_class[kind] = per_class.get(kind, 0) + 1
        if kind >= 0 and per_class[kind] <= 40:
            records.append(record)
    kept = []
    for record in records:
        signal, _, rate = read_record(record.path)
        if rate == 100:
            signals.append(signal[:1000])
            kept.append(record)
    labels = get_task("rhythm7").labels([record.codes for record in kept])
    check_rhythms(medians_by_class(np.stack(signals), labels, 100))


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match=r"\(records, time, leads\)"):
        r_peaks(np.zeros((1000, 12)), 100)
    with pytest.raises(ValueError, match="at least 60"):
        r_peaks(np.zeros((1, 1000, 12)), 25)
