"""Nearest neighbours on fixed numbers; planted copies found, records of new people not."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from ecgtf.closeness.privacy import (
    exact_copies,
    low_distance_ratio,
    near_copies,
    nearest,
    share_closer_to_train,
    signal_distances,
)
from ecgtf.generators.simulator import simulate_records

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "closeness.npz")
RATE = 100.0


@pytest.fixture(scope="module")
def people():
    """Training, held-out and fresh records of different people, `(records, 1000, 12)` mV."""
    signals = np.stack([record.signal for record in simulate_records(420, seed=11, rate=RATE)])
    return signals[:200], signals[200:320], signals[320:]


def moved(signals, samples):
    """Later by so many samples (earlier if negative); the value at the end is held where the record has none."""
    time = np.clip(np.arange(signals.shape[1]) - samples, 0, signals.shape[1] - 1)
    return signals[:, time]


def test_nearest_neighbours_fixture():
    generated, train, holdout = (FIXTURE[f"nn.{name}"] for name in ("generated", "train", "holdout"))
    to_train, second = nearest(generated, train, 2)[0].T
    np.testing.assert_allclose(to_train, FIXTURE["nn.distance_to_train"], rtol=1e-6)
    np.testing.assert_allclose(second, FIXTURE["nn.distance_to_train_second"], rtol=1e-6)
    np.testing.assert_allclose(nearest(generated, holdout)[0][:, 0], FIXTURE["nn.distance_to_holdout"], rtol=1e-6)
    usual = np.median(nearest(holdout, train)[0])
    assert usual == pytest.approx(float(FIXTURE["nn.median_distance_holdout_to_train"]), rel=1e-6)
    found = {
        "distance_ratio_5th_percentile": low_distance_ratio(generated, train),
        "share_closer_to_train": share_closer_to_train(generated, train, holdout),
    }
    for name, value in found.items():
        assert value == pytest.approx(float(FIXTURE[f"nn.{name}"]), rel=1e-6), name


def test_distance_ratio_of_copies_and_of_repeated_training_records():
    real = np.random.default_rng(0).normal(size=(100, 4))
    assert low_distance_ratio(real[:50], real[:50]) == 0
    assert low_distance_ratio(real[:50], np.repeat(real[:50], 2, axis=0)) == 1


def test_exact_copies_agree_in_all_samples_to_half_the_resolution(people):
    train, _, fresh = people
    half_up = np.round(train[10:20] + 0.0004, 6)
    one_sample = train[20:30].copy()
    one_sample[:, 500, 3] += 0.0007
    synthetic = np.concatenate([fresh[:5], train[:10], half_up, one_sample, train[30:40] + 0.001, 1.001 * train[40:50]])
    assert np.flatnonzero(exact_copies(synthetic, train)).tolist() == list(range(5, 25))
    assert np.flatnonzero(exact_copies(synthetic.astype(np.float32), train))[-1] == 24


def test_exact_copies_of_odd_records(people):
    train = people[0][:6].copy()
    train[3] = train[2]
    train[4] = np.nan
    train[5] = 0
    silent = np.stack([np.zeros_like(train[0]), np.full_like(train[0], np.nan), train[2]])
    assert exact_copies(silent, train).tolist() == [True, False, True]  # what is NaN equals nothing


def test_planted_copies_are_found_and_new_people_are_not(people):
    train, holdout, fresh = people
    rng = np.random.default_rng(0)
    noisy = train[20:40] + 0.01 * train[20:40].std() * rng.normal(size=train[20:40].shape)
    later, earlier = moved(train[40:50], 7), moved(train[50:60], -19)
    louder = 1.3 * train[60:70] + 0.1
    copies = np.concatenate([train[:20], noisy, later, earlier, louder]).astype(np.float32)

    found = near_copies(np.concatenate([copies, fresh]), train, holdout, RATE)
    near = found.distances < found.threshold
    assert near[: len(copies)].all()
    assert found.places[: len(copies)].tolist() == list(range(len(copies)))  # each with its original
    assert near[len(copies) :].mean() <= 0.05
    assert found.rate == near.mean()
    assert found.distances[:20].max() < 1e-3


@pytest.mark.parametrize("samples", [50, -50, 95])
def test_quieter_noisy_copies_are_found_wherever_they_were_moved(people, samples):
    train, holdout, fresh = people
    copies = 0.8 * moved(train, samples) + 0.01 * np.random.default_rng(0).normal(size=train.shape)
    found = near_copies(np.concatenate([copies, fresh]), train, holdout, RATE)
    near = found.distances < found.threshold
    assert near[: len(train)].all()
    assert found.places[: len(train)].tolist() == list(range(len(train)))
    assert near[len(train) :].mean() <= 0.05


def test_baseline_wander_mains_hum_and_gains_of_leads_hide_no_copy(people):
    train, holdout, _ = people
    time = np.arange(train.shape[1])[:, None] / RATE
    wandering = train[:50] + 0.5 * np.sin(2 * np.pi * 0.2 * time + np.arange(12))
    humming = train[50:100] + 0.2 * np.sin(2 * np.pi * 49 * time)
    uneven = train[100:150] * np.geomspace(0.3, 3, 12)
    copies = np.concatenate([wandering, humming, uneven])
    assert near_copies(copies, train, holdout, RATE).rate == 1
    distances, places = signal_distances(copies, train, RATE)
    assert places.tolist() == list(range(150))
    assert distances[:100].max() < 0.3
    assert distances[100:].max() < 1e-3


def test_common_wander_makes_no_copies(people):
    train, _, fresh = people
    wander = 2 * np.sin(2 * np.pi * 0.1 * np.arange(1000) / RATE)[:, None]
    plain, drifting = (signal_distances(fresh + extra, train + extra, RATE)[0] for extra in (0, wander))
    np.testing.assert_allclose(drifting, plain, atol=0.05)


def test_search_is_exhaustive():
    """The nearest of some hundreds of records, at the best shift, as the definition gives it pair by pair."""
    rng = np.random.default_rng(0)
    signals = np.cumsum(rng.normal(size=(180, 80, 2)), axis=1)
    queries, points = signals[:30], signals[30:]
    distances, places = signal_distances(queries, points, 20.0)
    band = butter(3, (0.5, 8.0), "bandpass", fs=20.0, output="sos")
    queries, points = (sosfiltfilt(band, side, axis=1, padlen=20) for side in (queries, points))
    queries, points = (side / np.sqrt((side**2).mean(axis=1, keepdims=True)) for side in (queries, points))
    best = np.full((len(queries), len(points), 41), -1.0)
    for column, shift in enumerate(range(-20, 21)):
        mine = queries[:, max(shift, 0) : 80 + min(shift, 0)].reshape(len(queries), -1)
        theirs = points[:, max(-shift, 0) : 80 - max(shift, 0)].reshape(len(points), -1)
        best[:, :, column] = mine @ theirs.T / np.linalg.norm(mine, axis=1)[:, None] / np.linalg.norm(theirs, axis=1)
    np.testing.assert_allclose(distances, np.sqrt(2 - 2 * best.max(axis=(1, 2))), atol=1e-5)
    assert places.tolist() == best.max(axis=2).argmax(axis=1).tolist()


def test_copies_are_found_at_500_samples_a_second():
    signals = np.stack([record.signal for record in simulate_records(60, seed=3, rate=500.0)])
    train, holdout = signals[:30], signals[30:]
    found = near_copies(moved(train, 253), train, holdout, 500.0)  # between two of the search's steps of 10 ms
    assert found.rate == 1
    assert found.places.tolist() == list(range(30))


def test_new_people_alone_give_the_floor(people):
    train, holdout, fresh = people
    found = near_copies(fresh, train, holdout, RATE)
    assert found.rate <= 0.04
    assert found.floor <= 0.1  # 60 records, by a threshold from as many others


def test_floor_is_measured_on_held_out_records_that_set_no_threshold(people):
    """Every other held-out record sets the threshold; copies among those between raise the floor and nothing else."""
    train, holdout, fresh = people
    mixed = holdout.copy()
    mixed[1:31:2] = train[:15]  # of 120
    found, plain = near_copies(fresh, train, mixed, RATE), near_copies(fresh, train, holdout, RATE)
    assert found.floor >= 15 / 60
    assert (found.threshold, found.rate) == (plain.threshold, plain.rate)
    assert near_copies(mixed[1::2], train, mixed, RATE).rate == found.floor


def test_distance_of_unrelated_and_of_scaled_signals():
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(2, 500, 3))
    distances, _ = signal_distances(signals[:1], signals[1:], RATE)
    assert 1.2 < distances[0] < 1.45
    distances, places = signal_distances(-2 * signals, np.concatenate([signals, -signals]), RATE)
    np.testing.assert_allclose(distances, 0, atol=1e-3)
    assert places.tolist() == [2, 3]


def test_flat_and_broken_signals_are_no_copies():
    train = np.random.default_rng(0).normal(size=(5, 300, 2))
    odd = np.stack([np.zeros((300, 2)), np.full((300, 2), np.nan)])
    distances, _ = signal_distances(odd, train, RATE)
    np.testing.assert_allclose(distances, np.sqrt(2))


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="same time and leads"):
        signal_distances(np.zeros((2, 100, 12)), np.zeros((2, 100, 8)), RATE)
    with pytest.raises(ValueError, match="expected records to compare, received 0 and 2"):
        signal_distances(np.zeros((0, 100, 8)), np.zeros((2, 100, 8)), RATE)
    with pytest.raises(ValueError, match="at least 2 held-out records"):
        near_copies(np.ones((2, 100, 8)), np.ones((2, 100, 8)), np.ones((1, 100, 8)), RATE)
    with pytest.raises(ValueError, match="same time and leads"):
        exact_copies(np.zeros((2, 100, 12)), np.zeros((2, 100, 8)))
