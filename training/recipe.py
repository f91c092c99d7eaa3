"""A recipe: everything that decides what a training run computes, as one TOML file.

Where the faces lie, on which device and with how many workers they are read is said on the
command line; it changes nothing about the result.
"""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training import losses
from training.backbones import BACKBONES
from training.data import Augmentation
from training.errors import InvalidRecipe

SHIPPED = Path(__file__).with_name("recipes")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(_Table):
    """
    Attributes:
        backbone: a key of `training.backbones.BACKBONES`.
        dimension: components of the embedding.
        start: "random"; "shipped", the weights of `app/models/sface.onnx` (for `sface`; of
            another dimension than 128, the head's are random); or the path of a checkpoint.
        frozen_batch_norm: keep the statistics it starts with. A few thousand faces of a few
            hundred people would estimate worse ones.
    """

    backbone: str
    dimension: int = Field(default=128, ge=2, le=4096)
    start: str = "random"
    frozen_batch_norm: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if self.backbone not in BACKBONES:
            near = _nearest(self.backbone, list(BACKBONES))
            raise ValueError(
                f"there is no backbone {self.backbone!r}{near}; there are {', '.join(BACKBONES)}"
            )
        if self.start not in ("random", "shipped") and not self.start.endswith(".pt"):
            raise ValueError('start is "random", "shipped" or the path of a checkpoint, *.pt')
        if self.start == "shipped" and self.backbone != "sface":
            raise ValueError('start = "shipped" goes with backbone = "sface" only')
        if self.start == "random" and self.frozen_batch_norm:
            raise ValueError("random weights have no batch-norm statistics to keep")
        return self


class Loss(BaseModel):
    """A name of `training.losses` and the parameters of that loss, its paper's where unset."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Data(_Table):
    """
    Attributes:
        held_out: share of the persons that is only validated on.
        least_faces: persons with fewer are left out.
        clean: leave out faces that the starting weights find less similar to their own
            person than to another, or to nobody: mostly wrong labels.
    """

    held_out: float = Field(default=0.1, gt=0, lt=1)
    least_faces: int = Field(default=2, ge=2)
    clean: bool = False


class Training(_Table):
    """
    Attributes:
        epochs: times every face is seen while all weights are trained.
        head_epochs: before that, while only the backbone's head and the loss's own weights
            are.
        batch_size: faces in one step, over all GPUs.
        faces_per_person: in the batches of losses that compare faces with each other.
        optimiser: SGD has a momentum of 0.9.
        rate: peak learning rate; it rises over `warm_up` epochs and falls along a cosine.
        loss_rate: the same for the loss's own weights, which start from nothing.
        weight_decay: on matrices and kernels; not on biases and normalisation.
        clip: largest norm of the gradient.
        stay_near: strength of the pull towards the starting weights
            (Li et al., "Explicit Inductive Bias for Transfer Learning", ICML 2018).
        precision: of the backbone's trunk; embedding and loss are always float32.
    """

    epochs: int = Field(ge=1)
    head_epochs: int = Field(default=0, ge=0)
    batch_size: int = Field(default=128, ge=2)
    faces_per_person: int = Field(default=4, ge=2)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    rate: Positive
    loss_rate: Positive
    warm_up: float = Field(default=0.5, ge=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    clip: Positive = 5.0
    stay_near: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class Recipe(_Table):
    about: str
    seed: int = Field(default=0, ge=0, lt=2**31)
    model: Model
    loss: Loss
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    training: Training

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.model.start == "random":
            for what, wanted in (
                ("data.clean", self.data.clean),
                ("training.stay_near", self.training.stay_near),
                ("training.head_epochs", self.training.head_epochs),
            ):
                if wanted:
                    raise ValueError(f'{what} needs starting weights: model.start = "shipped"')
        return self


def load(recipe: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        recipe: the name of a shipped one, such as "arcface", or the path of a TOML file.
        changes: assignments such as "training.epochs=2", the value as TOML has it, or text.

    Raises:
        InvalidRecipe: there is no such file, a key is unknown, or a value is not allowed.
    """
    path = Path(recipe) if recipe.endswith(".toml") else SHIPPED / f"{recipe}.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        names = sorted(file.stem for file in SHIPPED.glob("*.toml"))
        if path.parent == SHIPPED:
            raise InvalidRecipe(
                f"There is no recipe {recipe!r}{_nearest(recipe, names)}. Shipped are "
                f"{', '.join(names)}; your own is named by its path, ending in .toml."
            ) from None
        raise InvalidRecipe(f"{path}: {error.strerror}.") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidRecipe(f"{path} is not TOML: {error}.") from None
    for change in changes:
        _change(table, change)
    return parse(table, str(path))


def parse(table: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe that has been read.

    Raises:
        InvalidRecipe: with a line for each key that is wrong.
    """
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        lines = [_explain(part["loc"], part["type"], part["msg"]) for part in error.errors()]
        raise InvalidRecipe("\n".join([f"{origin}:", *lines])) from None
    try:  # each loss knows its own parameters
        loss = losses.build(
            recipe.loss.name,
            dimension=recipe.model.dimension,
            classes=2,
            **recipe.loss.parameters,
        )
    except InvalidRecipe as error:
        raise InvalidRecipe(f"{origin}:\n  {error}") from None
    size, each = recipe.training.batch_size, recipe.training.faces_per_person
    if loss.batches == "person" and (size % each or size < 2 * each):
        raise InvalidRecipe(
            f"{origin}:\n  training.batch_size: {size} is not {each} faces each "
            "(training.faces_per_person) of two persons or more."
        )
    return recipe


def differences(a: Recipe, b: Recipe) -> str:
    """The keys in which two recipes differ, with both values; "" if in none that matters."""
    one, other = (_flatten(recipe.model_dump()) for recipe in (a, b))
    return "; ".join(
        f"{key} was {one.get(key)}, is {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if key != "about" and one.get(key) != other.get(key)
    )


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _change(table: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not key:
        raise InvalidRecipe(f"{change!r} is no assignment; write it as training.epochs=2.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InvalidRecipe(f"{change!r}: {name} is a value, not a table.")
    table[key] = value


def _explain(location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in location) or "recipe"
    if kind == "missing":
        return f"  {name} is missing."
    if kind != "extra_forbidden":
        return f"  {name}: {message.removeprefix('Value error, ')}."
    table: Any = Recipe
    for part in location[:-1]:
        table = table.model_fields[part].annotation
    return f"  {name} is unknown{_nearest(str(location[-1]), list(table.model_fields))}."


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, 1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else ""
