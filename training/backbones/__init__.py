"""Networks from an aligned face to a raw embedding; `build` knows them by name."""

import difflib
from collections.abc import Callable
from functools import partial

from training.backbones.iresnet import IResNet
from training.backbones.layers import Backbone
from training.backbones.mobilefacenet import MobileFaceNet
from training.backbones.sface import SFace
from training.errors import InvalidRecipe

BACKBONES: dict[str, Callable[[int, float], Backbone]] = {
    "mobilefacenet": MobileFaceNet,
    "iresnet18": partial(IResNet, 18),
    "iresnet50": partial(IResNet, 50),
    "iresnet100": partial(IResNet, 100),
    "sface": SFace,
}


def build(name: str, dimension: int, dropout: float = 0.0) -> Backbone:
    """A backbone with random weights.

    Args:
        name: a key of `BACKBONES`.
        dimension: components of the embedding.
        dropout: probability before the layer that makes the embedding.

    Raises:
        InvalidRecipe: there is no backbone of this name.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1, cutoff=0)[0]
        raise InvalidRecipe(
            f"There is no backbone {name!r}; did you mean {near!r}? "
            f"There are {', '.join(BACKBONES)}."
        )
    return BACKBONES[name](dimension, dropout)
