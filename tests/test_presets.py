"""Presets: every one can be made, and what is asked for in their place."""

import numpy as np
import pytest
import tensorflow as tf

from ecgtf.ecg import LEADS
from ecgtf.generators.diffusion import Diffusion
from ecgtf.generators.flow import FlowMatching
from ecgtf.generators.presets import OBJECTIVES, PRESETS, get_preset

DIFFWAVE = 2_308_737  # as published, for one channel and without labels
UNET = 14_859_148  # as published, for twelve channels and without labels
DIFFERENCES = {
    # 8 channels in place of 1, a dense layer for the label in each of 30 blocks, vectors of 4 classes and of the null
    "diffwave": DIFFWAVE + 7 * 64 + 7 * 64 + 7 + 30 * 128 * (2 * 64) + (4 + 1) * 128,
    # 8 channels in place of 12, vectors of 4 classes and of the null
    "timediffusion": UNET - 4 * 7 * 64 - 4 * 64 - 4 + (4 + 1) * 256,
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_paper_presets_differ_from_the_published_sizes_by_leads_and_labels_alone(kind):
    preset = get_preset(kind, "paper")
    (stage,) = preset.stages
    model = OBJECTIVES[preset.objective](
        LEADS, 1000, 100.0, np.ones(12), classes=("SR", "AFIB", "SB", "GSVT"), task="rhythm4", **stage.options
    )
    assert model.count_params() == DIFFERENCES[kind]
    model.check_sampling(preset.sampling)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in PRESETS if kind != "vqvae" for name in PRESETS[kind]])
def test_every_weight_of_every_network_learns(kind, name):
    preset = get_preset(kind, name)
    model = Diffusion(LEADS, 64, 100.0, np.ones(12), classes=("SR", "AFIB"), task="rhythm4", **preset.stages[0].options)
    model.check_sampling(preset.sampling)
    leave = model.network.leave.kernel
    leave.assign(np.random.default_rng(0).normal(0, 0.1, leave.shape))
    signal = np.random.default_rng(1).normal(size=(4, 64, 12)).astype("float32")
    with tf.GradientTape() as tape:
        loss = model.loss_terms(signal, tf.eye(2)[:1] * np.ones((4, 1)), tf.constant([1, 2]), training=False)["loss"]
    variables = model.network.trainable_variables
    gradients = tape.gradient(loss, variables)
    assert [variable.path for variable, gradient in zip(variables, gradients, strict=True) if gradient is None] == []
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("kind", PRESETS)
def test_lengths_asked_for_take_the_place_of_the_presets(kind):
    preset = get_preset(kind, "small")
    first = [stage.steps for stage in preset.stages]
    changed = preset.with_lengths((7,), 0.5, 3)
    assert [stage.steps for stage in changed.stages] == [7, *first[1:]]
    assert {stage.learning_rate for stage in changed.stages} == {0.5}
    assert changed.batch_size == 3
    assert preset.with_lengths() == preset
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match=f"expected a batch_size of at least 1 record, received {batch_size}"):
            preset.with_lengths(batch_size=batch_size)
    for steps in ((0,), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="expected training steps, 1 or more, for"):
            preset.with_lengths(steps)


def test_another_objective_keeps_the_network():
    preset = get_preset("timediffusion", "paper", "flow")
    (stage,) = preset.stages
    assert stage.options == {
        name: value
        for name, value in get_preset("timediffusion", "paper").stages[0].options.items()
        if name in ("network", "network_options", "noise_levels", "label_drop")
    }
    of_patches = get_preset("diffwave", "small", "flow").stages[0].options
    assert of_patches["prediction"] == "x0"
    assert of_patches["network_options"]["last_frequency"] == 1e-4
    assert get_preset("diffwave", "paper", "flow").stages[0].options["network_options"]["last_frequency"] == 1e-4
    model = FlowMatching(LEADS, 100, 100.0, np.ones(12), classes=("SR",), task="rhythm4", **stage.options)
    model.check_sampling(preset.sampling)
    with pytest.raises(ValueError, match="vqvae has no choice of objective"):
        get_preset("vqvae", "small", "flow")
    with pytest.raises(ValueError, match="unknown objective 'gan'"):
        get_preset("diffwave", "small", "gan")


def test_options_of_the_models_take_the_place_of_the_presets():
    (stage,) = get_preset("diffwave", "small").with_options({"denoiser": {"patch": 1, "prediction": "eps"}}).stages
    assert (stage.options["patch"], stage.options["prediction"]) == (1, "eps")
    tokenizer, prior, _ = get_preset("vqvae", "small").with_options({"prior": {"causal": False}}).stages
    assert prior.options["causal"] is False
    assert tokenizer.options == get_preset("vqvae", "small").stages[0].options
    (stage,) = get_preset("timediffusion", "small").with_options({"denoiser": {"network_options": {"width": 96}}}).stages
    assert stage.options["network_options"] == {"width": 96, "multipliers": (1, 2, 4), "blocks": 4}
    with pytest.raises(ValueError, match=r"expected true or false for prior.causal, received 'False'"):
        get_preset("vqvae", "small").with_options({"prior": {"causal": "False"}})
    with pytest.raises(ValueError, match=r"expected names and values for denoiser.network_options, received 96"):
        get_preset("diffwave", "small").with_options({"denoiser": {"network_options": 96}})
    with pytest.raises(ValueError, match="denoiser has no option 'conditions'"):
        get_preset("diffwave", "small").with_options({"denoiser": {"conditions": ["age"]}})
    with pytest.raises(ValueError, match="unknown stage 'decoder'; expected one of tokenizer, prior, enhancer"):
        get_preset("vqvae", "small").with_options({"decoder": {}})
    with pytest.raises(
        ValueError, match="denoiser has no option 'schedule'; expected one of times, prediction, v_limit, network_options"
    ):
        get_preset("diffwave", "small", "flow").with_options({"denoiser": {"schedule": "linear"}})
