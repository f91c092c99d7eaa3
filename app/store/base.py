"""What the service asks of a store of faces; the engines are beside this file."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
# All embeddings of one person, (m, d) float32 of unit length, to the one they are found by, (d,).
Fuse = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Embedder:
    """Which model the stored embeddings come from; faces of two models never mix."""

    name: str
    dimension: int
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Face:
    """One enrolled face without its embedding.

    Attributes:
        face_id: UUID; the same photo enrolled again for the same person gets the same one.
        box: x, y, width, height in pixels of the EXIF-oriented image.
        detection_score: the detector's confidence, 0 to 1.
        quality: named measurements of the face, each with its unit in its name.
        image_sha256: hex digest of the photo's bytes as they were sent.
        enrolled_at: time zone aware, UTC.
    """

    face_id: str
    person_id: str
    box: tuple[float, float, float, float]
    detection_score: float
    quality: Mapping[str, float]
    image_sha256: str
    enrolled_at: datetime


class Consent(TypedDict, total=False):
    """What the operator notes of why and until when a person is kept.

    What is left out of a write stays as it is; None removes it.

    Attributes:
        reference: the operator's own short text.
        expires_at: time zone aware; from then on nobody finds the person.
    """

    reference: str | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Person:
    """One person of a gallery; `metadata` is the caller's own JSON object.

    Attributes:
        consent_reference, expires_at: as `Consent` has them.
        updated_at: when any of these last changed by `update_person`.
    """

    person_id: str
    metadata: Mapping[str, Any]
    consent_reference: str | None
    expires_at: datetime | None
    face_count: int
    created_at: datetime
    updated_at: datetime

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Export(NamedTuple):
    """All that is stored of one person, as of one moment.

    Attributes:
        faces: oldest first.
        embeddings: (m, d) float32, row i of `faces[i]`.
        template: (d,) float32, by which the person is found; None without faces.
        awaiting: faces of which there is no embedding by this model.
    """

    person: Person
    faces: list[Face]
    embeddings: FloatArray
    template: FloatArray | None
    awaiting: list[Face]


class Page(NamedTuple):
    """Persons in the store's own stable order; `cursor` is None on the last page."""

    persons: list[Person]
    cursor: str | None


class TemplatePage(NamedTuple):
    """Persons and their templates, (n, d) float32, in the order of `Page`; `cursor` as there."""

    person_ids: list[str]
    templates: FloatArray
    cursor: str | None


class StoredPerson(NamedTuple):
    """A person as they lie in a point, the same in every engine.

    Attributes:
        payload: JSON object, laid out by `app.store.records`.
        template: (d,) float32 of unit length; None of a person without faces.
    """

    payload: Mapping[str, Any]
    template: FloatArray | None


# What is stored of a person, None of nobody, to what is to be stored instead.
Revise = Callable[[StoredPerson | None], Awaitable[StoredPerson | None]]


class StoredPage(NamedTuple):
    """Persons in the order of `Page`; `cursor` as there."""

    persons: list[StoredPerson]
    cursor: str | None


class Neighbour(NamedTuple):
    """A person near a probe; `similarity` is the exact cosine to the template, -1 to 1."""

    person_id: str
    similarity: float


class GallerySize(NamedTuple):
    persons: int
    faces: int


@dataclass(frozen=True, slots=True)
class Targets:
    """The error rates of one gallery, above 0, below 1; None: the service's own."""

    target_fpir: float | None = None
    target_fmr: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a person was erased, without saying whom to who does not know already.

    Attributes:
        receipt_id: UUID.
        person_digest: keyed digest of gallery and person (`app.store.receipts`).
        reason: the caller wanted it, or the person had expired.
        state: `begun` before anything is deleted, then `erased`; `abandoned` where there was
            nobody to delete any more, or nobody who had expired, or where who had could not be
            deleted yet.
        begun_at, erased_at: time zone aware, UTC.
        probes: exact searches made afterwards, one with each erased template and embedding.
        found: how many of them still found the person, and of one who had expired, whom no search
            finds, how many records were still there.
    """

    receipt_id: str
    gallery: str
    person_digest: str
    reason: Literal["request", "expired"]
    state: Literal["begun", "erased", "abandoned"]
    begun_at: datetime
    erased_at: datetime | None = None
    faces_deleted: int = 0
    probes: int = 0
    found: int = 0


class Receipts(Protocol):
    """Receipts of erasures, durable when acknowledged; none is ever removed.

    Every method raises `StoreUnavailable` when the engine cannot answer.
    """

    async def key(self) -> bytes:
        """The key of the digests, made at the first use, the same ever after."""
        ...

    async def put(self, receipt: Receipt) -> None:
        """Add a receipt, or a later state of it."""
        ...

    async def all(self) -> list[Receipt]:
        """In their last state, oldest first."""
        ...


class Store(Protocol):
    """Faces and persons, kept apart by gallery.

    Every person with faces has a template, made of all of them by the engine's `fuse`; it
    changes with them in one step. Every method raises `StoreUnavailable` when the engine cannot
    answer. A gallery that was never written to reads as empty. What a write has acknowledged is
    seen by the very next call and survives a crash.

    Who has expired is not found: `search`, `embeddings` and `templates` leave them out from that
    moment on, by the clock of this machine. They are there for everything else until deleted.
    """

    @property
    def receipts(self) -> Receipts:
        """Of erasures; kept apart from the galleries, so that restoring one leaves them alone."""
        ...

    async def open(self) -> None:
        """Connect, create what is missing.

        Raises:
            StoreLocked: another process holds the embedded store.
            StoreMismatch: the stored faces belong to another embedder, or lie as another
                version of this service laid them out.
        """

    async def close(self) -> None: ...

    async def check(self) -> None:
        """A round trip to the engine, for readiness.

        Raises:
            StoreUnavailable, StoreMismatch.
        """

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        faces: Sequence[Face],
        embeddings: FloatArray,
        max_faces: int,
        consent: Consent | None = None,
    ) -> int:
        """Add faces to a person, who is created where missing: all of it or nothing.

        A face whose `face_id` is stored already is replaced.

        Args:
            faces: n of them, all of this person, no `face_id` twice.
            embeddings: (n, d) float32 of unit length, row i of `faces[i]`.
            max_faces: most faces the person may have afterwards.

        Returns:
            How many faces the person now has.

        Raises:
            InvalidEmbedding: not finite, not of unit length, or of another dimension.
            TooManyFaces: the person would have more than `max_faces`.
            PersonExpired: the person would be one who has expired.
        """
        ...

    async def search(
        self, gallery: str, probes: FloatArray, limit: int, *, exact: bool = False
    ) -> list[list[Neighbour]]:
        """The `limit` persons whose templates are most similar to each probe, best first.

        Args:
            probes: (n, d) float32 of unit length.
            exact: compare with every template itself, without codes or an index in between;
                slow.

        Raises:
            InvalidEmbedding: as in `enrol`.
        """
        ...

    async def embeddings(self, gallery: str, person_ids: Collection[str]) -> dict[str, FloatArray]:
        """All enrolled embeddings, (m, d) float32 for each person who has any, in the order of
        `faces`."""
        ...

    async def size(self, gallery: str) -> GallerySize:
        """Persons and faces of one gallery; cheap enough for every identification."""
        ...

    async def galleries(self) -> dict[str, GallerySize]:
        """Those with anybody in them: targets alone do not list one."""
        ...

    async def gallery_names(self) -> set[str]:
        """Also of those that hold nobody and still take up room."""
        ...

    async def targets(self, gallery: str) -> Targets:
        """As cheap as `size`."""
        ...

    async def set_targets(self, gallery: str, targets: Targets) -> None: ...

    async def all_targets(self) -> dict[str, Targets]:
        """Of every gallery that has any, whether or not anybody is in it."""
        ...

    async def templates(self, gallery: str, limit: int, cursor: str | None = None) -> TemplatePage:
        """Everybody who can be found, page by page.

        Raises:
            InvalidRequest: a cursor this store did not give out.
        """
        ...

    async def persons(self, gallery: str, limit: int, cursor: str | None = None) -> Page:
        """
        Raises:
            InvalidRequest: a cursor this store did not give out.
        """
        ...

    async def export_persons(
        self, gallery: str, limit: int, cursor: str | None = None
    ) -> StoredPage:
        """Everybody, page by page, bit for bit.

        Raises:
            InvalidRequest: a cursor this store did not give out.
        """
        ...

    async def import_persons(self, gallery: str, persons: Sequence[StoredPerson]) -> None:
        """Write persons as another store gave them out: all of them or none.

        A person who is there already is replaced.

        Args:
            persons: no person twice.

        Raises:
            InvalidEmbedding: a template as in `enrol`.
        """
        ...

    async def stored(self, gallery: str, person_id: str) -> StoredPerson | None:
        """One of `export_persons`; None of nobody."""
        ...

    async def revise(self, gallery: str, person_id: str, revise: Revise) -> None:
        """Put what `revise` makes of a person in their place; None removes them.

        Where the store is shared, `revise` is called again if somebody else has changed the
        person meanwhile. Who deletes a person while it is at work is not undone: what it then
        returns is not stored. Within one process the caller sees to it that nobody else
        changes the person.
        """
        ...

    async def person(self, gallery: str, person_id: str) -> Person:
        """
        Raises:
            PersonNotFound.
        """
        ...

    async def export(self, gallery: str, person_id: str) -> Export:
        """
        Raises:
            PersonNotFound.
        """
        ...

    async def update_person(
        self,
        gallery: str,
        person_id: str,
        patch: Mapping[str, Any],
        max_bytes: int,
        consent: Consent | None = None,
    ) -> Person:
        """Merge `patch` into the metadata by RFC 7396 (null removes a key), and change `consent`.

        Raises:
            PersonNotFound.
            MetadataTooLarge: the merged object has more than `max_bytes` bytes of JSON.
        """
        ...

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        """Oldest first.

        Raises:
            PersonNotFound.
        """
        ...

    async def delete_person(
        self, gallery: str, person_id: str, *, expired_by: datetime | None = None
    ) -> int:
        """Remove the person and all of their faces; returns how many faces went.

        Args:
            expired_by: remove nobody who has not expired by then.

        Raises:
            PersonNotFound: or not expired by then.
        """
        ...

    async def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        """Remove one face; the person stays, even without any.

        Raises:
            PersonNotFound, FaceNotFound.
        """
        ...

    async def vacuum(self) -> int:
        """Remove from disk what is deleted but still lies in the files, and galleries that hold
        nobody and have no targets; it can take a while, and all else goes on meanwhile.

        Returns:
            How many galleries were written anew or removed; 0 where the engine cleans up by
            itself.
        """
        ...
