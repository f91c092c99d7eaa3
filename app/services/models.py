"""The models that faces are embedded by: one that answers, and one that is to take over or may."""

from dataclasses import dataclass
from typing import Protocol

from app.decision.calibrated import Calibrated
from app.decision.identification import IdentificationThresholds
from app.decision.verification import SamePerson, VerificationThresholds
from app.inference.embedder import FaceEmbedder
from app.models.spec import EmbedderSpec
from app.store import Embedder, Store


@dataclass(eq=False, slots=True)
class Model:
    """A loaded embedder, and the store of what it embeds.

    Attributes:
        users: requests that began while it was the active one, and are not answered yet.
    """

    spec: EmbedderSpec
    embedder: FaceEmbedder
    store: Store
    users: int = 0

    @property
    def identity(self) -> Embedder:
        return identity(self.spec)


def identity(spec: EmbedderSpec) -> Embedder:
    return Embedder(spec.name, spec.dimension, spec.weights_sha256)


def calibrated_by(spec: EmbedderSpec) -> Calibrated | None:
    """How its embeddings decide; None where it carries no calibration."""
    if spec.calibration is None:
        return None
    one, many = spec.calibration.verification, spec.calibration.identification
    return Calibrated(
        id=spec.calibration.id,
        verification=VerificationThresholds(one.fmr, one.photos, one.cosine, one.manhattan),
        same_person=SamePerson(one.slope, one.intercept),
        identification=IdentificationThresholds(
            many.fpir, many.photos, many.persons, many.similarity
        ),
        temperature=many.temperature,
    )


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """
    Attributes:
        active: searches and decisions use it.
        other: is written to as well; None where there is only one.
    """

    active: Model
    other: Model | None


class Models(Protocol):
    @property
    def pair(self) -> Pair:
        """As this process knows it."""
        ...

    async def current(self) -> Pair:
        """As it is now, also where another replica has changed it; the same object while it is
        the same.

        Raises:
            StoreUnavailable.
        """
        ...

    async def note_unequal(self) -> None:
        """The other store may lack what the active one has: carry over again before a switch.

        Raises:
            StoreUnavailable: nobody could be told.
        """
        ...
