"""Faces as they are found in a photo."""

from typing import Any

from pydantic import Field

from app.schemas import base

EXAMPLE_BOX: dict[str, Any] = {"x": 182.65, "y": 119.99, "width": 170.06, "height": 212.54}
EXAMPLE_FACE: dict[str, Any] = {
    "box": EXAMPLE_BOX,
    "detection_score": 0.943,
    "quality": {
        "eye_distance_px": 84.22,
        "sharpness": 263.97,
        "brightness": 145.21,
        "contrast": 42.97,
        "yaw_degrees": -1.55,
        "pitch_degrees": -0.56,
        "roll_degrees": 0.53,
    },
}
EXAMPLE_LANDMARKS: list[Any] = [
    [225.33, 190.15],
    [309.54, 191.3],
    [266.1, 236.32],
    [231.05, 273.68],
    [303.72, 275.64],
]


class Box(base.Schema):
    """Pixels of the upright photo (EXIF orientation applied); may reach beyond its border."""

    x: float
    y: float
    width: float
    height: float


class Quality(base.Schema):
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


class DetectedFace(base.Schema):
    box: Box
    landmarks: list[tuple[float, float]] = Field(
        min_length=5,
        max_length=5,
        description="Eyes, nose tip, mouth corners; left to right as seen.",
    )
    detection_score: float = Field(ge=0, le=1)
    quality: Quality


class DetectAnswer(base.Schema):
    faces: list[DetectedFace] = Field(description="Largest first.")
    timings_ms: dict[str, float]


class EmbeddedFace(DetectedFace):
    embedding: list[float] | None = Field(
        description="Unit length; null where the face is too small to be embedded."
    )
    norm: float | None = Field(description="Length of the embedding before normalisation.")


class EmbedAnswer(base.Schema):
    faces: list[EmbeddedFace] = Field(description="Largest first.")
    model: str
    timings_ms: dict[str, float]
