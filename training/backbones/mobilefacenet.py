"""A small network for phones.

Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices", CCBR 2018, table 1.
"""

from torch import Tensor, nn

from training.backbones.cpu import DepthwiseConv, PReLU
from training.backbones.layers import Backbone, Standardise, initialise

# Expansion, channels, repetitions, stride of the first repetition.
BOTTLENECKS = (
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
)
FEATURES = 512


class MobileFaceNet(Backbone):
    """A million weights and 221 million multiplications with a 128-d embedding.

    Where other networks average the last 7 x 7 map, a depthwise 7 x 7 convolution weighs
    its places: the corners of an aligned face say less than its middle.

    Args:
        dimension: 128 in the paper.
        dropout: probability before the layer that makes the embedding; 0 in the paper.
    """

    def __init__(self, dimension: int = 128, dropout: float = 0.0) -> None:
        channels = 64
        layers: list[nn.Module] = [
            Standardise(),
            *_unit(nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)),
            *_unit(DepthwiseConv(channels, 3, padding=1)),
        ]
        for expansion, outputs, repetitions, first_stride in BOTTLENECKS:
            for repetition in range(repetitions):
                stride = first_stride if repetition == 0 else 1
                layers.append(Bottleneck(channels, expansion * channels, outputs, stride))
                channels = outputs
        layers += _unit(nn.Conv2d(channels, FEATURES, 1, bias=False))
        head = nn.Sequential(
            DepthwiseConv(FEATURES, 7),
            nn.BatchNorm2d(FEATURES),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(FEATURES, dimension, bias=False),
            nn.BatchNorm1d(dimension),
        )
        super().__init__(nn.Sequential(*layers), head, dimension)
        initialise(self)


class Bottleneck(nn.Module):
    """Widen, convolve each channel, narrow without activation; the input is added where
    the shape allows (Sandler et al., "MobileNetV2", CVPR 2018)."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *_unit(nn.Conv2d(inputs, width, 1, bias=False)),
            *_unit(DepthwiseConv(width, 3, stride, padding=1)),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def _unit(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    channels = convolution.out_channels
    return convolution, nn.BatchNorm2d(channels), PReLU(channels)
