"""Photos of one known person become faces in the gallery."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from app.decision.fusion import template
from app.decision.gate import Gate, reasons_against
from app.errors import (
    DuplicatePerson,
    FaceError,
    ImageError,
    InconsistentPerson,
    NoFaceEnrolled,
    RequestError,
)
from app.inference.embedder import Embedding, FloatArray
from app.metrics import Metrics
from app.services.faces import Choice, Face, FaceFinder
from app.services.lookalikes import Lookalike, Lookalikes
from app.services.models import Model
from app.services.together import together
from app.services.writes import NewFaces, PersonWriter
from app.settings import Concern, EnrolmentSettings
from app.store import Consent
from app.store import Face as StoredFace

_FACES = uuid.UUID("8ab6ad21-1d0f-4a5c-9a42-2d5e2f6c0f5b")
# Of one enrolment at once: no core waits for the next, and others' photos have their turns.
_PHOTOS_PER_CORE = 2


@dataclass(frozen=True, slots=True)
class Rejection:
    """The image at `index` of the request was not enrolled, for `error`."""

    index: int
    error: RequestError


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """A face that was stored, and what speaks against it all the same."""

    stored: StoredFace
    warnings: list[FaceError]


@dataclass(frozen=True, slots=True)
class Enrolment:
    """
    Attributes:
        duplicates: whom a new person looks like.
        face_count: of the person, now.
    """

    faces: list[EnrolledFace]
    rejected: list[Rejection]
    duplicates: list[Lookalike]
    face_count: int


class _Candidate(NamedTuple):
    face: Face
    embedding: Embedding
    warnings: list[FaceError]


class Enroller:
    def __init__(
        self,
        finder: FaceFinder,
        model: Model,
        writer: PersonWriter,
        lookalikes: Lookalikes | None,
        settings: EnrolmentSettings,
        max_faces_per_person: int,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            model: that the finder embeds with.
            lookalikes: None for an embedder without calibration, which cannot say who is alike.
        """
        self._finder = finder
        self._model = model
        self._writer = writer
        self._lookalikes = lookalikes
        self._settings = settings
        self._max_faces_per_person = max_faces_per_person
        self._metrics = metrics

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        images: Sequence[bytes],
        *,
        choice: Choice = "only",
        gate: Gate | None = None,
        on_inconsistent: Concern | None = None,
        on_duplicate: Concern | None = None,
        consent: Consent | None = None,
    ) -> Enrolment:
        """Enrol the face of each image; an image that cannot be used spoils no other.

        The same image enrolled again for the same person replaces itself, so a request may
        be repeated safely.

        Args:
            gate: what becomes of poor photos; None, here and below: what the settings say.
            on_inconsistent: of a face that does not look like the person's others, those of
                the store, or where there are none those of the request.
            on_duplicate: of a new person who looks like somebody enrolled.
            consent: what it changes of the person's.

        Raises:
            NoFaceEnrolled: not one of the images could be used; the store is unchanged.
            DuplicatePerson: the new person is refused; the store is unchanged.
            TooManyFaces: the person would have more than the limit; nothing was stored.
            PersonExpired: the person's time is over; nothing was stored.
            QueueFull: too many photos are in flight, of other requests.
        """
        gate = gate or self._settings.gate
        self._finder.check_room()
        turns = asyncio.Semaphore(_PHOTOS_PER_CORE * self._finder.cores)
        outcomes = await together(self._examine(image, choice, gate, turns) for image in images)
        examined = dict(enumerate(outcomes))
        store = self._model.store
        enrolled = (await store.embeddings(gallery, [person_id])).get(person_id)
        self._compare(examined, enrolled, on_inconsistent or self._settings.on_inconsistent)

        rejected = [
            Rejection(i, outcome)
            for i, outcome in examined.items()
            if isinstance(outcome, RequestError)
        ]
        for rejection in rejected:
            self._metrics.failed_enrolments.labels(rejection.error.code).inc()
        # By the face's id: an image that came twice is one face.
        faces: dict[str, EnrolledFace] = {}
        candidates: dict[str, _Candidate] = {}
        now = datetime.now(UTC)
        for i, outcome in examined.items():
            if isinstance(outcome, _Candidate):
                stored = _stored(gallery, person_id, images[i], outcome, now)
                faces[stored.face_id] = EnrolledFace(stored, outcome.warnings)
                candidates[stored.face_id] = outcome
        if not faces:
            raise NoFaceEnrolled(
                "None of the images could be used; `rejected` says why.",
                rejected=[
                    {"index": r.index, "code": r.error.code, "detail": r.error.detail}
                    for r in rejected
                ],
            )
        embedded = {face_id: found.embedding for face_id, found in candidates.items()}
        embeddings = np.stack([embedding.vector for embedding in embedded.values()])
        duplicates = []
        if enrolled is None:
            duplicates = await self._duplicates(
                gallery, person_id, embeddings, on_duplicate or self._settings.on_duplicate
            )
        new = NewFaces(
            {face_id: face.stored for face_id, face in faces.items()},
            {face_id: found.face.crop for face_id, found in candidates.items()},
            {self._model.spec.weights_sha256: embedded},
        )
        count = await self._writer.enrol(
            gallery, person_id, new, self._max_faces_per_person, consent
        )
        for face in faces.values():
            for warning in face.warnings:
                self._metrics.enrolment_warnings.labels(warning.code).inc()
        return Enrolment(list(faces.values()), rejected, duplicates, count)

    def _compare(
        self,
        examined: dict[int, _Candidate | ImageError | FaceError],
        enrolled: FloatArray | None,
        on_inconsistent: Concern,
    ) -> None:
        """Reject, or add a warning to, what does not look like the person's other faces."""
        usable = {i: found for i, found in examined.items() if isinstance(found, _Candidate)}
        if self._lookalikes is None or on_inconsistent == "allow" or not usable:
            return
        vectors = np.stack([candidate.embedding.vector for candidate in usable.values()])
        odd = self._lookalikes.odd(vectors, enrolled)
        for (i, candidate), found in zip(usable.items(), odd, strict=True):
            if found is None:
                continue
            others = "enrolled faces" if enrolled is not None else "other photos of the request"
            error = InconsistentPerson(
                "The face does not look like the {} of this person (similarity {:.2f}, at least "
                "{:.2f} expected); send a photo of the same person, or on_inconsistent=allow if "
                "it is one.".format(others, *found)
            )
            if on_inconsistent == "warn":
                candidate.warnings.append(error)
            else:
                examined[i] = error

    async def _duplicates(
        self, gallery: str, person_id: str, embeddings: FloatArray, on_duplicate: Concern
    ) -> list[Lookalike]:
        """Whom a new person looks like, if that is to be told.

        Raises:
            DuplicatePerson: if they are to be refused.
        """
        if self._lookalikes is None or on_duplicate == "allow":
            return []
        (found,) = await self._lookalikes.of(gallery, template(embeddings)[None], [person_id])
        if found and on_duplicate == "reject":
            self._metrics.failed_enrolments.labels(DuplicatePerson.code).inc()
            raise DuplicatePerson(
                f"{person_id!r} looks like {found[0].person_id!r}, who is enrolled already; enrol "
                "the photo for them, or send on_duplicate=allow if they are two.",
                candidates=[asdict(lookalike) for lookalike in found],
            )
        return found

    async def _examine(
        self, image: bytes, choice: Choice, gate: Gate, turns: asyncio.Semaphore
    ) -> _Candidate | ImageError | FaceError:
        """The face of one image, or why it cannot be enrolled."""
        try:
            async with turns:
                face, embedding = await self._finder.embed_one(image, choice, is_patient=True)
        except (ImageError, FaceError) as error:
            return error
        reasons = [] if gate == "off" else self._reasons_against(face)
        if reasons and gate == "enforce":
            return type(reasons[0])(" ".join(reason.detail for reason in reasons))
        return _Candidate(face, embedding, reasons)

    def _reasons_against(self, face: Face) -> list[FaceError]:
        return [
            *reasons_against(
                eye_distance_px=face.quality.eye_distance_px,
                sharpness=face.quality.sharpness,
                brightness=face.quality.brightness,
                yaw_degrees=face.quality.yaw_degrees,
                pitch_degrees=face.quality.pitch_degrees,
                detection_score=face.detection.score,
                min_eye_distance_px=self._settings.min_eye_distance_px,
            )
        ]


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
