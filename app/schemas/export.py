"""All that is stored of one person."""

from datetime import datetime

from pydantic import Field

from app.schemas import base, persons


class PersonExportFace(persons.StoredFace):
    embedding: list[float] = Field(description="Unit length.")
    crop: str | None = Field(
        None, description="The aligned face, PNG in base64; null where none is kept."
    )


class PersonExportModel(base.Schema):
    """What the store of the other model holds of the person."""

    model: str
    model_weights_sha256: str
    embeddings: dict[str, list[float]] = Field(description="By the face's id.")
    template: list[float] | None


class PersonExport(persons.Person):
    """All that is stored of one person."""

    gallery: str
    awaiting: list[persons.StoredFace] = Field([], description=persons.AWAITING)
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
