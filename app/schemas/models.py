"""The model in use and the one that is to replace it."""

from typing import Literal

from pydantic import Field

from app.schemas import base


class Model(base.Schema):
    model: str
    weights_sha256: str
    dimension: int
    calibration: str | None = Field(description=base.CALIBRATION)


class Carried(base.Schema):
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


class Models(base.Schema):
    active: Model = Field(description="Searches and decisions use it.")
    other: Model | None = Field(description="Is written to as well, and can take over.")
    carried: Carried


class AwaitingPerson(base.Schema):
    person_id: str
    face_count: int = Field(description="Faces that are embedded.")
    awaiting: list[str] = Field(description="Ids of those that are not.")


class AwaitingPage(base.Schema):
    persons: list[AwaitingPerson]
    scanned: int = Field(description="Persons looked at in this call.")
    cursor: str | None = Field(description="Ask again with it for the next part; null: the last.")
