"""Galleries, their error rates, and who in them looks like somebody else."""

from pydantic import Field

from app.schemas import base


class GalleryTargets(base.Schema):
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


class GalleryList(base.Schema):
    galleries: list[Gallery]


class DuplicatePair(base.Schema):
    person_ids: tuple[str, str]
    similarity: float = Field(description="Cosine of the means of their faces.")
    threshold: float = Field(description="From which on two persons are taken for one.")


class InconsistentFace(base.Schema):
    person_id: str
    face_id: str
    similarity: float = Field(description="Cosine to the mean of the person's other faces.")
    threshold: float = Field(description="Below which it is taken for somebody else's.")


class DuplicateScan(base.Schema):
    duplicates: list[DuplicatePair] = Field(description="Persons who look like one.")
    inconsistent: list[InconsistentFace] = Field(
        description="Faces that do not look like the others of their person."
    )
    scanned: int = Field(description="Persons looked at in this call.")
    gallery_size: int = Field(description="Persons enrolled in the gallery.")
    cursor: str | None = Field(description="Ask again with it for the next part; null: the last.")
