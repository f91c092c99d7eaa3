"""Do two photos show the same person?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.decision.calibrated import Calibrated
from app.decision.distance import Metric, distance
from app.decision.fusion import template
from app.errors import PersonNotFound, UnsupportedTarget
from app.metrics import Metrics
from app.services.faces import Choice, Face, FaceFinder
from app.services.together import together
from app.store import Store

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Criterion:
    """How the caller wants two faces to be compared.

    Attributes:
        target_fmr: share of pairs of strangers that may be verified; None: the default.
        threshold: largest distance in the metric, instead of a target.
        prior: share of comparisons that show one person, before these faces are seen.
    """

    metric: Metric
    target_fmr: float | None
    threshold: float | None
    prior: float


@dataclass(frozen=True, slots=True)
class Verification:
    """
    Attributes:
        similarity: cosine, -1 to 1.
        distance, threshold: in the chosen metric; verified when distance <= threshold.
        fmr: the rate the threshold was chosen for; None where the caller gave the threshold.
        probability: that the faces show one person, by the caller's prior; None for an embedder
            without calibration.
        faces: the face taken from each image.
    """

    verified: bool
    similarity: float
    distance: float
    threshold: float
    fmr: float | None
    probability: float | None
    faces: list[Face]


class Verifier:
    def __init__(
        self,
        finder: FaceFinder,
        store: Store,
        calibrated: Calibrated | None,
        target_fmr: float,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            calibrated: None for an embedder without calibration.
            target_fmr: for galleries and requests that do not name their own.
        """
        self._finder = finder
        self._store = store
        self._calibrated = calibrated
        self._target_fmr = target_fmr
        self._metrics = metrics

    async def verify_images(
        self,
        image_a: bytes,
        image_b: bytes,
        *,
        choice: Choice,
        criterion: Criterion,
    ) -> Verification:
        """Compare the faces of two images.

        Raises:
            ImageError, FaceError, QueueFull, UnsupportedTarget.
        """
        threshold, fmr = self._threshold(criterion, None, photos=1)
        (face_a, a), (face_b, b) = await together(
            self._finder.embed_one(image, choice) for image in (image_a, image_b)
        )
        return self._decide(a.vector, b.vector, [face_a, face_b], criterion, threshold, fmr)

    async def verify_person(
        self,
        gallery: str,
        person_id: str,
        image: bytes,
        *,
        choice: Choice,
        criterion: Criterion,
    ) -> Verification:
        """Compare an image with the mean of a person's enrolled faces.

        Raises:
            PersonNotFound: nobody of that name, or without any face.
            ImageError, FaceError, QueueFull, StoreUnavailable, UnsupportedTarget.
        """
        enrolled = (await self._store.embeddings(gallery, [person_id])).get(person_id)
        if enrolled is None:
            raise PersonNotFound(gallery, person_id)
        targets = await self._store.targets(gallery)
        threshold, fmr = self._threshold(criterion, targets.target_fmr, photos=len(enrolled))
        face, embedding = await self._finder.embed_one(image, choice)
        return self._decide(embedding.vector, template(enrolled), [face], criterion, threshold, fmr)

    def _threshold(
        self, criterion: Criterion, of_gallery: float | None, photos: int
    ) -> tuple[float, float | None]:
        """The largest distance of a match, and the rate it was chosen for."""
        if criterion.threshold is not None:
            return criterion.threshold, None
        if self._calibrated is None:
            raise UnsupportedTarget(
                "This embedder carries no calibration; give a threshold "
                f"(largest {criterion.metric} distance)."
            )
        fmr = criterion.target_fmr or of_gallery or self._target_fmr
        return self._calibrated.verification.distance(fmr, criterion.metric, photos), fmr

    def _decide(
        self,
        a: FloatArray,
        b: FloatArray,
        faces: list[Face],
        criterion: Criterion,
        threshold: float,
        fmr: float | None,
    ) -> Verification:
        similarity = float(a @ b)
        apart = distance(a, b, criterion.metric)
        verified = apart <= threshold
        self._metrics.decisions.labels("verify", "verified" if verified else "not_verified").inc()
        self._metrics.similarity.labels("verify").observe(similarity)
        probability = None
        if self._calibrated is not None:
            probability = self._calibrated.same_person.probability(similarity, criterion.prior)
        return Verification(verified, similarity, apart, threshold, fmr, probability, faces)
