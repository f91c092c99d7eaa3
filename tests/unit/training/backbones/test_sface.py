"""The rebuilt SFace against the shipped file, run by ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from app.models.spec import SHIPPED_DETECTOR, SHIPPED_EMBEDDER
from app.vision.image import Image
from training.backbones import sface
from training.errors import InvalidCheckpoint
from training.export import graph


@pytest.fixture(scope="module")
def faces() -> Image:
    """Blocky noise, (4, 112, 112, 3): it drives the deep layers over their whole range."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 14, 14, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 8, 8, 1), np.uint8))


@pytest.fixture(scope="module")
def shipped() -> sface.SFace:
    return sface.load().eval()


def onnx_embeddings(faces: Image) -> np.ndarray:
    """Embeddings (n, 128) before normalisation."""
    session = ort.InferenceSession(SHIPPED_EMBEDDER, providers=["CPUExecutionProvider"])
    embeddings, norms = session.run(["embedding", "norm"], {"face": faces})
    return embeddings * norms[:, None]


def test_it_computes_what_the_shipped_file_does(shipped: sface.SFace, faces: Image) -> None:
    with torch.inference_mode():
        embeddings = shipped(torch.from_numpy(faces)).numpy()
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, onnx_embeddings(faces), atol=1e-4)


def test_float_faces_are_embedded_like_uint8_ones(shipped: sface.SFace, faces: Image) -> None:
    pixels = torch.from_numpy(faces[:1])
    with torch.inference_mode():
        assert torch.equal(shipped(pixels), shipped(pixels.float()))


def test_trunk_and_head_make_the_whole(shipped: sface.SFace, faces: Image) -> None:
    pixels = torch.from_numpy(faces[:2])
    with torch.inference_mode():
        features = shipped.trunk(pixels)
        assert features.shape == (2, 1024, 7, 7)
        assert torch.equal(shipped.head(features), shipped(pixels))


def test_another_dimension_keeps_the_trunk_alone(shipped: sface.SFace) -> None:
    wide = sface.load(dimension=512)
    assert wide.head[-1].num_features == 512
    for own, original in zip(
        wide.trunk.state_dict().values(), shipped.trunk.state_dict().values(), strict=True
    ):
        assert torch.equal(own, original)
    assert torch.equal(wide.head[0].running_var, shipped.head[0].running_var)
    assert torch.equal(wide.head[-1].running_var, torch.ones(512))


def test_a_file_with_one_layer_less_is_refused(tmp_path: Path) -> None:
    model = onnx.load(SHIPPED_EMBEDDER)
    activation = next(node for node in model.graph.node if node.op_type == "PRelu")
    graph.rename(model, activation.output[0], activation.input[0])
    model.graph.node.remove(activation)
    path = tmp_path / "less.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidCheckpoint, match=r"less\.onnx does not hold the layers"):
        sface.load(path)


def test_another_model_is_refused() -> None:
    with pytest.raises(InvalidCheckpoint, match="does not hold the layers"):
        sface.load(SHIPPED_DETECTOR)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"not a protocol buffer")
    with pytest.raises(InvalidCheckpoint, match="is not an ONNX file"):
        sface.load(path)
    with pytest.raises(InvalidCheckpoint, match=r"none\.onnx: No such file"):
        sface.load(tmp_path / "none.onnx")
