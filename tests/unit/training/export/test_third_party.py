"""Embedders of others, built here in the form in which InsightFace publishes its own."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from app.models.spec import EmbedderSpec
from training.errors import InvalidSource
from training.export import third_party
from training.export.canonical import Describe
from training.export.publish import describer

BATCH = "None"  # what PyTorch wrote for a free dimension in those days


def foreign(batch: int | str = BATCH, *, weight: float = 0.1, size: int = 112) -> ModelProto:
    """Conv - BN - PReLU, a residual block, then BN - flatten - FC - BN, in opset 11."""
    rng = np.random.default_rng(0)
    weights = {
        "conv1.w": rng.normal(0, weight, (8, 3, 7, 7)),
        "slope": rng.uniform(0, 0.5, (8, 1, 1)),
        "conv2.w": rng.normal(0, weight, (8, 8, 3, 3)),
        "fc.w": rng.normal(0, weight, (32, 8 * 49)),
        "fc.b": rng.normal(0, weight, 32),
    }
    for name, channels in (("bn1", 8), ("bn2", 8), ("bn3", 32)):
        weights |= {
            f"{name}.scale": rng.uniform(0.5, 1.5, channels),
            f"{name}.bias": rng.normal(0, 0.1, channels),
            f"{name}.mean": rng.normal(0, 0.1, channels),
            f"{name}.var": rng.uniform(0.5, 1.5, channels),
        }

    def bn(name: str, here: str) -> onnx.NodeProto:
        parts = [f"{name}.{part}" for part in ("scale", "bias", "mean", "var")]
        return helper.make_node("BatchNormalization", [here, *parts], [name])

    conv = {"kernel_shape": [7, 7], "strides": [16, 16]}
    nodes = [
        helper.make_node("Conv", ["input.1", "conv1.w"], ["conv1"], **conv),
        bn("bn1", "conv1"),
        helper.make_node("PRelu", ["bn1", "slope"], ["prelu"]),
        helper.make_node("Conv", ["prelu", "conv2.w"], ["conv2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["conv2", "prelu"], ["add"]),
        bn("bn2", "add"),
        helper.make_node("Dropout", ["bn2"], ["drop"]),
    ]
    tensors = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()
    ]
    if batch == 1:
        tensors.append(numpy_helper.from_array(np.array([1, 392]), "shape"))
        nodes.append(helper.make_node("Reshape", ["drop", "shape"], ["flat"]))
    else:
        nodes.append(helper.make_node("Flatten", ["drop"], ["flat"]))
    nodes += [helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["fc"], transB=1), bn("bn3", "fc")]
    image = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [batch, 3, size, size])
    output = helper.make_tensor_value_info("bn3", TensorProto.FLOAT, [1, 32])
    graph = helper.make_graph(nodes, "foreign", [image], [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def describe(dimension: int) -> Describe:
    return describer(name="theirs", licence="x", origin="x", training_data="x", dimension=dimension)


def embed(model: ModelProto, image: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


@pytest.mark.parametrize("batch", [BATCH, 1])
@pytest.mark.parametrize(
    ("preset", "wanted"),
    [
        ("insightface", lambda rgb: (rgb - 127.5) / 127.5),
        ("adaface", lambda rgb: (rgb[..., ::-1] - 127.5) / 127.5),
        ("magface", lambda rgb: rgb[..., ::-1] / 255),
        ("pixels", lambda rgb: rgb),
    ],
)
def test_it_computes_what_its_source_computes(
    preset: str, wanted: object, batch: int | str
) -> None:
    source = foreign(batch)
    model = third_party.convert(source, third_party.preset(preset), describe)
    faces = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), np.uint8)
    for face, found in zip(faces, embed(model, faces), strict=True):
        planes = wanted(face.astype(np.float32)).transpose(2, 0, 1)[None]
        raw = embed(foreign(batch), np.ascontiguousarray(planes, np.float32))[0]
        assert found @ raw / np.linalg.norm(raw) >= 0.99999
    spec = EmbedderSpec.model_validate_json(model.metadata_props[0].value)
    assert (spec.name, spec.dimension) == ("theirs", 32)


def types(model: ModelProto) -> set[int]:
    return {t.data_type for t in model.graph.initializer if np.prod(t.dims) >= 1024}


def test_weights_are_halved_only_where_that_is_harmless() -> None:
    wants = third_party.preset("insightface")
    assert types(third_party.convert(foreign(), wants, describe)) == {TensorProto.FLOAT16}
    # Beyond 65,504 float16 has infinity.
    huge = foreign(weight=1e5)
    assert types(third_party.convert(huge, wants, describe)) == {TensorProto.FLOAT}


def test_what_is_unfit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="did you mean 'insightface'"):
        third_party.preset("insight")
    with pytest.raises(InvalidSource, match=r"should be \(n, 3, 112, 112\); there is input.1"):
        third_party.convert(foreign(size=160), third_party.preset("insightface"), describe)
    path = tmp_path / "x.onnx"
    with pytest.raises(InvalidSource, match="No such file"):
        third_party.load(path)
    path.write_bytes(b"no protobuf")
    with pytest.raises(InvalidSource, match="not an ONNX file"):
        third_party.load(path)
