"""What all bodies have in common."""

from pydantic import BaseModel, ConfigDict

CALIBRATION = "Which calibration of the model the thresholds and probabilities come from."


class Schema(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")
