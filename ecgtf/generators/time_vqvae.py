"""Time-VQVAE, stage 1: an ECG as two rows of tokens, one for its low and one for its high band (Lee et al., AISTATS 2023).

The short-time Fourier transform splits the signal; each band has an encoder, a vector quantiser and a decoder whose output goes
through the inverse transform. Against the published network ours (`coder="sequence"`) reads the frames of all bins as channels of a
1-D convolution, keeps enough tokens for 10 s of ECG (125 + 125 of 10 bits by default), and lets the high band see the low band's
codes, so that no bit is spent twice. The published one (`coder="published"`) is in `spectrogram_coder`.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from ecgtf.generators.base import Generator
from ecgtf.generators.checks import check_share, check_weight, check_whole, check_wholes
from ecgtf.generators.spectrogram_coder import SpectrogramDecoder, SpectrogramEncoder, published_downsampling
from ecgtf.generators.stft import istft, split_bands, stft
from ecgtf.generators.vector_quantizer import VectorQuantizer

BANDS = ("low", "high")
CODERS = ("sequence", "published")


@keras.saving.register_keras_serializable("ecgtf")
class TimeVQVAE(Generator):
    """The tokenizer: `encode` gives tokens of a signal, `decode` a signal of tokens.

    Args:
        leads, samples, sampling_rate, scale, model_leads, seed: See `Generator`.
        coder: Encoders and decoders: `sequence`, ours, or `published`, whose high band has a row of tokens for each of its bins.
        downsampling: Samples a token, for the low and the high band; powers of two. None takes the published ones, which leave about
            8 and 32 time steps whatever the length.
        codes: Codebook size, for the low and the high band.
        code_dim: Dimension of a code.
        width: Channels of the encoders and decoders at token resolution (half of it one level up, and so on); of the published ones,
            of the vectors that go to the quantiser, whatever is before them.
        depth: Residual blocks at each resolution (but the first of the published ones).
        n_fft: Window of the transform that splits the bands, moved by a sample (in the public code by n_fft / 4, which is the same for 4).
        commitment: Weight of the commitment loss.
        lead_loss: Weight of the error of the leads that come out; 0 leaves the published loss.
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
        coder: str = "sequence",
        downsampling: tuple[int, int] | None = (8, 8),
        codes: tuple[int, int] = (1024, 1024),
        code_dim: int = 8,
        width: int = 128,
        depth: int = 2,
        n_fft: int = 4,
        commitment: float = 0.25,
        lead_loss: float = 1.0,
        decay: float = 0.99,
        reset_below: float = 0.1,
        **kwargs,
    ):
        super().__init__(leads, samples, sampling_rate, scale, **kwargs)
        check_whole(4, n_fft=n_fft, width=width)
        check_whole(code_dim=code_dim)
        check_whole(0, depth=depth)
        check_wholes(2, codes=codes, **({} if downsampling is None else {"downsampling": downsampling}))
        check_share(decay=decay)
        check_weight(commitment=commitment, lead_loss=lead_loss, reset_below=reset_below)
        if n_fft % 2:
            raise ValueError(f"expected an even n_fft of at least 4, received {n_fft}")
        if coder not in CODERS:
            raise ValueError(f"coder must be one of {', '.join(CODERS)}, received {coder!r}")
        if downsampling is None:
            downsampling = published_downsampling(samples)
        if any(factor < 1 or factor & (factor - 1) for factor in downsampling):
            raise ValueError(f"expected powers of two as downsampling, received {', '.join(map(str, downsampling))}")
        self.coder, self.downsampling, self.codes, self.code_dim = coder, tuple(downsampling), tuple(codes), code_dim
        self.width, self.depth, self.n_fft = width, depth, n_fft
        self.commitment, self.lead_loss, self.decay, self.reset_below = commitment, lead_loss, decay, reset_below

        self.quantizers = [
            VectorQuantizer(k, code_dim, decay=decay, reset_below=reset_below, dtype="float32", name=f"{band}_quantizer")
            for band, k in zip(BANDS, self.codes, strict=True)
        ]
        if coder == "published":
            self._build_published()
        else:
            self._build_sequence()

    def _build_sequence(self) -> None:
        channels, bins = len(self.modelled_leads), self.n_fft // 2 + 1
        self.frames = int(np.lcm.reduce(self.downsampling)) * int(np.ceil(self.samples / np.lcm.reduce(self.downsampling)))
        self.tokens = tuple(self.frames // factor for factor in self.downsampling)
        size = {"width": self.width, "depth": self.depth}
        self.encoders = [
            _encoder((self.frames, channels * bins_in * 2), factor, self.code_dim, **size, name=f"{band}_encoder")
            for band, bins_in, factor in zip(BANDS, (1, bins - 1), self.downsampling, strict=True)
        ]
        self.decoders = [
            _decoder(tokens, self.code_dim * (1 + band), factor, channels * bins_out * 2, **size, name=f"{BANDS[band]}_decoder")
            for band, (bins_out, tokens, factor) in enumerate(zip((1, bins - 1), self.tokens, self.downsampling, strict=True))
        ]

    def _build_published(self) -> None:
        bands = (1, self.n_fft // 2)  # bins of each
        self.frames = self.samples  # the transform of a signal as it comes has one more
        if not all(2 <= factor <= self.frames + 1 for factor in self.downsampling):
            raise ValueError(
                f"the published coder expects a downsampling of at least 2 that leaves a token of {self.samples} samples, received "
                f"{', '.join(map(str, self.downsampling))}"
            )
        self.tokens = tuple((self.frames + 1) // factor * bins for factor, bins in zip(self.downsampling, bands, strict=True))
        arguments = [
            (len(self.modelled_leads), bins, factor, self.code_dim, self.width, self.depth)
            for bins, factor in zip(bands, self.downsampling, strict=True)
        ]
        self.encoders = [SpectrogramEncoder(*arguments[k], name=f"{band}_encoder") for k, band in enumerate(BANDS)]
        self.decoders = [SpectrogramDecoder(*arguments[k], name=f"{band}_decoder") for k, band in enumerate(BANDS)]
        for layer in (*self.encoders, *self.decoders):
            layer.build()

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

    def _encode(self, values, training: bool = False, seed=None):
        """Modelled leads `(batch, time, channels)` to the two rows of vectors before quantisation."""
        bins = stft(self._padded(values), self.n_fft)
        parts = [bins[:, :, :, :1], bins[:, :, :, 1:]]
        if self.coder == "published":
            seeds = _seeds(seed, (1, 2))
            return [
                encoder(part, training=training, seed=s) for encoder, part, s in zip(self.encoders, parts, seeds, strict=True)
            ]
        return [
            encoder(ops.reshape(part[:, : self.frames], (-1, self.frames, encoder.input_shape[-1])))
            for encoder, part in zip(self.encoders, parts, strict=True)
        ]

    def _decode(self, low_codes, high_codes, training: bool = False, seed=None):
        """Code vectors to the two bands in modelled leads `(batch, time, channels)`, in float32."""
        if self.coder == "published":
            codes, seeds = (low_codes, high_codes), _seeds(seed, (3, 4))
            parts = [decoder(c, training=training, seed=s) for decoder, c, s in zip(self.decoders, codes, seeds, strict=True)]
            return [_resize(band, self.samples) for band in self._bands(*parts)]
        channels, bins = len(self.modelled_leads), self.n_fft // 2 + 1
        seen = resize_tokens(low_codes, self.tokens[1])
        parts = []
        for decoder, codes, bins_out in zip(
            self.decoders, (low_codes, ops.concatenate([high_codes, seen], axis=-1)), (1, bins - 1), strict=True
        ):
            frames = decoder(codes)
            frames = ops.cast(ops.concatenate([frames, frames[:, -1:]], axis=1), "float32")
            parts.append(ops.reshape(frames, (-1, self.frames + 1, channels, bins_out, 2)))
        return [band[:, : self.samples] for band in self._bands(*parts)]

    def _bands(self, low, high):
        """The signals of each band's bins `(batch, frames, channels, bins, 2)`, the other band's bins being zero."""
        nothing = [ops.zeros_like(low[:, :, :, :1])] * (self.n_fft // 2), [ops.zeros_like(high[:, :, :, :1])]
        full = [low, *nothing[0]], [*nothing[1], high]
        return [istft(ops.concatenate(bins, axis=3), self.n_fft) for bins in full]

    def _padded(self, values):
        extra = self.frames - self.samples
        return values if extra == 0 else ops.concatenate([values, ops.flip(values[:, -extra - 1 : -1], axis=1)], axis=1)

    # -- training -------------------------------------------------------------------------------------------------------------

    def loss_terms(self, signal, label, seed, training: bool) -> dict:
        """Band errors, error of the leads, commitment; perplexities are logged (`label` is not used: every record serves)."""
        values = self.to_model(signal)
        vectors = self._encode(values, training, seed)
        quantised = [q(v, training=training, seed=seed) for q, v in zip(self.quantizers, vectors, strict=True)]
        bands = self._decode(*(part["quantised"] for part in quantised), training, seed)
        low, high = split_bands(values, self.n_fft)
        terms = {
            "low": ops.mean((bands[0] - low) ** 2),
            "high": ops.mean(ops.abs(bands[1] - high)),
            "leads": self._lead_error(sum(bands), signal),
            "commitment": sum(part["commitment"] for part in quantised),
            "perplexity_low": quantised[0]["perplexity"],
            "perplexity_high": quantised[1]["perplexity"],
        }
        loss = terms["low"] + terms["high"] + self.lead_loss * terms["leads"] + self.commitment * terms["commitment"]
        return {"loss": loss} | terms

    def _lead_error(self, values, signal):
        """Error of every lead that comes out, relative to that lead's own size in that record, so that small leads count too."""
        signal = ops.cast(signal, "float32")
        scale = np.array(self.scale, "float32")
        error = ops.mean(((self.to_signal(values) - signal) / scale) ** 2, axis=1)
        power = ops.var(signal / scale, axis=1)
        return ops.mean(ops.sqrt((error + 1e-3) / (power + 0.02)))

    def check_start(self, records: int) -> None:
        """Refuses codebooks that k-means on this many records could not start, before anything is made.

        Raises:
            ValueError: if they give fewer vectors than there are codes.
        """
        vectors = [records * tokens for tokens in self.tokens]
        if any(number < codes for number, codes in zip(vectors, self.codes, strict=True)):
            fewer = [
                min(codes, 2 ** (max(1, number).bit_length() - 1)) for number, codes in zip(vectors, self.codes, strict=True)
            ]
            raise ValueError(
                f"expected as many low and high tokens to start the codebooks from as there are codes, {_told(self.codes)}, "
                f"received {_told(vectors)} of {records} training records: take more records, or fewer codes by "
                f"--set tokenizer.codes=[{','.join(map(str, fewer))}]"
            )

    def start_codebooks(self, signals: np.ndarray) -> None:
        """Starts both codebooks with k-means on the vectors of `(n, time, leads)` millivolts, as they are in training."""
        rows = ([], [])
        for number, batch in enumerate(np.array_split(signals, -(-len(signals) // 64))):
            # Batch normalisation takes a batch's own moments in training; with others, codes would not lie where vectors will.
            vectors = self._encode(self.to_model(batch), training=True, seed=tf.constant([self.seed, -2 - number], tf.int32))
            for row, part in zip(rows, vectors, strict=True):
                row.append(ops.convert_to_numpy(part))
        for quantizer, row in zip(self.quantizers, rows, strict=True):
            quantizer.start_from(np.concatenate(row).astype("float32"), seed=self.seed)

    def get_config(self) -> dict:
        """The arguments of `__init__`."""
        return super().get_config() | {
            "coder": self.coder,
            "downsampling": self.downsampling,
            "codes": self.codes,
            "code_dim": self.code_dim,
            "width": self.width,
            "depth": self.depth,
            "n_fft": self.n_fft,
            "commitment": self.commitment,
            "lead_loss": self.lead_loss,
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


def _resize(signal, length: int):
    """Linear resize of `(batch, time, channels)` along time; samples are the middles of equal parts of the same duration."""
    return ops.image.resize(signal[:, :, None], (length, 1), interpolation="bilinear", data_format="channels_last")[:, :, 0]


def _told(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def _seeds(seed, kinds: Sequence[int]) -> list:
    """A seed for each use of one, or none."""
    return [None if seed is None else tf.random.experimental.stateless_fold_in(seed, kind) for kind in kinds]
