"""From PyTorch to the file the service runs."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto

from app.inference.embedder import CpuEmbedder
from app.inference.pool import CorePool
from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec
from tests.unit.training.tiny import Tiny
from training import backbones
from training.backbones import sface
from training.backbones.layers import Backbone
from training.errors import ParityError
from training.export import embedder, graph
from training.export.embedder import to_onnx
from training.export.publish import describer


def export(backbone: Backbone) -> ModelProto:
    about = {"name": "x", "licence": "MIT", "origin": "here", "training_data": "none"}
    return to_onnx(backbone, describer(**about, dimension=backbone.dimension))


def faces(count: int) -> np.ndarray:
    """Smooth noise: as near to faces as the network needs."""
    coarse = np.random.default_rng(count).integers(0, 256, (count, 7, 7, 3), np.uint8)
    return np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8))


def cosines(model: ModelProto, backbone: Backbone, photos: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    embeddings, norms = session.run(["embedding", "norm"], {"face": photos})
    with torch.no_grad():
        raw = backbone.eval()(torch.from_numpy(photos)).numpy()
    lengths = np.linalg.norm(raw, axis=1)
    np.testing.assert_allclose(norms, lengths, rtol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    return (embeddings * raw).sum(axis=1) / lengths


@pytest.fixture(scope="module")
def trained() -> sface.SFace:
    """SFace as training leaves it: no weight is a number that float16 has."""
    backbone = sface.load()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in backbone.parameters():
            p *= 1 + 0.01 * torch.randn(p.shape, generator=generator)
    return backbone.eval()


@pytest.fixture(scope="module")
def exported(trained: sface.SFace) -> ModelProto:
    return export(trained)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_file_computes_what_torch_computes(
    exported: ModelProto, trained: sface.SFace, count: int
) -> None:
    assert cosines(exported, trained, faces(count)).min() >= 0.99999


def test_the_file_is_no_larger_and_no_slower_than_the_shipped_one(exported: ModelProto) -> None:
    """The same layers, and not a node more; weights as float16, batch normalisation unfused."""
    shipped = Counter(node.op_type for node in onnx.load(SHIPPED_EMBEDDER).graph.node)
    ours = Counter(node.op_type for node in exported.graph.node)
    for layer in ("Conv", "BatchNormalization", "PRelu", "Gemm", "Transpose", "Flatten"):
        assert ours[layer] == shipped[layer]
    # Casts of weights are done when the file is loaded.
    assert ours.total() - ours["Cast"] <= shipped.total() - shipped["Cast"]
    assert exported.ByteSize() <= 20_000_000


@pytest.mark.anyio
async def test_the_service_runs_the_file(
    exported: ModelProto, trained: sface.SFace, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(exported, path)
    pool = CorePool(1)
    try:
        service = CpuEmbedder(path, 1, pool)
        assert service.spec.dimension == 128
        photos = faces(2)
        answers = await service.embed(list(photos))
    finally:
        pool.close()
    with torch.no_grad():
        raw = trained(torch.from_numpy(photos)).numpy()
    for answer, wanted in zip(answers, raw, strict=True):
        assert answer.vector @ wanted / np.linalg.norm(wanted) >= 0.99999


def test_training_can_start_again_from_the_file(
    exported: ModelProto, trained: sface.SFace, tmp_path: Path
) -> None:
    onnx.save(exported, tmp_path / "x.onnx")
    again = sface.load(tmp_path / "x.onnx").state_dict()
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_every_kind_of_backbone_can_be_exported(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.build(name, 64)
    model = export(backbone)
    assert cosines(model, backbone, faces(3)).min() >= 0.99999
    spec = EmbedderSpec.model_validate_json(model.metadata_props[0].value)
    assert spec.dimension == 64
    assert spec.weights_sha256 == graph.weights_sha256(model)


def test_what_differs_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: ModelProto) -> None:
        name = "head.2.weight"
        graph.set_weight(model, name, graph.weight(model, name).round(1))

    monkeypatch.setattr(embedder.graph, "round_kernels", spoil)
    with pytest.raises(ParityError, match="nothing was written"):
        export(Tiny(16))
