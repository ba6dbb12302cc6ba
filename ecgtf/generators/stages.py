"""The models of a generator's stages, each made over the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ecgtf.generators.base import Generator
from ecgtf.generators.fidelity_enhancer import FidelityEnhancer
from ecgtf.generators.presets import OBJECTIVES, Preset, Stage
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.generators.token_prior import TokenPrior


@dataclass(frozen=True)
class Stages:
    """Makes the models of a preset.

    Args:
        preset: The stages and their options.
        signal: What a generator is told of signals: `leads`, `samples`, `sampling_rate`, `scale`, `model_leads`.
        label: What it is told of labels: `classes`, `task`, `conditions`.
        seed: Of the training's draws.
    """

    preset: Preset
    signal: Mapping[str, Any]
    label: Mapping[str, Any]
    seed: int = 0

    def build(self, stage: Stage, before: Generator | None = None) -> Generator:
        """The untrained model of a stage.

        Args:
            stage: One of the preset's.
            before: The model of the stage before, which becomes a frozen part of a prior or an enhancer.

        Raises:
            ValueError: if an option is not possible.
        """
        told = stage.options | {"seed": self.seed}
        if stage.name == "tokenizer":
            return TimeVQVAE(**self.signal, **told)
        if stage.name == "prior":
            return TokenPrior(bare(before), **self.label, **told)
        if stage.name == "enhancer":
            return FidelityEnhancer(bare(before), **told)
        return OBJECTIVES[self.preset.objective](**self.signal, **self.label, **told)

    def check(self, strategy: tf.distribute.Strategy, accumulate: int = 1) -> None:
        """Makes and drops every model, so that what is not possible is refused before a file is touched.

        Raises:
            ValueError: if an option is not possible, or `accumulate` does not fit the strategy.
        """
        before = None
        with strategy.scope():
            for stage in self.preset.stages:
                if stage.steps:
                    before = self.build(stage, before)
                    before.compile(accumulate=accumulate)
        before.check_sampling(self.preset.sampling)


def bare(model: Generator) -> Generator:
    """A copy without optimizer and metrics, which would else be in the checkpoints of a model around it."""
    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
