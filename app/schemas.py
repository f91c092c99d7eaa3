"""The public contract: what goes in and comes out, field by field."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from app.decision.distance import Metric

PERSON_ID = r"^[A-Za-z0-9][A-Za-z0-9._@:+=-]{0,127}$"
GALLERY = r"^[a-z0-9][a-z0-9_-]{0,62}$"

PersonId = Annotated[
    str,
    Path(pattern=PERSON_ID, description="Your own identifier of the person.", examples=["grace"]),
]
FaceId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$", description="As enrolment returned it.")]
GalleryName = Annotated[str, Path(pattern=GALLERY, examples=["default"])]
InGallery = Annotated[
    str,
    Query(
        pattern=GALLERY,
        description="Persons of one gallery are never seen from another.",
        examples=["default"],
    ),
]


_RFC_3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def _moment(value: object) -> datetime:
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ValueError("must be a time by RFC 3339 with its zone, as in 2030-01-31T12:00:00Z")


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]}),
]
ConsentReference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="Your own reference to why the person may be enrolled; shown, never read.",
        examples=["contract 4711"],
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


_CALIBRATION = "Which calibration of the model the thresholds and probabilities come from."
_BOX: dict[str, Any] = {"x": 182.65, "y": 119.99, "width": 170.06, "height": 212.54}
_FACE: dict[str, Any] = {
    "box": _BOX,
    "detection_score": 0.943,
    "quality": {
        "eye_distance_px": 84.2,
        "sharpness": 2519.0,
        "brightness": 114.6,
        "contrast": 62.4,
        "yaw_degrees": 3.0,
        "pitch_degrees": -1.7,
        "roll_degrees": -4.5,
    },
}
_LANDMARKS: list[Any] = [
    [233.1, 206.4],
    [317.0, 199.5],
    [281.2, 246.9],
    [244.8, 285.6],
    [318.3, 279.9],
]


class Box(_Model):
    """Pixels of the upright photo (EXIF orientation applied); may reach beyond its border."""

    x: float
    y: float
    width: float
    height: float


class Quality(_Model):
    """What the pixels and the landmarks of a face say about its usefulness."""

    eye_distance_px: float = Field(description="Pixels between the eyes.")
    sharpness: float = Field(
        description="Variance of the second derivative of the aligned face's luminance, along "
        "the direction in which it is least."
    )
    brightness: float = Field(description="Mean luminance of the aligned face, 0 to 255.")
    contrast: float = Field(description="Standard deviation of that luminance, 0 to 127.5.")
    yaw_degrees: float = Field(description="Above 0: looks to the right as seen.")
    pitch_degrees: float = Field(description="Above 0: looks up.")
    roll_degrees: float = Field(description="Above 0: tilted clockwise as seen.")


class DetectedFace(_Model):
    box: Box
    landmarks: list[tuple[float, float]] = Field(
        min_length=5,
        max_length=5,
        description="Eyes, nose tip, mouth corners; left to right as seen.",
    )
    detection_score: float = Field(ge=0, le=1)
    quality: Quality


class DetectAnswer(_Model):
    faces: list[DetectedFace] = Field(description="Largest first.")
    timings_ms: dict[str, float]


class EmbeddedFace(DetectedFace):
    embedding: list[float] | None = Field(
        description="Unit length; null where the face is too small to be embedded."
    )
    norm: float | None = Field(description="Length of the embedding before normalisation.")


class EmbedAnswer(_Model):
    faces: list[EmbeddedFace] = Field(description="Largest first.")
    model: str
    timings_ms: dict[str, float]


class _FaceOfPerson(_Model):
    face_id: str
    box: Box
    detection_score: float = Field(ge=0, le=1)
    norm: float = Field(description="Length of the embedding before normalisation.")
    quality: Quality


class QualityWarning(_Model):
    code: str = Field(examples=["blurred"])
    detail: str


class EnrolledFace(_FaceOfPerson):
    warnings: list[QualityWarning] = Field(
        description="Why the photo is a poor one; always empty with gate=off."
    )


class RejectedImage(_Model):
    index: int = Field(ge=0, description="Place of the image in the request, from 0.")
    code: str = Field(examples=["multiple_faces"])
    detail: str


class Duplicate(_Model):
    person_id: str
    similarity: float = Field(description="Cosine to the mean of all of the person's faces.")
    threshold: float = Field(description="From which on two persons are taken for one.")


class EnrolAnswer(_Model):
    person_id: str
    faces: list[EnrolledFace]
    rejected: list[RejectedImage]
    duplicates: list[Duplicate] = Field(
        description="Persons whom a new person looks like, where `on_duplicate` is `warn`."
    )
    face_count: int = Field(description="Faces the person has now.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "person_id": "grace",
                    "faces": [
                        {
                            "face_id": "9c426461-cc51-543d-be1b-607949c32b4a",
                            "norm": 12.3,
                            **_FACE,
                            "warnings": [],
                        }
                    ],
                    "rejected": [
                        {
                            "index": 1,
                            "code": "multiple_faces",
                            "detail": "2 faces were found; send a photo of one person, "
                            "or ask for face=largest or face=central.",
                        }
                    ],
                    "duplicates": [],
                    "face_count": 1,
                }
            ]
        }
    )


class StoredFace(_FaceOfPerson):
    image_sha256: str = Field(description="Hex digest of the photo's bytes as they were sent.")
    enrolled_at: datetime


_AWAITING = (
    "Faces that the model in use has no embedding of, as it replaced another and no crops of them "
    "were kept: no search finds the person by them until their photos come again."
)


class PersonFaces(_Model):
    person_id: str
    faces: list[StoredFace] = Field(description="Oldest first.")
    awaiting: list[StoredFace] = Field([], description=_AWAITING)


class Person(_Model):
    person_id: str
    metadata: dict[str, Any]
    consent_reference: str | None
    expires_at: datetime | None = Field(
        description="From then on no search finds the person; they are erased soon after."
    )
    face_count: int
    created_at: datetime
    updated_at: datetime


class PersonPage(_Model):
    persons: list[Person]
    cursor: str | None = Field(description="Ask again with it for the next page; null: the last.")


class PersonPatch(_Model):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    metadata: dict[str, Any] = Field(
        default={},
        description="Merged into what is there (RFC 7396): null removes a key.",
        examples=[{"department": "Navy", "badge": None}],
    )
    consent_reference: ConsentReference | None = Field(None, description="Null removes it.")
    expires_at: Moment | None = Field(
        None, description="From then on no search finds the person. Null: never."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "PersonPatch":
        if not self.model_fields_set:
            raise ValueError("name what to change: metadata, consent_reference or expires_at")
        return self


class PersonExportFace(StoredFace):
    embedding: list[float] = Field(description="Unit length.")
    crop: str | None = Field(
        None, description="The aligned face, PNG in base64; null where none is kept."
    )


class PersonExportModel(_Model):
    """What the store of the other model holds of the person."""

    model: str
    model_weights_sha256: str
    embeddings: dict[str, list[float]] = Field(description="By the face's id.")
    template: list[float] | None


class PersonExport(Person):
    """All that is stored of one person."""

    gallery: str
    awaiting: list[StoredFace] = Field([], description=_AWAITING)
    other_model: PersonExportModel | None = Field(
        None, description="Where the embedder is being replaced."
    )
    crops_are_kept: bool = Field(description="Whether crops of enrolled faces are kept here.")
    faces: list[PersonExportFace] = Field(description="Oldest first.")
    template: list[float] | None = Field(
        description="Unit length; the mean of the embeddings, by which the person is found."
    )
    model: str = Field(description="That made the embeddings.")
    model_weights_sha256: str
    exported_at: datetime


class ErasureReceipt(_Model):
    """That a person was erased. It names nobody: `person_digest` is an HMAC-SHA256 of gallery and
    person id under a key that stays in the store."""

    receipt_id: str
    gallery: str
    person_digest: str
    reason: Literal["request", "expired"]
    state: Literal["begun", "erased", "abandoned"] = Field(
        description="`begun`: the service was stopped before it was done. `abandoned`: there was "
        "nobody to erase any more."
    )
    begun_at: datetime
    erased_at: datetime | None
    faces_deleted: int = Field(description="With the person.")
    probes: int = Field(
        description="Exact searches made afterwards: one with the person's template, one with the "
        "embedding of each face."
    )
    found: int = Field(
        description="How many of them found the person; 0, unless they were enrolled anew at the "
        "same moment."
    )


class DeletedPerson(ErasureReceipt):
    person_id: str = Field(description="In this answer alone, not in the receipt that is kept.")


class ErasureList(_Model):
    erasures: list[ErasureReceipt] = Field(description="Oldest first.")
    cursor: str | None = Field(description="Ask again with it for the next page; null: the last.")


class PurgeAnswer(_Model):
    persons: int = Field(description="Who had expired and are erased.")
    faces: int = Field(description="Erased with them.")
    galleries_rewritten: int = Field(
        description="Written anew by the embedded store, to be rid of what was deleted in them."
    )


class Candidate(_Model):
    person_id: str
    similarity: float = Field(description="Cosine to the mean of all of the person's faces.")
    probability: float | None = Field(
        None, description="In a closed set: that it is this person of the gallery's."
    )


class IdentifiedFace(DetectedFace):
    decision: Literal["match", "unknown"]
    person_id: str | None = Field(description="Null when unknown.")
    similarity: float | None = Field(
        description="Of the person, or of the best candidate, if there is any."
    )
    probability: float | None = Field(None, description="As among the candidates.")
    threshold: float | None = Field(
        description="Least similarity of a match for this face: it rises with how similar the "
        "candidates after the best one are. Null in a closed set."
    )
    candidates: list[Candidate] = Field(description="Best first.")


class IdentifyAnswer(_Model):
    faces: list[IdentifiedFace] = Field(description="Largest first; empty: no face in the photo.")
    gallery_size: int = Field(description="Persons enrolled in the gallery.")
    target_fpir: float | None = Field(
        description="What the thresholds were chosen for; null where the request gave one, and "
        "in a closed set."
    )
    model: str
    calibration: str | None = Field(description=_CALIBRATION)
    timings_ms: dict[str, float]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "faces": [
                        {
                            **_FACE,
                            "landmarks": _LANDMARKS,
                            "decision": "match",
                            "person_id": "grace",
                            "similarity": 0.965,
                            "threshold": 0.328,
                            "candidates": [
                                {"person_id": "grace", "similarity": 0.965},
                                {"person_id": "eileen", "similarity": 0.187},
                            ],
                        }
                    ],
                    "gallery_size": 2,
                    "target_fpir": 0.01,
                    "model": "sface-2021dec",
                    "calibration": "bf022c688f89",
                    "timings_ms": {"decode": 0.4, "detect": 1.9, "embed": 11.2, "search": 0.4},
                }
            ]
        }
    )


class VerifyAnswer(_Model):
    verified: bool
    similarity: float = Field(description="Cosine, -1 to 1.")
    distance: float = Field(description="In the chosen metric.")
    metric: Metric
    threshold: float = Field(description="Largest distance that is verified, in that metric.")
    fmr: float | None = Field(
        description="What the threshold was chosen for; null where the request gave a threshold."
    )
    probability: float | None = Field(
        description="That both show one person, where `prior` of all comparisons do; null for a "
        "model without calibration."
    )
    prior: float
    boxes: list[Box] = Field(description="The face taken from each image.")
    model: str
    calibration: str | None = Field(description=_CALIBRATION)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "verified": False,
                    "similarity": 0.169,
                    "distance": 0.831,
                    "metric": "cosine",
                    "threshold": 0.57,
                    "fmr": 0.0001,
                    "probability": 0.015,
                    "prior": 0.5,
                    "boxes": [_BOX, {"x": 178.0, "y": 62.6, "width": 90.4, "height": 113.9}],
                    "model": "sface-2021dec",
                }
            ]
        }
    )


class GalleryTargets(_Model):
    target_fpir: float | None = Field(
        None, gt=0, lt=1, description="For `/identify`; null: the deployment's."
    )
    target_fmr: float | None = Field(
        None, gt=0, lt=1, description="For `/verify`; null: the deployment's."
    )


class Gallery(GalleryTargets):
    gallery: str
    persons: int
    faces: int


class GalleryList(_Model):
    galleries: list[Gallery]


class DuplicatePair(_Model):
    person_ids: tuple[str, str]
    similarity: float = Field(description="Cosine of the means of their faces.")
    threshold: float = Field(description="From which on two persons are taken for one.")


class InconsistentFace(_Model):
    person_id: str
    face_id: str
    similarity: float = Field(description="Cosine to the mean of the person's other faces.")
    threshold: float = Field(description="Below which it is taken for somebody else's.")


class DuplicateScan(_Model):
    duplicates: list[DuplicatePair] = Field(description="Persons who look like one.")
    inconsistent: list[InconsistentFace] = Field(
        description="Faces that do not look like the others of their person."
    )
    scanned: int = Field(description="Persons looked at in this call.")
    gallery_size: int = Field(description="Persons enrolled in the gallery.")
    cursor: str | None = Field(description="Ask again with it for the next part; null: the last.")


class Model(_Model):
    model: str
    weights_sha256: str
    dimension: int
    calibration: str | None = Field(description=_CALIBRATION)


class Carried(_Model):
    """How far the other model's store follows the active one."""

    state: Literal["none", "carrying", "complete"] = Field(
        description="`none`: there is one model. `complete`: nobody is missing in the other one."
    )
    is_exact: bool = Field(description="False: `awaiting` and `lost` are being counted again.")
    persons: int
    total_persons: int
    faces: int = Field(description="Embedded by the other model.")
    total_faces: int
    awaiting: int = Field(description="Faces without a kept crop: their photos are needed anew.")
    lost: int = Field(description="Persons whose faces are all among them: nobody would find them.")


class Models(_Model):
    active: Model = Field(description="Searches and decisions use it.")
    other: Model | None = Field(description="Is written to as well, and can take over.")
    carried: Carried


class AwaitingPerson(_Model):
    person_id: str
    face_count: int = Field(description="Faces that are embedded.")
    awaiting: list[str] = Field(description="Ids of those that are not.")


class AwaitingPage(_Model):
    persons: list[AwaitingPerson]
    scanned: int = Field(description="Persons looked at in this call.")
    cursor: str | None = Field(description="Ask again with it for the next part; null: the last.")


class Liveness(_Model):
    status: Literal["alive"] = "alive"


class Readiness(_Model):
    status: Literal["ready"] = "ready"
    model: str
    other_model: str | None = Field(None, description="That faces are being carried over to.")
    calibration: str | None = Field(
        description=_CALIBRATION + " Null: every request needs a threshold."
    )
    device: Literal["cuda", "cpu"]
    store: Literal["embedded", "server"]


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["No face found"])
    status: int = Field(examples=[422])
    code: str = Field(description="Stable; made for programs.", examples=["no_face"])
    detail: str = Field(
        description="What was wrong and what to do; made for persons.",
        examples=["No face was found; send a photo that shows one from the front."],
    )
    request_id: str = Field(examples=["1f0c8a52f0d94a0e8a4d0b7f4b1d3c55"])


def is_person_id(value: str) -> bool:
    return re.fullmatch(PERSON_ID, value) is not None
