"""The simulator's ECGs: exact lead relations, rates, rhythms, waves, and files."""

import json

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, sosfiltfilt

from ecgtf.ecg import INDEPENDENT_LEADS, LEADS
from ecgtf.generators.heart_vector import draw_heart
from ecgtf.generators.rhythms import draw_rhythm
from ecgtf.generators.simulator import RHYTHMS, simulate_collection, simulate_record, simulate_records
from ecgtf.tasks import get_task
from ecgtf.wfdb_io import read_header, read_record

RATES = {
    "SR": (60, 100),
    "SB": (38, 60),
    "ST": (100, 160),
    "SA": (45, 100),
    "AFIB": (58, 152),
    "AFLT": (48, 172),
    "SVT": (148, 222),
}
INDEPENDENT = [LEADS.index(lead) for lead in INDEPENDENT_LEADS]


def r_peaks(signal: np.ndarray, rate: float) -> np.ndarray:
    """Samples where the power of 8 to 30 Hz peaks."""
    filtered = sosfiltfilt(butter(3, (8, 30), "bandpass", fs=rate, output="sos"), signal[:, INDEPENDENT], axis=0)
    window = np.hanning(round(0.08 * rate) + 2)
    power = np.convolve(np.sqrt((filtered**2).sum(axis=1)), window / window.sum(), "same")
    return find_peaks(power, height=0.35 * np.percentile(power, 98), distance=int(0.24 * rate))[0]


def draw(rhythm: str, n: int = 12, seed: int = 0, rate: float = 250) -> list[np.ndarray]:
    return [record.signal for record in simulate_records(n, seed=seed, rate=rate, rhythms=[rhythm])]


def mean_beat(signal: np.ndarray, rate: float, before: float, after: float) -> np.ndarray:
    """`(time, 12)` the median beat about the R peak of lead II or its opposite."""
    wander = sosfiltfilt(butter(2, 0.5, "highpass", fs=rate, output="sos"), signal, axis=0)
    first, last = int(before * rate), int(after * rate)
    beats = [peak for peak in r_peaks(signal, rate) if peak >= first and peak + last < len(signal)]
    return np.median([wander[peak - first : peak + last] for peak in beats], axis=0)


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("rate", [100, 500])
def test_shape_units_and_lead_relations(rhythm, rate):
    for record in simulate_records(4, seed=1, rate=rate, rhythms=[rhythm]):
        signal = record.signal
        assert signal.shape == (10 * rate, 12)
        assert signal.dtype == np.float32
        assert record.leads == LEADS
        assert record.sampling_rate == rate
        lead = dict(zip(LEADS, signal.T, strict=True))
        for residual in (
            lead["II"] - lead["I"] - lead["III"],
            lead["aVR"] + (lead["I"] + lead["II"]) / 2,
            lead["aVL"] - (lead["I"] - lead["III"]) / 2,
            lead["aVF"] - (lead["II"] + lead["III"]) / 2,
        ):
            assert np.abs(residual).max() < 1e-6
        assert np.isfinite(signal).all()
        assert np.abs(signal).max() < 8
        assert (np.ptp(signal, axis=0)[INDEPENDENT] > 0.1).all()
        assert record.codes[0] == RHYTHMS[rhythm]
        assert record.sex in ("male", "female")
        assert 18 <= record.age <= 95


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_rates_are_as_the_rhythm_has_them(rhythm):
    low, high = RATES[rhythm]
    rates = [60 * 250 / np.diff(r_peaks(signal, 250)).mean() for signal in draw(rhythm, 16)]
    assert low <= min(rates)
    assert max(rates) <= high
    assert np.ptp(rates) > 5  # records differ


def test_irregularity_of_the_rhythms():
    def irregularity(rhythm):
        intervals = [np.diff(r_peaks(signal, 250)) for signal in draw(rhythm)]
        return np.median([one.std() / one.mean() for one in intervals])

    found = {rhythm: irregularity(rhythm) for rhythm in ("SR", "ST", "SA", "AFIB", "SVT")}
    assert found["AFIB"] > 5 * found["SR"]
    assert 0.13 < found["AFIB"] < 0.30
    assert 0.07 < found["SA"] < 0.16
    assert found["SR"] < 0.05
    assert found["ST"] < 0.03
    assert found["SVT"] < 0.02


def test_fibrillation_has_no_memory_and_sinus_arrhythmia_follows_the_breath():
    def correlation(rhythm, seed):
        intervals = np.diff(draw_rhythm(rhythm, np.random.default_rng(seed), 300.0, 60).beats)
        return np.corrcoef(intervals[1:], intervals[:-1])[0, 1]

    assert abs(np.mean([correlation("AFIB", seed) for seed in range(8)])) < 0.06
    assert np.mean([correlation("SA", seed) for seed in range(8)]) > 0.2


def test_the_av_node_limits_fibrillation():
    shortest = [np.diff(draw_rhythm("AFIB", np.random.default_rng(seed), 60.0, 70).beats).min() for seed in range(20)]
    assert min(shortest) > 0.22


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("seconds", [1.0, 10.0, 61.0])
def test_beats_cover_the_record(rhythm, seconds):
    for seed in range(20):
        beats = draw_rhythm(rhythm, np.random.default_rng(seed), seconds, 50).beats
        assert beats[0] < 0
        assert beats[-1] > seconds
        assert (np.diff(beats) > 0.2).all()


def test_p_waves_stand_before_qrs_in_sinus_rhythm_alone():
    def p_height(rhythm):
        heights = []
        for signal in draw(rhythm, 14):
            before_qrs = mean_beat(signal, 250, 0.25, 0.1)[: int(0.18 * 250), LEADS.index("II")]
            heights.append(before_qrs.max() - np.median(before_qrs))
        return np.median(heights)

    assert p_height("SR") > 0.06
    assert p_height("SB") > 0.06
    assert p_height("AFIB") < 0.5 * p_height("SR")


def test_sinus_beats_look_as_a_healthy_ecg_does():
    """Over many records P and T are upright in II and upside down in aVR, R grows from V1 to V4, S shrinks from V2 to V6."""
    beats = np.array([mean_beat(signal, 250, 0.3, 0.45) for signal in draw("SR", 40)])
    beats -= np.median(beats[:, int(0.22 * 250) : int(0.25 * 250)], axis=1, keepdims=True)  # from the PR segment
    beat = dict(zip(LEADS, np.median(beats, axis=0).T, strict=True))
    p, qrs, t = slice(int(0.1 * 250), int(0.2 * 250)), slice(int(0.25 * 250), int(0.36 * 250)), slice(int(0.45 * 250), None)
    assert 0.05 < beat["II"][p].max() < 0.25
    assert beat["aVR"][p].min() < -0.04
    for lead in ("I", "II", "V3", "V4", "V5", "V6"):
        assert 0.1 < beat[lead][t].max() < 0.8
    assert beat["aVR"][t].min() < -0.1
    r = {lead: np.median(beats[:, qrs, LEADS.index(lead)].max(axis=1)) for lead in LEADS}
    s = {lead: np.median(beats[:, qrs, LEADS.index(lead)].min(axis=1)) for lead in LEADS}
    assert r["V1"] < 0.4 < r["V2"] + 0.2 < r["V4"]
    assert r["V1"] < r["V2"] < r["V3"] < r["V4"]
    assert s["V2"] < s["V4"] < s["V6"] < 0
    assert s["V1"] < -0.5
    assert 0.4 < r["II"] < 1.5
    assert 0.7 < r["V5"] < 2.0


@pytest.fixture(scope="module")
def beats_by_finding() -> dict[str, np.ndarray]:
    """Mean beats `(records, time, 12)` at 250 Hz, from the PR segment, of hearts with one finding or none; R is at sample 75."""
    beats: dict[str, list[np.ndarray]] = {}
    for record in simulate_records(500, seed=0, rate=250, rhythms=["SR"], abnormal=3):
        if len(record.codes) == 2:
            beat = mean_beat(record.signal, 250, 0.3, 0.45)
            beats.setdefault(record.codes[1], []).append(beat - np.median(beat[55:62], axis=0))
    return {finding: np.array(some) for finding, some in beats.items()}


def in_lead(beats: np.ndarray, name: str) -> np.ndarray:
    return beats[:, :, LEADS.index(name)]


QRS, LATE, ST, T = slice(62, 100), slice(82, 94), slice(100, 106), slice(130, None)
SIGNS = {  # textbook signs: a measure of each beat, and the range of its median
    "CRBBB": [(lambda beats: in_lead(beats, "V1")[:, LATE].max(axis=1), 0.3, 2.0)],  # r'
    "CLBBB": [
        (lambda beats: in_lead(beats, "V6")[:, LATE].max(axis=1), 0.5, 3.0),
        (lambda beats: in_lead(beats, "V5")[:, T].min(axis=1), -1.0, -0.15),  # T away from QRS
    ],
    "ASMI": [(lambda beats: in_lead(beats, "V2")[:, QRS].max(axis=1), 0.0, 0.2)],  # no r
    "IMI": [(lambda beats: in_lead(beats, "aVF")[:, 60:76].min(axis=1), -1.5, -0.15)],  # Q
    "LVH": [
        (lambda beats: in_lead(beats, "V5")[:, QRS].max(axis=1) - in_lead(beats, "V1")[:, QRS].min(axis=1), 2.9, 6.0)
    ],  # Sokolow
    "LVOLT": [(lambda beats: np.ptp(in_lead(beats, "II")[:, QRS], axis=1), 0.2, 0.7)],
    "LAFB": [(lambda beats: in_lead(beats, "aVF")[:, QRS].sum(axis=1) / in_lead(beats, "I")[:, QRS].sum(axis=1), -10.0, -0.5)],
    "LPFB": [(lambda beats: in_lead(beats, "I")[:, QRS].sum(axis=1) / in_lead(beats, "aVF")[:, QRS].sum(axis=1), -1.0, 0.15)],
    "NDT": [(lambda beats: in_lead(beats, "V5")[:, T].max(axis=1), -0.5, 0.15)],
    "NST_": [(lambda beats: in_lead(beats, "V5")[:, ST].mean(axis=1), -0.3, -0.04)],
}


@pytest.mark.parametrize("finding", SIGNS)
def test_a_finding_has_its_sign_and_normal_hearts_do_not(beats_by_finding, finding):
    for measure, low, high in SIGNS[finding]:
        assert low < np.median(measure(beats_by_finding[finding])) < high
        assert not low < np.median(measure(beats_by_finding["NORM"])) < high


def test_findings_are_statements_of_superclass_and_normal_is_a_sinus_rhythm_without_any():
    task = get_task("superclass")
    for record in simulate_records(350, seed=1, rate=100, seconds=1, abnormal=2):
        rhythm, *findings = record.codes
        assert set(findings) <= {"NORM", "LVOLT", *task.codes}  # low voltage is a statement of form
        assert len(findings) == len(set(findings))
        assert findings or rhythm in (RHYTHMS["AFIB"], RHYTHMS["AFLT"], RHYTHMS["SVT"])
        assert "NORM" not in findings or findings == ["NORM"]


def test_what_is_not_normal_comes_as_often_as_asked():
    def share(abnormal):
        records = list(simulate_records(1500, seed=2, rate=100, seconds=1, rhythms=["SR"], abnormal=abnormal))
        return np.mean(["CRBBB" in record.codes or "LAFB" in record.codes for record in records])

    assert share(0) == 0
    assert 0.08 < share(1) < 0.14  # 4 % and 7 %
    assert 0.27 < share(3) < 0.35  # 12 % and 21 %


def test_qrs_is_narrow():
    """Width at a twelfth of the greatest change of the vector, median over records: near 75 ms, as PTB-XL measures so."""
    widths = []
    for signal in draw("SR", 24, rate=500):
        speed = np.linalg.norm(np.gradient(mean_beat(signal, 500, 0.1, 0.14), axis=0), axis=1)
        high = np.flatnonzero(speed > 0.08 * speed.max())
        widths.append((high[-1] - high[0]) / 500)
    assert 0.06 < np.median(widths) < 0.10


def test_f_waves_lie_between_4_and_9_hz_and_are_largest_in_v1():
    time, spread, frequencies = np.arange(0, 30, 1 / 250), [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        waves = (
            sum(wave.at(time) for wave in draw_rhythm("AFIB", rng, 30.0, 70).atria) @ draw_heart(rng, 70, False).atrial_field
        )
        spread.append(waves.std(axis=0))
        power = np.abs(np.fft.rfft(waves, axis=0)) ** 2
        frequencies.append(np.fft.rfftfreq(len(time), 1 / 250)[power.sum(axis=1).argmax()])
    assert 3.9 < min(frequencies) < max(frequencies) < 9.1
    spread = dict(zip(INDEPENDENT_LEADS, np.median(spread, axis=0), strict=True))
    assert 0.01 < spread["V1"] < 0.1
    assert spread["V1"] > 1.5 * max(size for lead, size in spread.items() if lead != "V1")


def test_flutter_waves_are_sawtooth_downwards_in_the_inferior_leads_and_upwards_in_v1():
    counterclockwise = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        (wave,) = draw_rhythm("AFLT", rng, 10.0, 70).atria
        assert 240 / 60 - 0.1 < np.diff(wave.phase).mean() * 50 < 340 / 60 + 0.1
        cycle = wave.cycle @ draw_heart(rng, 70, False).atrial_field
        foot, v1 = cycle[:, 1] - cycle[:, 0] / 2, cycle[:, 2]  # aVF
        assert np.ptp(foot) > 2 * np.ptp(cycle[:, 0])
        negative = -foot.min() > foot.max()
        assert (v1.max() > -v1.min()) == negative
        counterclockwise += negative
    assert counterclockwise >= 14


def test_qt_follows_the_rate():
    def t_peak(rhythm):
        beats = [mean_beat(signal, 250, 0.1, 0.40 if rhythm == "SB" else 0.28)[:, LEADS.index("II")] for signal in draw(rhythm)]
        return np.median([0.06 + beat[int(0.16 * 250) :].argmax() / 250 for beat in beats])

    assert t_peak("SVT") + 0.08 < t_peak("SB")


def test_records_depend_on_seed_and_index_alone():
    whole = list(simulate_records(9, seed=4, rate=100))
    for start, n in ((0, 2), (5, 4)):
        part = list(simulate_records(n, seed=4, rate=100, start=start))
        for one, other in zip(part, whole[start : start + n], strict=True):
            assert (one.id, one.codes, one.age, one.sex) == (other.id, other.codes, other.age, other.sex)
            assert np.array_equal(one.signal, other.signal)
    alone = simulate_record("SB", rng=np.random.default_rng([4, 8]), rate=100)  # 8 % 7 = 1: the second rhythm
    assert np.array_equal(alone.signal, whole[8].signal)
    assert not np.array_equal(whole[0].signal, next(simulate_records(1, seed=5, rate=100)).signal)
    assert len({record.signal.tobytes() for record in whole}) == 9


@pytest.mark.parametrize("rhythm", ["SR", "AFIB", "AFLT"])
def test_the_rate_of_sampling_changes_the_noise_alone(rhythm):
    coarse, fine = (next(simulate_records(1, seed=2, rate=rate, rhythms=[rhythm])).signal for rate in (100, 500))
    low_pass = butter(4, 20, fs=500, output="sos"), butter(4, 20, fs=100, output="sos")
    fine, coarse = (sosfiltfilt(sos, signal, axis=0) for sos, signal in zip(low_pass, (fine, coarse), strict=True))
    fine, coarse = (sosfiltfilt(butter(2, 1, "highpass", fs=100, output="sos"), one, axis=0) for one in (fine[::5], coarse))
    assert np.corrcoef(fine[:, INDEPENDENT].ravel(), coarse[:, INDEPENDENT].ravel())[0, 1] > 0.98


def test_classes_take_turns_and_are_those_of_the_task():
    task = get_task("rhythm7")
    assert tuple(RHYTHMS) == task.classes
    records = list(simulate_records(14, seed=0, rate=100))
    assert np.array_equal(task.labels([record.codes for record in records]).argmax(axis=1), [*range(7), *range(7)])
    some = simulate_records(6, seed=0, rate=100, rhythms=["AFIB", "SR", "AFIB"])
    assert [record.codes[0] for record in some] == [RHYTHMS[name] for name in ("AFIB", "SR", "AFIB")] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rhythms": ["VF"]}, "unknown rhythm 'VF'; choose from SR, SB, ST, SA, AFIB, AFLT, SVT"),
        ({"rhythms": []}, "choose from SR"),
        ({"seed": -1}, "a seed of 0 or more"),
        ({"n": -1}, "received -1"),
        ({"rate": 10}, "50 to 5000 Hz, received 10 Hz"),
        ({"seconds": 0}, "1 to 3600 s, received 0 s"),
        ({"abnormal": 6}, "a number of times, from 0 to 5, received 6"),
        ({"abnormal": -1}, "received -1"),
    ],
)
def test_what_cannot_be_simulated_is_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_records(**{"n": 1, "seed": 0} | arguments)


def test_unknown_rhythm_of_one_record_is_refused():
    with pytest.raises(ValueError, match="unknown rhythm 'sr'; choose from SR, SB"):
        simulate_record("sr", rng=np.random.default_rng(0))


def test_collection_on_disk_holds_the_simulated_records(tmp_path):
    done = []
    out = simulate_collection(tmp_path / "sim", 8, seed=3, rate=250, progress=lambda *counts: done.append(counts))
    assert done == [(8, 8)]
    for index, record in enumerate(simulate_records(8, seed=3, rate=250)):
        path = out / "000" / f"S{index:06d}"
        signal, leads, rate = read_record(path)
        assert (leads, rate) == (LEADS, 250)
        np.testing.assert_allclose(signal, record.signal, atol=1e-6)
        assert np.abs(signal[:, 1] - signal[:, 0] - signal[:, 2]).max() < 1e-6
        sex = "Female" if record.sex == "female" else "Male"
        assert read_header(path).comments == (f"Age: {record.age:.0f}", f"Sex: {sex}", f"Dx: {','.join(record.codes)}")
    assert json.loads((out / "simulation.json").read_text())["seed"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sim"]


def test_two_workers_write_the_same_bytes(tmp_path):
    one = simulate_collection(tmp_path / "one", 260, seed=1, rate=50, seconds=1, workers=1)
    two = simulate_collection(tmp_path / "two", 260, seed=1, rate=50, seconds=1, workers=2)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 521
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_a_folder_in_use_is_left_alone(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is not empty and holds no simulated collection"):
            simulate_collection(mine, 1, seed=0, overwrite=overwrite)
    assert (mine / "thesis.txt").read_text() == "years of work"
    sim = simulate_collection(tmp_path / "sim", 2, seed=0, rate=100, seconds=1)
    with pytest.raises(ValueError, match="holds a simulated collection already"):
        simulate_collection(sim, 1, seed=0)
    simulate_collection(sim, 1, seed=0, rate=100, seconds=1, overwrite=True)
    assert len(list(sim.rglob("*.hea"))) == 1


def test_an_interrupted_collection_leaves_nothing_behind(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_collection(tmp_path / "sim", 3, seed=0, rate=50, seconds=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_empty_collection_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one record to simulate, received 0"):
        simulate_collection(tmp_path / "sim", 0, seed=0)
