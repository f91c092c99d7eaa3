"""What every error answers."""

from pydantic import BaseModel, ConfigDict, Field


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
