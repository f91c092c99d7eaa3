"""A model file with all that belongs to it: the calibration inside, the card beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto
from pydantic import ValidationError

from app.models.spec import EmbedderSpec
from training.calibration import calibrate
from training.data import FaceSet
from training.errors import TrainingError
from training.export.canonical import Describe
from training.files import replacing
from training.recipe import Recipe


def describer(
    *, name: str, licence: str, origin: str, training_data: str, dimension: int
) -> Describe:
    """
    Raises:
        TrainingError: the name is not allowed.
    """

    def describe(digest: str) -> EmbedderSpec:
        return EmbedderSpec(
            name=name,
            licence=licence,
            origin=origin,
            training_data=training_data,
            dimension=dimension,
            weights_sha256=digest,
        )

    try:
        describe("0" * 64)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise TrainingError(f"{wrong['loc'][0]}: {wrong['msg']}.") from None
    return describe


def publish(
    model: ModelProto,
    output: Path,
    *,
    faces: FaceSet | None,
    dataset: str,
    made_with: str,
    recipe: Recipe | None = None,
    figures: Mapping[str, float] | None = None,
) -> EmbedderSpec:
    """Write a canonical embedder, calibrated, and its card `<output>.md`; all of it or nothing.

    Args:
        faces: of people it was not trained on, to calibrate with.
        dataset: what they are.
        made_with: the command line.
        recipe: what it was trained by.
        figures: shares measured on persons held out, by name.

    Raises:
        InvalidFaces, Unresolvable: it cannot be calibrated with these faces.
        NoSpace: the disk is full; the files are what they were.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))
        spec = EmbedderSpec.model_validate_json(model.metadata_props[0].value)
        if faces is not None:
            calibration = calibrate(partial, faces, dataset)
            spec = spec.model_copy(update={"calibration": calibration})
        content = partial.read_bytes()
        with replacing(output.with_suffix(".md")) as card:
            text = _card(output.name, content, spec, made_with, recipe, figures)
            card.write_text(text, encoding="utf-8")
    return spec


def _card(
    file: str,
    content: bytes,
    spec: EmbedderSpec,
    made_with: str,
    recipe: Recipe | None,
    figures: Mapping[str, float] | None,
) -> str:
    rows = {
        "name": f"`{spec.name}`",
        "origin": spec.origin,
        "licence": spec.licence,
        "training data": spec.training_data,
        "sha256 of the file": f"`{hashlib.sha256(content).hexdigest()}`",
        "size": f"{len(content) / 1e6:.1f} MB",
        "input": "`face` uint8 (n, 112, 112, 3), RGB, cut by the ArcFace five-point template",
        "output": f"`embedding` float32 (n, {spec.dimension}) of unit length; `norm` float32 (n,), "
        "its length before",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    parts = [
        f"# {file}: face embedder",
        f"| | |\n|---|---|\n{table}",
        f"## Made with\n```\n{made_with}\n```",
    ]
    if recipe is not None:
        parts.append(f"by this recipe:\n```toml\n{_toml(recipe)}\n```")
    parts.append(_calibration(spec))
    if figures:
        listed = "\n".join(f"| {name} | {100 * share:.2f} % |" for name, share in figures.items())
        parts.append(f"## Measured\n| on persons held out of training | |\n|---|---|\n{listed}")
    parts.append(
        "## Limits\nNo liveness: a photo of a photo is embedded like a face. Error rates were not "
        "measured by demographic group."
    )
    return "\n\n".join(parts) + "\n"


def _calibration(spec: EmbedderSpec) -> str:
    known = spec.calibration
    if known is None:
        return (
            "Not calibrated: the service chooses no thresholds for it. `faceid-train calibrate` "
            "writes them into the file."
        )
    fmr, fpir = known.verification.fmr, known.identification.fpir
    return (
        f"The calibration in the file (`{known.id}`; thresholds for false match rates from "
        f"{fmr[0]:g} to {fmr[-1]:g} and false positive identification rates from {fpir[0]:g} to "
        f"{fpir[-1]:g}) was measured on {known.faces:,} faces of {known.persons:,} people, "
        f"{known.verification.impostor_pairs:,} pairs of different ones: {known.dataset}."
    )


def _toml(recipe: Recipe) -> str:
    """The recipe with all defaults written out."""
    tables = recipe.model_dump()
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    lines = _assignments(plain)
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *_assignments(table)]
    return "\n".join(lines)


def _assignments(table: Mapping[str, Any]) -> list[str]:
    # A JSON string, number or boolean is one of TOML too.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]
