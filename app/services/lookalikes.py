"""One face under two names, and two faces under one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.decision.calibrated import Calibrated
from app.decision.fusion import template
from app.decision.identification import COHORT, cohort_raise
from app.store import Store

FloatArray = npt.NDArray[np.float32]

TARGET_FPIR = 1e-3
"""Share of newcomers that may be taken for somebody already enrolled."""
_STRANGER_FMR = 1e-2
"""A photo is taken for another person's where it is no more similar to the person's others than
one stranger in a hundred would be."""
_MOST = 5


@dataclass(frozen=True, slots=True)
class Lookalike:
    """A person who looks like another.

    Attributes:
        similarity: cosine of their templates.
        threshold: from which on they are taken for one.
    """

    person_id: str
    similarity: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Two persons who look like one."""

    person_id: str
    other_id: str
    similarity: float
    threshold: float


@dataclass(frozen=True, slots=True)
class OddFace:
    """A face that does not look like the others of its person.

    Attributes:
        similarity: cosine to the mean of the others.
        threshold: below which it is taken for somebody else's.
    """

    person_id: str
    face_id: str
    similarity: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Scan:
    """What one part of a gallery holds.

    Attributes:
        scanned: persons looked at.
        cursor: where the next part begins; None at the end.
    """

    duplicates: list[Duplicate]
    odd_faces: list[OddFace]
    scanned: int
    cursor: str | None


class Lookalikes:
    """Looks for persons who look like one, by what the calibration says of strangers."""

    def __init__(self, store: Store, calibrated: Calibrated) -> None:
        self._store = store
        self._calibrated = calibrated

    async def of(
        self,
        gallery: str,
        templates: FloatArray,
        person_ids: Sequence[str],
        target_fpir: float | None = None,
    ) -> list[list[Lookalike]]:
        """Whom of a gallery each template looks like.

        Args:
            templates: (n, d) float32 of unit length.
            person_ids: whose they are; nobody is their own lookalike.
            target_fpir: share of templates that may be said to look like somebody by chance;
                None: `TARGET_FPIR`, or the lowest that the calibration supports.

        Raises:
            StoreUnavailable.
            UnsupportedTarget: the calibration says nothing about it.
        """
        if target_fpir is None:
            target_fpir = max(TARGET_FPIR, self._calibrated.identification.lowest_fpir)
        size = await self._store.size(gallery)
        if not len(templates) or not size.persons:
            return [[] for _ in templates]
        base = self._calibrated.identification.similarity(
            target_fpir, size.persons, size.faces / size.persons
        )
        found = await self._store.search(gallery, templates, _MOST + COHORT + 1)
        answers = []
        for near, own in zip(found, person_ids, strict=True):
            others = [neighbour for neighbour in near if neighbour.person_id != own]
            similarities = [neighbour.similarity for neighbour in others]
            answers.append(
                [
                    Lookalike(neighbour.person_id, neighbour.similarity, threshold)
                    for place, neighbour in enumerate(others[:_MOST], 1)
                    if neighbour.similarity
                    >= (threshold := base + cohort_raise(similarities[place:]))
                ]
            )
        return answers

    def odd(
        self, embeddings: FloatArray, others: FloatArray | None = None
    ) -> list[tuple[float, float] | None]:
        """Which faces do not look like the others of their person.

        Args:
            embeddings: (n, d) float32 of unit length.
            others: (m, d) faces to compare each with; None: the remaining ones of `embeddings`.

        Returns:
            For each face None, or its similarity to the others' mean and the least that was
            expected.
        """
        fmr = max(_STRANGER_FMR, self._calibrated.verification.lowest_fmr)
        answers: list[tuple[float, float] | None] = []
        for index, face in enumerate(embeddings):
            rest = np.delete(embeddings, index, axis=0) if others is None else others
            if not len(rest):
                answers.append(None)
                continue
            similarity = float(face @ template(rest))
            least = 1 - self._calibrated.verification.distance(fmr, "cosine", len(rest))
            answers.append((similarity, least) if similarity < least else None)
        return answers

    async def scan(
        self, gallery: str, limit: int, cursor: str | None, target_fpir: float | None
    ) -> Scan:
        """Look at the next `limit` persons of a gallery, each pair being told once.

        Raises:
            InvalidRequest: a cursor the store did not give out.
            StoreUnavailable, UnsupportedTarget: as in `of`.
        """
        page = await self._store.templates(gallery, limit, cursor)
        found = await self.of(gallery, page.templates, page.person_ids, target_fpir)
        duplicates = []
        for person_id, lookalikes in zip(page.person_ids, found, strict=True):
            for other in lookalikes:
                if person_id < other.person_id or not await self._sees(
                    gallery, other.person_id, person_id, target_fpir
                ):
                    first, second = sorted((person_id, other.person_id))
                    duplicates.append(Duplicate(first, second, other.similarity, other.threshold))
        odd_faces = []
        enrolled = await self._store.embeddings(gallery, page.person_ids)
        for person_id, embeddings in enrolled.items():
            odd = self.odd(embeddings)
            if not any(odd):
                continue
            faces = await self._store.faces(gallery, person_id)
            odd_faces += [
                OddFace(person_id, face.face_id, *problem)
                for face, problem in zip(faces, odd, strict=False)
                if problem is not None
            ]
        return Scan(duplicates, odd_faces, len(page.person_ids), page.cursor)

    async def _sees(
        self, gallery: str, person_id: str, other_id: str, target_fpir: float | None
    ) -> bool:
        """Whether the scan tells of this pair when it comes to `person_id`."""
        enrolled = (await self._store.embeddings(gallery, [person_id])).get(person_id)
        if enrolled is None:
            return False
        own = template(enrolled)[None]
        (found,) = await self.of(gallery, own, [person_id], target_fpir)
        return any(lookalike.person_id == other_id for lookalike in found)
