"""What both engines share: how faces and persons lie in a point's payload, and the checks."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from app.errors import InvalidEmbedding, InvalidRequest, MetadataTooLarge, TooManyFaces
from app.store.base import Embedder, Face, FloatArray, Neighbour, Person

VECTOR = "embedding"
# Candidates that are scored again exactly: so many for each face wanted, and never fewer than
# recall needs where only the best face is wanted.
_OVERSAMPLING = 4
_MIN_RESCORED = 64

_NAMESPACE = UUID("6b0f2a0e-6a4b-5d0f-9a53-0d2c1f7f3c11")
_UNIT_TOLERANCE = 1e-3


def point_id(*parts: str) -> UUID:
    """The id of the point for these parts, the same in every process and on every day."""
    return uuid5(_NAMESPACE, "\0".join(parts))


def oversampling(limit: int) -> float:
    """How many candidates an engine must score exactly to find the `limit` best, per face."""
    return max(_OVERSAMPLING, _MIN_RESCORED / limit)


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
    norms = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    # Written so that NaN fails too.
    if not np.all(np.abs(norms - 1.0) <= _UNIT_TOLERANCE):
        raise InvalidEmbedding("Every embedding must be finite and of unit length.")


def face_payload(face: Face) -> dict[str, Any]:
    return {
        "person_id": face.person_id,
        "face_id": face.face_id,
        "box": list(face.box),
        "detection_score": face.detection_score,
        "quality": dict(face.quality),
        "image_sha256": face.image_sha256,
        "enrolled_at": face.enrolled_at.isoformat(),
    }


def to_faces(payloads: Sequence[Mapping[str, Any]]) -> list[Face]:
    """The faces of these payloads, oldest first."""
    faces = []
    for payload in payloads:
        x, y, width, height = payload["box"]
        faces.append(
            Face(
                face_id=payload["face_id"],
                person_id=payload["person_id"],
                box=(x, y, width, height),
                detection_score=payload["detection_score"],
                quality=payload["quality"],
                image_sha256=payload["image_sha256"],
                enrolled_at=datetime.fromisoformat(payload["enrolled_at"]),
            )
        )
    return sorted(faces, key=lambda face: (face.enrolled_at, face.face_id))


def person_payload(person_id: str, now: datetime) -> dict[str, Any]:
    # Metadata is kept as text: a payload would turn large integers into floats and
    # refuse a lone surrogate, and the caller's JSON must come back as it was.
    return {
        "kind": "person",
        "person_id": person_id,
        "metadata": "{}",
        "created_at": now.isoformat(),
        "updated_at": now.isoformat(),
    }


def to_person(payload: Mapping[str, Any], face_count: int) -> Person:
    return Person(
        person_id=payload["person_id"],
        metadata=json.loads(payload["metadata"]),
        face_count=face_count,
        created_at=datetime.fromisoformat(payload["created_at"]),
        updated_at=datetime.fromisoformat(payload["updated_at"]),
    )


def to_neighbour(payload: Mapping[str, Any], score: float) -> Neighbour:
    # The dot product of two rounded unit vectors can leave the range by 1e-7.
    similarity = max(-1.0, min(1.0, score))
    return Neighbour(payload["person_id"], payload["face_id"], similarity)


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


def decode_cursor(gallery: str, cursor: str) -> str:
    """The offset that `encode_cursor` was given, as text.

    Raises:
        InvalidRequest: it was not made for this gallery.
    """
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        owner, _, offset = base64.b64decode(padded, b"-_", validate=True).decode().partition("/")
    except (UnicodeError, binascii.Error):
        owner = offset = ""
    if owner != gallery or not offset:
        raise invalid_cursor(cursor)
    return offset


def invalid_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(f"Unknown cursor {cursor[:64]!r}; start again without one.")


def meta_payload(embedder: Embedder) -> dict[str, Any]:
    return {
        "kind": "meta",
        "model": embedder.name,
        "dimension": embedder.dimension,
        "weights_sha256": embedder.weights_sha256,
    }


def mismatch(payload: Mapping[str, Any], embedder: Embedder, where: str) -> str | None:
    """What to tell the operator where stored faces belong to another embedder."""
    stored = Embedder(payload["model"], payload["dimension"], payload["weights_sha256"])
    if stored == embedder:
        return None
    return (
        f"The faces in {where} were embedded by {_describe(stored)}, but the configured model is "
        f"{_describe(embedder)}. Configure the former model again, or give this one a store of "
        "its own and enrol the photos anew."
    )


def _describe(embedder: Embedder) -> str:
    return f"{embedder.name!r} ({embedder.dimension}-d, weights {embedder.weights_sha256[:12]})"
