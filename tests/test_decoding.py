import json
from pathlib import Path

import keras
import numpy as np
import pytest

from ecgtf.generators.condition import guide
from ecgtf.generators.decoding import decode, decode_in_time, decode_step, masked_share, remask_counts

FIXTURES = Path(__file__).parent / "fixtures"
STEP = np.load(FIXTURES / "maskgit_confidence.npz")
COUNTS = json.loads((FIXTURES / "schedules.json").read_text())["maskgit_cosine_remask_counts"]


@pytest.mark.parametrize("case", [key for key in COUNTS if key.startswith("N")])
def test_remask_counts_fixture(case):
    tokens, steps = (int(part) for part in case.removeprefix("N").split("_steps"))
    np.testing.assert_array_equal(remask_counts(tokens, steps), COUNTS[case]["still_masked_after_step"])


@pytest.mark.parametrize("scale", [0, 1, 2])
@pytest.mark.parametrize("noise", ["", "no_noise."])
def test_decode_step_fixture(scale, noise):
    logits = guide(STEP["logits_conditional"], STEP["logits_unconditional"], float(scale))
    np.testing.assert_allclose(logits, STEP[f"scale{scale}.logits"], atol=1e-5)
    out = decode_step(
        STEP["tokens_before"],
        logits,
        mask_token=int(STEP["mask_token"]),
        remask_count=int(STEP["remask_count"]),
        noise_temperature=0.0 if noise else float(STEP["noise_temperature"]),
        u_categorical=STEP["u_categorical"],
        u_gumbel=STEP["u_gumbel"],
    )
    out = {name: keras.ops.convert_to_numpy(value) for name, value in out.items()}
    np.testing.assert_array_equal(out["sampled"], STEP[f"scale{scale}.sampled_tokens"])
    np.testing.assert_allclose(out["probability"], STEP[f"scale{scale}.token_probability"], atol=1e-5)
    np.testing.assert_allclose(out["confidence"], STEP[f"scale{scale}.{noise}confidence"], atol=1e-5)
    np.testing.assert_array_equal(out["remask"], STEP[f"scale{scale}.{noise}remask"])
    np.testing.assert_array_equal(out["tokens"], STEP[f"scale{scale}.{noise}tokens_after"])


def drawn_shares(temperature: float) -> np.ndarray:
    """Shares of three tokens that are independent of each other, with probabilities 0.1, 0.2 and 0.7."""
    rng = np.random.default_rng(0)

    def logits(tokens):
        return keras.ops.broadcast_to(np.log([0.1, 0.2, 0.7]).astype("float32"), (*tokens.shape, 3))

    def uniform(step, kind, shape):
        return keras.random.uniform(shape, minval=1e-7, seed=int(rng.integers(2**31)))

    tokens = keras.ops.convert_to_numpy(decode(logits, (400, 25), 3, steps=5, temperature=temperature, uniform=uniform))
    return np.bincount(tokens.ravel(), minlength=4)[:4] / tokens.size


def test_decoding_in_random_order_draws_from_the_given_distribution():
    np.testing.assert_allclose(drawn_shares(temperature=1e6), [0.1, 0.2, 0.7, 0.0], atol=0.03)


def test_decoding_by_confidence_prefers_likely_tokens():
    assert drawn_shares(temperature=0.0)[2] > 0.8


def test_masked_share_conventions_have_the_published_means():
    ratio = np.linspace(0, 1, 10_001)
    assert np.mean(masked_share(ratio)) == pytest.approx(2 / np.pi, abs=1e-3)
    assert np.mean(masked_share(ratio, "known")) == pytest.approx(1 - 2 / np.pi, abs=1e-3)


def test_decoding_in_time_follows_a_chain_that_remembers_two_tokens():
    """Each token is the sum of the two before it, modulo 5, told with certainty: the rows are Fibonacci numbers modulo 5."""

    def step(before, position, older):
        known = keras.ops.where(before == 5, 1, before)  # before the first token: 1, and 0 before that
        return 100.0 * keras.ops.one_hot((known + older) % 5, 5), known

    def uniform(position, kind, shape):
        return keras.random.uniform(shape, minval=1e-7, seed=3)

    tokens = decode_in_time(step, keras.ops.zeros((2,), "int32"), (2, 8), 5, uniform=uniform)
    np.testing.assert_array_equal(tokens, [[1, 2, 3, 0, 3, 3, 1, 4]] * 2)


def test_decoding_in_time_draws_from_the_given_distribution():
    rng = np.random.default_rng(0)
    probability = np.log([0.1, 0.2, 0.7]).astype("float32")

    def uniform(position, kind, shape):
        return rng.uniform(1e-7, 1, shape).astype("float32")

    tokens = np.concatenate(
        [
            decode_in_time(lambda *_: (keras.ops.tile(probability[None], (2000, 1)), 0), 0, (2000, 1), 3, uniform=uniform)
            for _ in range(5)
        ]
    )
    np.testing.assert_allclose(np.bincount(tokens.ravel(), minlength=4) / tokens.size, [0.1, 0.2, 0.7, 0.0], atol=0.02)
