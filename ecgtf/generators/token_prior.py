"""Time-VQVAE, stage 2: two bidirectional transformers that draw the low tokens of a class, and the high tokens given the low
(Lee et al., AISTATS 2023; masked-token modelling after Chang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers, ops

from ecgtf.generators.base import Generator
from ecgtf.generators.parallel_decoding import decode, guide, masked_share
from ecgtf.generators.time_vqvae import BANDS, TimeVQVAE, resize_tokens
from ecgtf.generators.transformer import transformer


@keras.saving.register_keras_serializable("ecgtf")
class TokenPrior(Generator):
    """The class-conditional model of the tokens of a trained tokenizer, and with it the whole Time-VQVAE generator.

    Args:
        tokenizer: A trained `TimeVQVAE`; it is frozen.
        classes: Names of the classes, in the order of the label vector.
        task: Name of the task the labels come from.
        width: Channels of the transformers.
        depth: Blocks of the low and of the high transformer.
        heads: Attention heads.
        label_drop: Share of training records whose label is hidden (for classifier-free guidance).
        token_drop: Share of known tokens that are hidden in training without being asked for.
        mask_convention: `masked` (MaskGIT) or `known` (the Time-VQVAE reference): what the cosine is the share of.
    """

    term_names = ("loss", "low", "high")

    def __init__(
        self,
        tokenizer: TimeVQVAE,
        classes: Sequence[str],
        task: str,
        *,
        width: int = 128,
        depth: tuple[int, int] = (4, 4),
        heads: int = 4,
        label_drop: float = 0.2,
        token_drop: float = 0.1,
        mask_convention: str = "masked",
        **kwargs,
    ):
        shared = {"leads", "samples", "sampling_rate", "scale", "model_leads"}
        super().__init__(**({name: getattr(tokenizer, name) for name in shared} | kwargs))
        if mask_convention not in ("masked", "known"):
            raise ValueError(f"mask_convention must be 'masked' or 'known', received {mask_convention!r}")
        self.tokenizer = tokenizer
        self.tokenizer.trainable = False
        self.classes, self.task = tuple(classes), task
        self.width, self.depth, self.heads = width, tuple(depth), heads
        self.label_drop, self.token_drop, self.mask_convention = label_drop, token_drop, mask_convention

        # Label vector times embedding matrix serves one-hot and multi-hot labels; the null of guidance is a vector of its own.
        initializer = keras.initializers.RandomNormal(stddev=0.02, seed=self.seed)
        self.class_embedding = self.add_weight(name="class_embedding", shape=(len(classes), width), initializer=initializer)
        self.null_embedding = self.add_weight(name="null_embedding", shape=(width,), initializer=initializer)
        self.low_network, self.high_network = (
            _network(tokens, tokenizer.code_dim * (1 + band) + 1, width, blocks, heads, name=f"{BANDS[band]}_network")
            for band, (tokens, blocks) in enumerate(zip(tokenizer.tokens, self.depth, strict=True))
        )
        self.code_logits = [CodeLogits(width, codes, tokenizer.code_dim) for codes in tokenizer.codes]

    # -- networks -------------------------------------------------------------------------------------------------------------

    def condition(self, label, dropped=None):
        """Class vectors `(batch, width)` of labels `(batch, classes)`; the null vector where `dropped` `(batch,)` is true."""
        embedded = ops.matmul(ops.cast(label, "float32"), ops.convert_to_tensor(self.class_embedding))
        return embedded if dropped is None else ops.where(dropped[:, None], self.null_embedding, embedded)

    def low_logits(self, low, condition):
        """Logits of the low tokens `(batch, tokens, codes)`; a token equal to the number of codes is unknown."""
        return self._logits(self.low_network([self._known(low, band=0), condition]), band=0)

    def high_logits(self, high, low, condition):
        """Logits of the high tokens given all low tokens."""
        seen = resize_tokens(self.tokenizer.quantizers[0].lookup(low), self.tokenizer.tokens[1])
        return self._logits(self.high_network([ops.concatenate([self._known(high, band=1), seen], axis=-1), condition]), band=1)

    def _logits(self, hidden, band: int):
        return self.code_logits[band](hidden, self.tokenizer.quantizers[band].codebook)

    def _known(self, tokens, band: int):
        """Code vectors of the known tokens, zero for the unknown, and a flag that tells them apart."""
        codes = self.tokenizer.codes[band]
        known = ops.cast(ops.less(tokens, codes), "float32")[..., None]
        vectors = self.tokenizer.quantizers[band].lookup(ops.minimum(tokens, codes - 1))
        return ops.concatenate([vectors * known, known], axis=-1)

    # -- training -------------------------------------------------------------------------------------------------------------

    def loss_terms(self, signal, label, seed, training: bool) -> dict:
        """Cross-entropy (nats a token) on the masked low and high tokens."""
        low, high = self.tokenizer.encode(signal)
        batch = ops.shape(low)[0]

        def uniform(kind: int, shape):
            return tf.random.stateless_uniform(shape, tf.random.experimental.stateless_fold_in(seed, kind))

        dropped = uniform(0, (batch,)) < self.label_drop if training else None
        condition = self.condition(label, dropped)
        rows = []
        for band, tokens in enumerate((low, high)):
            codes, length = self.tokenizer.codes[band], self.tokenizer.tokens[band]
            share = masked_share(uniform(1 + 3 * band, (batch, 1)), self.mask_convention)
            rank = ops.argsort(ops.argsort(uniform(2 + 3 * band, (batch, length)), axis=-1), axis=-1)
            masked = ops.cast(rank, "float32") < ops.maximum(share * length, 1.0)
            hidden = masked
            if training:
                hidden = ops.logical_or(masked, uniform(3 + 3 * band, (batch, length)) < self.token_drop)
            rows.append((ops.where(hidden, codes, tokens), masked))
        terms = {
            "low": _masked_cross_entropy(low, self.low_logits(rows[0][0], condition), rows[0][1]),
            "high": _masked_cross_entropy(high, self.high_logits(rows[1][0], low, condition), rows[1][1]),
        }
        return {"loss": terms["low"] + terms["high"]} | terms

    # -- generation -----------------------------------------------------------------------------------------------------------

    def sample(
        self,
        label,
        seed,
        *,
        guidance: float = 1.0,
        steps: tuple[int, int] = (10, 10),
        temperature: tuple[float, float] = (4.0, 4.0),
        sharpness: float = 1.0,
    ):
        """Draws `(batch, time, leads)` millivolts for labels `(batch, classes)`; `seed` is a `(2,)` int32 tensor.

        Args:
            label: One-hot or multi-hot labels.
            seed: Seed of all draws.
            guidance: Weight w of classifier-free guidance; 1 is the plain conditional model and costs half.
            steps: Decoding steps of the low and the high tokens.
            temperature: Of the noise on the order in which the low and the high tokens are fixed: 0 goes by confidence, which favours
                common tokens; a large value goes at random.
            sharpness: Factor on the logits; above 1 draws likelier tokens.
        """
        batch = label.shape[0]
        condition = self.condition(label)
        if guidance != 1.0:
            null = ops.broadcast_to(self.null_embedding, condition.shape)
            condition = ops.concatenate([condition, null], axis=0)

        def guided(logits_of, tokens, *given):
            if guidance == 1.0:
                return sharpness * ops.cast(logits_of(tokens, *given, condition), "float32")
            twice = [ops.concatenate([value, value], axis=0) for value in (tokens, *given)]
            logits = ops.cast(logits_of(*twice, condition), "float32")
            return sharpness * guide(logits[:batch], logits[batch:], guidance)

        def uniform_of(band: int):
            def uniform(step, kind: int, shape):
                place = tf.random.experimental.stateless_fold_in(seed, (band * 1000 + step) * 2 + kind)
                return tf.random.stateless_uniform(shape, place, minval=1e-7, maxval=1.0)

            return uniform

        low = decode(
            lambda tokens: guided(self.low_logits, tokens),
            (batch, self.tokenizer.tokens[0]),
            self.tokenizer.codes[0],
            steps=steps[0],
            temperature=temperature[0],
            uniform=uniform_of(0),
        )
        high = decode(
            lambda tokens: guided(self.high_logits, tokens, low),
            (batch, self.tokenizer.tokens[1]),
            self.tokenizer.codes[1],
            steps=steps[1],
            temperature=temperature[1],
            uniform=uniform_of(1),
        )
        return self.tokenizer.decode(low, high)

    def get_config(self) -> dict:
        """The arguments of `__init__`, with the tokenizer's own configuration inside."""
        config = super().get_config()
        return {name: config[name] for name in ("seed", "clip_norm", "name")} | {
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "classes": list(self.classes),
            "task": self.task,
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "label_drop": self.label_drop,
            "token_drop": self.token_drop,
            "mask_convention": self.mask_convention,
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the prior with its tokenizer."""
        return cls(keras.saving.deserialize_keras_object(config.pop("tokenizer")), **config)


@keras.saving.register_keras_serializable("ecgtf")
class CodeLogits(layers.Layer):
    """Logits of codes by scalar products with one vector a code: a free one, plus a function of where the code lies.

    Codes that lie close together sound alike, and what is learned of one holds for its neighbours. Without the second part each
    of the codes must be learned apart, which few records do not allow.

    Args:
        width: Channels of what comes in.
        codes: Number of codes.
        dim: Dimension of a code.
    """

    def __init__(self, width: int, codes: int, dim: int, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.free = self.add_weight(name="free", shape=(width, codes), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(codes,), initializer="zeros")
        self.place = keras.Sequential([keras.Input((dim,)), layers.Dense(2 * width, activation="silu"), layers.Dense(width)])

    def call(self, hidden, codebook):
        """`(batch, tokens, width)` and the codebook `(codes, dim)` to `(batch, tokens, codes)`."""
        codebook = ops.convert_to_tensor(codebook)
        spread = ops.std(codebook, axis=0) + 1e-6
        placed = self.place((codebook - ops.mean(codebook, axis=0)) / spread)
        # the free part starts with variance 2 / (width + codes); so does, about, the placed part
        vectors = self.free + 0.1 * ops.transpose(placed)
        return ops.matmul(ops.cast(hidden, "float32"), vectors) + self.bias


def _network(tokens: int, channels: int, width: int, depth: int, heads: int, name: str) -> keras.Model:
    """Token vectors `(tokens, channels)` and a class vector `(width,)` to hidden vectors `(tokens, width)`."""
    vectors, condition = keras.Input((tokens, channels)), keras.Input((width,))
    bent = layers.Dense(width, use_bias=False)(layers.Dense(2 * width, activation="silu")(vectors))
    x = layers.Add()([layers.Dense(width)(vectors), bent])
    # The class is a token of its own, in front, and is also added everywhere: rare classes are heard better so.
    token = layers.Reshape((1, width))(condition)
    x = layers.Concatenate(axis=1)([token, layers.Add()([x, token])])
    x = transformer(x, depth, heads)
    return keras.Model([vectors, condition], layers.Cropping1D((1, 0))(x), name=name)


def _masked_cross_entropy(tokens, logits, masked):
    """Mean cross-entropy over the masked positions of the batch."""
    losses = ops.sparse_categorical_crossentropy(tokens, logits, from_logits=True)
    weight = ops.cast(masked, "float32")
    return ops.sum(losses * weight) / ops.sum(weight)
