"""Whether the service works."""

from typing import Literal

from pydantic import Field

from app.schemas import base


class Liveness(base.Schema):
    status: Literal["alive"] = "alive"


class Readiness(base.Schema):
    status: Literal["ready"] = "ready"
    model: str
    other_model: str | None = Field(None, description="That faces are being carried over to.")
    calibration: str | None = Field(
        description=base.CALIBRATION + " Null: every request needs a threshold."
    )
    device: Literal["cuda", "cpu"]
    store: Literal["embedded", "server"]
