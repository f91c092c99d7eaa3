"""Labelled aligned faces, read one by one when they are needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from app.vision.image import Image
from training.data.folder import FolderFaces
from training.data.recordio import RecordFaces
from training.errors import NoFaces

IntArray = npt.NDArray[np.int64]


class Faces(Protocol):
    """Aligned faces of people unknown.

    Attributes:
        margin: pixels around the 112 x 112 crop on each side, of every face.
    """

    @property
    def margin(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Image:
        """Decode a face: (s, s, 3) uint8 RGB, s = 112 + 2 * margin.

        Raises:
            InvalidFaces: it is corrupt or of another size.
        """
        ...

    def source(self, index: int) -> str:
        """Where it comes from, for a person to find it."""
        ...


class FaceSet(Faces, Protocol):
    """Aligned faces with the persons they belong to.

    Attributes:
        labels: (n,) int64, person of each face, 0 to len(names) - 1; each occurs.
        names: the persons' names.
    """

    @property
    def labels(self) -> IntArray: ...

    @property
    def names(self) -> tuple[str, ...]: ...


def open_faces(path: Path) -> FaceSet:
    """Open a folder per person of aligned faces, or InsightFace's RecordIO.

    Args:
        path: the folder of the folders, a `.rec` file, or the folder that holds `train.rec`.

    Raises:
        NoFaces: there is no such thing, or nothing in it.
        InvalidFaces: some faces are broken, not aligned, or of several sizes.
        InvalidRecords: the RecordIO file is damaged.
    """
    if path.suffix == ".rec":
        return RecordFaces(path)
    if not path.is_dir():
        raise NoFaces(f"{path} is neither a folder nor a .rec file.")
    if (path / "train.rec").exists():
        return RecordFaces(path / "train.rec")
    return FolderFaces(path)


class Subset:
    """Some faces of a set, their persons numbered anew."""

    def __init__(self, faces: FaceSet, indices: Sequence[int] | IntArray) -> None:
        self._faces = faces
        self._indices = np.asarray(indices, np.int64)
        kept, self.labels = np.unique(faces.labels[self._indices], return_inverse=True)
        self.names = tuple(faces.names[person] for person in kept)
        self.margin = faces.margin

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> Image:
        return self._faces.read(int(self._indices[index]))

    def source(self, index: int) -> str:
        return self._faces.source(int(self._indices[index]))


def subset(faces: FaceSet, indices: Sequence[int] | IntArray) -> FaceSet:
    """The faces at `indices`, in that order; persons without any are no longer there."""
    return Subset(faces, indices)
