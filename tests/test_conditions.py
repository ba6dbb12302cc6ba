"""Age, sex and heart rate as columns behind the label."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ecgtf.conditions import KNOTS, columns, draw_rates, encode, of_split, rates_by_class
from ecgtf.dataset import load, load_arrays
from ecgtf.ecg import INDEPENDENT_LEADS
from ecgtf.generators.condition import Condition
from ecgtf.generators.flow import FlowMatching


def test_a_number_is_shared_between_the_two_nearest_knots():
    encoded = encode(("age",), {"age": [0, 30, 40, 55, 130, None, np.nan]}, 7)
    expected = np.zeros((7, 6))
    expected[0, 0] = expected[2, 2] = expected[4, 5] = 1.0
    expected[1, 1:3] = 0.5
    expected[3, 2:4] = 0.25, 0.75
    np.testing.assert_allclose(encoded, expected, atol=1e-6)
    rates = np.array([42.0, 77.0, 199.0])
    np.testing.assert_allclose(encode(("heart_rate",), {"heart_rate": rates}, 3) @ KNOTS["heart_rate"], rates, rtol=1e-6)


def test_conditions_stand_in_the_order_of_their_names_and_unknown_ones_are_zeros():
    names = ("sex", "heart_rate", "age")
    encoded = encode(names, {"age": [20.0, None], "sex": ["female", None]}, 2)
    assert encoded.shape == (2, sum(map(columns, names)))
    np.testing.assert_array_equal(encoded[0], [0, 1, *np.zeros(9), 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(encoded[1], 0)
    assert encode((), {}, 3).shape == (3, 0)


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (("age",), {"sex": ["male"]}, "expected conditions among age, received sex"),
        (("sex",), {"sex": ["M"]}, "expected a sex of male or female, received 'M'"),
        (("age",), {"age": [-3]}, "expected age in years, 0 or more, received -3"),
        (("age",), {"age": [50, np.inf]}, "expected age in years, 0 or more, received inf"),
        (("age",), {"age": [np.nan, -5, -7]}, "expected age in years, 0 or more, received -5"),
        (("weight",), {}, "unknown condition 'weight'; expected one of age, sex, heart_rate"),
    ],
)
def test_what_is_no_condition_is_refused(names, values, message):
    with pytest.raises(ValueError, match=message):
        encode(names, values, 1)


def test_heart_rates_are_drawn_as_the_records_of_a_class_have_them():
    rng = np.random.default_rng(0)
    labels = np.eye(3)[np.arange(600) % 2]  # none of the third class
    rates = np.where(labels[:, 0] > 0, rng.uniform(40, 60, 600), rng.normal(110, 5, 600))
    rates[::7] = np.nan
    table = rates_by_class(rates, labels, ("slow", "fast", "none"))
    assert table.keys() == {"", "slow", "fast"}
    drawn = draw_rates(table, np.eye(3)[[0, 1]].repeat(500, axis=0), ("slow", "fast", "none"), rng.uniform(size=1000))
    for k, part in enumerate((drawn[:500], drawn[500:])):
        real = rates[(labels[:, k] > 0) & np.isfinite(rates)]
        np.testing.assert_allclose(np.quantile(part, [0.1, 0.5, 0.9]), np.quantile(real, [0.1, 0.5, 0.9]), atol=2.0)
    of_all = draw_rates(table, np.array([[0, 0, 1], [0, 0, 0]]), ("slow", "fast", "none"), np.array([0.0, 1.0]))
    np.testing.assert_allclose(of_all, [np.nanmin(rates), np.nanmax(rates)], atol=0.1)
    assert np.isnan(draw_rates({}, np.eye(3), ("slow", "fast", "none"), np.zeros(3))).all()


def test_columns_follow_their_records_through_the_stream(small_dataset):
    records = load_arrays(small_dataset, "train", "rhythm7")
    values = of_split(("age", "sex", "heart_rate"), small_dataset, "train", "rhythm7")
    assert values["age"] == records.ages
    assert 30 < np.nanmedian(values["heart_rate"]) < 150
    mean = records.signals.mean(axis=(1, 2), dtype=np.float64)  # tells each record from the others
    batches = load(
        small_dataset, "train", "rhythm7", batch_size=7, shuffle=True, balance=0.5, more=mean[:, None].astype("float32")
    )
    for signals, labels in batches:
        assert labels.shape[1] == 8
        np.testing.assert_allclose(labels[:, 7], signals.numpy().mean(axis=(1, 2), dtype=np.float64), atol=1e-6)
    with pytest.raises(ValueError, match="one a record, received 3"):
        load(small_dataset, "train", "rhythm7", batch_size=7, more=np.zeros((3, 1)))


def test_conditions_are_forgotten_each_by_itself_or_all_and_classes_never():
    layer = Condition(2, 4, (3, 2))
    label = np.ones((4, 7), "float32")
    uniform = np.array([[0.1, 0.9, 0.9], [0.9, 0.1, 0.9], [0.9, 0.9, 0.9], [0.9, 0.9, 0.1]], "float32")
    forgotten = layer.without_some(label, uniform, 0.2)
    np.testing.assert_array_equal(forgotten, [[1, 1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 0, 0], [1] * 7, [1, 1, 0, 0, 0, 0, 0]])


def test_a_generator_draws_at_the_heart_rate_that_it_is_told():
    """Sines of 60 to 180 cycles a minute: what is drawn has the rate asked for."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(60, 180, 512)
    turns = rates[:, None] / 60 * np.arange(200) / 50 + rng.uniform(size=(512, 1))
    signal = np.repeat(np.sin(2 * np.pi * turns)[..., None], 8, axis=-1).astype("float32")
    label = np.concatenate([np.ones((512, 1)), encode(("heart_rate",), {"heart_rate": rates}, 512)], axis=1).astype("float32")
    model = FlowMatching(
        INDEPENDENT_LEADS,
        200,
        50.0,
        [1.0] * 8,
        classes=("sine",),
        task="rhythm4",
        network_options={"width": 16, "multipliers": (1, 2)},
        patch=4,
        conditions=("heart_rate",),
    )
    model.compile(keras.optimizers.Adam(3e-3))
    data = tf.data.Dataset.from_tensor_slices((signal, label)).batch(32).repeat()
    model.fit(data, steps_per_epoch=400, verbose=0, shuffle=False)
    asked = np.repeat([75.0, 105.0, 150.0], 8)
    told = np.concatenate([np.ones((24, 1)), encode(("heart_rate",), {"heart_rate": asked}, 24)], axis=1)
    drawn = model.sample(tf.constant(told, tf.float32), tf.constant([0, 0]), steps=20).numpy().mean(axis=2)
    strongest = np.abs(np.fft.rfft(drawn, axis=1)).argmax(axis=1) * 60 / 4
    assert np.median(np.abs(strongest - asked)) <= 15
