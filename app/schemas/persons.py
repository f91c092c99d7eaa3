"""Persons and their enrolled faces."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from app.schemas import base, detection, times

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


class FaceOfPerson(base.Schema):
    face_id: str
    box: detection.Box
    detection_score: float = Field(ge=0, le=1)
    norm: float = Field(description="Length of the embedding before normalisation.")
    quality: detection.Quality


class QualityWarning(base.Schema):
    code: str = Field(examples=["blurred"])
    detail: str


class EnrolledFace(FaceOfPerson):
    warnings: list[QualityWarning] = Field(
        description="Why the photo is a poor one; always empty with gate=off."
    )


class RejectedImage(base.Schema):
    index: int = Field(ge=0, description="Place of the image in the request, from 0.")
    code: str = Field(examples=["multiple_faces"])
    detail: str


class Duplicate(base.Schema):
    person_id: str
    similarity: float = Field(description="Cosine to the mean of all of the person's faces.")
    threshold: float = Field(description="From which on two persons are taken for one.")


class EnrolAnswer(base.Schema):
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
                            **detection.EXAMPLE_FACE,
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


class StoredFace(FaceOfPerson):
    image_sha256: str = Field(description="Hex digest of the photo's bytes as they were sent.")
    enrolled_at: datetime


AWAITING = (
    "Faces that the model in use has no embedding of, as it replaced another and no crops of them "
    "were kept: no search finds the person by them until their photos come again."
)


class PersonFaces(base.Schema):
    person_id: str
    faces: list[StoredFace] = Field(description="Oldest first.")
    awaiting: list[StoredFace] = Field([], description=AWAITING)


class Person(base.Schema):
    person_id: str
    metadata: dict[str, Any]
    consent_reference: str | None
    expires_at: datetime | None = Field(
        description="From then on no search finds the person; they are erased soon after."
    )
    face_count: int
    created_at: datetime
    updated_at: datetime


class PersonPage(base.Schema):
    persons: list[Person]
    cursor: str | None = Field(description="Ask again with it for the next page; null: the last.")


class PersonPatch(base.Schema):
    """What is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    metadata: dict[str, Any] = Field(
        default={},
        description="Merged into what is there (RFC 7396): null removes a key.",
        examples=[{"department": "Navy", "badge": None}],
    )
    consent_reference: ConsentReference | None = Field(None, description="Null removes it.")
    expires_at: times.Moment | None = Field(
        None, description="From then on no search finds the person. Null: never."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> "PersonPatch":
        if not self.model_fields_set:
            raise ValueError("name what to change: metadata, consent_reference or expires_at")
        return self
