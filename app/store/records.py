"""What both engines share: how a person lies in a point, and the checks.

A person is one point. Its vector is the template, which is what a search goes over; everything
else, the faces and their embeddings too, is its payload. So whatever a write changes, it changes
in one step.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID, uuid5

import numpy as np

from app.errors import (
    InvalidEmbedding,
    InvalidRequest,
    MetadataTooLarge,
    PersonExpired,
    PersonNotFound,
    TooManyFaces,
)
from app.store.base import (
    Consent,
    Embedder,
    Export,
    Face,
    FloatArray,
    Fuse,
    GallerySize,
    Neighbour,
    Person,
    StoredPerson,
    Targets,
)

# Of how points are laid out; another one is refused.
FORMAT = 2
VECTOR = "template"
PERSON_FIELDS = [
    "person_id",
    "metadata",
    "consent_reference",
    "expires_at",
    "face_count",
    "created_at",
    "updated_at",
]
# What a search has to read of a person; a second field costs it less than 1 %.
NEIGHBOUR_FIELDS = ["person_id", "expires_at"]
EMBEDDING_FIELDS = ["person_id", "expires_at", "face_count", "embeddings"]
# Candidates that are scored again exactly: so many for each person wanted, and never fewer than
# recall needs where only the best is wanted.
OVERSAMPLING = 4.0
_MIN_RESCORED = 64
# So many times the neighbours are asked for where too many of the nearest have expired.
FURTHER = 8

_NAMESPACE = UUID("6b0f2a0e-6a4b-5d0f-9a53-0d2c1f7f3c11")
_UNIT_TOLERANCE = 2e-3  # of the squared length


def point_id(*parts: str) -> UUID:
    """The id of the point for these parts, the same in every process and on every day."""
    return uuid5(_NAMESPACE, "\0".join(parts))


def oversampling(limit: int, least: float = OVERSAMPLING) -> float:
    """How many candidates an engine must score exactly to find the `limit` best, for each."""
    return max(least, _MIN_RESCORED / limit)


def check_face_count(person_id: str, count: int, max_faces: int) -> None:
    """
    Raises:
        TooManyFaces: `count` faces are more than the person may have.
    """
    if count > max_faces:
        raise TooManyFaces(
            f"Person {person_id!r} would have {count} faces; {max_faces} are allowed. "
            "Send fewer photos, or delete faces of this person first."
        )


def consented(record: Mapping[str, Any], consent: Consent | None) -> dict[str, Any]:
    """A person's payload with what `consent` changes of it."""
    changed = dict(record)
    for key, value in (consent or {}).items():
        field = "consent_reference" if key == "reference" else key
        changed[field] = _moment(value) if isinstance(value, datetime) else value
    return changed


def has_expired(payload: Mapping[str, Any], now: str) -> bool:
    """
    Args:
        now: of `moment()`.
    """
    expires_at = payload.get("expires_at")
    return expires_at is not None and expires_at <= now


def moment() -> str:
    """Now, in a form whose order is that of time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def check_not_expired(record: Mapping[str, Any]) -> None:
    """
    Raises:
        PersonExpired.
    """
    if has_expired(record, moment()):
        raise PersonExpired(
            f"Person {record['person_id']!r} expired at {record['expires_at']} and will be "
            "erased. Send an expires_at that is still to come, or delete the person first."
        )


def check_expired_by(record: Mapping[str, Any], gallery: str, time: datetime | None) -> None:
    """
    Raises:
        PersonNotFound: it is nobody who has expired by then; None: whoever it is.
    """
    if time is not None and not has_expired(record, _moment(time)):
        raise PersonNotFound(gallery, record["person_id"])


def check_embeddings(embeddings: FloatArray, count: int | None, dimension: int) -> None:
    """Refuse what an engine would store or score without a word.

    Args:
        embeddings: expected to be (count, dimension) float32, each row of unit length.
        count: None for any number of rows.

    Raises:
        InvalidEmbedding.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != dimension:
        raise InvalidEmbedding(
            f"Embeddings of shape (n, {dimension}) expected, got {embeddings.shape}."
        )
    if embeddings.dtype != np.float32:
        raise InvalidEmbedding(f"Embeddings must be float32, not {embeddings.dtype}.")
    if count is not None and len(embeddings) != count:
        raise InvalidEmbedding(f"{count} faces came with {len(embeddings)} embeddings.")
    # Written so that NaN fails too. One by one: for a single probe, whose scan has just emptied
    # the processor's cache, that is 20 us instead of 45.
    if not all(abs(float(row @ row) - 1.0) <= _UNIT_TOLERANCE for row in embeddings):
        raise InvalidEmbedding("Every embedding must be finite and of unit length.")


class Enrolled(NamedTuple):
    """A person's faces, oldest first; row i of (m, d) float32 is face i's.

    `awaiting` are those that the model has not embedded, as no crop of them was kept when it took
    over from another: the person is not found by them before their photos come again.
    """

    faces: list[Face]
    embeddings: FloatArray
    awaiting: list[Face]

    def merged(self, faces: Sequence[Face], embeddings: FloatArray) -> "Enrolled":
        """With these faces too; one that is there already is replaced."""
        coming = {face.face_id for face in faces}
        kept = [i for i, face in enumerate(self.faces) if face.face_id not in coming]
        rows = embeddings if not kept else np.concatenate([self.embeddings[kept], embeddings])
        merged = [*(self.faces[i] for i in kept), *faces]
        order = sorted(range(len(merged)), key=lambda i: (merged[i].enrolled_at, merged[i].face_id))
        awaiting = [face for face in self.awaiting if face.face_id not in coming]
        return Enrolled([merged[i] for i in order], rows[order], awaiting)

    def without(self, face_id: str) -> "Enrolled":
        kept = [i for i, face in enumerate(self.faces) if face.face_id != face_id]
        awaiting = [face for face in self.awaiting if face.face_id != face_id]
        return Enrolled([self.faces[i] for i in kept], self.embeddings[kept], awaiting)

    def holds(self, face_id: str) -> bool:
        return any(face.face_id == face_id for face in (*self.faces, *self.awaiting))

    def into(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A person's payload with these faces."""
        # One text each, which an engine passes over ten times faster than over nested values
        # when it reads a payload for one of its fields. Compressed, as it is read in searches.
        awaiting = {"awaiting": _packed(self.awaiting)} if self.awaiting else {}
        return {
            **{name: value for name, value in record.items() if name != "awaiting"},
            "face_count": len(self.faces),
            "faces": _packed(self.faces),
            "embeddings": base64.b64encode(self.embeddings.tobytes()).decode(),
            **awaiting,
        }


def vectors(enrolled: Enrolled, fuse: Fuse) -> dict[str, Any]:
    """Of a person's point: none where there are no faces, and who has none is not found."""
    return {VECTOR: fuse(enrolled.embeddings).tolist()} if enrolled.faces else {}


def to_stored(payload: Mapping[str, Any], vector: object) -> StoredPerson:
    """From a point with all of its payload and its vector as an engine gives it out."""
    row = vector.get(VECTOR) if isinstance(vector, Mapping) else None
    return StoredPerson(payload, None if row is None else np.array(row, np.float32))


def stored_vectors(person: StoredPerson) -> dict[str, Any]:
    """Of the person's point, as in `vectors`."""
    return {} if person.template is None else {VECTOR: person.template.tolist()}


def check_templates(persons: Sequence[StoredPerson], dimension: int) -> None:
    """
    Raises:
        InvalidEmbedding: one that a search could not be trusted with.
    """
    for person in persons:
        if person.template is not None:
            check_embeddings(person.template[np.newaxis], 1, dimension)


def to_size(face_counts: Iterable[tuple[Any, int]]) -> GallerySize:
    """From how many persons have how many faces."""
    persons = faces = 0
    for count, who in face_counts:
        persons += who
        faces += int(count) * who
    return GallerySize(persons, faces)


def enrolled(payload: Mapping[str, Any]) -> Enrolled:
    return Enrolled(to_faces(payload), to_embeddings(payload), to_awaiting(payload))


def to_embeddings(payload: Mapping[str, Any]) -> FloatArray:
    """(m, d) float32; (0, 0) of a person without faces."""
    count = payload["face_count"]
    # A bytearray, so that the array can be written to.
    packed = np.frombuffer(bytearray(base64.b64decode(payload["embeddings"])), np.float32)
    return packed.reshape(count, -1) if count else packed.reshape(0, 0)


def _details(face: Face) -> dict[str, Any]:
    return {
        "face_id": face.face_id,
        "box": face.box,
        "detection_score": face.detection_score,
        "quality": dict(face.quality),
        "image_sha256": face.image_sha256,
        "enrolled_at": face.enrolled_at.isoformat(),
    }


def _packed(faces: Sequence[Face]) -> str:
    details = json.dumps([_details(face) for face in faces], separators=(",", ":"))
    return base64.b64encode(zlib.compress(details.encode(), 1)).decode()


def to_faces(payload: Mapping[str, Any]) -> list[Face]:
    """The faces in a person's payload, oldest first."""
    return _unpacked(payload["faces"], payload["person_id"])


def to_awaiting(payload: Mapping[str, Any]) -> list[Face]:
    """Of `Enrolled`."""
    packed = payload.get("awaiting")
    return [] if packed is None else _unpacked(packed, payload["person_id"])


def _unpacked(packed: str, person_id: str) -> list[Face]:
    faces = []
    for details in json.loads(zlib.decompress(base64.b64decode(packed))):
        x, y, width, height = details["box"]
        faces.append(
            Face(
                face_id=details["face_id"],
                person_id=person_id,
                box=(x, y, width, height),
                detection_score=details["detection_score"],
                quality=details["quality"],
                image_sha256=details["image_sha256"],
                enrolled_at=datetime.fromisoformat(details["enrolled_at"]),
            )
        )
    return faces


def person_payload(person_id: str, now: datetime) -> dict[str, Any]:
    """Of a new person, who has no faces yet."""
    # Metadata is kept as text: a payload would turn large integers into floats and
    # refuse a lone surrogate, and the caller's JSON must come back as it was.
    record = {
        "person_id": person_id,
        "metadata": "{}",
        "created_at": now.isoformat(),
        "updated_at": now.isoformat(),
    }
    return Enrolled([], np.empty((0, 0), np.float32), []).into(record)


def to_person(payload: Mapping[str, Any]) -> Person:
    """Needs `PERSON_FIELDS` only."""
    return Person(
        person_id=payload["person_id"],
        metadata=json.loads(payload["metadata"]),
        consent_reference=payload.get("consent_reference"),
        expires_at=_time(payload.get("expires_at")),
        face_count=payload["face_count"],
        created_at=datetime.fromisoformat(payload["created_at"]),
        updated_at=datetime.fromisoformat(payload["updated_at"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def embeddings_by_person(payloads: Iterable[Mapping[str, Any]]) -> dict[str, FloatArray]:
    """From `EMBEDDING_FIELDS`, of those who have any and have not expired."""
    now = moment()
    return {
        payload["person_id"]: to_embeddings(payload)
        for payload in payloads
        if payload["face_count"] and not has_expired(payload, now)
    }


def to_templates(points: Iterable[tuple[Any, Any]], dimension: int) -> tuple[list[str], FloatArray]:
    """Ids and templates, (n, d) float32, of points' `NEIGHBOUR_FIELDS` and vectors, without those
    who have expired."""
    now = moment()
    kept = [(payload, vector) for payload, vector in points if not has_expired(payload, now)]
    rows = [vector[VECTOR] for _, vector in kept]
    return [payload["person_id"] for payload, _ in kept], np.array(rows, np.float32).reshape(
        -1, dimension
    )


def to_export(payload: Mapping[str, Any], vector: Any) -> Export:
    """From a whole point."""
    template = np.array(vector[VECTOR], np.float32) if vector else None
    held = enrolled(payload)
    return Export(to_person(payload), held.faces, held.embeddings, template, held.awaiting)


class Scored(Protocol):
    """A point that a search has found, of either engine."""

    @property
    def payload(self) -> dict[str, Any] | None: ...
    @property
    def score(self) -> float: ...


def neighbours(
    found: Sequence[Sequence[Scored]], limit: int, wanted: int, now: str
) -> list[list[Neighbour]] | None:
    """For each probe the first `limit` who have not expired.

    Args:
        found: for each probe its `wanted` nearest points, with `NEIGHBOUR_FIELDS`, best first.
        now: of `moment()`.

    Returns:
        None where too many of the nearest have expired: ask for `FURTHER` times as many.
    """
    kept = [_unexpired(points, limit, now) for points in found]
    # Fewer than wanted are all there are.
    complete = all(
        len(few) == limit or len(points) < wanted for few, points in zip(kept, found, strict=True)
    )
    return kept if complete else None


def _unexpired(points: Sequence[Scored], limit: int, now: str) -> list[Neighbour]:
    kept: list[Neighbour] = []
    for point in points:
        payload = point.payload or {}
        if not has_expired(payload, now):
            # The dot product of two rounded unit vectors can leave the range by 1e-7.
            kept.append(Neighbour(payload["person_id"], max(-1.0, min(1.0, point.score))))
    return kept[:limit]


def patched(metadata: str, patch: Mapping[str, Any], max_bytes: int) -> str:
    """`metadata` (JSON text) with `patch` merged in by RFC 7396, as JSON text.

    Raises:
        InvalidRequest: the patch is not JSON.
        MetadataTooLarge: the result has more than `max_bytes` bytes in compact UTF-8.
    """
    try:
        merged = _merge(json.loads(metadata), patch)
        text = json.dumps(merged, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"Metadata must be a JSON object: {error}.") from error
    size = len(text.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise MetadataTooLarge(f"Metadata of {size} bytes; at most {max_bytes} are kept.")
    return json.dumps(merged)


def _merge(target: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def encode_cursor(gallery: str, offset: object) -> str:
    return base64.urlsafe_b64encode(f"{gallery}/{offset}".encode()).decode().rstrip("=")


def decode_cursor(gallery: str, cursor: str | None) -> UUID | None:
    """The offset that `encode_cursor` was given.

    Raises:
        InvalidRequest: it was not made for this gallery.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        owner, _, offset = base64.b64decode(padded, b"-_", validate=True).decode().partition("/")
        if owner == gallery:
            return UUID(offset)
    except ValueError:  # binascii.Error and UnicodeError are among them
        pass
    raise InvalidRequest(f"Unknown cursor {cursor[:64]!r}; start again without one.")


def to_targets(payload: Mapping[str, Any]) -> Targets:
    return Targets(payload.get("target_fpir"), payload.get("target_fmr"))


def meta_payload(embedder: Embedder) -> dict[str, Any]:
    return {
        "kind": "meta",
        "format": FORMAT,
        "model": embedder.name,
        "dimension": embedder.dimension,
        "weights_sha256": embedder.weights_sha256,
    }


def mismatch(payload: Mapping[str, Any], embedder: Embedder, where: str) -> str | None:
    """What to tell the operator where this embedder's faces cannot be stored."""
    if payload.get("format") != FORMAT:
        return other_format(where)
    stored = Embedder(payload["model"], payload["dimension"], payload["weights_sha256"])
    return None if stored == embedder else other_model(stored, embedder, where)


def other_model(stored: Embedder, configured: Embedder, where: str) -> str:
    """What to tell the operator where the faces of two models would mix."""
    return (
        f"The faces in {where} were embedded by {_describe(stored)}, but the configured model is "
        f"{_describe(configured)}. Configure the former model again and replace it by `faceid "
        "model swap`, or give this one a store of its own and enrol the photos anew."
    )


def other_format(where: str) -> str:
    return (
        f"The faces in {where} were stored by another version of this service, in a layout that "
        "this one does not read. Start that version again, or give this one a store of its own "
        "and enrol the photos anew."
    )


def _describe(embedder: Embedder) -> str:
    return f"{embedder.name!r} ({embedder.dimension}-d, weights {embedder.weights_sha256[:12]})"
