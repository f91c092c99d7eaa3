"""Faces to embeddings by a backbone that is still in PyTorch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from training.backbones.layers import Backbone
from training.data import FaceSet, first_faces, subset
from training.data.dataset import TrainingFaces
from training.place import Place

_BATCH = 64
_FACES_FOR_MEAN = 25


@torch.no_grad()
def embed_raw(backbone: Backbone, faces: FaceSet, place: Place, what: str | None = None) -> Tensor:
    """Embed the 112 x 112 centres of faces, all processes sharing the work.

    In float32, as the exported file will. Leaves the backbone in evaluation mode.

    Args:
        what: what a progress bar on a terminal calls it; None for no bar.

    Returns:
        (n, d) float32 on the CPU, not normalised.
    """
    backbone.eval()
    own = np.array_split(np.arange(len(faces)), place.world)[place.rank]
    batches = [list(range(i, min(i + _BATCH, len(own)))) for i in range(0, len(own), _BATCH)]
    console = Console(stderr=True)
    found = []
    for photos, _, _ in track(
        place.loader(TrainingFaces(faces, own, None, 0), batches),
        total=len(batches),
        description=what or "",
        console=console,
        disable=what is None or place.rank > 0 or not console.is_terminal,
        transient=True,
    ):
        found.append(backbone(photos.to(place.device, non_blocking=True)))
    vectors = torch.cat(found).cpu()
    if place.world == 1:
        return vectors
    everybody: list[Any] = [None] * place.world
    dist.all_gather_object(everybody, vectors)
    return torch.cat(everybody)


def embed(
    backbone: Backbone, faces: FaceSet, place: Place, what: str | None = None
) -> npt.NDArray[np.float32]:
    """As `embed_raw`, brought to unit length."""
    vectors = nn.functional.normalize(embed_raw(backbone, faces, place, what))
    return np.asarray(vectors.numpy(), np.float32)


def class_means(backbone: Backbone, faces: FaceSet, place: Place) -> Tensor:
    """Where a loss's class weights start: the mean raw embedding of up to 25 faces of each
    person, (persons, d) float32 on the CPU."""
    few = subset(faces, first_faces(faces.labels, _FACES_FOR_MEAN))
    vectors = embed_raw(backbone, few, place, "class means")
    labels = torch.from_numpy(few.labels)
    sums = torch.zeros(len(faces.names), vectors.shape[1]).index_add(0, labels, vectors)
    return sums / torch.bincount(labels)[:, None]
