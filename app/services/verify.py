"""Do two photos show the same person?"""

import asyncio
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.decision.distance import Metric, distance, distance_at
from app.decision.fusion import mean_templates
from app.errors import PersonNotFound
from app.metrics import Metrics
from app.services.faces import Choice, Face, FaceFinder
from app.settings import DecisionSettings
from app.store import Store

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Verification:
    """
    Attributes:
        similarity: cosine, -1 to 1.
        distance, threshold: in the chosen metric; verified when distance <= threshold.
        faces: the face taken from each image.
    """

    verified: bool
    similarity: float
    distance: float
    threshold: float
    faces: list[Face]


class Verifier:
    def __init__(
        self, finder: FaceFinder, store: Store, decision: DecisionSettings, metrics: Metrics
    ) -> None:
        self._finder = finder
        self._store = store
        self._decision = decision
        self._metrics = metrics

    async def verify_images(
        self,
        image_a: bytes,
        image_b: bytes,
        *,
        choice: Choice,
        metric: Metric,
        threshold: float | None,
    ) -> Verification:
        """Compare the faces of two images.

        Args:
            threshold: least cosine similarity, whatever the metric; None: the configured one.

        Raises:
            ImageError, FaceError, QueueFull.
        """
        (face_a, a), (face_b, b) = await asyncio.gather(
            self._finder.embed_chosen(image_a, choice), self._finder.embed_chosen(image_b, choice)
        )
        return self._decide(a.vector, b.vector, [face_a, face_b], metric, threshold)

    async def verify_person(
        self,
        gallery: str,
        person_id: str,
        image: bytes,
        *,
        choice: Choice,
        metric: Metric,
        threshold: float | None,
    ) -> Verification:
        """Compare an image with the mean of a person's enrolled faces.

        Raises:
            PersonNotFound: nobody of that name, or without any face.
            ImageError, FaceError, QueueFull, StoreUnavailable.
        """
        persons = await self._store.embeddings(gallery, [person_id])
        if person_id not in persons:
            raise PersonNotFound(gallery, person_id)
        face, embedding = await self._finder.embed_chosen(image, choice)
        _, templates = mean_templates(persons)
        return self._decide(embedding.vector, templates[0], [face], metric, threshold)

    def _decide(
        self,
        a: FloatArray,
        b: FloatArray,
        faces: list[Face],
        metric: Metric,
        threshold: float | None,
    ) -> Verification:
        if threshold is None:
            threshold = self._decision.verify_threshold
        similarity = float(a @ b)
        apart = distance(a, b, metric)
        limit = distance_at(threshold, len(a), metric)
        verified = apart <= limit
        self._metrics.decisions.labels("verify", "verified" if verified else "not_verified").inc()
        self._metrics.similarity.labels("verify").observe(similarity)
        return Verification(verified, similarity, apart, limit, faces)
