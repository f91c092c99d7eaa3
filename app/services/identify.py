"""Who are the people in this photo, and are they anybody we know?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.decision.assignment import assign
from app.decision.calibrated import Calibrated
from app.decision.closed_set import probabilities
from app.decision.identification import COHORT, cohort_raise
from app.errors import UnsupportedTarget
from app.metrics import Metrics
from app.services.faces import Face, FaceFinder
from app.services.timing import Timings
from app.store import Neighbour, Store

Array = npt.NDArray[np.float64]
Mode = Literal["open", "closed"]

# Persons over whom closed-set probabilities are spread. Among 5,700 the others would get 0.3 %
# in the mean: a probability falls e-fold with every 0.025 of cosine.
_CLOSED = 128


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person of the gallery.

    Attributes:
        similarity: cosine to the mean of all of their faces.
        probability: that it is them, if it is anybody of the gallery; closed set only.
    """

    person_id: str
    similarity: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Identification:
    """The answer for one face.

    Attributes:
        person: who it is; None: unknown.
        threshold: least similarity of a match for this face; None where everybody matches.
        candidates: best first; empty for an empty gallery or a face too small to embed.
    """

    face: Face
    person: Candidate | None
    threshold: float | None
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True)
class Identified:
    """
    Attributes:
        target_fpir: the rate the thresholds were chosen for; None where they were not.
        gallery_size: persons.
    """

    faces: list[Identification]
    target_fpir: float | None
    gallery_size: int


class Identifier:
    def __init__(
        self,
        finder: FaceFinder,
        store: Store,
        calibrated: Calibrated | None,
        target_fpir: float,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            calibrated: None for an embedder without calibration.
            target_fpir: for galleries and requests that do not name their own.
        """
        self._finder = finder
        self._store = store
        self._calibrated = calibrated
        self._target_fpir = target_fpir
        self._metrics = metrics

    async def identify(
        self,
        gallery: str,
        image: bytes,
        *,
        mode: Mode,
        unique: bool,
        limit: int,
        target_fpir: float | None,
        threshold: float | None,
        timings: Timings,
    ) -> Identified:
        """Decide for every face of a photo.

        Args:
            mode: `open` answers `unknown` below the threshold; `closed` takes it as given
                that everybody is enrolled and answers with the best candidate.
            unique: nobody is in the photo twice; the faces' similarities above their
                thresholds (closed: their similarities) then sum to the most.
            limit: most candidates for each face.
            target_fpir: share of strangers that may be called somebody; None: the gallery's,
                or else the default.
            threshold: least cosine similarity of a match, the same for all faces, instead.

        Raises:
            ImageError, QueueFull, StoreUnavailable.
            UnsupportedTarget: the calibration says nothing about it.
        """
        size = await self._store.size(gallery)
        base = None
        if mode == "closed" or threshold is not None:
            target_fpir = None
        else:
            targets = await self._store.targets(gallery)
            target_fpir = target_fpir or targets.target_fpir or self._target_fpir
            photos = size.faces / max(size.persons, 1)
            base = self._base(target_fpir, size.persons, photos)

        faces = await self._finder.embed(image, timings)
        known = [face for face in faces if face.embedding is not None]
        considered = max(limit, len(known) if unique else 1)
        wanted = max(considered + COHORT, _CLOSED if mode == "closed" else 0)
        with timings.stage("search"):
            found = await self._search(gallery, known, wanted)
        similarities = [np.array([n.similarity for n in near], np.float64) for near in found]
        fixed = -np.inf if mode == "closed" else threshold
        thresholds = [
            np.full(len(row), fixed) if base is None else base + cohort_raise(row)
            for row in similarities
        ]
        chosen = iter(_choose(found, similarities, thresholds, unique, considered))

        embedded = iter(zip(found, similarities, thresholds, strict=True))
        identifications = []
        for face in faces:
            person, candidates = None, []
            least = threshold if base is None else base
            if face.embedding is not None:
                near, row, limits = next(embedded)
                choice = next(chosen)
                candidates = self._candidates(near, row, mode)
                person = None if choice is None else candidates[choice]
                least = float(limits[choice or 0]) if near else least
            self._count(person, candidates)
            identifications.append(
                Identification(
                    face, person, None if mode == "closed" else least, candidates[:limit]
                )
            )
        return Identified(identifications, target_fpir, size.persons)

    def _base(self, target_fpir: float, persons: int, photos: float) -> float:
        if self._calibrated is None:
            raise UnsupportedTarget(
                "This embedder carries no calibration; give a threshold (cosine similarity)."
            )
        return self._calibrated.identification.similarity(target_fpir, persons, photos)

    async def _search(
        self, gallery: str, faces: Sequence[Face], limit: int
    ) -> list[list[Neighbour]]:
        if not faces:
            return []
        probes = [face.embedding.vector for face in faces if face.embedding is not None]
        return await self._store.search(gallery, np.array(probes), limit)

    def _candidates(
        self, near: Sequence[Neighbour], similarities: Array, mode: Mode
    ) -> list[Candidate]:
        if mode == "open" or self._calibrated is None or not near:
            return [Candidate(neighbour.person_id, neighbour.similarity) for neighbour in near]
        shares = probabilities(similarities, self._calibrated.temperature).tolist()
        return [
            Candidate(neighbour.person_id, neighbour.similarity, share)
            for neighbour, share in zip(near, shares, strict=True)
        ]

    def _count(self, person: Candidate | None, candidates: Sequence[Candidate]) -> None:
        decision = "unknown" if person is None else "match"
        self._metrics.decisions.labels("identify", decision).inc()
        if candidates:
            self._metrics.similarity.labels("identify").observe(candidates[0].similarity)


def _choose(
    found: Sequence[Sequence[Neighbour]],
    similarities: Sequence[Array],
    thresholds: Sequence[Array],
    unique: bool,
    considered: int,
) -> list[int | None]:
    """Which of its candidates each face is, if any."""
    if not unique:
        return [
            0 if len(row) and row[0] >= limits[0] else None
            for row, limits in zip(similarities, thresholds, strict=True)
        ]
    persons = list(dict.fromkeys(n.person_id for near in found for n in near[:considered]))
    column = {person_id: index for index, person_id in enumerate(persons)}
    gains = np.full((len(found), len(persons)), -np.inf)
    for face, near in enumerate(found):
        for place, neighbour in enumerate(near[:considered]):
            # Without a threshold every candidate is better than none; to reach it is enough.
            limit = max(float(thresholds[face][place]), -2.0)
            gains[face, column[neighbour.person_id]] = neighbour.similarity - limit + 1e-9
    chosen: list[int | None] = []
    for near, person in zip(found, assign(gains).tolist(), strict=True):
        places = [n.person_id for n in near[:considered]]
        chosen.append(None if person < 0 else places.index(persons[person]))
    return chosen
