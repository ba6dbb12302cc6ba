"""Vector quantiser whose codebook follows the encoder by exponential moving averages (van den Oord et al. 2017, appendix A.1)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ecgtf.generators.decoding import gumbel

_SMOOTHING = 1e-5  # Laplace's, of the cluster sizes


@keras.saving.register_keras_serializable("ecgtf")
class VectorQuantizer(keras.layers.Layer):
    """Replaces each vector by the nearest of `codes` codebook vectors.

    In training the gradient passes straight through, the codebook moves to the running mean of the vectors assigned to it (summed
    over all replicas), and codes that are hardly used restart from vectors of the batch.

    Args:
        codes: Number of codes K.
        dim: Dimension D of a code.
        decay: Decay of the running means.
        reset_below: A code whose running count falls below this is replaced by a vector of the batch; 0 never replaces.
    """

    def __init__(self, codes: int, dim: int, decay: float = 0.8, reset_below: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.codes, self.dim, self.decay, self.reset_below = codes, dim, decay, reset_below

        def state(name: str, shape: tuple[int, ...], initializer):
            # Every replica computes the same update from summed statistics: their mean is that update.
            return self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                trainable=False,
                dtype="float32",
                autocast=False,
                aggregation="mean",
            )

        self.codebook = state("codebook", (codes, dim), keras.initializers.RandomNormal(stddev=1.0, seed=0))
        self.cluster_size = state("cluster_size", (codes,), "ones")
        self.embedding_avg = state("embedding_avg", (codes, dim), "zeros")
        self.embedding_avg.assign(self.codebook.value)
        self.built = True

    def nearest(self, vectors):
        """Indices `(...,)` int32 of the codes nearest to `(..., dim)` in Euclidean distance."""
        return ops.cast(ops.argmin(self._distance(ops.cast(vectors, "float32")), axis=-1), "int32")

    def drawn(self, vectors, temperature: float, seed):
        """Indices `(...,)` int32 of codes drawn with log-probability -|z - c|^2 / (temperature * mean of the smallest |z - c|^2)."""
        if temperature == 0:
            return self.nearest(vectors)
        vectors = ops.cast(vectors, "float32")
        distance = self._distance(vectors)
        smallest = ops.mean(ops.min(distance, axis=-1) + ops.sum(vectors**2, axis=-1))
        uniform = tf.random.stateless_uniform(tf.shape(distance), seed, minval=1e-7, maxval=1.0)
        return ops.cast(ops.argmax(gumbel(uniform) - distance / (temperature * smallest + 1e-12), axis=-1), "int32")

    def _distance(self, vectors):
        """|z - c|^2 without |z|^2, which is the same for all codes: `(..., codes)`."""
        return ops.sum(self.codebook**2, axis=1) - 2.0 * ops.matmul(vectors, ops.transpose(self.codebook))

    def lookup(self, indices):
        """Code vectors `(..., dim)` of indices `(...,)`."""
        return ops.take(self.codebook, indices, axis=0)

    def call(self, vectors, training: bool = False, seed=None):
        """Quantises `(batch, length, dim)`.

        Returns a dictionary: `quantised` (same shape, straight-through gradient), and the scalars `commitment` (mean squared distance
        to the codes, to which only the encoder has a gradient) and `perplexity`.
        """
        vectors = ops.cast(vectors, "float32")
        indices = self.nearest(vectors)
        code = ops.stop_gradient(self.lookup(indices))
        flat = ops.stop_gradient(ops.reshape(vectors, (-1, self.dim)))
        counts, sums = self._statistics(flat, ops.reshape(indices, (-1,)))
        share = counts / ops.sum(counts)
        if training:
            self._update(counts, sums, flat, seed)
        return {
            "quantised": vectors + ops.stop_gradient(code - vectors),
            "commitment": ops.mean((code - vectors) ** 2),
            "perplexity": ops.exp(-ops.sum(share * ops.log(share + 1e-10))),
        }

    def _statistics(self, flat, indices):
        """Number and sum of the vectors of each code, over all replicas: `(codes,)`, `(codes, dim)`."""
        counts = tf.math.unsorted_segment_sum(tf.ones_like(flat[:, 0]), indices, self.codes)
        sums = tf.math.unsorted_segment_sum(flat, indices, self.codes)
        return _sum_over_replicas([counts, sums])

    def _update(self, counts, sums, flat, seed):
        size = self.decay * self.cluster_size + (1 - self.decay) * counts
        average = self.decay * self.embedding_avg + (1 - self.decay) * sums
        total = ops.sum(size)
        smoothed = (size + _SMOOTHING) / (total + self.codes * _SMOOTHING) * total
        codebook = average / smoothed[:, None]
        if self.reset_below > 0:
            if seed is None:
                raise ValueError("a quantiser that resets unused codes needs a seed in training")
            dead = size < self.reset_below
            fresh = self._draw(flat, seed)
            codebook = ops.where(dead[:, None], fresh, codebook)
            average = ops.where(dead[:, None], fresh, average)
            size = ops.where(dead, 1.0, size)
        self.cluster_size.assign(size)
        self.embedding_avg.assign(average)
        self.codebook.assign(codebook)

    def _draw(self, flat, seed):
        """One random vector of the first replica's batch for each code, the same on every replica."""
        rows = tf.random.stateless_uniform((self.codes,), seed, 0, tf.shape(flat)[0], tf.int32)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        mine = tf.gather(flat, rows) * tf.cast(tf.equal(replica, 0), tf.float32)
        return _sum_over_replicas([mine])[0]

    def start_from(self, vectors: np.ndarray, seed: int = 0) -> None:
        """Starts the codebook with k-means clusters of `(n, dim)` vectors, counts and sums consistent with it."""
        from sklearn.cluster import MiniBatchKMeans

        vectors = np.asarray(vectors, "float64").reshape(-1, self.dim)
        if len(vectors) < self.codes:
            raise ValueError(f"k-means for {self.codes} codes needs as many vectors, received {len(vectors)}")
        clusters = MiniBatchKMeans(self.codes, random_state=seed, batch_size=4096, n_init=1, max_iter=30).fit(vectors)
        counts = np.bincount(clusters.labels_, minlength=self.codes).astype("float32")
        self.codebook.assign(clusters.cluster_centers_.astype("float32"))
        self.cluster_size.assign(np.maximum(counts, 1.0))
        self.embedding_avg.assign(clusters.cluster_centers_.astype("float32") * np.maximum(counts, 1.0)[:, None])

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {
            "codes": self.codes,
            "dim": self.dim,
            "decay": self.decay,
            "reset_below": self.reset_below,
        }


def _sum_over_replicas(tensors: list) -> list:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tensors
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)
