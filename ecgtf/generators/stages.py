"""The models of a generator's stages, each made over the one before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ecgtf.generators.base import Generator
from ecgtf.generators.fidelity_enhancer import FidelityEnhancer
from ecgtf.generators.presets import OBJECTIVES, Preset, Stage
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.generators.token_prior import TokenPrior
from ecgtf.generators.warm_start import start_from

_ITS_OWN = {"name", "seed", "scale", "classes", "task", "conditions", "tokenizer", "prior"}
"""What a model need not share with the one that it starts from: draws, statistics and labels of its records, the stage before it."""


@dataclass(frozen=True)
class Start:
    """A finished training whose weights another one starts from."""

    folder: str
    models: Mapping[str, Generator]
    """By stage."""
    trained_on: frozenset[str]
    """Hashed ids of its training records."""


@dataclass(frozen=True)
class Stages:
    """Makes the models of a preset.

    Args:
        preset: The stages and their options.
        signal: What a generator is told of signals: `leads`, `samples`, `sampling_rate`, `scale`, `model_leads`.
        label: What it is told of labels: `classes`, `task`, `conditions`.
        seed: Of the training's draws.
        start: The training whose models give their weights to those of the same stage.
    """

    preset: Preset
    signal: Mapping[str, Any]
    label: Mapping[str, Any]
    seed: int = 0
    start: Start | None = None

    def build(self, stage: Stage, before: Generator | None = None) -> Generator:
        """The model of a stage, untrained, or with the weights of the training to start from.

        Args:
            stage: One of the preset's.
            before: The model of the stage before, which becomes a frozen part of a prior or an enhancer.

        Raises:
            ValueError: if an option is not possible, or the model to start from is made of anything else.
        """
        model = self._fresh(stage, before)
        if self.start and stage.name in self.start.models:
            _check_alike(model, self.start.models[stage.name], self.start.folder, stage.name)
            start_from(model, self.start.models[stage.name])
        return model

    def _fresh(self, stage: Stage, before: Generator | None) -> Generator:
        told = stage.options | {"seed": self.seed}
        if stage.name == "tokenizer":
            return TimeVQVAE(**self.signal, **told)
        if stage.name == "prior":
            return TokenPrior(bare(before), **self.label, **told)
        if stage.name == "enhancer":
            return FidelityEnhancer(bare(before), **told)
        return OBJECTIVES[self.preset.objective](**self.signal, **self.label, **told)

    def check(self, strategy: tf.distribute.Strategy, accumulate: int = 1, records: int | None = None) -> None:
        """Makes and drops every model, so that what is not possible is refused before a file is touched.

        Args:
            strategy: Of the training.
            accumulate: Parts of a batch.
            records: As many start the codebooks of a tokenizer that has no start; None starts none.

        Raises:
            ValueError: if an option is not possible, `accumulate` does not fit the strategy, the start does not fit the stages, or the
                records are too few.
        """
        before = None
        with strategy.scope():
            for stage in self.preset.stages:
                if stage.steps:
                    before = self.build(stage, before)
                    before.compile(accumulate=accumulate)
                    if isinstance(before, TimeVQVAE) and records is not None and self.start is None:
                        before.check_start(records)
        before.check_sampling(self.preset.sampling)


def bare(model: Generator) -> Generator:
    """A copy without optimizer and metrics, which would else be in the checkpoints of a model around it."""
    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _check_alike(model: Generator, start: Generator, folder: str, stage: str) -> None:
    """Refuses a start whose networks are not those of the model, by the first argument in which they differ."""
    mine, other = dict(_arguments(model.get_config())), dict(_arguments(start.get_config()))
    for path in mine | other:
        if mine.get(path) != other.get(path):
            there, here = (_told(form.get(path, "its default")) for form in (other, mine))
            raise ValueError(
                f"{folder} was trained with {path[-1]} {there}, this one has {here} ({stage}); expected the same to start from: "
                "choose its data format, preset and options"
            )


def _arguments(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The arguments that make a network, each with the names that lead to it, in the form in which they come back from a file."""
    for name, value in json.loads(json.dumps(config)).items():
        if isinstance(value, dict) and name not in _ITS_OWN:
            yield from _arguments(value, (*path, name))
        elif name not in _ITS_OWN:
            yield (*path, name), value


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
