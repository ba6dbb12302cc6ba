"""Transfer of generators: a model starts from the weights of another of the same form, trained on other records."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from keras import ops

from ecgtf.conditions import columns
from ecgtf.generators.base import Generator
from ecgtf.generators.condition import Condition


def start_from(model: Generator, start: Generator) -> None:
    """Gives a model the weights of `start`; vectors of classes and conditions that it does not know are drawn afresh.

    The frozen model of the stage before, which a prior or an enhancer holds, stays too: it has had its own start.

    Raises:
        ValueError: if a weight has another shape there.
    """
    embedded = None
    if hasattr(model, "condition"):
        embedded = _embedding(model, start)
    for weight, value in zip(_own_weights(model), _own_weights(start), strict=True):
        if embedded is not None and weight is model.condition.embedding:
            continue
        if tuple(weight.shape) != tuple(value.shape):
            raise ValueError(
                f"expected {weight.path} of shape {tuple(weight.shape)} to start from, received {tuple(value.shape)}"
            )
        weight.assign(value)
    if embedded is not None:
        model.condition.embedding.assign(embedded)


def _own_weights(model: Generator) -> list:
    """The weights without those of the stage before."""
    frozen = getattr(model, "tokenizer", None) or getattr(model, "prior", None)
    others = {id(weight) for weight in frozen.weights} if frozen is not None else set()
    return [weight for weight in model.weights if id(weight) not in others]


def _embedding(model: Generator, start: Generator) -> np.ndarray:
    """The vectors of classes and conditions: those of `start` where it has the same one, else fresh ones.

    The model's own first vectors would not do: where both have the same seed, they are those that other classes of `start` began with.
    """
    vectors = np.array(ops.convert_to_numpy(model.condition.embedding))
    theirs, known = ops.convert_to_numpy(start.condition.embedding), _rows(start)
    for name, rows in _rows(model).items():
        if name in known:
            vectors[rows] = theirs[known[name]]
        else:
            vectors[rows] = model.condition.fresh("/".join(name), rows.stop - rows.start)
    return vectors


def _rows(model: Generator) -> dict[tuple[str, str], slice]:
    """The rows of the embedding by what they stand for."""
    condition: Condition = model.condition
    names = [("class", name) for name in model.classes] + [("condition", name) for name in model.conditions]
    sizes = [1] * condition.classes + [columns(name) for name in model.conditions]
    ends = np.cumsum([0, *sizes])
    return {name: slice(first, last) for name, (first, last) in zip(names, pairwise(ends), strict=True)}
