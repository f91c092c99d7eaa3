"""Who it is, and whether it is the same person."""

from typing import Literal

from pydantic import ConfigDict, Field

from app.decision.distance import Metric
from app.schemas import base, detection


class Candidate(base.Schema):
    person_id: str
    similarity: float = Field(description="Cosine to the mean of all of the person's faces.")
    probability: float | None = Field(
        None, description="In a closed set: that it is this person of the gallery's."
    )


class IdentifiedFace(detection.DetectedFace):
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


class IdentifyAnswer(base.Schema):
    faces: list[IdentifiedFace] = Field(description="Largest first; empty: no face in the photo.")
    gallery_size: int = Field(description="Persons enrolled in the gallery.")
    target_fpir: float | None = Field(
        description="What the thresholds were chosen for; null where the request gave one, and "
        "in a closed set."
    )
    model: str
    calibration: str | None = Field(description=base.CALIBRATION)
    timings_ms: dict[str, float]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "faces": [
                        {
                            **detection.EXAMPLE_FACE,
                            "landmarks": detection.EXAMPLE_LANDMARKS,
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


class VerifyAnswer(base.Schema):
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
    boxes: list[detection.Box] = Field(description="The face taken from each image.")
    model: str
    calibration: str | None = Field(description=base.CALIBRATION)

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
                    "boxes": [
                        detection.EXAMPLE_BOX,
                        {"x": 178.0, "y": 62.6, "width": 90.4, "height": 113.9},
                    ],
                    "model": "sface-2021dec",
                    "calibration": "bf022c688f89",
                }
            ]
        }
    )
