"""Distances between sets of features: published formulas on fixed numbers, and what must hold for any numbers."""

from pathlib import Path

import numpy as np
import pytest

from ecgtf.closeness import distribution
from ecgtf.closeness.distribution import (
    frechet_distance,
    kid,
    median_bandwidth,
    mmd,
    nearest,
    precision_recall_density_coverage,
    sliced_wasserstein,
)

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "closeness.npz")
REAL, GENERATED = FIXTURE["features_real"], FIXTURE["features_generated"]


def close(value):
    return pytest.approx(value, rel=1e-6)


def test_frechet_fixture():
    frechet = frechet_distance(REAL, GENERATED)
    assert frechet.distance == close(float(FIXTURE["frechet.distance"]))
    assert frechet.mean_term == close(float(FIXTURE["frechet.mean_term"]))
    assert frechet.covariance_term == close(float(FIXTURE["frechet.covariance_term"]))


def test_mmd_fixture():
    assert median_bandwidth(REAL, GENERATED) == close(float(FIXTURE["mmd.bandwidth"]))
    assert mmd(REAL, GENERATED) == close(float(FIXTURE["mmd.squared_unbiased"]))


def test_kid_fixture():
    assert kid(REAL, GENERATED) == close(float(FIXTURE["kid"]))


def test_precision_recall_density_coverage_fixture():
    found = precision_recall_density_coverage(REAL, GENERATED, k=int(FIXTURE["prdc.k"]))
    for name in found._fields:
        assert getattr(found, name) == close(float(FIXTURE[f"prdc.{name}"])), name


def test_blocks_change_nothing(monkeypatch):
    whole = precision_recall_density_coverage(REAL, GENERATED), nearest(REAL, GENERATED, 3)
    monkeypatch.setattr("ecgtf.closeness.distribution._BLOCK_CELLS", 1000)  # five or six rows at a time
    parts = precision_recall_density_coverage(REAL, GENERATED), nearest(REAL, GENERATED, 3)
    assert parts[0] == whole[0]
    np.testing.assert_array_equal(parts[1][0], whole[1][0])
    np.testing.assert_array_equal(parts[1][1], whole[1][1])


def test_frechet_distance_of_shifted_and_scaled_sets():
    shift = np.arange(16.0)
    moved = frechet_distance(REAL, REAL + shift)
    assert moved.distance == pytest.approx(float(shift @ shift), rel=1e-9)
    assert moved.covariance_term == pytest.approx(0.0, abs=1e-8)
    centred = REAL - REAL.mean(axis=0, dtype=np.float64)
    doubled = frechet_distance(centred, 2 * centred)  # tr(S + 4 S - 4 S)
    assert doubled.covariance_term == pytest.approx(np.trace(np.cov(centred, rowvar=False)), rel=1e-9)


def test_mmd_sees_a_shift_and_is_around_zero_without_one():
    rng = np.random.default_rng(0)
    same = [mmd(rng.normal(size=(100, 4)), rng.normal(size=(100, 4))) for _ in range(80)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(80)
    assert min(same) < 0  # unbiased, not clipped
    assert mmd(rng.normal(size=(100, 4)), rng.normal(size=(100, 4)) + 0.7) > 4 * np.std(same)


def test_coverage_and_precision_are_strict():
    """Copies lie inside their originals' balls; points exactly on the border do not."""
    line = np.arange(10.0)[:, None]
    assert precision_recall_density_coverage(line, line, k=1).precision == 1.0
    assert (
        precision_recall_density_coverage(line, line[-2:] + 1.0, k=1).precision == 0.5
    )  # 9 is a point, 10 on the border of 9's


def test_among_many_copies_none_is_its_own_neighbour():
    points = np.repeat(np.random.default_rng(0).normal(1e3, 1.0, size=(3, 40)), 12, axis=0)
    distances, places = nearest(points, points, 2, same=True)
    assert (distances == 0).all()
    assert (places != np.arange(36)[:, None]).all()
    assert (places[:, 0] != places[:, 1]).all()


def test_nearest_leaves_out_the_record_itself():
    points = np.array([[0.0], [1.0], [3.0]])
    distances, places = nearest(points, points, 2, same=True)
    np.testing.assert_array_equal(distances, [[1, 3], [1, 2], [2, 3]])
    np.testing.assert_array_equal(places, [[1, 2], [0, 2], [1, 0]])


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (np.zeros((5, 3)), np.zeros((5, 4)), "same d"),
        (np.zeros((1, 3)), np.zeros((5, 3)), "at least 2 records"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "finite"),
    ],
)
def test_unusable_features_are_refused(real, generated, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, generated)
    with pytest.raises(ValueError, match=message):
        mmd(real, generated)


def test_sliced_wasserstein_of_shifted_sets_is_the_shift_along_the_directions():
    """Directions are uniform: the mean squared cosine with any shift is 1 / d."""
    features = np.random.default_rng(0).normal(size=(500, 4))
    shifted = features + np.array([3.0, 0.0, 0.0, 0.0])
    assert sliced_wasserstein(features, shifted, projections=20_000) == pytest.approx(3.0 / 2.0, rel=0.02)
    assert sliced_wasserstein(features, features) == 0.0


def test_sliced_wasserstein_takes_sets_of_different_sizes():
    rng = np.random.default_rng(0)
    same = sliced_wasserstein(rng.normal(size=(3000, 3)), rng.normal(size=(1000, 3)))
    wider = sliced_wasserstein(rng.normal(size=(3000, 3)), 2 * rng.normal(size=(1000, 3)))
    assert same < 0.1
    assert wider == pytest.approx(1.0, rel=0.1)


def test_large_sets_are_compared_in_blocks(monkeypatch):
    """Whatever fits in memory at a time, the numbers are the same."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(200, 5)), rng.normal(size=(150, 5))
    functions = (mmd, kid, precision_recall_density_coverage)
    whole = [function(real, generated) for function in functions]
    monkeypatch.setattr(distribution, "_BLOCK_CELLS", 1000)
    for function, expected in zip(functions, whole, strict=True):
        assert function(real, generated) == pytest.approx(expected, rel=1e-9)
