"""From a trained backbone to the file the service runs."""

import contextlib
import io
import logging
import warnings

import numpy as np
import torch
from onnx import ModelProto, helper
from onnxscript import optimizer
from torch import Tensor, nn

from training.backbones.layers import Backbone
from training.export import canonical, graph, parity


class _Canonical(nn.Module):
    """`face` to `embedding` and `norm`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, face: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.backbone(face)
        norm = torch.linalg.vector_norm(raw, dim=1)
        return raw / norm.clamp_min(1e-12).unsqueeze(1), norm


def to_onnx(backbone: Backbone, describe: canonical.Describe) -> ModelProto:
    """The canonical form of a backbone, compared with it.

    Weights are stored as float16 and computed with as float32. Batch normalisations stay
    nodes of their own, so that a backbone can be read back.

    Raises:
        ParityError: the two differ, see `parity`.
    """
    backbone = backbone.cpu().eval()
    model = _trace(backbone)
    graph.fold_constants(model)
    graph.drop_identities(model)
    _flatten(model)
    _drop_zero_biases(model)
    for tensor in list(model.graph.initializer):
        if tensor.name.startswith("backbone."):
            graph.rename(model, tensor.name, tensor.name.removeprefix("backbone."))
            tensor.name = tensor.name.removeprefix("backbone.")
    graph.round_kernels(model)
    graph.store_as_float16(model)
    finished = canonical.finish(model, describe, backbone.dimension)
    parity.require(parity.compare(finished, lambda faces: _raw(backbone, faces)))
    return finished


def _trace(backbone: Backbone) -> ModelProto:
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Canonical(backbone).eval(),
                (torch.zeros(2, 112, 112, 3, dtype=torch.uint8),),
                input_names=["face"],
                output_names=["embedding", "norm"],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                opset_version=graph.OPSET,
                dynamo=True,
                optimize=False,  # it would fold the batch normalisations
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    optimizer.fold_constants(program.model)
    return program.model_proto


def _flatten(model: ModelProto) -> None:
    """The tracer reshapes features to a shape it computes from the input's."""
    for node in list(model.graph.node):
        if node.op_type == "Reshape" and not _is_weight(model, node.input[1]):
            node.CopyFrom(helper.make_node("Flatten", node.input[:1], node.output, axis=1))
    graph.drop_unused_nodes(model)


def _drop_zero_biases(model: ModelProto) -> None:
    """The tracer gives every convolution a bias."""
    for node in model.graph.node:
        bias = node.input[2:] if node.op_type == "Conv" else []
        if bias and _is_weight(model, bias[0]) and not np.any(graph.weight(model, bias[0])):
            del node.input[2]


def _is_weight(model: ModelProto, name: str) -> bool:
    return any(tensor.name == name for tensor in model.graph.initializer)


@torch.no_grad()
def _raw(backbone: Backbone, faces: parity.Faces) -> parity.FloatArray:
    raw: parity.FloatArray = backbone(torch.from_numpy(faces)).numpy()
    return raw
