"""The generator: what every trained generator shares, and the one place where a training step is written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    """Names of what `loss_terms` returns."""

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
                    f"expected the independent leads {', '.join(INDEPENDENT_LEADS)} to model, but {', '.join(missing)} are missing: "
                    "model every lead with --leads all"
                )
            modelled = INDEPENDENT_LEADS
        self.modelled_leads = modelled
        modelled_scale = np.array([self.scale[self.leads.index(lead)] for lead in modelled])
        # Millivolts to modelled leads in units of their SD, and back to every lead: one small matrix product each way.
        self._to_model = (lead_matrix(self.leads, modelled) / modelled_scale).astype("float32")
        self._to_signal = (modelled_scale[:, None] * lead_matrix(modelled, self.leads)).astype("float32")
        self.accumulate = 1
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
        """The terms named in `term_names` for one batch: means over its records, or pairs of a sum and the number of records in it.

        `loss`, a mean, is the one to minimise.

        Args:
            signal: `(batch, time, leads)` millivolts.
            label: `(batch, classes)` one-hot or multi-hot.
            seed: `(2,)` int32 seed for `tf.random.stateless_*`, different for every step and replica.
            training: Whether states such as a codebook move.
        """
        raise NotImplementedError  # the one method that a subclass must give

    def check_sampling(self, options: Mapping[str, Any]) -> None:
        """Refuses options that `sample` does not take and values that it cannot use, before anything is compiled.

        Raises:
            ValueError: if there is one.
        """
        known = [name for name, value in inspect.signature(self.sample).parameters.items() if value.kind is value.KEYWORD_ONLY]
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"this generator has no sampling option {name}={value!r}; it has {', '.join(known)}")
        guidance = options.get("guidance", 1.0)
        if not 0 <= guidance < np.inf:
            raise ValueError(f"expected a guidance weight of 0 or more, received {guidance}")

    def step_seed(self, step):
        """The `(2,)` seed of a training step: a function of (seed, step, replica) alone, so that a resumed run draws what an
        uninterrupted one would have drawn, and replicas draw differently."""
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        seed = tf.stack([tf.constant(self.seed, tf.int32), tf.cast(step, tf.int32)])
        return tf.random.experimental.stateless_fold_in(seed, tf.cast(replica, tf.int32))

    def compile(self, *args, accumulate: int = 1, **kwargs):
        """Keras's `compile`, and how a batch is gone through.

        Args:
            accumulate: Parts of a batch whose gradients are computed one after the other and applied together, so that a batch
                needs the memory of one part only. The update is that of the whole batch where the loss is a mean over its records
                (but each part draws noise of its own, and states that move with the batches, such as a codebook, move with each
                part). That of a `TokenPrior` is a mean over the tokens asked for: each part counts alike, however many it asks for.

        Raises:
            ValueError: if `accumulate` is below 1, or above 1 with several replicas.
        """
        replicas = self.distribute_strategy.num_replicas_in_sync
        if accumulate < 1 or (accumulate > 1 and replicas > 1):
            raise ValueError(
                f"expected accumulate of at least 1, and of 1 on several replicas, received {accumulate} on {replicas}: "
                "use one device, or a smaller batch"
            )
        super().compile(*args, **kwargs)
        self.accumulate = int(accumulate)

    def train_step(self, data):
        """One update: loss terms under the tape, gradients summed over replicas, clipped by global norm, applied."""
        signal, label = data
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        seed = self.step_seed(self.optimizer.iterations)
        if self.accumulate > 1:
            terms, gradients = self._gradients_by_parts(signal, label, seed)
        else:
            # Keras sums gradients over replicas, of which one may have a record more than another.
            records = tf.cast(tf.shape(signal)[0], tf.float32)
            share = records / context.all_reduce(tf.distribute.ReduceOp.SUM, records) if replicas > 1 else 1.0
            terms, gradients = self._gradients(signal, label, seed, share)
        if replicas > 1:  # clip what will be applied, not each replica's part of it
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        loss_scale = self.optimizer.scale_loss(1.0)
        gradients, norm = tf.clip_by_global_norm(gradients, self.clip_norm * loss_scale)
        self.optimizer.apply_gradients([(g / replicas, v) for g, v in zip(gradients, self.trainable_variables, strict=True)])
        scaled = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        applied = tf.math.is_finite(norm) if scaled else True  # the optimizer skips a step that overflowed in float16
        return self._track(terms, tf.shape(signal)[0]) | self._track({"gradient_norm": norm / loss_scale}, applied)

    def _gradients(self, signal, label, seed, share) -> tuple[dict, list]:
        """Loss terms and gradients, these for this share of the batch and scaled for float16."""
        with tf.GradientTape() as tape:
            terms = self.loss_terms(signal, label, seed, training=True)
            loss = self.optimizer.scale_loss(terms["loss"] * share)
        # The gradient of an embedding comes in slices, which cannot be divided or summed.
        return terms, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, self.trainable_variables)]

    def _gradients_by_parts(self, signal, label, seed) -> tuple[dict, list]:
        """The same as means over the parts of a batch, one after the other."""
        parts = self.accumulate
        if signal.shape[0] is not None and signal.shape[0] % parts:
            raise ValueError(f"expected a batch size that is a multiple of accumulate={parts}, received {signal.shape[0]}")
        signals, labels = (tf.reshape(value, (parts, -1, *value.shape[1:])) for value in (signal, label))

        def add(part, sums):
            its = self._gradients(signals[part], labels[part], tf.random.experimental.stateless_fold_in(seed, part), 1)
            return part + 1, tf.nest.map_structure(lambda total, value: total + tf.cast(value, total.dtype) / parts, sums, its)

        first = self._gradients(signals[0], labels[0], tf.random.experimental.stateless_fold_in(seed, 0), 1)
        sums = tf.nest.map_structure(lambda value: tf.cast(value, tf.float32) / parts, first)
        # A loop of the graph, one part at a time: parts side by side would take the memory of the whole batch.
        return tf.while_loop(lambda part, _: part < parts, add, (tf.constant(1), sums), parallel_iterations=1)[1]

    def test_step(self, data):
        """The loss terms of a held-out batch, with the same draws at every evaluation."""
        records = tf.shape(data[0])[0]
        # A replica's part of the last batch may be empty, which not every layer bears: one record of zeros, which counts for nothing.
        missing = tf.maximum(0, 1 - records)
        signal, label = (tf.pad(value, [[0, missing]] + [[0, 0]] * (value.shape.rank - 1)) for value in data)
        return self._track(self.loss_terms(signal, label, self.step_seed(-1), training=False), records)

    def _track(self, values: dict, weight) -> dict:
        """Takes means of this weight, or leaves them out where it is 0, and pairs of a sum and its own weight; returns the means so
        far."""
        weight = tf.cast(weight, tf.float32)
        for name, value in values.items():
            mean, count = (tf.math.divide_no_nan(*value), value[1]) if isinstance(value, tuple) else (value, weight)
            count = tf.where(weight > 0, tf.cast(count, tf.float32), 0.0)
            self._trackers[name].update_state(tf.where(count > 0, tf.cast(mean, tf.float32), 0.0), sample_weight=count)
        means = {name: self._trackers[name].result() for name in values}
        # Keras reduces the logs of several workers over their first axis (keras issue 20585).
        return {name: mean[None] for name, mean in means.items()} if _several_workers() else means

    def get_metrics_result(self):
        """The means over all replicas; without those that saw nothing, such as the gradients of a validation."""
        # Keras takes these for the logs of an epoch where they have the same names as those of its steps.
        return {name: tracker.result() for name, tracker in self._trackers.items() if tracker.count.numpy() > 0}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras's own draws a batch to build what is not built yet, which fails under several workers; here only the optimizer is.
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

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


def draws(seed) -> Callable:
    """A function `(kind, shape)` that gives uniform draws in [0, 1) of this shape, others for each kind."""

    def uniform(kind: int, shape):
        return tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(seed, kind))

    return uniform


def _several_workers() -> bool:
    strategy = tf.distribute.get_strategy()
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and bool(strategy.cluster_resolver.cluster_spec())
