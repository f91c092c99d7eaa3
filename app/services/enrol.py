"""Photos of one known person become faces in the gallery."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from app.errors import FaceError, ImageError, NoFaceEnrolled, RequestError
from app.inference.embedder import Embedding
from app.metrics import Metrics
from app.services.faces import Choice, Face, FaceFinder
from app.settings import LimitSettings
from app.store import Face as StoredFace
from app.store import Store

_FACES = uuid.UUID("8ab6ad21-1d0f-4a5c-9a42-2d5e2f6c0f5b")


@dataclass(frozen=True, slots=True)
class Rejection:
    """The image at `index` of the request was not enrolled, for `error`."""

    index: int
    error: RequestError


@dataclass(frozen=True, slots=True)
class Enrolment:
    faces: list[StoredFace]
    rejected: list[Rejection]
    face_count: int


class Enroller:
    def __init__(
        self, finder: FaceFinder, store: Store, limits: LimitSettings, metrics: Metrics
    ) -> None:
        self._finder = finder
        self._store = store
        self._limits = limits
        self._metrics = metrics

    async def enrol(
        self, gallery: str, person_id: str, images: Sequence[bytes], choice: Choice
    ) -> Enrolment:
        """Enrol the face of each image; an image that cannot be used spoils no other.

        The same image enrolled again for the same person replaces itself, so a request may
        be repeated safely.

        Raises:
            NoFaceEnrolled: not one of the images could be used; the store is unchanged.
            TooManyFaces: the person would have more than the limit; nothing was stored.
        """
        outcomes = await asyncio.gather(*(self._embed(image, choice) for image in images))
        rejected = [
            Rejection(i, outcome)
            for i, outcome in enumerate(outcomes)
            if isinstance(outcome, RequestError)
        ]
        for rejection in rejected:
            self._metrics.failed_enrolments.labels(rejection.error.code).inc()
        usable: dict[str, tuple[StoredFace, Embedding]] = {}
        now = datetime.now(UTC)
        for image, outcome in zip(images, outcomes, strict=True):
            if not isinstance(outcome, RequestError):
                face, embedding = outcome
                stored = _stored(gallery, person_id, image, face, now)
                usable[stored.face_id] = (stored, embedding)
        if not usable:
            raise NoFaceEnrolled(
                "None of the images could be used; `rejected` says why.",
                rejected=[
                    {"index": r.index, "code": r.error.code, "detail": r.error.detail}
                    for r in rejected
                ],
            )
        faces = [face for face, _ in usable.values()]
        count = await self._store.enrol(
            gallery,
            person_id,
            faces,
            np.stack([embedding.vector for _, embedding in usable.values()]),
            self._limits.max_faces_per_person,
        )
        return Enrolment(faces, rejected, count)

    async def _embed(
        self, image: bytes, choice: Choice
    ) -> tuple[Face, Embedding] | ImageError | FaceError:
        try:
            return await self._finder.embed_one(image, choice)
        except (ImageError, FaceError) as error:
            return error


def _stored(
    gallery: str, person_id: str, image: bytes, face: Face, enrolled_at: datetime
) -> StoredFace:
    digest = hashlib.sha256(image).hexdigest()
    left, top, width, height = (float(value) for value in face.detection.box)
    return StoredFace(
        face_id=str(uuid.uuid5(_FACES, f"{gallery}/{person_id}/{digest}")),
        person_id=person_id,
        box=(left, top, width, height),
        detection_score=face.detection.score,
        quality=face.quality._asdict(),
        image_sha256=digest,
        enrolled_at=enrolled_at,
    )
