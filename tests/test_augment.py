import numpy as np
import pytest
import tensorflow as tf

from ecgtf.augment import (
    WANDER_BAND,
    Augmentation,
    augmented,
    mixup,
    random_axis,
    random_gain,
    random_lead_dropout,
    random_noise,
    random_shift,
    random_wander,
)
from ecgtf.ecg import DOWER, INDEPENDENT_LEADS, LEADS, lead_matrix

SEED = tf.constant([0, 1])
RATE = 100.0
SIGNAL = tf.constant(np.random.default_rng(0).normal(size=(16, 50, 8)) @ lead_matrix(INDEPENDENT_LEADS, LEADS), tf.float32)
LABEL = tf.one_hot(np.arange(16) % 3, 3)
EVERYTHING = Augmentation(gain=0.2, shift_seconds=0.1, axis=10, wander=0.1, noise=0.02, lead_dropout=0.1, mixup=0.4)

SIGNAL_AUGMENTATIONS = {  # by name: the function of (signal, seed, strength), and a strength
    "gain": (random_gain, 0.2),
    "shift": (lambda signal, seed, seconds: random_shift(signal, seed, RATE, seconds), 0.1),
    "axis": (lambda signal, seed, degrees: random_axis(signal, seed, LEADS, degrees), 10.0),
    "wander": (lambda signal, seed, mv: random_wander(signal, seed, 100.0, LEADS, mv), 0.1),
    "noise": (lambda signal, seed, mv: random_noise(signal, seed, LEADS, mv), 0.02),
    "lead_dropout": (random_lead_dropout, 0.3),
    "mixup": (lambda signal, seed, alpha: mixup(signal, tf.zeros((tf.shape(signal)[0], 1)), seed, alpha)[0], 0.4),
}


def broken_limb_relations(signal) -> float:
    """By how much, in mV, the limb leads of `(..., 12)` are at most not what I and II make them."""
    signal = np.asarray(signal, np.float64)
    derived = signal[..., [LEADS.index(lead) for lead in INDEPENDENT_LEADS]] @ lead_matrix(INDEPENDENT_LEADS, LEADS)
    return np.abs(signal - derived).max()


@pytest.mark.parametrize("name", SIGNAL_AUGMENTATIONS)
def test_an_augmentation_is_a_function_of_the_seed_and_differs_between_records(name):
    augment, strength = SIGNAL_AUGMENTATIONS[name]
    alike = tf.repeat(SIGNAL[:1], 8, axis=0)
    if name == "mixup":  # of equal records nothing new is made
        alike = alike * tf.reshape(tf.range(1.0, 9.0), (8, 1, 1))
    one = augment(alike, SEED, strength).numpy()
    np.testing.assert_array_equal(one, augment(alike, SEED, strength))
    # fused in a graph, roundings may differ
    np.testing.assert_allclose(one, tf.function(augment)(alike, tf.cast(SEED, tf.int64), strength), atol=1e-5)
    assert not np.allclose(one, augment(alike, tf.constant([0, 2]), strength), atol=1e-3)
    assert len(np.unique(one, axis=0)) >= 4


@pytest.mark.parametrize("name", SIGNAL_AUGMENTATIONS)
def test_an_augmentation_of_strength_0_is_the_identity(name):
    augment, strength = SIGNAL_AUGMENTATIONS[name]
    np.testing.assert_array_equal(augment(SIGNAL, SEED, 0 * strength), SIGNAL)


@pytest.mark.parametrize("name", SIGNAL_AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_an_augmentation_keeps_shape_and_dtype(name, dtype):
    augment, strength = SIGNAL_AUGMENTATIONS[name]
    result = augment(tf.cast(SIGNAL, dtype), SEED, strength)
    assert (result.dtype, result.shape) == (dtype, SIGNAL.shape)
    tolerance = {tf.float16: 0.03, tf.bfloat16: 0.2, tf.float64: 1e-5}[dtype]
    np.testing.assert_allclose(tf.cast(result, tf.float32), augment(SIGNAL, SEED, strength), atol=tolerance)


@pytest.mark.parametrize("name", [name for name in SIGNAL_AUGMENTATIONS if name != "lead_dropout"])
def test_limb_leads_stay_what_einthoven_and_goldberger_make_them(name):
    augment, strength = SIGNAL_AUGMENTATIONS[name]
    assert broken_limb_relations(augment(SIGNAL, SEED, strength)) < 1e-5


def test_a_shift_moves_all_leads_alike_and_keeps_what_stays_in_sight():
    moved = random_shift(SIGNAL, tf.constant([0, 1]), RATE, 0.1).numpy()
    most, shifts = 10, []
    for record, original in zip(moved, SIGNAL.numpy(), strict=True):
        inner = record[most:-most]
        (shift,) = [k for k in range(-most, most + 1) if np.array_equal(original[most + k : len(original) - most + k], inner)]
        shifts.append(shift)
    assert len(set(shifts)) > 5


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.5])
def test_a_periodic_record_goes_on_where_it_ends(seconds):
    phase, rate = np.random.default_rng(0).uniform(0, 90, (16, 1)), 100.0
    time = np.arange(1000) + phase
    beats = np.exp(-(((time % 90 - 45) / 3) ** 2)) - 0.3 * np.exp(-(((time % 90 - 60) / 6) ** 2))
    signal = tf.constant(beats[..., None] * np.linspace(-1, 2, 12), tf.float32)
    moved = random_shift(signal, SEED, rate, seconds).numpy()
    np.testing.assert_allclose(moved[:, 90:], moved[:, :-90], atol=0.01)
    assert (np.abs(moved - signal).max(axis=(1, 2)) > 0.1).sum() > 8


def test_a_record_whose_baseline_drifts_goes_on_without_a_step():
    time = np.arange(1000) + np.arange(16)[:, None]
    signal = tf.constant((np.sin(time / 10) + time / 200)[..., None], tf.float32)
    moved = random_shift(signal, SEED, 100.0, 2.5).numpy()
    assert np.abs(np.diff(moved, axis=1)).max() < 1.5 * np.abs(np.diff(signal, axis=1)).max()


def test_a_gain_is_one_factor_a_record_with_the_spread_asked_for():
    many = tf.repeat(SIGNAL[:1], 2000, axis=0)
    factor = (random_gain(many, tf.constant([0, 1]), 0.2) / many).numpy()
    np.testing.assert_allclose(factor, factor[:, :1, :1] * np.ones_like(factor), rtol=1e-3)
    np.testing.assert_allclose(np.log(factor[:, 0, 0]).std(), 0.2, atol=0.02)


def test_gains_have_the_median_1():
    ones = tf.ones((20_000, 1, 1))
    log = np.log(random_gain(ones, SEED, 0.2).numpy())
    assert abs(log.mean()) < 4 * 0.2 / np.sqrt(20_000)
    np.testing.assert_allclose(log.std(), 0.2, rtol=4 / np.sqrt(2 * 20_000))


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


def test_wander_lies_in_its_band():
    rate, time = 5.0, 4000
    wander = random_wander(tf.zeros((8, time, 12)), SEED, rate, LEADS, 0.1).numpy().astype(np.float64)
    power = np.abs(np.fft.rfft(wander * np.hanning(time)[:, None], axis=1)) ** 2
    frequency = np.fft.rfftfreq(time, 1 / rate)
    low, high = WANDER_BAND
    outside = (frequency < low - 0.01) | (frequency > high + 0.01)
    assert (power[:, outside].sum(axis=1) < 1e-5 * power.sum(axis=1)).all()
    peaks = frequency[power[..., 0].argmax(axis=1)]
    assert len(np.unique(peaks)) == 8


@pytest.mark.parametrize("kind", ["wander", "noise"])
def test_noise_has_the_size_asked_for_in_every_lead(kind):
    records, mv = 8000, 0.05
    still = tf.zeros((records, 40, 12))
    noise = random_wander(still, SEED, 4.0, LEADS, mv) if kind == "wander" else random_noise(still, SEED, LEADS, mv)
    square = np.square(noise.numpy(), dtype=np.float64).mean(axis=1)  # of each record and lead
    expected = dict(zip(LEADS, [1, 1, 1, *[np.sqrt(3) / 2] * 3, *[np.sqrt(2 / 3)] * 6], strict=True))
    for lead, mean, spread in zip(LEADS, square.mean(axis=0), square.std(axis=0), strict=True):
        error = spread / np.sqrt(records)
        assert 4 * error < 0.1 * mean
        assert abs(mean - (expected[lead] * mv) ** 2) < 4 * error, lead
    sizes = np.sqrt(square.mean(axis=1))
    assert np.quantile(sizes, 0.1) < 0.3 * np.median(sizes)  # quiet records remain


def test_noise_is_mildly_coloured_and_that_of_the_limbs_reaches_the_chest():
    noise = random_noise(tf.zeros((500, 1000, 12)), SEED, LEADS, 0.05).numpy().astype(np.float64)
    noise /= noise.std(axis=1, keepdims=True)
    neighbours = (noise[:, 1:, 0] * noise[:, :-1, 0]).mean(axis=1)
    assert np.abs(neighbours).max() < 0.4 + 4 / np.sqrt(1000)
    assert abs(neighbours.mean()) < 4 * neighbours.std() / np.sqrt(500)
    assert neighbours.min() < -0.3
    assert neighbours.max() > 0.3
    assert abs((noise[:, 2:, 0] * noise[:, :-2, 0]).mean()) < 0.005
    # Wilson's terminal, a third of each limb, is all that V1 and V2 share; I and II share the right arm
    assert (noise[..., 6] * noise[..., 7]).mean() == pytest.approx(1 / 4, abs=0.01)
    assert (noise[..., 0] * noise[..., 1]).mean() == pytest.approx(1 / 2, abs=0.01)


def test_noise_of_some_leads_is_that_of_all():
    some = ("V2", "aVF", "I")
    places = [LEADS.index(lead) for lead in some]
    signal = tf.gather(SIGNAL, places, axis=-1)
    for augment in (
        lambda x, leads: random_wander(x, SEED, 100.0, leads, 0.1),
        lambda x, leads: random_noise(x, SEED, leads, 0.1),
    ):
        expected = augment(SIGNAL, LEADS).numpy()[..., places]
        np.testing.assert_allclose(augment(signal, some), expected, atol=1e-5)
        with pytest.raises(ValueError, match=r"the 12 leads I, II, .*shape"):
            augment(signal, LEADS)


@pytest.mark.parametrize(("probability", "leads"), [(0.1, 12), (0.5, 2), (0.9, 3), (1.0, 12), (0.7, 1)])
def test_leads_are_lost_with_the_probability_asked_for_but_never_all(probability, leads):
    records = 20_000
    left = random_lead_dropout(tf.ones((records, 3, leads)), SEED, probability).numpy()
    assert np.isin(left, (0, 1)).all()
    assert (left == left[:, :1]).all()  # for the whole time
    lost = leads - left[:, 0].sum(axis=1)
    assert lost.max() < leads
    expected = probability - probability**leads / leads  # where all would go, one is spared
    assert abs(lost.mean() / leads - expected) <= 4 * np.sqrt(probability * (1 - probability) / (records * leads))
    assert abs(left[:, 0].mean(axis=0) - (1 - expected)).max() < 0.02  # each lead alike


def test_leads_that_are_not_lost_stay_as_they_were():
    left = random_lead_dropout(SIGNAL, SEED, 0.3).numpy()
    np.testing.assert_array_equal(left[left != 0], SIGNAL.numpy()[left != 0])
    assert broken_limb_relations(left) > 1


@pytest.mark.parametrize("alpha", [0.02, 0.4, 1.0, 8.0])
def test_weights_of_mixup_are_beta_distributed(alpha):
    records = 20_000
    number = tf.range(records, dtype=tf.float32)
    signal = tf.stack([tf.ones(records), number], axis=1)[:, None]
    label = tf.stack([number, number * 0 + 1], axis=1)
    mixed, soft = mixup(tf.cast(signal, tf.float64), tf.cast(label, tf.float64), SEED, alpha)
    mixed, soft = mixed.numpy()[:, 0], soft.numpy()
    np.testing.assert_allclose(mixed[:, 0], 1, rtol=1e-12)
    np.testing.assert_allclose(mixed[:, 1], soft[:, 0], rtol=1e-12)  # signals and labels alike
    # the weights follow from records numbered in a batch rolled by some number of places
    own = number.numpy().astype(np.float64)
    for places in range(1, records):
        partner = np.roll(own, places)
        weight = (mixed[:, 1] - partner) / (own - partner)
        if (weight > -1e-9).all() and (weight < 1 + 1e-9).all():
            break
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = np.mean((weight - 0.5) ** 4)
    assert abs(weight.mean() - 0.5) < 4 * np.sqrt(variance / records)
    assert abs(weight.var() - variance) <= 4 * np.sqrt((fourth - variance**2) / records) + 1e-6
    # fourth central moment of the symmetric beta distribution
    assert fourth == pytest.approx(3 / (16 * (2 * alpha + 1) * (2 * alpha + 3)), rel=0.05)


def test_mixed_labels_stay_labels_and_no_record_is_mixed_with_itself():
    many = tf.constant(np.random.default_rng(0).integers(0, 2, (16, 5)), tf.float32)  # multi-hot
    for seed in range(20):
        mixed, soft = mixup(SIGNAL, many, tf.constant([seed, 1]), 0.4)
        assert ((soft >= 0) & (soft <= 1)).numpy().all()
        _, single = mixup(SIGNAL, LABEL, tf.constant([seed, 1]), 0.4)
        np.testing.assert_allclose(tf.reduce_sum(single, axis=1), 1.0, atol=1e-6)
        assert np.isfinite(mixed).all()
        _, which = mixup(SIGNAL, tf.eye(16), tf.constant([seed, 1]), 50.0)  # weights near a half
        assert ((which.numpy() > 0.2).sum(axis=1) == 2).all()
    alone, label = mixup(SIGNAL[:1], LABEL[:1], SEED, 0.4)
    np.testing.assert_allclose(alone, SIGNAL[:1], atol=1e-6)
    np.testing.assert_allclose(label, LABEL[:1], atol=1e-6)
    with pytest.raises(ValueError, match="floating-point numbers, received int32"):
        mixup(SIGNAL, tf.ones((16, 3), tf.int32), SEED, 0.4)


def stream(batches: int = 6) -> tf.data.Dataset:
    """The same batch over and over."""
    return tf.data.Dataset.from_tensors((SIGNAL, LABEL)).repeat(batches)


def test_a_stream_entered_late_is_augmented_as_if_it_had_been_read_from_the_start():
    whole = list(augmented(stream(4), 7, 0, EVERYTHING, rate=100.0))
    late = list(augmented(stream(2), 7, 2, EVERYTHING, rate=100.0))
    for (signal, label), (late_signal, late_label) in zip(whole[2:], late, strict=True):
        np.testing.assert_array_equal(signal, late_signal)
        np.testing.assert_array_equal(label, late_label)
    assert len({signal.numpy().tobytes() for signal, _ in whole}) == 4
    assert len({label.numpy().tobytes() for _, label in whole}) == 4
    other, _ = next(iter(augmented(stream(), 8, 0, EVERYTHING, rate=100.0)))
    assert not np.allclose(other, whole[0][0])


def test_an_augmented_stream_has_the_batches_of_the_stream():
    everything = augmented(stream(), 7, 0, EVERYTHING, rate=100.0)
    assert everything.element_spec == stream().element_spec
    for signal, label in augmented(stream(), 7, 3, Augmentation(), rate=100.0):
        np.testing.assert_array_equal(signal, SIGNAL)
        np.testing.assert_array_equal(label, LABEL)


def test_an_augmentation_added_leaves_the_draws_of_the_others_alone():
    place = tf.constant([7, 5], tf.int64)

    def seed(kind: int) -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(place, kind)

    def first(augmentation: Augmentation) -> tuple:
        return next(iter(augmented(stream(), 7, 5, augmentation, rate=100.0)))

    expected = random_axis(random_shift(random_gain(SIGNAL, seed(0), 0.2), seed(1), RATE, 0.1), seed(2), LEADS, 10.0)
    np.testing.assert_allclose(first(Augmentation(gain=0.2, shift_seconds=0.1, axis=10.0))[0], expected, atol=1e-5)
    expected, label = mixup(expected, LABEL, seed(6), 0.4)
    expected = random_wander(expected, seed(3), 100.0, LEADS, 0.1)
    expected = random_lead_dropout(random_noise(expected, seed(4), LEADS, 0.02), seed(5), 0.1)
    everything = first(EVERYTHING)
    np.testing.assert_allclose(everything[0], expected, atol=1e-5)
    np.testing.assert_allclose(everything[1], label, atol=1e-6)


def test_a_stream_that_cannot_be_augmented_is_refused_in_one_line():
    eight = INDEPENDENT_LEADS
    for augmentation, leads in (
        (Augmentation(axis=5), eight),
        (Augmentation(noise=0.1), eight),
        (Augmentation(wander=0.1), eight),
    ):
        with pytest.raises(ValueError, match="leads I, II") as refused:
            augmented(stream(), 7, 0, augmentation, rate=100.0, leads=leads)
        assert "\n" not in str(refused.value)


def test_an_augmentation_is_read_from_text_and_written_as_text():
    assert Augmentation.parse("gain=0.2,noise=0.02") == Augmentation(gain=0.2, noise=0.02)
    assert Augmentation.parse(" shift_seconds = 1 , mixup=.4 ") == Augmentation(shift_seconds=1, mixup=0.4)
    assert Augmentation.parse("none") == Augmentation.parse("") == Augmentation()
    for augmentation in (Augmentation(), EVERYTHING, Augmentation(gain=1 / 3, axis=12)):
        assert Augmentation.parse(str(augmentation)) == augmentation
    assert str(Augmentation(gain=0.2, noise=0.02)) == "gain=0.2,noise=0.02"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gian=0.2", "unknown augmentation 'gian'; expected .* gain, shift_seconds, axis, wander, noise, lead_dropout, mixup$"),
        ("0.2", "unknown augmentation '0.2'"),
        ("gain=0.2,", "unknown augmentation ''"),
        ("gain", "expected a number for gain, as in gain=0.1, received ''"),
        ("noise=20uV", "expected a number for noise.*'20uV'"),
        ("noise=20", "expected noise from 0 to 5 mV, received 20"),
        ("gain=-0.1", "expected gain from 0 to 2, received -0.1"),
        ("wander=nan", "expected wander from 0 to 5 mV, received nan"),
        ("axis=inf", "expected axis from 0 to 180 degrees, received inf"),
        ("lead_dropout=1.5", "expected lead_dropout from 0 to 1, received 1.5"),
        ("gain=0.1,gain=0.2", "gain is named more than once"),
    ],
)
def test_an_impossible_augmentation_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as refused:
        Augmentation.parse(text)
    assert "\n" not in str(refused.value)
