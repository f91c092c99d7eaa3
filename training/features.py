"""What a frozen trunk makes of faces, kept in a file: training a head then costs no trunk."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from training.backbones.cpu import has_bfloat16
from training.backbones.layers import Backbone
from training.data import FaceSet, centre_crop
from training.files import replacing, write

IntArray = npt.NDArray[np.int64]
Half = npt.NDArray[np.float16]

_AT_ONCE = 64


def autocast() -> torch.autocast:
    """bfloat16 for convolutions and products, where this CPU has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())


def cache_features(faces: FaceSet, backbone: Backbone, folder: Path) -> Half:
    """The features of every face's 112 x 112 centre, from `folder` if they are there already.

    Args:
        backbone: whose trunk computes them; left in evaluation mode.
        folder: of `features.npy`, 100 kB a face for SFace, and `features.json`, which says of
            which faces and weights they are.

    Returns:
        (n, c, h, w), a memory map.

    Raises:
        InvalidFaces: a face is broken.
        NoSpace: the disk is full.
    """
    file, note = folder / "features.npy", folder / "features.json"
    origin = {"faces": _digest_of_faces(faces), "trunk": _digest_of_weights(backbone.trunk)}
    if not (file.exists() and note.exists() and json.loads(note.read_text("utf-8")) == origin):
        note.unlink(missing_ok=True)
        _compute(faces, backbone, file)
        write(note, json.dumps(origin).encode())
    return cast(Half, np.load(file, mmap_mode="r"))


@torch.inference_mode()
def _compute(faces: FaceSet, backbone: Backbone, file: Path) -> None:
    backbone.eval()
    console = Console(stderr=True)
    # Written like any file: on a full disk a memory map ends the process without a word.
    with replacing(file) as partial, partial.open("wb") as stream:
        for start in track(
            range(0, len(faces), _AT_ONCE),
            description="features",
            console=console,
            disable=not console.is_terminal,
        ):
            batch = range(start, min(start + _AT_ONCE, len(faces)))
            crops = np.stack([centre_crop(faces.read(i), faces.margin) for i in batch])
            with autocast():
                features = backbone.trunk(torch.from_numpy(crops)).half().contiguous().numpy()
            if start == 0:
                header = {"descr": "<f2", "fortran_order": False,
                          "shape": (len(faces), *features.shape[1:])}  # fmt: skip
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(features.tobytes())


def _digest_of_faces(faces: FaceSet) -> str:
    """Of their pixels: photos are replaced without a change of name."""
    digest = hashlib.sha256()
    for index in range(len(faces)):
        digest.update(centre_crop(faces.read(index), faces.margin).tobytes())
    return digest.hexdigest()


def _digest_of_weights(trunk: nn.Module) -> str:
    digest = hashlib.sha256()
    for value in trunk.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Features:
    """Features of some faces, and who the faces are of.

    Attributes:
        file: (m, c, h, w) float16, of more faces than these.
        rows: (n,) which of them.
        labels: (n,) person of each, 0 to `persons` - 1; each occurs.
    """

    file: Half
    rows: IntArray
    labels: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def persons(self) -> int:
        return int(self.labels.max()) + 1

    def only(self, chosen: IntArray) -> "Features":
        """Some of the faces; their persons are numbered anew."""
        _, labels = np.unique(self.labels[chosen], return_inverse=True)
        return Features(self.file, self.rows[chosen], labels)

    def read(self, chosen: IntArray) -> Tensor:
        """(k, c, h, w) float16."""
        return torch.from_numpy(self.file[self.rows[chosen]])
