import numpy as np
import tensorflow as tf

from ecgtf.augment import augmented, random_axis, random_gain, random_shift
from ecgtf.ecg import DOWER, INDEPENDENT_LEADS, LEADS, lead_matrix

SIGNAL = tf.constant(np.random.default_rng(0).normal(size=(16, 50, 8)) @ lead_matrix(INDEPENDENT_LEADS, LEADS), tf.float32)


def test_a_shift_moves_all_leads_alike_and_loses_nothing():
    moved = random_shift(SIGNAL, tf.constant([0, 1]), 20).numpy()
    shifts = []
    for record, original in zip(moved, SIGNAL.numpy(), strict=True):
        (shift,) = [k for k in range(-20, 21) if np.array_equal(np.roll(original, -k, axis=0), record)]
        shifts.append(shift)
    assert len(set(shifts)) > 5


def test_a_gain_is_one_factor_a_record_with_the_spread_asked_for():
    many = tf.repeat(SIGNAL[:1], 2000, axis=0)
    factor = (random_gain(many, tf.constant([0, 1]), 0.2) / many).numpy()
    np.testing.assert_allclose(factor, factor[:, :1, :1] * np.ones_like(factor), rtol=1e-3)
    np.testing.assert_allclose(np.log(factor[:, 0, 0]).std(), 0.2, atol=0.02)


def test_a_stream_entered_late_is_augmented_as_if_it_had_been_read_from_the_start():
    batches = tf.data.Dataset.from_tensors((SIGNAL, tf.zeros((16, 1)))).repeat()
    whole = [signal.numpy() for signal, _ in augmented(batches, 7, 0, shift=5).take(4)]
    late = [signal.numpy() for signal, _ in augmented(batches, 7, 2, shift=5).take(2)]
    np.testing.assert_array_equal(whole[2:], late)
    assert not np.array_equal(whole[0], whole[1])


def test_turning_the_axis_turns_a_dipole_and_nothing_else():
    dipole = np.random.default_rng(1).normal(size=(16, 50, 3))
    signal = tf.constant(dipole @ DOWER.T @ lead_matrix(INDEPENDENT_LEADS, LEADS), tf.float32)
    turned = random_axis(signal, tf.constant([0, 1]), LEADS, 15.0).numpy()
    vector = turned[..., [0, 1, 6, 7, 8, 9, 10, 11]] @ np.linalg.pinv(DOWER).T
    np.testing.assert_allclose(np.linalg.norm(vector, axis=-1), np.linalg.norm(dipole, axis=-1), rtol=1e-3)
    angle = np.degrees(np.arccos(np.clip((vector * dipole).sum(-1) / (dipole**2).sum(-1), -1, 1)))
    assert 5 < angle.mean() < 30
    # what no dipole makes is left alone
    rest = np.random.default_rng(2).normal(size=(16, 50, 8))
    rest -= rest @ np.linalg.pinv(DOWER).T @ DOWER.T
    signal = tf.constant(rest @ lead_matrix(INDEPENDENT_LEADS, LEADS), tf.float32)
    np.testing.assert_allclose(random_axis(signal, tf.constant([0, 1]), LEADS, 15.0), signal, atol=1e-4)


def test_limb_leads_stay_consistent_when_the_axis_turns():
    lead = dict(zip(LEADS, np.moveaxis(random_axis(SIGNAL, tf.constant([3, 1]), LEADS, 20.0).numpy(), -1, 0), strict=True))
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=1e-4)
    np.testing.assert_allclose(lead["aVF"], lead["II"] - lead["I"] / 2, atol=1e-4)
