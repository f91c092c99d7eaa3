"""Aligned faces in, embeddings out: one face per core on the CPU, batches on CUDA."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.errors import InferenceFailed, NotReady
from app.inference.batching import Batcher
from app.inference.pool import CorePool
from app.inference.session import open_session
from app.models.spec import EmbedderSpec
from app.vision.image import Image

FloatArray = npt.NDArray[np.float32]


class Embedding(NamedTuple):
    """A unit-length (d,) float32 vector and its length before normalisation."""

    vector: FloatArray
    norm: float


class FaceEmbedder(Protocol):
    @property
    def spec(self) -> EmbedderSpec: ...

    @property
    def on_this_core(self) -> Callable[[Image], Embedding] | None:
        """Embeds a face in the thread that calls it; None where that would gain nothing."""
        ...

    async def embed(self, faces: list[Image]) -> list[Embedding]:
        """
        Args:
            faces: (112, 112, 3) uint8 RGB each, cut by `app.vision.geometry.align`.

        Raises:
            InferenceFailed: ONNX Runtime failed, or an embedding is not finite.
            QueueFull: too many faces are waiting.
        """
        ...

    @property
    def waiting(self) -> int:
        """Faces that wait for the GPU; those that wait for a core are the pool's."""
        ...

    def check(self) -> None:
        """
        Raises:
            NotReady: nothing would ever be embedded again.
        """

    async def close(self) -> None: ...


class CpuEmbedder:
    """Every face is a job of its own: on the CPU a batch gains nothing.

    A face that has the machine for itself is computed by all cores together; as soon as
    there are more, each core computes one.
    """

    def __init__(self, path: Path, cores: int, pool: CorePool, sha256: str | None = None) -> None:
        """
        Args:
            sha256: as in `open_session`.

        Raises:
            InvalidModel: as in `open_session`.
        """
        self._narrow, spec = open_session(path, EmbedderSpec, "cpu", 1, sha256)
        self.spec: EmbedderSpec = spec
        self._wide, _ = open_session(path, EmbedderSpec, "cpu", cores, sha256)
        self._pool = pool

    async def embed(self, faces: list[Image]) -> list[Embedding]:
        return await _in_turns(
            faces, 2 * self._pool.cores, lambda face: self._pool.run(self.on_this_core, face)
        )

    def on_this_core(self, face: Image) -> Embedding:
        session = self._wide if self._pool.is_alone else self._narrow
        return embed_batch(session, [face])[0]

    @property
    def waiting(self) -> int:
        return 0

    def check(self) -> None:
        """A pool of threads has no way to die."""

    async def close(self) -> None:
        """The pool belongs to somebody else."""


class CudaEmbedder:
    """Faces of all concurrent requests share inferences, in a few fixed batch sizes.

    Every new input shape makes CUDA's arena grow; with powers of two there are few, and all
    of them are made once at the start.
    """

    on_this_core = None

    def __init__(
        self,
        path: Path,
        *,
        max_batch: int,
        max_wait: float,
        max_queue: int,
        observe: Callable[[int], None],
        sha256: str | None = None,
    ) -> None:
        """
        Args:
            max_wait: seconds a face waits for others on an idle GPU.
            max_queue: faces that may wait.
            observe: told the number of faces of every inference.
            sha256: as in `open_session`.

        Raises:
            InvalidModel, DeviceUnavailable: as in `open_session`.
        """
        self._max_batch = max_batch
        self._session, spec = open_session(path, EmbedderSpec, "cuda", 1, sha256)
        self.spec: EmbedderSpec = spec
        for size in batch_sizes(max_batch):
            embed_batch(self._session, [np.zeros((112, 112, 3), np.uint8)] * size)
        self._batcher = Batcher(
            self._embed,
            max_batch=max_batch,
            max_wait=max_wait,
            max_queue=max_queue,
            observe=observe,
        )

    async def embed(self, faces: list[Image]) -> list[Embedding]:
        return await _in_turns(faces, self._max_batch, self._batcher.submit)

    def _embed(self, faces: list[Image]) -> list[Embedding]:
        size = next(size for size in batch_sizes(len(faces)) if size >= len(faces))
        padding = [faces[0]] * (size - len(faces))
        return embed_batch(self._session, faces + padding)[: len(faces)]

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    def check(self) -> None:
        if not self._batcher.alive:
            raise NotReady("The worker that feeds the GPU has stopped; restart the service.")

    async def close(self) -> None:
        await self._batcher.close()


async def _in_turns(
    faces: list[Image], together: int, embed: Callable[[Image], Awaitable[Embedding]]
) -> list[Embedding]:
    """Some at a time, so that a photo of many faces keeps none of a single one waiting."""
    found: list[Embedding] = []
    for start in range(0, len(faces), together):
        found += await asyncio.gather(*map(embed, faces[start : start + together]))
    return found


def batch_sizes(largest: int) -> list[int]:
    """Powers of two up to the first that holds `largest` faces."""
    return [1 << power for power in range((largest - 1).bit_length() + 1)]


def embed_batch(session: ort.InferenceSession, faces: list[Image]) -> list[Embedding]:
    """
    Args:
        faces: (112, 112, 3) uint8 RGB each, at least one.

    Raises:
        InferenceFailed: as in `FaceEmbedder.embed`.
    """
    try:
        vectors, norms = session.run(
            ["embedding", "norm"], {session.get_inputs()[0].name: np.stack(faces)}
        )
    except Exception as error:  # The exceptions of ONNX Runtime share no public base class.
        raise InferenceFailed(f"The embedder failed: {error}") from None
    if not (np.isfinite(vectors).all() and (norms > 0).all()):
        raise InferenceFailed("The embedder returned an embedding without a direction.")
    return [Embedding(v, float(n)) for v, n in zip(vectors, norms, strict=True)]
