"""The attack's scores and rates in closed form; members found where their records were copied, and not where nothing was."""

import numpy as np
import pytest

from ecgtf.closeness.distribution import nearest
from ecgtf.closeness.membership import (
    attack_rates,
    attack_scores,
    bootstrap,
    chance_of_finding,
    membership_inference,
    nearest_distances,
    unresolved,
)
from ecgtf.closeness.privacy import exact_copies, low_distance_ratio, near_copies, share_closer_to_train
from ecgtf.generators.simulator import simulate_records

RATE = 100.0
SIZE = 200

COPIES = {
    "exact": lambda signals: signals,
    "noisy": lambda signals: signals + 0.01 * np.random.default_rng(0).normal(size=signals.shape),
    "later": lambda signals: np.pad(signals, ((0, 0), (20, 0), (0, 0)), mode="edge")[:, : signals.shape[1]],
    "louder": lambda signals: 1.3 * signals,
}


@pytest.fixture(scope="module")
def people():
    """Signals `(200, 1000, 12)` mV of different people: members, non-members, reference, control, and fresh records."""
    signals = np.stack([record.signal for record in simulate_records(5 * SIZE, seed=17, rate=RATE)]).astype(np.float32)
    return dict(zip(("members", "nonmembers", "reference", "control", "fresh"), np.split(signals, 5), strict=True))


@pytest.fixture(scope="module")
def attacked(people):
    """Of the people's signals, the calibration and the fresh records' distances: members', then non-members'."""
    return {
        name: [nearest_distances(people[side], people[name], RATE) for side in ("members", "nonmembers")]
        for name in ("reference", "fresh")
    }


def planted(people, kind, share):
    """Fresh records, of which the first were replaced by copies of so large a share of the members."""
    copies = COPIES[kind](people["members"][: round(share * SIZE)])
    return np.concatenate([copies, people["fresh"][len(copies) :]]).astype(np.float32)


def spectra(signals):
    """Log power in 2 Hz bands of 12 leads at unit power, `(n, 180)`."""
    power = np.abs(np.fft.rfft(signals / signals.std(axis=(1, 2), keepdims=True), axis=1))[:, 10:310] ** 2
    return np.log(power.reshape(len(signals), 15, 20, 12).mean(axis=2).reshape(len(signals), -1) + 1e-3)


def auc(members, nonmembers):
    return attack_rates(members, nonmembers)[0]


def true_positive_rate(members, nonmembers, false_positive_rate=0.01):
    return attack_rates(members, nonmembers, false_positive_rate)[1]


def test_auc_of_separate_equal_and_tied_scores():
    assert auc([2, 3], [0, 1]) == 1
    assert auc([0, 1], [2, 3]) == 0
    assert auc([1, 2, 3], [1, 2, 3]) == 0.5
    assert auc([5], [5, 5, 5]) == 0.5
    assert auc([1, 2], [0, 2, 3, 4]) == (1 + 1.5) / 8


def test_true_positive_rate_of_known_scores():
    nonmembers = np.arange(100)[::-1]  # one of them, 99, may be above the threshold: 98
    assert true_positive_rate([98, 98.5, 99, 200], nonmembers, 0.01) == 3 / 4
    assert true_positive_rate([98, 98.5, 99, 200], nonmembers, 0.019) == 3 / 4
    assert true_positive_rate([97, 98, 99, 0], nonmembers, 0.02) == 2 / 4
    assert true_positive_rate([70, 71, 72], nonmembers, 0.29) == 2 / 3  # 0.29 of 100 are 29 in floats, too


def test_ties_with_the_threshold_are_not_found():
    assert true_positive_rate([1, 1, 1], np.ones(100)) == 0
    assert true_positive_rate([1, 2, 3, 4], np.repeat([0, 3], [98, 2])) == 1 / 4


def test_rates_agree_with_their_definitions():
    rng = np.random.default_rng(0)
    members, nonmembers = rng.integers(3, 40, 150), rng.integers(0, 38, 230)
    pairs = np.sign(members[:, None] - nonmembers)
    assert auc(members, nonmembers) == pytest.approx((1 + pairs.mean()) / 2)
    usable = [score for score in nonmembers if (nonmembers > score).mean() <= 0.05]
    assert true_positive_rate(members, nonmembers, 0.05) == (members > min(usable)).mean()


def test_bootstrap_has_the_known_spread_of_guesses():
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(size=300), rng.normal(size=500)
    areas, rates = bootstrap(members, nonmembers, resamples=2000)
    assert areas.shape == rates.shape == (2000,)
    assert areas.mean() == pytest.approx(auc(members, nonmembers), abs=0.003)
    assert areas.std() == pytest.approx(np.sqrt(801 / (12 * 300 * 500)), rel=0.1)
    np.testing.assert_array_equal(bootstrap(members, nonmembers, resamples=50), bootstrap(members, nonmembers, resamples=50))
    assert np.all(bootstrap([2.0, 3.0], [0.0, 1.0], resamples=20)[0] == 1)


def test_chance_of_finding_is_what_guesses_find():
    rng = np.random.default_rng(0)
    found = [true_positive_rate(rng.random(50), rng.random(150)) for _ in range(2000)]
    assert chance_of_finding(150) == 2 / 151
    assert np.mean(found) == pytest.approx(2 / 151, rel=0.1)


def test_scores_are_log_ratios_of_distances():
    np.testing.assert_allclose(attack_scores([1.0, 2.0], [np.e, 2.0]), [1, 0])
    exact = attack_scores(np.array([0.0, 0.0, 0.5, 0.0]), np.array([2.0, 1.0, 1.0, 0.0]))
    assert np.isfinite(exact).all()
    assert exact[0] > exact[1] > exact[2] > exact[3] == 0


def test_distances_of_many_signals_are_those_of_each(people, monkeypatch):
    whole = nearest_distances(people["members"][:7], people["fresh"][:5], RATE)
    monkeypatch.setattr("ecgtf.closeness.membership._CANDIDATES", 3)
    np.testing.assert_allclose(nearest_distances(people["members"][:7], people["fresh"][:5], RATE), whole, atol=1e-5)


def test_scores_of_normal_features_are_density_ratios():
    """Synthetic records of half the spread: the log ratio of densities is -1.5 |x|^2 but for a constant."""
    rng = np.random.default_rng(0)
    candidates, reference = rng.uniform(-1, 1, size=(500, 2)), rng.normal(size=(20_000, 2))
    scores = attack_scores(*(nearest(candidates, side)[0][:, 0] for side in (reference / 2, reference)))
    slope, _ = np.polyfit(-1.5 * (candidates**2).sum(axis=1), 2 * scores, 1)
    assert slope == pytest.approx(1, abs=0.25)


def test_members_that_were_copied_are_all_found():
    rng = np.random.default_rng(0)
    members, nonmembers, others = rng.normal(size=(3, 100, 100, 2))
    copies = members + 0.1 * rng.normal(size=members.shape)
    found = membership_inference(members, nonmembers, copies, others, rate=RATE, resamples=100)
    assert found.auc == {"value": 1, "low": 1, "high": 1, "floor": 0.5, "gap_low": 0.5, "gap_high": 0.5}
    assert (found.tpr["value"], found.tpr["low"], found.tpr["floor"], found.note) == (1, 1, 2 / 101, "")


def test_fresh_people_betray_no_member(people):
    sets = (people[name] for name in ("members", "nonmembers", "fresh", "reference", "control"))
    found = membership_inference(*sets, rate=RATE)
    assert found.auc["low"] <= 0.5 <= found.auc["high"]
    assert found.tpr["low"] <= chance_of_finding(SIZE) <= found.tpr["high"]
    assert found.auc["floor"] == pytest.approx(0.5, abs=0.06)
    assert found.auc["gap_low"] <= 0 <= found.auc["gap_high"]
    assert found.tpr["floor"] <= 0.05


@pytest.mark.parametrize("kind", COPIES)
def test_every_measure_finds_planted_copies(people, attacked, kind):
    share = 0.2
    synthetic, copies = planted(people, kind, share), round(share * SIZE)
    train, holdout = people["members"], people["control"]

    near = near_copies(synthetic, train, holdout, RATE)
    assert near.distances[:copies].max() < near.threshold
    assert near.places[:copies].tolist() == list(range(copies))
    assert share <= near.rate <= share + 0.05
    assert np.flatnonzero(exact_copies(synthetic, train)).tolist() == (list(range(copies)) if kind == "exact" else [])

    clean, spoilt, train, holdout = map(spectra, (people["fresh"], synthetic, train, holdout))
    assert share_closer_to_train(spoilt, train, holdout) >= share_closer_to_train(clean, train, holdout) + 0.05
    assert low_distance_ratio(spoilt, train) < 0.5 < low_distance_ratio(clean, train)

    copied = [nearest_distances(people[side], synthetic, RATE) for side in ("members", "nonmembers")]
    scores = [attack_scores(made, usual) for made, usual in zip(copied, attacked["reference"], strict=True)]
    untouched = [attack_scores(made, usual) for made, usual in zip(attacked["fresh"], attacked["reference"], strict=True)]
    assert scores[0][:copies].min() > scores[1].max()
    assert true_positive_rate(*scores) >= share
    assert auc(*scores) > auc(*untouched) + 0.05
    assert (np.percentile(bootstrap(*scores), 2.5, axis=1) > [0.5, chance_of_finding(SIZE)]).all()


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_copies_of_a_few_raise_the_true_positive_rate_by_their_share(people, attacked, share):
    copies = planted(people, "noisy", share)[: round(share * SIZE)]
    found = []
    for made, usual, side in zip(attacked["fresh"], attacked["reference"], ("members", "nonmembers"), strict=True):
        found.append(attack_scores(np.minimum(made, nearest_distances(people[side], copies, RATE)), usual))
    assert found[0][: len(copies)].min() > found[1].max()
    assert share <= true_positive_rate(*found) <= share + 0.04


def test_calibration_undoes_unequal_candidates():
    """Usual members against unusual non-members: by the first distance alone a set of strangers betrays all; the control tells."""
    rng = np.random.default_rng(0)
    members, nonmembers = 0.7 * rng.normal(size=(300, 4)), 1.3 * rng.normal(size=(300, 4))
    synthetic, reference, control = rng.normal(size=(3, 1000, 4))
    usual = [nearest(side, reference)[0][:, 0] for side in (members, nonmembers)]
    for other in (synthetic, control):
        made = [nearest(side, other)[0][:, 0] for side in (members, nonmembers)]
        assert auc(*(-side for side in made)) > 0.75
        assert auc(*map(attack_scores, made, usual)) < 0.56


def test_too_few_nonmembers_give_no_true_positive_rate():
    rng = np.random.default_rng(0)
    found = membership_inference(*(rng.normal(size=(size, 50, 2)) for size in (20, 99, 30, 30)), rate=RATE)
    assert found.tpr is None
    assert found.note == "a false-positive rate of 0.01 needs at least 100 non-members, received 99"
    assert found.auc["low"] <= found.auc["value"] <= found.auc["high"]
    assert unresolved(100) == unresolved(20, 0.05) == ""
    assert "at least 20 non-members, received 19" in unresolved(19, 0.05)


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="expected scores"):
        auc([], [1.0])
    with pytest.raises(ValueError, match="1 of them NaN"):
        auc([1.0, np.nan], [1.0])
    with pytest.raises(ValueError, match="between 0 and 1, received 0"):
        unresolved(1, 0.0)
    with pytest.raises(ValueError, match="same time and leads"):
        nearest_distances(np.ones((3, 50, 2)), np.ones((3, 60, 2)), RATE)
