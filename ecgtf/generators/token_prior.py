"""Time-VQVAE, stage 2: two transformers that draw the low tokens of a class, and the high tokens given the low (Lee et al.,
AISTATS 2023; masked-token modelling after Chang et al., CVPR 2022).

The low tokens hold the beats and so the rhythm. They are drawn one after the other by a causal transformer: when the next beat
comes follows from the beats before it, and tokens drawn in parallel agree with their neighbours but not over ten seconds. The
reference draws both in parallel (`causal=False`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from ecgtf.conditions import columns
from ecgtf.generators.base import Generator, draws
from ecgtf.generators.checks import check_share, check_whole, check_wholes
from ecgtf.generators.condition import CONDITION_DROP, Condition, Guided
from ecgtf.generators.decoding import decode, decode_in_time, masked_share
from ecgtf.generators.time_vqvae import BANDS, TimeVQVAE, resize_tokens
from ecgtf.generators.transformer import Block


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
        causal: Whether the low tokens are drawn one after the other in time; False draws them in parallel, as the reference does.
        conditions: Of `ecgtf.conditions`, whose columns follow the classes in a label.
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
        causal: bool = True,
        conditions: Sequence[str] = (),
        **kwargs,
    ):
        shared = {"leads", "samples", "sampling_rate", "scale", "model_leads"}
        super().__init__(**({name: getattr(tokenizer, name) for name in shared} | kwargs))
        if mask_convention not in ("masked", "known"):
            raise ValueError(f"mask_convention must be 'masked' or 'known', received {mask_convention!r}")
        check_whole(4, width=width)
        check_whole(heads=heads)
        check_wholes(2, depth=depth)
        check_share(label_drop=label_drop, token_drop=token_drop)
        self.tokenizer = tokenizer
        self.tokenizer.trainable = False
        self.classes, self.task = tuple(classes), task
        self.width, self.depth, self.heads = width, tuple(depth), heads
        self.label_drop, self.token_drop = label_drop, token_drop
        self.mask_convention, self.causal = mask_convention, causal

        self.conditions = tuple(conditions)
        self.condition = Condition(len(classes), width, [columns(name) for name in self.conditions], seed=self.seed)
        self.networks = []
        for band, (tokens, blocks) in enumerate(zip(tokenizer.tokens, self.depth, strict=True)):
            network = TokenNetwork(width, blocks, heads, causal=causal and band == 0, name=f"{BANDS[band]}_network")
            network.build((None, tokens, tokenizer.code_dim * (1 + band) + 1), (None, width))
            self.networks.append(network)
        self.code_logits = [CodeLogits(width, codes, tokenizer.code_dim) for codes in tokenizer.codes]

    # -- networks -------------------------------------------------------------------------------------------------------------

    def low_logits(self, low, condition):
        """Logits of the low tokens `(batch, tokens, codes)`; a token equal to the number of codes is unknown.

        Those of a causal prior at each position follow from the tokens before it.
        """
        vectors = self._known(low, band=0)
        if self.causal:
            vectors = ops.pad(vectors[:, :-1], [[0, 0], [1, 0], [0, 0]])
        return self._logits(self.networks[0](vectors, condition), band=0)

    def high_logits(self, high, low, condition):
        """Logits of the high tokens given all low tokens."""
        seen = resize_tokens(self.tokenizer.quantizers[0].lookup(low), self.tokenizer.tokens[1])
        vectors = ops.concatenate([self._known(high, band=1), seen], axis=-1)
        return self._logits(self.networks[1](vectors, condition), band=1)

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
        """Cross-entropy (nats a token) on the masked low and high tokens; of a causal prior, on all low tokens."""
        low, high = self.tokenizer.encode(signal)
        batch, uniform = ops.shape(low)[0], draws(seed)
        dropped = None
        if training:
            dropped = uniform(0, (batch,)) < self.label_drop
            label = self.condition.without_some(label, uniform(7, (batch, len(self.conditions) + 1)), CONDITION_DROP)
        condition = self.condition(label, dropped)
        seen, asked = [], []
        for band, tokens in enumerate((low, high)):
            codes, length = self.tokenizer.codes[band], self.tokenizer.tokens[band]
            if self.causal and band == 0:
                asked_here, hidden = tf.ones((batch, length), tf.bool), tf.zeros((batch, length), tf.bool)
            else:
                share = masked_share(uniform(1 + 3 * band, (batch, 1)), self.mask_convention)
                rank = ops.argsort(ops.argsort(uniform(2 + 3 * band, (batch, length)), axis=-1), axis=-1)
                asked_here = hidden = ops.cast(rank, "float32") < ops.maximum(share * length, 1.0)
            if training:
                hidden = ops.logical_or(hidden, uniform(3 + 3 * band, (batch, length)) < self.token_drop)
            seen.append(ops.where(hidden, codes, tokens))
            asked.append(asked_here)
        terms = {
            "low": _cross_entropy(low, self.low_logits(seen[0], condition), asked[0]),
            "high": _cross_entropy(high, self.high_logits(seen[1], low, condition), asked[1]),
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
            steps: Decoding steps of the low and the high tokens. The low ones of a causal prior take a step each, whatever is given.
            temperature: Of the noise on the order in which the low and the high tokens are fixed: 0 goes by confidence, which favours
                common tokens; a large value goes at random. The low ones of a causal prior are fixed in time.
            sharpness: Factor on the logits; above 1 draws likelier tokens.
        """
        batch, asked = label.shape[0], Guided(self.condition, label, guidance)

        def guided(logits):
            return sharpness * asked.joined(ops.cast(logits, "float32"))

        def uniform_of(band: int):
            def uniform(step, kind: int, shape):
                place = tf.random.experimental.stateless_fold_in(seed, (band * 1_000_000 + step) * 2 + kind)
                return tf.random.stateless_uniform(shape, place, minval=1e-7, maxval=1.0)

            return uniform

        def low_step(before, position, state):
            vector = self._known(asked.doubled(before)[:, None], band=0)
            hidden, state = self.networks[0].step(vector, asked.vectors, position, state)
            return guided(self._logits(hidden, band=0))[:, 0], state

        shapes = [(batch, tokens) for tokens in self.tokenizer.tokens]
        if self.causal:
            state = self.networks[0].empty_state(asked.vectors.shape[0])
            low = decode_in_time(low_step, state, shapes[0], self.tokenizer.codes[0], uniform=uniform_of(0))
        else:
            low = decode(
                lambda tokens: guided(self.low_logits(asked.doubled(tokens), asked.vectors)),
                shapes[0],
                self.tokenizer.codes[0],
                steps=steps[0],
                temperature=temperature[0],
                uniform=uniform_of(0),
            )
        high = decode(
            lambda tokens: guided(self.high_logits(asked.doubled(tokens), asked.doubled(low), asked.vectors)),
            shapes[1],
            self.tokenizer.codes[1],
            steps=steps[1],
            temperature=temperature[1],
            uniform=uniform_of(1),
        )
        return self.tokenizer.decode(low, high)

    def check_sampling(self, options: Mapping[str, Any]) -> None:
        """Refuses what `sample` cannot do; see `Generator`."""
        super().check_sampling(options)
        steps, temperature, sharpness = (options.get(name) for name in ("steps", "temperature", "sharpness"))
        if steps is not None and (np.size(steps) != 2 or min(steps) < 1):
            raise ValueError(f"expected decoding steps of low and high tokens such as 32,16, received {steps}")
        if temperature is not None and (np.size(temperature) != 2 or not all(0 <= value < np.inf for value in temperature)):
            raise ValueError(f"expected decoding temperatures of low and high tokens such as 4,0, received {temperature}")
        if sharpness is not None and not 0 < sharpness < np.inf:
            raise ValueError(f"expected a sharpness above 0, received {sharpness}")

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
            "causal": self.causal,
            "conditions": list(self.conditions),
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the prior with its tokenizer."""
        return cls(keras.saving.deserialize_keras_object(config.pop("tokenizer")), **config)


@keras.saving.register_keras_serializable("ecgtf")
class TokenNetwork(layers.Layer):
    """A transformer from token vectors `(batch, tokens, channels)` and a class vector `(batch, width)` to `(batch, tokens, width)`.

    Args:
        width: Channels of the transformer.
        depth: Blocks.
        heads: Attention heads.
        causal: Whether a token is told from itself and earlier ones only. Otherwise all see all, and the class is also a token of
            its own, in front, that they attend to.
    """

    def __init__(self, width: int, depth: int, heads: int, causal: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.causal = causal
        self.straight = layers.Dense(width)
        self.bent = keras.Sequential([layers.Dense(2 * width, activation="silu"), layers.Dense(width, use_bias=False)])
        self.blocks = [Block(heads, causal=causal) for _ in range(depth)]
        self.norm = layers.LayerNormalization(epsilon=1e-5)

    def build(self, vectors_shape, condition_shape):
        """Creates the parts."""
        batch, length, _ = vectors_shape
        inside = (batch, length if self.causal else length + 1, condition_shape[-1])
        self.straight.build(vectors_shape)
        self.bent.build(vectors_shape)
        for layer in (*self.blocks, self.norm):
            layer.build(inside)
        self.built = True

    def call(self, vectors, condition):
        """All positions at once."""
        token = condition[:, None]
        x = self._enter(vectors) + token
        if not self.causal:
            x = ops.concatenate([token, x], axis=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x if self.causal else x[:, 1:])

    def step(self, vector, condition, position, state):
        """One position `(batch, 1, channels)` after the earlier ones, at the cost of one: what `call` gives there, and the new state."""
        x = self._enter(vector) + ops.cast(condition, self.compute_dtype)[:, None]
        states = []
        for block, before in zip(self.blocks, state, strict=True):
            x, after = block.step(x, position, before)
            states.append(after)
        return self.norm(x), states

    def empty_state(self, batch: int) -> list:
        """The state before the first step."""
        return [block.empty_state(batch) for block in self.blocks]

    def _enter(self, vectors):
        return self.straight(vectors) + self.bent(vectors)


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


def _cross_entropy(tokens, logits, asked):
    """Mean cross-entropy over the positions of the batch that are asked for."""
    losses = ops.sparse_categorical_crossentropy(tokens, logits, from_logits=True)
    weight = ops.cast(asked, "float32")
    return ops.sum(losses * weight) / ops.sum(weight)
