"""Embeddings of aligned faces, from a model file as the service runs it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.progress import track

from app.inference.device import choose_device
from app.inference.embedder import embed_batch
from app.inference.pool import available_cores
from app.inference.session import open_session
from app.models.spec import EmbedderSpec
from app.vision.image import Image
from training.data import Faces, centre_crop

FloatArray = npt.NDArray[np.float32]

_BATCH = 32


class Embedder:
    """A canonical ONNX file in ONNX Runtime.

    Attributes:
        spec: what the file says about itself.
    """

    def __init__(self, session: ort.InferenceSession, spec: EmbedderSpec) -> None:
        self._session = session
        self.spec = spec

    def __call__(self, faces: Image) -> FloatArray:
        """
        Args:
            faces: (n, 112, 112, 3) uint8 RGB, cut by `app.vision.geometry.align`.

        Returns:
            (n, d) float32 of unit length.

        Raises:
            InferenceFailed: ONNX Runtime failed, or an embedding is not finite.
        """
        return np.stack([vector for vector, _ in embed_batch(self._session, list(faces))])


def open_embedder(path: Path) -> Embedder:
    """On CUDA where that works, otherwise on all cores this process may use.

    Raises:
        InvalidModel: not the canonical ONNX file of an embedder.
    """
    device = choose_device("auto")
    return Embedder(*open_session(path, EmbedderSpec, device, threads=available_cores()))


def embed_faces(
    embed: Callable[[Image], FloatArray], faces: Faces, *, progress: str | None = None
) -> FloatArray:
    """Embed the 112 x 112 centre of every face, in batches.

    Args:
        embed: an `Embedder`, or whatever does the same.
        progress: what to call it on the terminal; silent if None.

    Returns:
        (n, d) float32.

    Raises:
        InvalidFaces: a face is broken.
    """
    found = []
    for start in track(
        range(0, len(faces), _BATCH), description=progress or "", disable=progress is None
    ):
        batch = range(start, min(start + _BATCH, len(faces)))
        found.append(embed(np.stack([centre_crop(faces.read(i), faces.margin) for i in batch])))
    return np.concatenate(found)
