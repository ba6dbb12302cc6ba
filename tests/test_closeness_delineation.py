"""Known intervals in, measured intervals out; real records give what cardiologists expect; bad signals give NaN."""

import runpy
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ecgtf.closeness.average_beat import AverageBeat, average_beat, share_in_common
from ecgtf.closeness.delineation import Marks, _fall, delineate
from ecgtf.closeness.intervals import amplitude, corrected_qt, pr_interval, qrs_axis, qrs_duration, qt_interval, st_level
from ecgtf.closeness.physiology import Physiology, angle_distance, measure, r_peaks
from ecgtf.data_prep.ludb import read_ludb
from ecgtf.data_prep.ptbxl import read_ptbxl
from ecgtf.ecg import LEADS
from ecgtf.generators.simulator import simulate_records
from ecgtf.wfdb_io import read_record

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "delineation.py"))
INTERVALS = ("pr_interval", "qrs_duration", "qt_interval", "qtc")


@lru_cache
def known(bpm, rate, seed=7):
    """A record whose truth is known, the same in all tests."""
    signal, truth = BENCHMARK["known_record"](bpm, rate, seed)
    signal.flags.writeable = False
    return signal, truth


@lru_cache
def errors(bpm, rate):
    return BENCHMARK["errors"](bpm, rate, 60)


def median(error):
    return float(np.nanmedian(error))


def spread(error):
    return float(np.subtract(*np.nanpercentile(error, [75, 25])))


EVERY = pytest.mark.parametrize(("bpm", "rate"), [(bpm, rate) for rate in (100, 500) for bpm in BENCHMARK["RATES"]])


# -- known intervals ----------------------------------------------------------------------------------------------------------


@EVERY
def test_heart_rate_qrs_st_level_and_axis_at_every_rate(bpm, rate):
    error = errors(bpm, rate)
    assert abs(median(error["heart_rate"])) <= 0.011 * bpm
    assert abs(median(error["qrs_duration"])) <= 8
    assert spread(error["qrs_duration"]) <= 6
    assert abs(median(error["st_level"])) <= 0.005
    assert spread(error["st_level"]) <= 0.02
    assert abs(median(error["qrs_axis"])) <= 2
    assert spread(error["qrs_axis"]) <= 5
    assert all(np.isnan(error[name]).mean() <= 0.02 for name in ("heart_rate", "qrs_duration", "st_level", "qrs_axis"))


@EVERY
def test_qt(bpm, rate):
    error = errors(bpm, rate)["qt_interval"]
    assert abs(median(error)) <= (8 if bpm <= 150 else 16)
    assert spread(error) <= (5 if bpm <= 150 else 16)
    assert np.isnan(error).mean() <= (0.03 if bpm <= 150 else 0.08)


@EVERY
def test_pr_and_none_rather_than_a_wrong_one_where_p_begins_in_t(bpm, rate):
    error = errors(bpm, rate)["pr_interval"]
    measured = error[np.isfinite(error)]
    if bpm <= 120:
        assert abs(median(error)) <= 4
        assert spread(error) <= 6
        assert np.isnan(error).mean() <= 0.05
    else:
        assert np.isnan(error).mean() >= 0.5
    assert (np.abs(measured) > 25).sum() <= 0.05 * len(error)


@pytest.mark.parametrize("rate", [100, 250, 360, 1000])
def test_the_sampling_rate_matters_little(rate):
    pairs = [(measure(known(75, 500, seed)[0][None], 500), measure(known(75, rate, seed)[0][None], rate)) for seed in range(12)]
    for name, tolerance in (("pr_interval", 6), ("qrs_duration", 5), ("qt_interval", 4), ("qrs_axis", 2)):
        assert abs(np.nanmedian([getattr(b, name) - getattr(a, name) for a, b in pairs])) <= tolerance


def test_ectopic_beats_do_no_harm():
    signal = known(75, 500)[0]
    (peaks,) = r_peaks(signal[None], 500)
    ectopic = signal.copy()
    time = np.arange(len(signal))
    for place in peaks[[3, 8]]:
        bump = np.exp(-0.5 * ((time - place - 20) / 30) ** 2) - 0.5 * np.exp(-0.5 * ((time - place - 130) / 40) ** 2)
        ectopic += 2.0 * bump[:, None].astype(np.float32) * np.linspace(-1, 1, 12, dtype=np.float32)
    sides = [delineate(average_beat(side, peaks, 500)) for side in (signal, ectopic)]
    for interval in (pr_interval, qrs_duration, qt_interval):
        assert interval(sides[1]) == pytest.approx(interval(sides[0]), abs=8)


def test_one_lead_of_noise_is_left_aside():
    signal = known(75, 100)[0]
    noisy = signal.copy()
    noisy[:, 4] = 30 * np.random.default_rng(0).normal(size=len(signal))
    noisy[:, 7] = np.nan
    clean, found = measure(signal[None], 100), measure(noisy[None], 100)
    for name in INTERVALS:
        assert getattr(found, name)[0] == pytest.approx(getattr(clean, name)[0], abs=12)
    for name in ("amplitude", "st_level"):
        assert np.flatnonzero(np.isnan(getattr(found, name)[0])).tolist() == [4, 7]
        others = np.delete(np.arange(12), [4, 7])
        np.testing.assert_allclose(getattr(found, name)[0, others], getattr(clean, name)[0, others], atol=0.06)


@pytest.mark.parametrize("rate", [100, 500])
def test_noise_takes_measurements_away_rather_than_moving_them(rate):
    signals, truths = zip(*(known(70, rate, seed) for seed in range(30)), strict=True)
    noise = np.random.default_rng(0).normal(size=np.shape(signals))
    for size, most_missing in ((0.02, 0.05), (0.05, 0.5), (0.5, 1.0)):
        found = measure((np.stack(signals) + size * noise).astype(np.float32), rate)
        for name in ("pr_interval", "qrs_duration", "qt_interval"):
            error = getattr(found, name) - [truth[name] for truth in truths]
            assert np.isnan(error).mean() <= most_missing
            if np.isfinite(error).sum() > 10:
                assert abs(np.nanmedian(error)) <= 8
                assert np.nanpercentile(np.abs(error), 90) <= 20
    assert np.isnan(found.qrs_duration).mean() > 0.8


def test_baseline_wander_does_not_move_the_st_level():
    signal = known(60, 250)[0]
    wander = 0.3 * np.sin(2 * np.pi * 0.2 * np.arange(len(signal)) / 250 + np.arange(12)[:, None]).T
    levels = [measure(side[None], 250).st_level for side in (signal, (signal + wander).astype(np.float32))]
    np.testing.assert_allclose(*levels, atol=0.03)


def test_atrial_fibrillation_has_no_pr_interval():
    fibrillating, sinus = (
        np.stack([record.signal for record in simulate_records(60, seed=2, rate=100, rhythms=[kind])])
        for kind in ("AFIB", "SR")
    )
    assert np.isnan(measure(fibrillating, 100).pr_interval).mean() >= 0.9
    assert np.isnan(measure(sinus, 100).pr_interval).mean() <= 0.05


# -- formulas -----------------------------------------------------------------------------------------------------------------


def drawn_beat(vector=(1.0, 0.0), step=0.0):
    """A triangular QRS of 40 ms, its marks exact, in I and aVF, then a level in all leads."""
    signal = np.zeros((400, 12))
    signal[190:211] = (1 - np.abs(np.linspace(-1, 1, 21)))[:, None] * np.array(
        [{"I": vector[0], "aVF": vector[1], "II": vector[1] + vector[0] / 2}.get(lead, 0.5) for lead in LEADS]
    )
    signal[211:] += step
    beat = AverageBeat(signal, signal[None], np.ones(12), 200, 1.0)
    return beat, Marks(-0.16, -0.06, -0.02, 0.02, 0.36)


def test_intervals_are_differences_of_marks_in_ms():
    _, marks = drawn_beat()
    assert [f(marks) for f in (pr_interval, qrs_duration, qt_interval)] == pytest.approx([140, 40, 380])


def test_qtc_is_fridericias():
    np.testing.assert_allclose(corrected_qt([400, 400, 300], [60, 30, 120]), [400, 400 * 0.5 ** (1 / 3), 300 * 2 ** (1 / 3)])


def test_st_level_and_amplitude_of_a_drawn_beat():
    beat, marks = drawn_beat((1.5, -0.4), step=0.25)
    np.testing.assert_allclose(st_level(beat, marks, 12), 0.25)
    np.testing.assert_allclose(amplitude(beat, marks, 12)[[0, 1, 5]], [1.5, 0.35, 0.4])


@pytest.mark.parametrize("degrees", [-150, -60, 0, 45, 90, 179])
def test_axis_is_the_direction_of_the_vector(degrees):
    angle = np.radians(degrees)
    beat, marks = drawn_beat((np.cos(angle), np.sqrt(3) / 2 * np.sin(angle)))
    assert qrs_axis(beat, marks) == pytest.approx(degrees)
    assert qrs_axis(beat, marks, ["aVF" if lead == "I" else "I" if lead == "aVF" else lead for lead in LEADS]) != degrees


def test_axis_needs_two_limb_leads():
    beat, marks = drawn_beat((1.0, 1.0))
    with_foot = qrs_axis(beat, marks)
    without = [lead if lead != "aVF" else "other" for lead in LEADS]
    assert qrs_axis(beat, marks, without) == pytest.approx(with_foot)
    assert np.isnan(qrs_axis(beat, marks, ["x" if lead in ("aVF", "II") else lead for lead in LEADS]))
    assert np.isnan(qrs_axis(beat, marks, ["x" if lead == "I" else lead for lead in LEADS]))


def test_share_in_common():
    rng = np.random.default_rng(0)
    wave = np.cos(np.linspace(0, 2 * np.pi, 50))[None, :, None]
    assert share_in_common(np.repeat(wave, 8, axis=0)) == pytest.approx(1.0)
    assert share_in_common(rng.normal(size=(30, 50, 3))) < 0.1
    assert share_in_common(wave + 0.7 * rng.normal(size=(200, 50, 1))) == pytest.approx(0.5, abs=0.1)
    assert np.isnan(share_in_common(np.repeat(wave, 3, axis=0)))
    assert np.isnan(share_in_common(np.zeros((8, 50, 2))))


def test_distance_of_angles_knows_no_ends():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-180, 180, 40), rng.normal(60, 30, 55)
    assert angle_distance([179.0], [-179.0]) == pytest.approx(2)
    assert angle_distance([0.0], [180.0]) == pytest.approx(180)
    assert angle_distance([-10.0, 10], [-5.0, 15]) == pytest.approx(5)
    assert angle_distance(b, b + 7) == pytest.approx(7)
    assert angle_distance(a, a + 360) == pytest.approx(0, abs=1e-9)
    assert angle_distance(a, b) == pytest.approx(angle_distance(b, a))
    assert angle_distance(a, b) == pytest.approx(angle_distance(a + 133, b + 133))
    assert angle_distance([0.0, np.nan], [np.nan, 4.0]) == pytest.approx(4)
    assert np.isnan(angle_distance([np.nan], [3.0]))


# -- bad signals --------------------------------------------------------------------------------------------------------------


def bad_signals():
    signal = known(75, 100)[0]
    rng = np.random.default_rng(1)
    flat = np.zeros_like(signal)
    place = r_peaks(signal[None], 100)[0][4]
    one = (signal - signal[place - 8]) * np.exp(-(((np.arange(1000) - place) / 25) ** 6))[:, None]
    return {
        "flat": flat,
        "nan": flat * np.nan,
        "infinite": flat + np.inf,
        "white noise": rng.normal(size=signal.shape),
        "brown noise": rng.normal(size=signal.shape).cumsum(axis=0),
        "one beat": one,
        "short": signal[:60],
        "one sample": signal[:1],
        "no sample": signal[:0],
        "no lead": signal[:, :0],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", list(bad_signals()))
def test_bad_signals_give_nan_and_no_error(kind):
    signal = bad_signals()[kind].astype(np.float32)
    found = measure(np.stack([signal, signal]), 100)
    for field in fields(Physiology):
        values = getattr(found, field.name)
        assert values.shape == ((2, signal.shape[1]) if field.name in ("st_level", "amplitude") else (2,))
        assert np.isnan(values).all()


@pytest.mark.filterwarnings("error")
def test_average_beats_of_anything_do_not_raise():
    rng = np.random.default_rng(0)
    for samples in (2, 40, 300, 1000):
        for scale in (1e-6, 1.0, 1e6):
            for count in (0, 1, 2, 3, 9):
                peaks = np.unique(rng.integers(0, samples, size=count))
                signal = scale * rng.normal(size=(samples, 3)).cumsum(axis=0)
                beat = average_beat(signal, peaks, 100)
                marks = delineate(beat)
                st_level(beat, marks, 3), amplitude(beat, marks, 3), qrs_axis(beat, marks, ("I", "II", "V1"))
    assert np.isnan(delineate(None).t_end)


def test_short_few_and_single_leads():
    signal = known(75, 100)[0]
    short = measure(signal[None, :350], 100)
    assert np.isfinite(short.qrs_duration).all()
    single = measure(signal[None, :, [1]], 100)
    assert np.isnan(single.qrs_axis).all()
    assert single.amplitude.shape == single.st_level.shape == (1, 1)
    whole = measure(signal[None], 100)
    assert single.qt_interval[0] == pytest.approx(whole.qt_interval[0], abs=25)
    limbs = measure(signal[None, :, :2], 100, ("I", "II"))
    assert limbs.qrs_axis[0] == pytest.approx(whole.qrs_axis[0], abs=5)
    assert np.isnan(measure(signal[None, :, 6:], 100, LEADS[6:]).qrs_axis).all()
    assert measure(np.zeros((0, 1000, 12)), 100).amplitude.shape == (0, 12)


# -- real records -------------------------------------------------------------------------------------------------------------


@lru_cache
def ptbxl():
    """Statements, and measurements, of the records at 100 samples a second."""
    records, signals = [], []
    for record in read_ptbxl(DATA / "ptb-xl"):
        if "records100" in getattr(record, "id", ""):
            records.append(record)
            signals.append(read_record(record.path)[0][:1000])
    return [set(record.codes) for record in records], measure(np.stack(signals), 100)


def check_normal(found, chosen):
    for name, low, high in (("pr_interval", 140, 185), ("qrs_duration", 80, 100), ("qt_interval", 355, 415), ("qtc", 375, 420)):
        values = getattr(found, name)[chosen]
        assert low < np.nanmedian(values) < high
        assert np.isnan(values).mean() < 0.08
    assert 15 < np.nanmedian(found.qrs_axis[chosen]) < 65
    assert 0.3 < np.nanmedian(found.amplitude[chosen]) < 2.5
    assert np.abs(np.nanmedian(found.st_level[chosen], axis=0)).max() < 0.15


@pytest.mark.skipif(not (DATA / "ptb-xl").is_dir(), reason="the part of PTB-XL is not there")
def test_normal_real_records_and_blocked_bundles():
    codes, found = ptbxl()
    kind = {
        name: np.array([name in some for some in codes]) for name in ("NORM", "CLBBB", "CRBBB", "LAFB", "1AVB", "AFIB", "LNGQT")
    }
    check_normal(found, kind["NORM"])
    middle = {
        name: {of: np.nanmedian(getattr(found, of)[chosen]) for of in (*INTERVALS, "qrs_axis")}
        for name, chosen in kind.items()
        if name != "AFIB"
    }
    assert middle["CLBBB"]["qrs_duration"] > middle["NORM"]["qrs_duration"] + 45
    assert middle["CRBBB"]["qrs_duration"] > middle["NORM"]["qrs_duration"] + 30
    assert -75 < middle["LAFB"]["qrs_axis"] < -35
    assert middle["1AVB"]["pr_interval"] > 215
    assert middle["LNGQT"]["qtc"] > middle["NORM"]["qtc"] + 60
    assert np.isnan(found.pr_interval[kind["AFIB"]]).mean() > 0.9


@pytest.mark.skipif(not (DATA / "ludb").is_dir(), reason="LUDB is not there")
def test_real_records_of_another_collection():
    records = [record for record in read_ludb(DATA / "ludb") if "426783006" in record.codes]
    narrow = [record for record in records if not any("bundle" in code or "pacemaker" in code.lower() for code in record.codes)]
    found = measure(np.stack([read_record(record.path)[0][:5000] for record in narrow]), 500)
    check_normal(found, slice(None))
    left, normal, vertical = (
        np.nanmedian(found.qrs_axis[[any(f"heart: {word}" in code for code in record.codes) for record in narrow]])
        for word in ("left", "normal", "vertical")
    )
    assert left + 30 < 30 < normal < 65 < vertical


@pytest.mark.skipif(not (DATA / "ptb-xl").is_dir(), reason="the part of PTB-XL is not there")
def test_the_same_real_record_at_500_and_100_samples_a_second():
    fine, coarse = [], []
    for header in sorted((DATA / "ptb-xl" / "records500").rglob("*_hr.hea"))[:150]:
        other = DATA / "ptb-xl" / "records100" / header.parent.name / header.name.replace("_hr.hea", "_lr.hea")
        if other.is_file():
            fine.append(read_record(header.with_suffix(""))[0][:5000])
            coarse.append(read_record(other.with_suffix(""))[0][:1000])
    sides = measure(np.stack(fine), 500), measure(np.stack(coarse), 100)
    for name, usual, most in (("pr_interval", 3, 8), ("qrs_duration", 5, 13), ("qt_interval", 3, 8), ("qrs_axis", 1.5, 6)):
        apart = getattr(sides[1], name) - getattr(sides[0], name)
        assert abs(np.nanmedian(apart)) < usual
        assert np.nanpercentile(np.abs(apart), 93) < most
    assert np.nanpercentile(np.abs(sides[1].st_level - sides[0].st_level), 95) < 0.03


def test_a_side_that_begins_below_the_level_has_fallen_already():
    assert _fall(np.array([0.2, 0.1, 0.0]), 0.5) == 0.0
    assert _fall(np.array([1.0, 0.6, 0.2]), 0.5) == pytest.approx(1.25)
