"""AdamW in a few operations for each weight."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("ecgtf")
class AdamW(keras.optimizers.AdamW):
    """Keras's AdamW (Loshchilov & Hutter 2019), with the same values at each step.

    Weight decay, Adam and the average of the weights are one pass over memory each, where Keras's go over it some twenty times and
    ask the schedule for the learning rate anew for every weight.
    """

    def update_step(self, gradient, variable, learning_rate):
        """One weight's update, its decay and its average; `variable` is a replica's own."""
        place = self._get_variable_index(variable)
        rate = tf.cast(learning_rate, variable.dtype)
        step = tf.cast(self.iterations + 1, variable.dtype)
        if self._use_weight_decay(variable):
            _descend(variable, rate * self.weight_decay, variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient, variable.dtype),
        )
        if self.use_ema:
            average = self._model_variables_moving_average[place].value
            share = tf.where(step > 1, 1.0 - self.ema_momentum, 1.0)  # the first average is the weight
            _descend(average, tf.cast(share, variable.dtype), average - variable)

    def _apply_weight_decay(self, variables):
        """Done by `update_step`."""

    def _update_model_variables_moving_average(self, trainable_variables):
        """Done by `update_step`."""


def _descend(variable: tf.Variable, rate: tf.Tensor, direction: tf.Tensor) -> None:
    """Subtracts `rate` times the direction."""
    tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=direction)
