"""Who are the people in this photo, and are they anybody we know?"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.decision.thresholds import Thresholds
from app.errors import UnsupportedTarget
from app.metrics import Metrics
from app.services.faces import Face, FaceFinder
from app.services.timing import Timings
from app.store import Store

FloatArray = npt.NDArray[np.float32]
Mode = Literal["open", "closed"]

# How many persons are looked at closely, at the least.
CLOSE_PERSONS = 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person of the gallery and the cosine to the mean of all of their faces."""

    person_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer for one face; `candidates` come best first and may be empty."""

    face: Face
    decision: Literal["match", "unknown"]
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True)
class Identified:
    """
    Attributes:
        threshold: least cosine similarity of a match.
        target_fpir: the rate it was chosen for; None where the caller gave the threshold.
        gallery_size: persons.
    """

    faces: list[Identification]
    threshold: float
    target_fpir: float | None
    gallery_size: int


class Identifier:
    def __init__(
        self,
        finder: FaceFinder,
        store: Store,
        thresholds: Thresholds | None,
        target_fpir: float,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            thresholds: None for an embedder without calibration.
            target_fpir: for requests that do not name their own.
        """
        self._finder = finder
        self._store = store
        self._thresholds = thresholds
        self._target_fpir = target_fpir
        self._metrics = metrics

    async def identify(
        self,
        gallery: str,
        image: bytes,
        *,
        mode: Mode,
        limit: int,
        target_fpir: float | None,
        threshold: float | None,
        timings: Timings,
    ) -> Identified:
        """Decide for every face of a photo.

        Args:
            mode: `open` answers `unknown` below the threshold; `closed` takes it as given
                that everybody is enrolled and answers with the best candidate.
            limit: most candidates for each face.
            target_fpir: share of strangers that may be called somebody; None: the default.
            threshold: least cosine similarity of a match, instead of a target.

        Raises:
            ImageError, QueueFull, StoreUnavailable.
            UnsupportedTarget: the calibration says nothing about it.
        """
        persons = (await self._store.size(gallery)).persons
        if threshold is None:
            target_fpir = target_fpir or self._target_fpir
            threshold = self._threshold(target_fpir, persons)
        else:
            target_fpir = None
        faces = await self._finder.embed(image, timings)
        probes = [face.embedding.vector for face in faces if face.embedding is not None]
        with timings.stage("search"):
            close = min(max(limit, CLOSE_PERSONS), persons)
            ranked = iter(await self._rank(gallery, np.array(probes), close))

        answers = []
        for face in faces:
            candidates = next(ranked)[:limit] if face.embedding is not None else []
            known = bool(candidates) and (mode == "closed" or candidates[0].similarity >= threshold)
            decision: Literal["match", "unknown"] = "match" if known else "unknown"
            self._metrics.decisions.labels("identify", decision).inc()
            if candidates:
                self._metrics.similarity.labels("identify").observe(candidates[0].similarity)
            answers.append(Identification(face, decision, candidates))
        return Identified(answers, threshold, target_fpir, persons)

    def _threshold(self, target_fpir: float, persons: int) -> float:
        if self._thresholds is None:
            raise UnsupportedTarget(
                "This embedder carries no calibration; give a threshold (cosine similarity)."
            )
        return self._thresholds.identification(target_fpir, persons)

    async def _rank(self, gallery: str, probes: FloatArray, close: int) -> list[list[Candidate]]:
        """The `close` persons nearest to each probe (n, d), best first."""
        if not len(probes) or not close:
            return [[] for _ in probes]
        return [
            [Candidate(*neighbour) for neighbour in neighbours]
            for neighbours in await self._store.search(gallery, probes, close)
        ]
