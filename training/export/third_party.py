"""Bring somebody else's embedder into the form the service runs."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, version_converter

from app.vision.geometry import FACE_SIZE
from training.errors import InvalidSource, ParityError
from training.export import canonical, graph, parity


class Preset(NamedTuple):
    """What a family of embedders wants at its input: (x - mean) * scale of every pixel x."""

    bgr: bool
    mean: float
    scale: float


# As the code each project publishes for inference feeds its nets: InsightFace `arcface_onnx.py`,
# AdaFace `inference.py`, MagFace `inference/gen_feat.py`. An InsightFace file whose graph begins
# with its own Sub and Mul takes "pixels".
PRESETS = {
    "insightface": Preset(bgr=False, mean=127.5, scale=1 / 127.5),
    "adaface": Preset(bgr=True, mean=127.5, scale=1 / 127.5),
    "magface": Preset(bgr=True, mean=0.0, scale=1 / 255),
    "pixels": Preset(bgr=False, mean=0.0, scale=1.0),
}


def preset(name: str) -> Preset:
    """
    Raises:
        InvalidSource: there is none of that name.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1, cutoff=0)[0]
        raise InvalidSource(
            f"There is no preset {name!r}; did you mean {near!r}? There are {', '.join(PRESETS)}."
        )
    return PRESETS[name]


def load(path: Path) -> ModelProto:
    """
    Raises:
        InvalidSource: it is not there, or not ONNX.
    """
    try:
        return onnx.load(path)
    except OSError as error:
        raise InvalidSource(f"{path}: {error.strerror}.") from None
    except DecodeError:
        raise InvalidSource(f"{path} is not an ONNX file.") from None


def convert(
    source: ModelProto, wants: Preset, describe: Callable[[int], canonical.Describe]
) -> ModelProto:
    """The canonical form of an embedder of 112 x 112 faces in ArcFace's template.

    Its input is float (n or 1, 3, 112, 112), its first output (n or 1, d). The batch becomes
    free; weights are stored as float16 where that passes the comparison with the source.

    Args:
        describe: from the dimension of its embeddings.

    Raises:
        InvalidSource: it has other inputs or outputs.
        ParityError: the two differ, see `parity`.
    """
    weights = {tensor.name for tensor in source.graph.initializer}
    images = [value for value in source.graph.input if value.name not in weights]
    if len(images) != 1 or _shape(images[0])[1:] != [3, FACE_SIZE, FACE_SIZE]:
        found = ", ".join(f"{value.name} {_shape(value)}" for value in images)
        raise InvalidSource(f"The one input should be (n, 3, 112, 112); there is {found}.")
    image, one_by_one = images[0].name, _shape(images[0])[0] == 1
    graph.drop_initializers_from_inputs(source, image)

    def reference(faces: parity.Faces) -> parity.FloatArray:
        planes = (faces.astype(np.float32) - wants.mean) * np.float32(wants.scale)
        planes = planes[..., ::-1] if wants.bgr else planes
        nchw = np.ascontiguousarray(planes.transpose(0, 3, 1, 2))
        return np.concatenate([parity.run(source, face[None])[0] for face in nchw])

    dimension = reference(parity.noise((1, FACE_SIZE, FACE_SIZE, 3))).shape[-1]
    model = _current(source)
    graph.drop_identities(model)
    graph.fold_constants(model)
    if one_by_one:
        _free_batch(model)
    raw = model.graph.output[0].name
    canonical.take_faces(model, image, **wants._asdict())
    canonical.give_embeddings(model, raw)

    half = ModelProto()
    half.CopyFrom(model)
    graph.round_kernels(half)
    graph.store_as_float16(half)
    try:
        finished = canonical.finish(half, describe(dimension), dimension)
        parity.require(parity.compare(finished, reference))
    except ParityError:
        finished = canonical.finish(model, describe(dimension), dimension)
        parity.require(parity.compare(finished, reference))
    return finished


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


def _current(source: ModelProto) -> ModelProto:
    """The model in the set of operators this project writes."""
    versions = {opset.domain: opset.version for opset in source.opset_import}
    if set(versions) - {"", "ai.onnx"}:
        raise InvalidSource(f"It uses operators of {', '.join(filter(None, versions))}.")
    return version_converter.convert_version(source, graph.OPSET)


def _free_batch(model: ModelProto) -> None:
    """Let reshapes that say "1 face" say "as many as came"."""
    for node in model.graph.node:
        if node.op_type == "Reshape" and any(
            t.name == node.input[1] for t in model.graph.initializer
        ):
            shape = graph.weight(model, node.input[1]).copy()
            if len(shape) and shape[0] == 1:
                shape[0] = 0
                graph.set_weight(model, node.input[1], shape)
