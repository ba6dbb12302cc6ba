"""Drawing rows of tokens: one after the other, or in parallel by iterative decoding of masked tokens (MaskGIT: Chang et al., CVPR
2022), as functions of the random numbers they use.

Decoding takes a function from tokens to logits, so it knows no network; its uniform draws are arguments, so it can be tested exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from keras import ops


def remask_counts(tokens: int, steps: int) -> np.ndarray:
    """Tokens that are still masked after each of the steps: floor(N cos(pi/2 (k + 1)/steps)), `(steps,)` int32.

    Args:
        tokens: Length N of the row, all of it masked at the start.
        steps: Decoding steps.
    """
    return np.floor(tokens * np.cos(np.pi / 2 * np.arange(1, steps + 1) / steps) + 1e-9).astype("int32")


def masked_share(ratio, convention: str = "masked"):
    """Share of tokens to mask in training at `ratio` in [0, 1): cos(pi/2 ratio), which MaskGIT reads as the share masked (mean 64 %)
    and the Time-VQVAE reference as the share known (`convention="known"`, mean 36 % masked)."""
    share = ops.cos(np.pi / 2 * ratio)
    return share if convention == "masked" else 1.0 - share


def gumbel(uniform):
    """Gumbel noise of uniform draws in (0, 1)."""
    return -ops.log(-ops.log(uniform))


def decode_step(tokens, logits, *, mask_token: int, remask_count, noise_temperature, u_categorical, u_gumbel) -> dict:
    """One step: draw every masked token, keep the most confident, mask the rest again.

    Args:
        tokens: `(batch, length)` int32, `mask_token` where unknown.
        logits: `(batch, length, codes)`.
        mask_token: Index that stands for a masked token.
        remask_count: How many tokens stay masked in each row.
        noise_temperature: Weight of the Gumbel noise on the log-probability that ranks the drawn tokens.
        u_categorical: `(batch, length, codes)` uniform draws in (0, 1) for the tokens (Gumbel-max).
        u_gumbel: `(batch, length)` uniform draws for the ranking.

    Returns:
        A dictionary: `sampled` tokens, their `probability`, `confidence` (infinite where the token was known), `remask` and `tokens`
        after the step.
    """
    unknown = ops.equal(tokens, mask_token)
    drawn = ops.cast(ops.argmax(logits + gumbel(u_categorical), axis=-1), "int32")
    sampled = ops.where(unknown, drawn, tokens)
    probability = ops.take_along_axis(ops.softmax(logits, axis=-1), sampled[..., None], axis=-1)[..., 0]
    confidence = ops.log(probability + 1e-5) + noise_temperature * gumbel(u_gumbel)
    confidence = ops.where(unknown, confidence, np.inf)
    rank = ops.argsort(ops.argsort(confidence, axis=-1), axis=-1)
    remask = rank < remask_count
    return {
        "sampled": sampled,
        "probability": probability,
        "confidence": confidence,
        "remask": remask,
        "tokens": ops.where(remask, mask_token, sampled),
    }


def decode(
    tokens_to_logits: Callable, shape: tuple[int, int], codes: int, *, steps: int, temperature: float, uniform: Callable
):
    """Tokens `shape` = (batch, length) drawn from fully masked rows in `steps` steps.

    Args:
        tokens_to_logits: From tokens `(batch, length)` to logits `(batch, length, codes)`; the index `codes` marks a masked token.
        shape: Rows and length.
        codes: Number of codes.
        steps: Decoding steps.
        temperature: Of the noise on the ranking, falling linearly to 0 at the last step.
        uniform: `uniform(step, kind, shape)` gives draws in (0, 1); `kind` is 0 for the tokens, 1 for the ranking.
    """
    counts = ops.convert_to_tensor(remask_counts(shape[1], steps))

    def body(step, tokens):
        done = ops.cast(step + 1, "float32") / steps
        return decode_step(
            tokens,
            tokens_to_logits(tokens),
            mask_token=codes,
            remask_count=counts[step],
            noise_temperature=temperature * (1.0 - done),
            u_categorical=uniform(step, 0, (*shape, codes)),
            u_gumbel=uniform(step, 1, shape),
        )["tokens"]

    # A loop in the graph: the networks are traced once, however many steps there are.
    return ops.fori_loop(0, steps, body, ops.full(shape, codes, dtype="int32"))


def decode_in_time(step_to_logits: Callable, state, shape: tuple[int, int], codes: int, *, uniform: Callable):
    """Tokens `shape` = (batch, length) drawn one after the other, each given those before it.

    Args:
        step_to_logits: From the token before `(batch,)` (`codes` before the first), the position and the state to the logits
            `(batch, codes)` of the token there and the new state.
        state: What the first step starts from, a nest of tensors.
        shape: Rows and length.
        codes: Number of codes.
        uniform: `uniform(position, kind, shape)` gives draws in (0, 1); `kind` is 0.
    """
    batch, length = shape

    def body(position, drawing):
        tokens, before, state = drawing
        logits, state = step_to_logits(before, position, state)
        drawn = ops.cast(ops.argmax(logits + gumbel(uniform(position, 0, (batch, codes))), axis=-1), "int32")
        return ops.where(ops.equal(ops.arange(length), position), drawn[:, None], tokens), drawn, state

    start = ops.full(shape, codes, dtype="int32"), ops.full((batch,), codes, dtype="int32"), state
    return ops.fori_loop(0, length, body, start)[0]
