"""What all backbones are made of."""

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """A face embedder: `head(trunk(faces))`.

    The trunk ends in a map of features, which transfer learning keeps; the head turns that
    map into an embedding.

    Attributes:
        trunk: aligned faces (n, 112, 112, 3) RGB, uint8 or float, 0 to 255, to features
            (n, c, 7, 7).
        head: features to raw embeddings (n, dimension).
        dimension: components of an embedding.
    """

    def __init__(self, trunk: nn.Sequential, head: nn.Sequential, dimension: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.dimension = dimension

    def forward(self, faces: Tensor) -> Tensor:
        """Embed aligned faces.

        Args:
            faces: (n, 112, 112, 3) RGB, uint8 or float, 0 to 255.

        Returns:
            (n, dimension) float32, not normalised: what the length means is up to the loss.
        """
        features: Tensor = self.trunk(faces)
        # Half precision is for the convolutions; an embedding of eight bits would be too coarse.
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.head(features.float())
        return embeddings


class Standardise(nn.Module):
    """Faces (n, h, w, 3), 0 to 255, to planes (n, 3, h, w), -1 to 1: (x - 127.5) / 128.

    Not a byte moves: the planes lie interleaved, as `channels_last` wants them, and every
    later layer keeps that.
    """

    def forward(self, faces: Tensor) -> Tensor:
        return (faces.permute(0, 3, 1, 2).float() - 127.5) / 128


def embedding_norm(dimension: int, eps: float = 1e-5) -> nn.BatchNorm1d:
    """The batch normalisation after ArcFace's fully connected layer. Its factors stay 1, as
    its authors have it: all components of an embedding keep the same variance."""
    layer = nn.BatchNorm1d(dimension, eps)
    layer.weight.requires_grad_(False)
    return layer


def initialise(module: nn.Module) -> None:
    """Kaiming initialisation of convolutions followed by PReLUs of slope 0.25
    (He et al., "Delving Deep into Rectifiers", ICCV 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=0.25)
