"""Who are the people in this photo, and are they anybody we know?"""

import math
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

FloatArray = npt.NDArray[np.float32]
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
class Decision:
    """What is said of one face.

    Attributes:
        person: who it is; None: unknown.
        threshold: least similarity of a match for this face; None in a closed set.
        candidates: best first; empty for an empty gallery or a face too small to embed.
    """

    person: Candidate | None
    threshold: float | None
    candidates: list[Candidate]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one request decides in one gallery.

    Attributes:
        unique: nobody is in the photo twice; the faces' similarities above their thresholds
            (closed: their similarities) then sum to the most.
        limit: most candidates for each face.
        target_fpir: the rate that thresholds are chosen for; None where they are not.
        threshold: least similarity; before the cohort raises it where a rate was chosen;
            None in a closed set.
        gallery_size: persons.
    """

    gallery: str
    mode: Mode
    unique: bool
    limit: int
    target_fpir: float | None
    threshold: float | None
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

    async def rule(
        self,
        gallery: str,
        *,
        mode: Mode = "open",
        unique: bool = False,
        limit: int = 5,
        target_fpir: float | None = None,
        threshold: float | None = None,
    ) -> Rule:
        """
        Args:
            mode: `open` answers `unknown` below the threshold; `closed` takes it as given
                that everybody is enrolled and answers with the best candidate.
            target_fpir: share of strangers that may be called somebody; None: the gallery's,
                or else the default.
            threshold: least cosine similarity of a match, the same for all faces, instead.

        Raises:
            StoreUnavailable.
            UnsupportedTarget: the calibration says nothing about it.
        """
        size = await self._store.size(gallery)
        if mode == "closed":
            target_fpir = threshold = None
        elif threshold is not None:
            target_fpir = None
        elif self._calibrated is None:
            raise UnsupportedTarget(
                "This embedder carries no calibration; give a threshold (cosine similarity)."
            )
        else:
            if target_fpir is None:
                targets = await self._store.targets(gallery)
                target_fpir = targets.target_fpir or self._target_fpir
            threshold = self._calibrated.identification.similarity(
                target_fpir, size.persons, size.faces / max(size.persons, 1)
            )
        return Rule(gallery, mode, unique, limit, target_fpir, threshold, size.persons)

    async def identify(
        self, rule: Rule, image: bytes, timings: Timings
    ) -> list[tuple[Face, Decision]]:
        """Decide for every face of a photo.

        Raises:
            ImageError, QueueFull, StoreUnavailable.
        """
        faces = await self._finder.embed(image, timings)
        probes = [face.embedding.vector for face in faces if face.embedding is not None]
        with timings.stage("search"):
            decided = iter(await self.decide(rule, np.array(probes)))
        nothing = Decision(None, rule.threshold, [])
        answers = [(face, nothing if face.embedding is None else next(decided)) for face in faces]
        for _, decision in answers:
            name = "unknown" if decision.person is None else "match"
            self._metrics.decisions.labels("identify", name).inc()
            if decision.candidates:
                best = decision.candidates[0].similarity
                self._metrics.similarity.labels("identify").observe(best)
        return answers

    async def decide(self, rule: Rule, probes: FloatArray) -> list[Decision]:
        """Decide for each embedding of one photo.

        Args:
            probes: (n, d) float32 of unit length.

        Raises:
            StoreUnavailable.
        """
        if not len(probes):
            return []
        considered = max(rule.limit, len(probes) if rule.unique else 1)
        wanted = max(considered + COHORT, _CLOSED if rule.mode == "closed" else 0)
        found = await self._store.search(rule.gallery, probes, wanted)
        chosen = (
            _assign(rule, found, considered)
            if rule.unique
            else [
                0 if near and near[0].similarity >= _threshold(rule, near, 0) else None
                for near in found
            ]
        )
        return [
            self._decision(rule, near, choice) for near, choice in zip(found, chosen, strict=True)
        ]

    def _decision(self, rule: Rule, near: Sequence[Neighbour], choice: int | None) -> Decision:
        shares: Sequence[float | None] = [None] * len(near)
        if rule.mode == "closed" and self._calibrated is not None and near:
            similarities = np.array([neighbour.similarity for neighbour in near], np.float64)
            shares = probabilities(similarities, self._calibrated.temperature).tolist()
        shown = max(rule.limit, 0 if choice is None else choice + 1)
        candidates = [
            Candidate(neighbour.person_id, neighbour.similarity, share)
            for neighbour, share in zip(near[:shown], shares, strict=False)
        ]
        return Decision(
            None if choice is None else candidates[choice],
            None if rule.threshold is None else _threshold(rule, near, choice or 0),
            candidates[: rule.limit],
        )


def _threshold(rule: Rule, near: Sequence[Neighbour], place: int) -> float:
    """Of the candidate in this place; minus infinity in a closed set."""
    if rule.threshold is None:
        return -math.inf
    if rule.target_fpir is None:
        return rule.threshold
    following = [neighbour.similarity for neighbour in near[place + 1 : place + 1 + COHORT]]
    return rule.threshold + cohort_raise(following)


def _assign(rule: Rule, found: Sequence[Sequence[Neighbour]], considered: int) -> list[int | None]:
    """Which of its candidates each face is, if any, nobody twice."""
    persons = list(dict.fromkeys(n.person_id for near in found for n in near[:considered]))
    column = {person_id: index for index, person_id in enumerate(persons)}
    gains = np.full((len(found), len(persons)), -np.inf)
    for face, near in enumerate(found):
        for place, neighbour in enumerate(near[:considered]):
            # Without a threshold every candidate is better than none; to reach it is enough.
            limit = max(_threshold(rule, near, place), -2.0)
            gains[face, column[neighbour.person_id]] = neighbour.similarity - limit + 1e-9
    chosen: list[int | None] = []
    for near, person in zip(found, assign(gains).tolist(), strict=True):
        places = [neighbour.person_id for neighbour in near[:considered]]
        chosen.append(None if person < 0 else places.index(persons[person]))
    return chosen
