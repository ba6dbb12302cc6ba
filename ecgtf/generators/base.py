"""The generator: what every trained generator shares, and the one place where a training step is written."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ecgtf.ecg import INDEPENDENT_LEADS, lead_matrix


class Generator(keras.Model):
    """A class-conditional generator of ECGs, trained by `fit` under any `tf.distribute` strategy.

    A subclass builds its networks in `__init__` (so that every weight exists before `fit` and after loading), and gives
    `loss_terms`; the training step, scaling to and from millivolts and the step's random seeds are here.

    Args:
        leads: Names of the leads of the signals that come in and go out.
        samples: Length of a signal.
        sampling_rate: Samples per second.
        scale: Standard deviation of each lead over the training split, in millivolts.
        model_leads: `independent` models I, II, V1-V6 and derives the other four exactly; `all` models every lead.
        seed: Seed of every random draw of the training.
    """

    term_names: tuple[str, ...] = ("loss",)
    """Names of the scalars that `loss_terms` returns."""

    def __init__(
        self,
        leads: Sequence[str],
        samples: int,
        sampling_rate: float,
        scale: Sequence[float],
        model_leads: str = "independent",
        seed: int = 0,
        clip_norm: float = 1.0,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # millivolts come in as float32 under every precision
        if model_leads not in ("independent", "all"):
            raise ValueError(f"model_leads must be 'independent' or 'all', received {model_leads!r}")
        if len(scale) != len(leads):
            raise ValueError(f"expected one scale for each of the {len(leads)} leads, received {len(scale)}")
        self.leads = tuple(leads)
        self.samples = int(samples)
        self.sampling_rate = float(sampling_rate)
        self.scale = [float(value) for value in scale]
        self.model_leads = model_leads
        self.seed = int(seed)
        self.clip_norm = float(clip_norm)

        modelled = self.leads
        if model_leads == "independent":
            missing = [lead for lead in INDEPENDENT_LEADS if lead not in self.leads]
            if missing:
                raise ValueError(
                    f"model_leads='independent' needs the leads {', '.join(INDEPENDENT_LEADS)}; {', '.join(missing)} are missing: use 'all'"
                )
            modelled = INDEPENDENT_LEADS
        self.modelled_leads = modelled
        modelled_scale = np.array([self.scale[self.leads.index(lead)] for lead in modelled])
        # Millivolts to modelled leads in units of their SD, and back to every lead: one small matrix product each way.
        self._to_model = (lead_matrix(self.leads, modelled) / modelled_scale).astype("float32")
        self._to_signal = (modelled_scale[:, None] * lead_matrix(modelled, self.leads)).astype("float32")
        self.built = True  # every weight is made in __init__; Keras has nothing left to build
        self._trackers = {name: keras.metrics.Mean(name) for name in (*self.term_names, "gradient_norm")}

    @property
    def metrics(self):
        """The trackers of the loss terms (Keras resets them each epoch)."""
        return list(self._trackers.values())

    def to_model(self, signal):
        """Millivolts `(batch, time, leads)` to the modelled leads, each in units of its training SD, in float32."""
        return ops.matmul(ops.cast(signal, "float32"), self._to_model)

    def to_signal(self, values):
        """Modelled leads in units of SD `(batch, time, modelled leads)` to millivolts in every lead, in float32."""
        return ops.matmul(ops.cast(values, "float32"), self._to_signal)

    def loss_terms(self, signal, label, seed, training: bool) -> dict:
        """The scalars named in `term_names` for one batch; `loss` is the one to minimise.

        Args:
            signal: `(batch, time, leads)` millivolts.
            label: `(batch, classes)` one-hot or multi-hot.
            seed: `(2,)` int32 seed for `tf.random.stateless_*`, different for every step and replica.
            training: Whether states such as a codebook move.
        """
        raise NotImplementedError  # the one method that a subclass must give

    def step_seed(self, step):
        """The `(2,)` seed of a training step: a function of (seed, step, replica) alone, so that a resumed run draws what an
        uninterrupted one would have drawn, and replicas draw differently."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.stack([tf.constant(self.seed, tf.int32), tf.cast(step, tf.int32)])
        return tf.random.experimental.stateless_fold_in(seed, tf.cast(replica, tf.int32))

    def train_step(self, data):
        """One update: loss terms under the tape, gradients summed over replicas, clipped by global norm, applied."""
        signal, label = data
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        with tf.GradientTape() as tape:
            terms = self.loss_terms(signal, label, self.step_seed(self.optimizer.iterations), training=True)
            # Keras sums gradients over replicas: the mean over the global batch needs the division.
            loss = self.optimizer.scale_loss(terms["loss"] / replicas)
        gradients = tape.gradient(loss, self.trainable_variables)
        if replicas > 1:  # clip what will be applied, not each replica's part of it
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        loss_scale = self.optimizer.scale_loss(1.0)
        gradients, norm = tf.clip_by_global_norm(gradients, self.clip_norm * loss_scale)
        self.optimizer.apply_gradients([(g / replicas, v) for g, v in zip(gradients, self.trainable_variables, strict=True)])
        return self._track({**terms, "gradient_norm": norm / loss_scale})

    def test_step(self, data):
        """The loss terms of a held-out batch, with the same draws at every evaluation."""
        signal, label = data
        return self._track(self.loss_terms(signal, label, self.step_seed(-1), training=False))

    def _track(self, terms: dict) -> dict:
        for name, value in terms.items():
            self._trackers[name].update_state(value)
        return {name: self._trackers[name].result() for name in terms}

    def get_config(self) -> dict:
        """What `from_config` needs; subclasses add their own arguments."""
        return {
            "leads": list(self.leads),
            "samples": self.samples,
            "sampling_rate": self.sampling_rate,
            "scale": self.scale,
            "model_leads": self.model_leads,
            "seed": self.seed,
            "clip_norm": self.clip_norm,
            "name": self.name,
        }
