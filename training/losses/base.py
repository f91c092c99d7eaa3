"""What the training loop asks of a loss."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Loss(nn.Module):
    """Embeddings and persons to one number.

    Attributes:
        batches: what it learns from: "shuffled" faces, or P persons with K faces each
            ("person"), where it compares the faces of a batch with each other.
    """

    batches: ClassVar[Literal["shuffled", "person"]] = "shuffled"

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a batch, computed in float32 (float64 if that comes in), whatever
        precision the backbone runs in.

        Args:
            embeddings: (n, dimension), as the backbone gives them, not normalised.
            labels: (n,) int64, 0 to classes - 1.

        Returns:
            A scalar. With nothing to learn from, such as a batch of one person for a triplet
            loss, a zero with zero gradients.
        """
        if embeddings.dtype != torch.float64:
            embeddings = embeddings.float()
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(embeddings, labels)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def progress(self, fraction: float) -> None:
        """Told before each step how much of the training is done, 0 to 1."""

    def initialise(self, class_means: Tensor) -> None:
        """Start class weights where the classes are, instead of at random.

        Args:
            class_means: (classes, dimension) mean embedding of each person. Losses of angles
                need the direction only; `softmax` and `center` work on raw embeddings and
                want the mean of those.
        """
