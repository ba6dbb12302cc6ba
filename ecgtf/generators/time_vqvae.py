"""Time-VQVAE, stage 1: an ECG as two rows of tokens, one for its low and one for its high band (Lee et al., AISTATS 2023).

The short-time Fourier transform splits the signal; each band has an encoder, a vector quantiser and a decoder whose output goes
through the inverse transform. Against the published network this one reads the frames of all bins as channels of a 1-D
convolution, keeps enough tokens for 10 s of ECG (125 + 125 of 10 bits by default), and lets the high band see the low band's
codes, so that no bit is spent twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from ecgtf.generators.base import Generator
from ecgtf.generators.stft import istft, split_bands, stft
from ecgtf.generators.vector_quantizer import VectorQuantizer

BANDS = ("low", "high")


@keras.saving.register_keras_serializable("ecgtf")
class TimeVQVAE(Generator):
    """The tokenizer: `encode` gives tokens of a signal, `decode` a signal of tokens.

    Args:
        leads, samples, sampling_rate, scale, model_leads, seed: See `Generator`.
        downsampling: Samples a token, for the low and the high band; powers of two.
        codes: Codebook size, for the low and the high band.
        code_dim: Dimension of a code.
        width: Channels of the encoders and decoders at token resolution (half of it one level up, and so on).
        depth: Residual blocks at each resolution.
        n_fft: Window of the transform that splits the bands.
        commitment: Weight of the commitment loss.
        decay: Decay of the codebooks' running means.
        reset_below: Running count under which a code is restarted.
    """

    term_names = ("loss", "low", "high", "leads", "commitment", "perplexity_low", "perplexity_high")

    def __init__(
        self,
        leads: Sequence[str],
        samples: int,
        sampling_rate: float,
        scale: Sequence[float],
        *,
        downsampling: tuple[int, int] = (8, 8),
        codes: tuple[int, int] = (1024, 1024),
        code_dim: int = 8,
        width: int = 128,
        depth: int = 2,
        n_fft: int = 4,
        commitment: float = 0.25,
        decay: float = 0.99,
        reset_below: float = 0.1,
        **kwargs,
    ):
        super().__init__(leads, samples, sampling_rate, scale, **kwargs)
        if n_fft < 4 or n_fft % 2:
            raise ValueError(f"expected an even n_fft of at least 4, received {n_fft}")
        if any(factor < 1 or factor & (factor - 1) for factor in downsampling):
            raise ValueError(f"expected powers of two as downsampling, received {', '.join(map(str, downsampling))}")
        self.downsampling, self.codes, self.code_dim = tuple(downsampling), tuple(codes), code_dim
        self.width, self.depth, self.n_fft = width, depth, n_fft
        self.commitment, self.decay, self.reset_below = commitment, decay, reset_below

        channels = len(self.modelled_leads)
        bins = n_fft // 2 + 1
        self.frames = int(np.lcm.reduce(self.downsampling)) * int(np.ceil(samples / np.lcm.reduce(self.downsampling)))
        self.tokens = tuple(self.frames // factor for factor in self.downsampling)
        self.quantizers = [
            VectorQuantizer(k, code_dim, decay=decay, reset_below=reset_below, dtype="float32", name=f"{band}_quantizer")
            for band, k in zip(BANDS, self.codes, strict=True)
        ]
        self.encoders = [
            _encoder((self.frames, channels * bins_in * 2), factor, code_dim, width, depth, name=f"{band}_encoder")
            for band, bins_in, factor in zip(BANDS, (1, bins - 1), self.downsampling, strict=True)
        ]
        self.decoders = [
            _decoder(self.tokens[0], code_dim, self.downsampling[0], channels * 2, width, depth, name="low_decoder"),
            _decoder(
                self.tokens[1], 2 * code_dim, self.downsampling[1], channels * (bins - 1) * 2, width, depth, name="high_decoder"
            ),
        ]

    # -- tokens ---------------------------------------------------------------------------------------------------------------

    def encode(self, signal):
        """Tokens of millivolts `(batch, time, leads)`: a low row `(batch, tokens[0])` and a high row `(batch, tokens[1])`, int32."""
        vectors = self._encode(self.to_model(signal))
        return tuple(quantizer.nearest(v) for quantizer, v in zip(self.quantizers, vectors, strict=True))

    def decode(self, low, high):
        """Millivolts `(batch, time, leads)` of token rows."""
        codes = [quantizer.lookup(row) for quantizer, row in zip(self.quantizers, (low, high), strict=True)]
        return self.to_signal(sum(self._decode(*codes)))

    def reconstruct(self, signal):
        """A signal through the codebooks and back, in millivolts."""
        return self.decode(*self.encode(signal))

    def reconstruct_at(self, signal, temperature: float, seed):
        """The same with codes that are drawn, the nearer the likelier (see `VectorQuantizer.drawn`)."""
        vectors = self._encode(self.to_model(signal))
        seeds = [tf.random.experimental.stateless_fold_in(seed, k) for k in range(2)]
        return self.decode(*(q.drawn(v, temperature, s) for q, v, s in zip(self.quantizers, vectors, seeds, strict=True)))

    def call(self, signal):
        """`reconstruct`, so that the model can be called like any Keras model."""
        return self.reconstruct(signal)

    def _encode(self, values):
        """Modelled leads `(batch, time, channels)` to the two rows of vectors before quantisation."""
        bins = stft(self._padded(values), self.n_fft)[:, : self.frames]
        packed = [bins[:, :, :, :1], bins[:, :, :, 1:]]
        return [
            encoder(ops.reshape(part, (-1, self.frames, encoder.input_shape[-1])))
            for encoder, part in zip(self.encoders, packed, strict=True)
        ]

    def _decode(self, low_codes, high_codes):
        """Code vectors to the two bands in modelled leads `(batch, time, channels)`, in float32."""
        channels, bins = len(self.modelled_leads), self.n_fft // 2 + 1
        seen = resize_tokens(low_codes, self.tokens[1])
        packed = [self.decoders[0](low_codes), self.decoders[1](ops.concatenate([high_codes, seen], axis=-1))]
        bands = []
        for frames, low in zip(packed, (True, False), strict=True):
            frames = ops.cast(ops.concatenate([frames, frames[:, -1:]], axis=1), "float32")
            part = ops.reshape(frames, (-1, self.frames + 1, channels, 1 if low else bins - 1, 2))
            empty = ops.zeros_like(part[:, :, :, :1])
            full = ops.concatenate([part] + [empty] * (bins - 1), axis=3) if low else ops.concatenate([empty, part], axis=3)
            bands.append(istft(full, self.n_fft)[:, : self.samples])
        return bands

    def _padded(self, values):
        extra = self.frames - self.samples
        return values if extra == 0 else ops.concatenate([values, ops.flip(values[:, -extra - 1 : -1], axis=1)], axis=1)

    # -- training -------------------------------------------------------------------------------------------------------------

    def loss_terms(self, signal, label, seed, training: bool) -> dict:
        """Band errors, error of the leads, commitment; perplexities are logged (`label` is not used: every record serves)."""
        values = self.to_model(signal)
        vectors = self._encode(values)
        quantised = [q(v, training=training, seed=seed) for q, v in zip(self.quantizers, vectors, strict=True)]
        bands = self._decode(*(part["quantised"] for part in quantised))
        low, high = split_bands(values, self.n_fft)
        terms = {
            "low": ops.mean((bands[0] - low) ** 2),
            "high": ops.mean(ops.abs(bands[1] - high)),
            "leads": self._lead_error(sum(bands), signal),
            "commitment": sum(part["commitment"] for part in quantised),
            "perplexity_low": quantised[0]["perplexity"],
            "perplexity_high": quantised[1]["perplexity"],
        }
        return {"loss": terms["low"] + terms["high"] + terms["leads"] + self.commitment * terms["commitment"]} | terms

    def _lead_error(self, values, signal):
        """Error of every lead that comes out, relative to that lead's own size in that record, so that small leads count too."""
        signal = ops.cast(signal, "float32")
        scale = np.array(self.scale, "float32")
        error = ops.mean(((self.to_signal(values) - signal) / scale) ** 2, axis=1)
        power = ops.var(signal / scale, axis=1)
        return ops.mean(ops.sqrt((error + 1e-3) / (power + 0.02)))

    def start_codebooks(self, signals: np.ndarray) -> None:
        """Starts both codebooks with k-means on the vectors of `(n, time, leads)` millivolts."""
        for k, quantizer in enumerate(self.quantizers):
            vectors = [
                ops.convert_to_numpy(self._encode(self.to_model(batch))[k])
                for batch in np.array_split(signals, -(-len(signals) // 64))
            ]
            quantizer.start_from(np.concatenate(vectors).astype("float32"), seed=self.seed)

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {
            "downsampling": self.downsampling,
            "codes": self.codes,
            "code_dim": self.code_dim,
            "width": self.width,
            "depth": self.depth,
            "n_fft": self.n_fft,
            "commitment": self.commitment,
            "decay": self.decay,
            "reset_below": self.reset_below,
        }


def _residual(x, width: int, dilation: int):
    """Pre-activation residual block: SiLU, 3-tap convolution, SiLU, 1x1 convolution."""
    y = layers.Conv1D(width, 3, padding="same", dilation_rate=dilation)(layers.Activation("silu")(x))
    y = layers.Conv1D(width, 1, kernel_initializer="zeros")(layers.Activation("silu")(y))
    return layers.Add()([x, y])


def _widths(width: int, factor: int) -> list[int]:
    """Channels at each halving of the time resolution, down to token resolution."""
    levels = int(np.log2(factor))
    return [max(32, width // 2 ** (levels - 1 - level)) for level in range(levels)]


def _encoder(shape, factor: int, code_dim: int, width: int, depth: int, name: str) -> keras.Model:
    """Frames `(time, channels)` to vectors `(time / factor, code_dim)`."""
    inputs = x = keras.Input(shape)
    for channels in _widths(width, factor):
        x = layers.Conv1D(channels, 4, strides=2, padding="same")(x)
        for block in range(depth):
            x = _residual(x, channels, dilation=3**block)
    x = layers.Activation("silu")(x)
    return keras.Model(inputs, layers.Conv1D(code_dim, 1, dtype="float32")(x), name=name)


def _decoder(tokens: int, code_dim: int, factor: int, channels_out: int, width: int, depth: int, name: str) -> keras.Model:
    """Code vectors `(tokens, dim)` to frames `(tokens * factor, channels_out)`."""
    inputs = keras.Input((tokens, code_dim))
    widths = _widths(width, factor)[::-1]
    x = layers.Conv1D(widths[0], 3, padding="same")(inputs)
    for level, channels in enumerate(widths):
        for block in reversed(range(depth)):
            x = _residual(x, channels, dilation=3**block)
        following = widths[level + 1] if level + 1 < len(widths) else channels
        x = layers.Conv1D(following, 3, padding="same")(layers.UpSampling1D(2)(layers.Activation("silu")(x)))
    x = layers.Conv1D(channels_out, 3, padding="same", dtype="float32")(layers.Activation("silu")(x))
    return keras.Model(inputs, x, name=name)


def resize_tokens(codes, length: int):
    """Nearest-neighbour resize of `(batch, tokens, dim)` along tokens."""
    tokens = codes.shape[1]
    if tokens == length:
        return codes
    if length % tokens == 0:
        return ops.repeat(codes, length // tokens, axis=1)
    index = (np.arange(length) * tokens) // length
    return ops.take(codes, index, axis=1)
