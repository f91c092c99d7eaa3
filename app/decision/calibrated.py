"""All that the calibration of an embedder gives to decisions."""

from dataclasses import dataclass

from app.decision.identification import IdentificationThresholds
from app.decision.verification import SamePerson, VerificationThresholds


@dataclass(frozen=True, slots=True)
class Calibrated:
    """
    Attributes:
        id: of the calibration, in every answer that rests on it.
        temperature: of the closed set's probabilities.
    """

    id: str
    verification: VerificationThresholds
    same_person: SamePerson
    identification: IdentificationThresholds
    temperature: float

    def check(self, target_fpir: float | None, target_fmr: float | None) -> None:
        """
        Raises:
            UnsupportedTarget: the calibration says nothing about one of the rates.
        """
        if target_fpir is not None:
            self.identification.similarity(target_fpir, persons=1, photos=1)
        if target_fmr is not None:
            self.verification.distance(target_fmr, "cosine")
