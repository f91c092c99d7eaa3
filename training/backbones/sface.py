"""The embedder that ships with the service, as a PyTorch module to fine-tune.

Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition",
IEEE TIP 2021, as published by OpenCV Zoo: the trunk of MobileNet v1 (Howard et al., 2017) with
PReLU, which halves 112 x 112 to 7 x 7 in four steps.
"""

from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from app.models.spec import SHIPPED_EMBEDDER
from training.backbones.cpu import DepthwiseConv, PReLU
from training.backbones.layers import Backbone, Standardise, embedding_norm, initialise
from training.errors import InvalidCheckpoint
from training.export import graph

STEM = 32
# Channels and stride of each depthwise-separable block.
BLOCKS = (
    (64, 1),
    (128, 2), (128, 1),
    (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip

# The batch normalisations divide by sqrt(variance + eps); these are the file's.
TRUNK_EPS = 1e-3
HEAD_EPS = 2e-5


class SFace(Backbone):
    """MobileNet v1 trunk of 1,024 features, then BN - dropout - FC - BN.

    Args:
        dimension: 128 in the shipped weights.
        dropout: probability before the fully connected layer.
    """

    def __init__(self, dimension: int = 128, dropout: float = 0.0) -> None:
        blocks = [nn.Sequential(*_unit(nn.Conv2d(3, STEM, 3, padding=1, bias=False)))]
        channels = STEM
        for outputs, stride in BLOCKS:
            blocks.append(
                nn.Sequential(
                    *_unit(DepthwiseConv(channels, 3, stride, padding=1)),
                    *_unit(nn.Conv2d(channels, outputs, 1, bias=False)),
                )
            )
            channels = outputs
        head = nn.Sequential(
            nn.BatchNorm2d(channels, HEAD_EPS),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * 7 * 7, dimension),
            embedding_norm(dimension, HEAD_EPS),
        )
        super().__init__(nn.Sequential(Standardise(), *blocks), head, dimension)
        initialise(self)


def _unit(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    channels = convolution.out_channels
    return convolution, nn.BatchNorm2d(channels, TRUNK_EPS), PReLU(channels)


def load(
    path: Path = SHIPPED_EMBEDDER, dimension: int | None = None, dropout: float = 0.0
) -> SFace:
    """SFace with the weights of an ONNX file: the shipped one, or one exported from it.

    Weights are taken in the order of the graph, whatever their names are.

    Args:
        dimension: of the embedding; another one than the file's leaves the fully connected
            layer and the batch normalisation after it as they are initialised.

    Raises:
        InvalidCheckpoint: the file cannot be read, is not ONNX, or of another architecture.
    """
    try:
        proto = onnx.load(path)
    except OSError as error:
        raise InvalidCheckpoint(f"{path}: {error.strerror}.") from None
    except DecodeError:
        raise InvalidCheckpoint(f"{path} is not an ONNX file.") from None
    graph.fold_constants(proto)
    # A layer's weights have the same order here, in the graph and in a state dict.
    stored = [
        torch.from_numpy(graph.weight(proto, name).copy())
        for node in proto.graph.node
        if node.op_type in {"Conv", "BatchNormalization", "PRelu", "Gemm"}
        for name in node.input[1:]
    ]
    in_file = len(stored[-1]) if stored else 0
    model = SFace(dimension or in_file, dropout)
    wanted = [t for t in model.state_dict().values() if t.is_floating_point()]
    if model.dimension != in_file:
        of_embedding = 6  # tensors of the last two layers
        stored, wanted = stored[:-of_embedding], wanted[:-of_embedding]
    if [t.numel() for t in stored] != [t.numel() for t in wanted]:
        raise InvalidCheckpoint(f"{path} does not hold the layers of SFace.")
    for tensor, value in zip(wanted, stored, strict=True):
        tensor.copy_(value.view_as(tensor))
    return model
