"""The optimizer takes the steps of Keras's own."""

import keras
import numpy as np
import pytest
from keras import layers

from ecgtf.optimizer import AdamW


def trained(optimizer, **options):
    """Weights of a small network after 32 steps, and the state of its optimizer."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((7,)), layers.Dense(5, activation="tanh"), layers.Dense(3)])
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 40, warmup_target=1e-2, warmup_steps=5)
    made = optimizer(schedule, beta_2=0.99, **options)
    made.exclude_from_weight_decay(var_names=["bias"])
    model.compile(made, "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(64, 7)), rng.normal(size=(64, 3)), batch_size=16, epochs=8, shuffle=False, verbose=0)
    return [variable.numpy() for variable in (*model.trainable_variables, *made.variables)]


@pytest.mark.parametrize("options", [{"weight_decay": 0.05, "use_ema": True, "ema_momentum": 0.9}, {"weight_decay": 0.0}])
def test_its_steps_state_and_averages_are_those_of_keras(options):
    for ours, theirs in zip(trained(AdamW, **options), trained(keras.optimizers.AdamW, **options), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_it_comes_back_from_a_file():
    made = AdamW(1e-3, weight_decay=0.1)
    assert isinstance(keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(made)), AdamW)
