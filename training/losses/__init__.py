"""Every loss by its name in a recipe; each class says its formula and where it comes from.

`classification` holds those with a weight vector for each person, `pairs` those that compare
faces with each other. The losses themselves are pytorch-metric-learning's where it has them in
the form of the paper.
"""

import difflib
import inspect
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter, ValidationError

from training.errors import InvalidRecipe
from training.losses.base import Loss
from training.losses.classification import (
    ArcFace,
    ASoftmax,
    Center,
    CosFace,
    NormalisedSoftmax,
    Softmax,
    SubCenterArcFace,
)
from training.losses.pairs import Contrastive, Triplet

LOSSES: dict[str, type[Loss]] = {
    "softmax": Softmax,
    "normalised-softmax": NormalisedSoftmax,
    "center": Center,
    "contrastive": Contrastive,
    "triplet": Triplet,
    "a-softmax": ASoftmax,
    "cosface": CosFace,
    "arcface": ArcFace,
    "subcenter-arcface": SubCenterArcFace,
}


def build(name: str, *, dimension: int, classes: int, **parameters: Any) -> Loss:
    """A loss with its paper's parameters, but for those given.

    Args:
        name: a key of `LOSSES`.
        dimension: components of an embedding.
        classes: persons trained on.
        parameters: of the class's constructor.

    Raises:
        InvalidRecipe: there is no loss or parameter of a name, or a value is not allowed.
    """
    if name not in LOSSES:
        raise InvalidRecipe(f"There is no loss {name!r}; {_did_you_mean(name, LOSSES)}")
    known = inspect.signature(LOSSES[name]).parameters
    free = [parameter for parameter in known if parameter not in {"dimension", "classes"}]
    for parameter, value in parameters.items():
        if parameter not in free:
            hint = _did_you_mean(parameter, free) if free else "it takes none."
            raise InvalidRecipe(f"loss.{parameter} is unknown to {name!r}; {hint}")
        try:
            parameters[parameter] = TypeAdapter(known[parameter].annotation).validate_python(value)
        except ValidationError as error:
            wrong = error.errors()[0]["msg"]
            raise InvalidRecipe(f"loss.{parameter} = {value!r}: {wrong}.") from None
    return LOSSES[name](dimension=dimension, classes=classes, **parameters)


def _did_you_mean(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0)[0]
    return f"did you mean {near!r}? There are {', '.join(known)}."
