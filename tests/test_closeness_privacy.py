"""Nearest neighbours on fixed numbers; planted copies found, records of new people not."""

from pathlib import Path

import numpy as np
import pytest

from ecgtf.closeness.privacy import near_copies, neighbours, signal_distances
from ecgtf.generators.simulator import simulate_records

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "closeness.npz")
RATE = 100.0


@pytest.fixture(scope="module")
def people():
    """Training, held-out and fresh records of different people, `(records, 1000, 12)` mV."""
    signals = np.stack([record.signal for record in simulate_records(420, seed=11, rate=RATE)])
    return signals[:200], signals[200:320], signals[320:]


def test_nearest_neighbours_fixture():
    found = neighbours(FIXTURE["nn.generated"], FIXTURE["nn.train"], FIXTURE["nn.holdout"])
    np.testing.assert_allclose(found.to_train, FIXTURE["nn.distance_to_train"], rtol=1e-6)
    np.testing.assert_allclose(found.to_train_second, FIXTURE["nn.distance_to_train_second"], rtol=1e-6)
    np.testing.assert_allclose(found.to_holdout, FIXTURE["nn.distance_to_holdout"], rtol=1e-6)
    np.testing.assert_allclose(found.ratio, FIXTURE["nn.distance_ratio"], rtol=1e-6)
    expected = {
        "distance_ratio_median": np.median(found.ratio),
        "distance_ratio_mean": found.ratio.mean(),
        "distance_ratio_5th_percentile": np.percentile(found.ratio, 5),
        "share_closer_to_train": found.share_closer_to_train,
        "median_distance_to_train": np.median(found.to_train),
        "median_distance_to_holdout": np.median(found.to_holdout),
        "train_over_holdout_ratio": np.median(found.to_train) / np.median(found.to_holdout),
        "median_distance_holdout_to_train": np.median(found.holdout_to_train),
        "train_over_baseline_ratio": np.median(found.to_train) / np.median(found.holdout_to_train),
    }
    for name, value in expected.items():
        assert value == pytest.approx(float(FIXTURE[f"nn.{name}"]), rel=1e-6), name


def test_planted_copies_are_found_and_new_people_are_not(people):
    train, holdout, fresh = people
    rng = np.random.default_rng(0)
    noisy = train[20:40] + 0.01 * train[20:40].std() * rng.normal(size=train[20:40].shape)
    later, earlier = np.roll(train[40:50], 7, axis=1), np.roll(train[50:60], -19, axis=1)
    later[:, :7], earlier[:, -19:] = later[:, 7:8], earlier[:, -20:-19]  # what enters at the ends is new
    louder = 1.3 * train[60:70] + 0.1
    copies = np.concatenate([train[:20], noisy, later, earlier, louder]).astype(np.float32)

    found = near_copies(np.concatenate([copies, fresh]), train, holdout, RATE)
    places = {synthetic: (origin, shift) for synthetic, origin, _, shift in found.pairs}
    assert all(places[number][0] == number for number in range(len(copies)))  # each with its original
    assert [places[number][1] for number in range(40, 60)] == pytest.approx([0.07] * 10 + [-0.19] * 10)
    assert sum(number >= len(copies) for number in places) <= 0.05 * len(fresh)
    assert found.rate == len(found.pairs) / (len(copies) + len(fresh))
    assert [pair[2] for pair in found.pairs] == sorted(pair[2] for pair in found.pairs)
    assert found.distances[:20].max() < 1e-5


def test_new_people_alone_give_about_one_in_a_hundred(people):
    train, holdout, fresh = people
    assert near_copies(fresh, train, holdout, RATE).rate <= 0.04
    assert near_copies(holdout, train, holdout, RATE).rate <= 0.02


def test_distance_of_unrelated_and_of_scaled_signals():
    rng = np.random.default_rng(0)
    signals = rng.normal(size=(2, 500, 3))
    distances, _, _ = signal_distances(signals[:1], signals[1:], RATE)
    assert 1.2 < distances[0] < 1.45
    distances, places, shifts = signal_distances(-2 * signals, np.concatenate([signals, -signals]), RATE)
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    assert places.tolist() == [2, 3]
    assert shifts.tolist() == [0, 0]


def test_flat_and_broken_signals_are_no_copies():
    train = np.random.default_rng(0).normal(size=(5, 300, 2))
    odd = np.stack([np.zeros((300, 2)), np.full((300, 2), np.nan)])
    distances, _, _ = signal_distances(odd, train, RATE)
    np.testing.assert_allclose(distances, np.sqrt(2))


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="same time and leads"):
        signal_distances(np.zeros((2, 100, 12)), np.zeros((2, 100, 8)), RATE)
    with pytest.raises(ValueError, match="expected records to compare, received 0 and 2"):
        signal_distances(np.zeros((0, 100, 8)), np.zeros((2, 100, 8)), RATE)
