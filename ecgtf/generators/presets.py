"""Sizes and lengths of generators and their trainings, by name: `tiny` for the demo, `small` for 2 cores, `base` for one GPU, `paper`
with the published networks, but for the token prior."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ecgtf.generators.base import Generator
from ecgtf.generators.diffusion import Diffusion
from ecgtf.generators.fidelity_enhancer import FidelityEnhancer
from ecgtf.generators.flow import FlowMatching
from ecgtf.generators.time_vqvae import TimeVQVAE
from ecgtf.generators.token_prior import TokenPrior

OBJECTIVES: dict[str, type[Generator]] = {"diffusion": Diffusion, "flow": FlowMatching}
"""What a network that takes noise away is trained as."""


@dataclass(frozen=True)
class Stage:
    """One training: what the model is made with, and for how long and how fast it learns."""

    name: str
    options: Mapping[str, Any]
    steps: int
    learning_rate: float
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class Preset:
    """The stages of a generator, the records a step, and how it is drawn from unless told otherwise."""

    stages: tuple[Stage, ...]
    """One after the other; a stage of 0 steps is left out."""
    batch_size: int
    sampling: Mapping[str, Any]
    objective: str | None = None

    def with_lengths(
        self, steps: Sequence[int] | None = None, learning_rate: float | None = None, batch_size: int | None = None
    ) -> Preset:
        """The preset with other numbers of steps for its first stages, another peak learning rate for all, another batch size.

        Raises:
            ValueError: if the steps do not fit the stages, or a batch has no records.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"expected a batch_size of at least 1 record, received {batch_size}")
        names = [stage.name for stage in self.stages]
        given = list(steps or ()) + [stage.steps for stage in self.stages[len(steps or ()) :]]
        least = [0 if name == "enhancer" else 1 for name in names]
        if len(given) != len(names) or any(number < few for number, few in zip(given, least, strict=True)):
            raise ValueError(f"expected training steps, 1 or more, for {' and '.join(names)}, received {tuple(steps)}")
        stages = [
            replace(stage, steps=number, learning_rate=stage.learning_rate if learning_rate is None else learning_rate)
            for stage, number in zip(self.stages, given, strict=True)
        ]
        return replace(self, stages=tuple(stages), batch_size=self.batch_size if batch_size is None else batch_size)

    def with_options(self, options: Mapping[str, Mapping[str, Any]]) -> Preset:
        """The preset with other arguments for the models of its stages.

        Raises:
            ValueError: if there is no such stage, its model takes no such argument, or it is to be true or false.
        """
        stages = {stage.name: stage for stage in self.stages}
        for name, values in options.items():
            if name not in stages:
                raise ValueError(f"unknown stage {name!r}; expected one of {', '.join(stages)}")
            known = _arguments(OBJECTIVES[self.objective] if name == "denoiser" else MODELS[name])
            there = stages[name].options
            for option, value in values.items():
                if option not in known:
                    raise ValueError(f"{name} has no option {option!r}; expected one of {', '.join(known)}")
                if isinstance(known[option], bool) and not isinstance(value, bool):
                    raise ValueError(f"expected true or false for {name}.{option}, received {value!r}")
                if isinstance(there.get(option), Mapping):  # the sizes that are not named stay
                    if not isinstance(value, Mapping):
                        raise ValueError(f"expected names and values for {name}.{option}, received {value!r}")
                    values = {**values, option: {**there[option], **value}}
            stages[name] = replace(stages[name], options={**there, **values})
        return replace(self, stages=tuple(stages.values()))


MODELS: dict[str, type[Generator]] = {"tokenizer": TimeVQVAE, "prior": TokenPrior, "enhancer": FidelityEnhancer}
"""What the stages of Time-VQVAE train."""


def _arguments(build: type[Generator]) -> dict[str, Any]:
    """The keyword arguments of a model that are its own, with their defaults: what the data and the command say are not among them."""
    told = {"classes", "task", "conditions", "network"}
    return {
        name: value.default
        for parent in build.__mro__[: build.__mro__.index(Generator)]
        for name, value in inspect.signature(parent.__init__).parameters.items()
        if value.kind is value.KEYWORD_ONLY and name not in told
    }


def _vqvae(
    tokenizer: dict, prior: dict, steps: Sequence[int], rates: Sequence[float], batch_size: int, sampling: dict
) -> Preset:
    stages = (
        Stage("tokenizer", tokenizer, steps[0], rates[0]),
        Stage("prior", prior, steps[1], rates[1], weight_decay=0.03),
        Stage("enhancer", {"width": 8, "multipliers": (1, 2, 4, 8)}, steps[2], 1e-3),
    )
    return Preset(stages, batch_size, sampling)


def _denoiser(network: str, sizes: dict, steps: int, rate: float, batch_size: int, sampling: dict, **options) -> Preset:
    stage = Stage("denoiser", {"network": network, "network_options": sizes} | options, steps, rate)
    return Preset((stage,), batch_size, sampling, "diffusion")


_FEW_DECODINGS = {"guidance": 2.0, "steps": (32, 16)}
_MUCH_NOISE = {"schedule": "cosine", "schedule_options": {"shift": 0.2}, "noise_levels": 1000}
_V = {"prediction": "v"} | _MUCH_NOISE
# Of a patch, the noise has as many dimensions as it has samples and leads; v asks a narrow network for all of them, x0 for the signal's.
_X0 = {"prediction": "x0", "v_limit": 5.0} | _MUCH_NOISE
_FEW_STEPS = {"guidance": 1.5, "sampler": "dpmpp", "steps": 25}
_NEAR_STEPS_ALIKE = {"last_frequency": 1e-4}

PRESETS: dict[str, dict[str, Preset]] = {
    "vqvae": {
        "tiny": _vqvae(
            {"width": 64, "depth": 1},
            {"width": 96, "depth": (3, 2)},
            (200, 300, 0),
            (2e-3, 2e-3),
            32,
            _FEW_DECODINGS,
        ),
        "small": _vqvae(
            {"width": 128, "depth": 2},
            {"width": 128, "depth": (4, 4)},
            (300, 400, 0),
            (2e-3, 2e-3),
            32,
            _FEW_DECODINGS,
        ),
        "base": _vqvae(
            {"width": 256, "depth": 2},
            {"width": 256, "depth": (8, 6), "heads": 8},
            (20_000, 40_000, 0),
            (1e-3, 5e-4),
            128,
            _FEW_DECODINGS,
        ),
        # The tokenizer, its rate and all lengths are those of the public code. It leaves 7 low and 2 x 31 high tokens of 10 s at 100 Hz,
        # of little use for ECGs: 7 are fewer than the beats. With a `downsampling` of (32, 8) there are 31 and 2 x 125, about as many
        # bits as the other presets have.
        "paper": _vqvae(
            {
                "coder": "published",
                "downsampling": None,
                "width": 128,
                "depth": 2,
                "decay": 0.8,
                "commitment": 1.0,
                "lead_loss": 0.0,
                "reset_below": 0.0,
            },
            {"width": 128, "depth": (4, 1), "heads": 2, "mask_convention": "known", "causal": False, "token_drop": 0.3},
            (20_000, 40_000, 3_000),
            (5e-3, 1e-3),
            32,
            {"guidance": 1.0, "steps": (10, 10), "temperature": (10.0, 0.0)},
        ),
    },
    "diffwave": {
        "tiny": _denoiser(
            "diffwave", {"width": 32, "depth": 8, "cycle": 6} | _NEAR_STEPS_ALIKE, 400, 2e-3, 32, _FEW_STEPS, patch=4, **_X0
        ),
        "small": _denoiser(
            "diffwave",
            {"width": 128, "depth": 10, "cycle": 5, "blocks": 4} | _NEAR_STEPS_ALIKE,
            5000,
            1e-3,
            32,
            _FEW_STEPS,
            patch=5,
            **_X0,
        ),
        "base": _denoiser(
            "diffwave", {"width": 256, "depth": 36, "cycle": 12} | _NEAR_STEPS_ALIKE, 100_000, 4e-4, 64, _FEW_STEPS, **_V
        ),
        "paper": _denoiser(
            "diffwave",
            {"width": 64, "depth": 30, "cycle": 10},
            200_000,
            2e-4,
            16,
            {"guidance": 1.0, "sampler": "ddpm", "steps": 50},
            schedule="linear",
            schedule_options={"last": 0.05},
            prediction="eps",
            loss="l1",
            noise_levels=50,
        ),
    },
    "timediffusion": {
        "tiny": _denoiser("timediffusion", {"width": 24, "multipliers": (1, 2, 4)}, 400, 2e-3, 32, _FEW_STEPS, patch=4, **_X0),
        "small": _denoiser(
            "timediffusion",
            {"width": 48, "multipliers": (1, 2, 4), "blocks": 4},
            5600,
            1e-3,
            32,
            _FEW_STEPS,
            patch=4,
            **_X0,
        ),
        "base": _denoiser(
            "timediffusion", {"width": 96, "multipliers": (1, 2, 4, 8), "blocks": 4}, 100_000, 4e-4, 64, _FEW_STEPS, **_V
        ),
        "paper": _denoiser(
            "timediffusion",
            {"width": 64, "multipliers": (1, 2, 4, 8)},
            200_000,
            2e-4,
            32,
            {"guidance": 1.0, "sampler": "ddim", "steps": 200},
            schedule="linear",
            prediction="x0",
            loss="l1",
            noise_levels=1000,
            label_drop=0.1,
        ),
    },
}
"""Presets by generator and name."""


def get_preset(kind: str, name: str, objective: str | None = None) -> Preset:
    """The preset of a generator, for another objective where one is named.

    Raises:
        ValueError: if there is none.
    """
    if kind not in PRESETS:
        raise ValueError(f"unknown generator {kind!r}; expected one of {', '.join(PRESETS)}")
    if name not in PRESETS[kind]:
        raise ValueError(f"unknown preset {name!r}; expected one of {', '.join(PRESETS[kind])}")
    preset = PRESETS[kind][name]
    if objective in (None, preset.objective):
        return preset
    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}; expected one of {', '.join(OBJECTIVES)}")
    if preset.objective is None:
        raise ValueError(
            f"{kind} has no choice of objective; it is for {', '.join(kind for kind in PRESETS if kind != 'vqvae')}"
        )
    shared = {"network", "network_options", "patch", "noise_levels", "label_drop", "prefix"}
    (stage,) = preset.stages
    if stage.options.get("patch", 1) > 1:
        shared |= {"prediction", "v_limit"}
    options = {name: value for name, value in stage.options.items() if name in shared} | {"noise_levels": 1000}
    if kind == "diffwave":  # a flow's times are many, and near ones alike
        options["network_options"] = options["network_options"] | _NEAR_STEPS_ALIKE
    stage = replace(stage, options=options)
    sampling = preset.sampling | {"sampler": "heun", "steps": 25}
    return replace(preset, stages=(stage,), sampling=sampling, objective=objective)
