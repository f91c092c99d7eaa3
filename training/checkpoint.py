"""What a training run leaves on disk: tensors and plain values, read without running code."""

import io
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training import backbones
from training.backbones import Backbone
from training.errors import InvalidCheckpoint, InvalidRecipe
from training.files import replacing
from training.recipe import Model, Recipe, parse

FORMAT = 1
_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """
    Attributes:
        recipe: what it was trained by.
        weights: of the backbone, float32 on the CPU.
        figures: of these weights on the persons held out, by name.
        progress: what `train` needs to go on; None where nobody is to go on from.
    """

    recipe: Recipe
    weights: dict[str, Tensor]
    figures: dict[str, float]
    progress: dict[str, Any] | None = None


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in full or not at all, power cut included.

    Raises:
        NoSpace: the disk is full; what was at `path` is still there.
    """
    buffer = io.BytesIO()  # torch.save hides the operating system's errors
    torch.save(
        {
            "format": FORMAT,
            "recipe": checkpoint.recipe.model_dump_json(),
            "weights": checkpoint.weights,
            "figures": checkpoint.figures,
            "progress": checkpoint.progress,
        },
        buffer,
    )
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> Checkpoint:
    """
    Raises:
        InvalidCheckpoint: it is not there, damaged, or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise InvalidCheckpoint(
                f"{path} has format {content['format']}; this version reads {FORMAT}."
            )
        recipe = parse(json.loads(content["recipe"]), str(path))
        return Checkpoint(recipe, content["weights"], content["figures"], content["progress"])
    except OSError as error:
        raise InvalidCheckpoint(f"{path}: {error.strerror}.") from None
    except InvalidRecipe as error:
        raise InvalidCheckpoint(f"{error}\nIt was written by another version.") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError):
        raise InvalidCheckpoint(f"{path} is damaged, or no checkpoint of faceid-train.") from None


def build(model: Model, weights: dict[str, Tensor], origin: str) -> Backbone:
    """A backbone with these weights.

    Raises:
        InvalidCheckpoint: they belong to another architecture.
    """
    backbone = backbones.build(model.backbone, model.dimension)
    fill(backbone, weights, f"{origin} does not fit {model.backbone}-{model.dimension}")
    return backbone


def fill(module: nn.Module, weights: dict[str, Tensor], misfit: str) -> None:
    """Give a module its weights.

    Args:
        misfit: how the message begins where they are of something else.

    Raises:
        InvalidCheckpoint: names or shapes differ; it says which.
    """
    own = module.state_dict()
    differences = [
        *(f"{name} is missing" for name in own.keys() - weights.keys()),
        *(f"{name} is unknown" for name in weights.keys() - own.keys()),
        *(
            f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
            for name in own.keys() & weights.keys()
            if weights[name].shape != own[name].shape
        ),
    ]
    if differences:
        more = len(differences) - _SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        raise InvalidCheckpoint(f"{misfit}: {'; '.join(sorted(differences)[:_SHOWN])}{rest}.")
    module.load_state_dict(weights)
