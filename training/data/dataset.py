"""Faces as PyTorch's loader wants them."""

import numpy as np
import torch
from torch.utils.data import Dataset

from training.data.augmentation import Augmentation
from training.data.face import centre_crop
from training.data.faces import FaceSet, IntArray

Item = tuple[torch.Tensor, int, int]


class TrainingFaces(Dataset[Item]):
    """Faces decoded, changed at random, and labelled.

    Item i is the face as a (112, 112, 3) uint8 tensor, its person, and its index in `faces`.
    What happens to it depends on the seed, the epoch and i alone: any number of workers sees
    the same pixels, and so does a run that goes on later.

    Args:
        indices: (n,) which faces of the set; all persons should be among them, see `subset`.
        augmentation: None gives the centre of every face.
    """

    def __init__(
        self, faces: FaceSet, indices: IntArray, augmentation: Augmentation | None, seed: int
    ) -> None:
        self._faces = faces
        self._indices = indices
        self._augmentation = augmentation
        self._seed = seed
        # In shared memory: persistent workers keep the copy of this object they began with.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose what is drawn; to be called before the loader is iterated."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, item: int) -> Item:
        index = int(self._indices[item])
        face = self._faces.read(index)
        if self._augmentation is None:
            face = np.ascontiguousarray(centre_crop(face, self._faces.margin))
        else:
            rng = np.random.default_rng([self._seed, int(self._epoch), item])
            face = self._augmentation(face, self._faces.margin, rng)
        return torch.from_numpy(face), int(self._faces.labels[index]), index
