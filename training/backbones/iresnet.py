"""The residual networks of ArcFace.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, in the
form its authors train today (InsightFace). They differ from He et al.'s: the first convolution
keeps the full 112 x 112, a block is BN - conv - BN - PReLU - conv - BN, and the 7 x 7 map is not
averaged but read place by place.
"""

from torch import Tensor, nn

from training.backbones.cpu import PReLU
from training.backbones.layers import Backbone, Standardise, embedding_norm

# Channels of the four stages; each halves the map at its first block.
STAGES = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}


class IResNet(Backbone):
    """24.0, 43.6 or 65.2 million weights at a depth of 18, 50 or 100, with a 512-d embedding.

    Args:
        depth: a key of `BLOCKS`.
        dimension: 512 in the paper.
        dropout: probability before the fully connected layer; the paper's networks were
            trained with 0.4, InsightFace's PyTorch recipes have none.
    """

    def __init__(self, depth: int, dimension: int = 512, dropout: float = 0.0) -> None:
        channels = STAGES[0]
        layers: list[nn.Module] = [
            Standardise(),
            nn.Conv2d(3, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            PReLU(channels),
        ]
        for outputs, blocks in zip(STAGES, BLOCKS[depth], strict=True):
            for block in range(blocks):
                layers.append(Block(channels, outputs, stride=2 if block == 0 else 1))
                channels = outputs
        head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(channels * 7 * 7, dimension),
            embedding_norm(dimension),
        )
        super().__init__(nn.Sequential(*layers), head, dimension)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.1)


class Block(nn.Module):
    """BN - conv - BN - PReLU - conv - BN, and the input added, brought to the new shape by a
    1 x 1 convolution where it changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x) + self.shortcut(x)
        return y
