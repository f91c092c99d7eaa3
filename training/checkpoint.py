"""What a training run leaves on disk: tensors and plain values, read without running code."""

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training import backbones
from training.backbones.layers import Backbone
from training.data import FaceSet, subset
from training.errors import InvalidCheckpoint, InvalidRecipe, TooFewPersons
from training.files import write
from training.recipe import Model, Recipe, parse

FORMAT = 2
_READABLE = (1, FORMAT)  # the first does not say whom it knows
_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """
    Attributes:
        recipe: what it was trained by.
        weights: of the backbone, float32 on the CPU.
        figures: of these weights on the persons held out, by name; none within an epoch.
        faces_sha256: digest of the labelled faces it was trained on, see `digest`.
        held_out: which of them it was not trained but validated on, (n,) int64.
        known: names of the other persons, those left out included, who may be somebody trained
            on under another name; None in a file that does not say.
        progress: what `train` needs to go on; None where nobody is to go on from.
    """

    recipe: Recipe
    weights: dict[str, Tensor]
    figures: dict[str, float]
    faces_sha256: str
    held_out: Tensor
    known: list[str] | None
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
            "faces_sha256": checkpoint.faces_sha256,
            "held_out": checkpoint.held_out,
            # Names of folders may not be UTF-8; JSON escapes what is not.
            "known": json.dumps(checkpoint.known),
            "progress": checkpoint.progress,
        },
        buffer,
    )
    write(path, buffer.getbuffer())


def load(path: Path) -> Checkpoint:
    """
    Raises:
        InvalidCheckpoint: it is not there, damaged, or something else.
    """
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(f"{path}: {error.strerror}.") from None
    try:
        content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
        if (version := content.pop("format")) not in _READABLE:
            raise InvalidCheckpoint(
                f"{path} has format {version}; this version reads up to {FORMAT}."
            )
        recipe = parse(json.loads(content.pop("recipe")), str(path))
        known = json.loads(content.pop("known", "null"))
        return Checkpoint(recipe=recipe, known=known, **content)
    except InvalidRecipe as error:
        raise InvalidCheckpoint(f"{error}\nIt was written by another version.") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, LookupError, TypeError, ValueError):
        raise InvalidCheckpoint(f"{path} is damaged, or no checkpoint of faceid-train.") from None


def digest(faces: FaceSet) -> str:
    """SHA-256 of the persons' names and of whose each face is; a moved folder keeps it."""
    names = "\n".join(faces.names).encode("utf-8", "surrogateescape")
    return hashlib.sha256(names + faces.labels.tobytes()).hexdigest()


def strangers(faces: FaceSet, *trained: Checkpoint, say: Callable[[str], None] = print) -> FaceSet:
    """Those of `faces` whose persons none of these was trained on, by their names.

    Args:
        say: told, in a line, who is left out, or that nobody is.

    Raises:
        TooFewPersons: nobody remains.
    """
    sha256 = digest(faces)
    unseen = np.arange(len(faces))
    silent = False
    for checkpoint in trained:
        if checkpoint.faces_sha256 == sha256:
            unseen = np.intersect1d(unseen, checkpoint.held_out.numpy())
        else:
            silent |= checkpoint.known is None
        known = set(checkpoint.known or ())
        strange = np.array([name not in known for name in faces.names])
        unseen = unseen[strange[faces.labels[unseen]]]
    persons, left = len(faces.names), len(np.unique(faces.labels[unseen]))
    if not left:
        raise TooFewPersons(
            f"The checkpoint knows all {persons:,} persons, by name or number. If they are others, "
            "give them as folders with other names."
        )
    if left < persons:
        say(f"{persons - left:,} of {persons:,} persons are left out: the checkpoint knows them.")
    elif not silent:
        say(f"None of the {persons:,} persons bears a name that the checkpoint knows.")
    if silent:
        say(
            "Warning: a checkpoint of an earlier version does not say whom it was trained on, and "
            "it was not exactly on these faces. Whom it knows of them is not left out."
        )
    return subset(faces, unseen)


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
