"""Photos of one known person become faces in the gallery."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from app.decision.gate import Gate, reasons_against
from app.errors import FaceError, ImageError, NoFaceEnrolled, PoorFace, RequestError
from app.inference.embedder import Embedding, FloatArray
from app.metrics import Metrics
from app.services.faces import Choice, Face, FaceFinder
from app.settings import EnrolmentSettings
from app.store import Face as StoredFace
from app.store import Store

_FACES = uuid.UUID("8ab6ad21-1d0f-4a5c-9a42-2d5e2f6c0f5b")


@dataclass(frozen=True, slots=True)
class Rejection:
    """The image at `index` of the request was not enrolled, for `error`."""

    index: int
    error: RequestError


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face that was stored, and what speaks against it all the same."""

    stored: StoredFace
    warnings: list[PoorFace]


@dataclass(frozen=True, slots=True)
class Enrolment:
    faces: list[EnrolledFace]
    rejected: list[Rejection]
    face_count: int


class _Candidate(NamedTuple):
    face: Face
    embedding: Embedding
    warnings: list[PoorFace]


class Enroller:
    def __init__(
        self,
        finder: FaceFinder,
        store: Store,
        settings: EnrolmentSettings,
        max_faces_per_person: int,
        metrics: Metrics,
    ) -> None:
        self._finder = finder
        self._store = store
        self._settings = settings
        self._max_faces_per_person = max_faces_per_person
        self._metrics = metrics

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        images: Sequence[bytes],
        choice: Choice,
        gate: Gate | None = None,
    ) -> Enrolment:
        """Enrol the face of each image; an image that cannot be used spoils no other.

        The same image enrolled again for the same person replaces itself, so a request may
        be repeated safely.

        Args:
            gate: what becomes of poor photos; None: what the settings say.

        Raises:
            NoFaceEnrolled: not one of the images could be used; the store is unchanged.
            TooManyFaces: the person would have more than the limit; nothing was stored.
        """
        gate = gate or self._settings.gate
        outcomes = await asyncio.gather(*(self._examine(image, choice, gate) for image in images))
        rejected = [
            Rejection(i, outcome)
            for i, outcome in enumerate(outcomes)
            if isinstance(outcome, RequestError)
        ]
        # By the face's id: an image that came twice is one face.
        faces: dict[str, EnrolledFace] = {}
        vectors: dict[str, FloatArray] = {}
        now = datetime.now(UTC)
        for image, outcome in zip(images, outcomes, strict=True):
            if isinstance(outcome, _Candidate):
                stored = _stored(gallery, person_id, image, outcome, now)
                faces[stored.face_id] = EnrolledFace(stored, outcome.warnings)
                vectors[stored.face_id] = outcome.embedding.vector
        if not faces:
            raise NoFaceEnrolled(
                "None of the images could be used; `rejected` says why.",
                rejected=[
                    {"index": r.index, "code": r.error.code, "detail": r.error.detail}
                    for r in rejected
                ],
            )
        count = await self._store.enrol(
            gallery,
            person_id,
            [face.stored for face in faces.values()],
            np.stack(list(vectors.values())),
            self._max_faces_per_person,
        )
        for face in faces.values():
            for warning in face.warnings:
                self._metrics.enrolment_warnings.labels(warning.code).inc()
        return Enrolment(list(faces.values()), rejected, count)

    async def _examine(
        self, image: bytes, choice: Choice, gate: Gate
    ) -> _Candidate | ImageError | FaceError:
        """The face of one image, or why it cannot be enrolled."""
        try:
            face, embedding = await self._finder.embed_one(image, choice)
        except (ImageError, FaceError) as error:
            return error
        reasons = [] if gate == "off" else self._reasons_against(face)
        if reasons and gate == "enforce":
            self._metrics.rejected_images.labels(reasons[0].code).inc()
            return type(reasons[0])(" ".join(reason.detail for reason in reasons))
        return _Candidate(face, embedding, reasons)

    def _reasons_against(self, face: Face) -> list[PoorFace]:
        return reasons_against(
            eye_distance_px=face.quality.eye_distance_px,
            sharpness=face.quality.sharpness,
            brightness=face.quality.brightness,
            yaw_degrees=face.quality.yaw_degrees,
            pitch_degrees=face.quality.pitch_degrees,
            detection_score=face.detection.score,
            min_eye_distance_px=self._settings.min_eye_distance_px,
        )


def _stored(
    gallery: str, person_id: str, image: bytes, candidate: _Candidate, enrolled_at: datetime
) -> StoredFace:
    face = candidate.face
    digest = hashlib.sha256(image).hexdigest()
    left, top, width, height = (float(value) for value in face.detection.box)
    return StoredFace(
        face_id=str(uuid.uuid5(_FACES, f"{gallery}/{person_id}/{digest}")),
        person_id=person_id,
        box=(left, top, width, height),
        detection_score=face.detection.score,
        quality=face.quality._asdict() | {"norm": candidate.embedding.norm},
        image_sha256=digest,
        enrolled_at=enrolled_at,
    )
