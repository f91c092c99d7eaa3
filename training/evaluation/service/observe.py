"""Enrol, look for, delete again: what the service answers on the way."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from training.errors import Unresolvable
from training.evaluation.evaluate import PHOTOS
from training.evaluation.identification import FPIRS, IntArray, Split
from training.evaluation.service.plan import Plan, with_photos
from training.evaluation.service.progress import Bars
from training.evaluation.service.report import Duplicate, InconsistentPhoto
from training.evaluation.service.session import Answer, Enrolled, Session

Item = TypeVar("Item")
Result = TypeVar("Result")

WATCHED = 10
"""Strangers who are looked for again and again while a gallery grows."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The same question about many photos.

    Attributes:
        elapsed: seconds for all of them.
    """

    answers: list[Answer]
    elapsed: float


@dataclass(slots=True)
class Observed:
    """What one gallery gave.

    Attributes:
        photos: enrolled of each person, at most.
        persons: labels of those who were to be enrolled.
        enrolled: what became of each.
        filling: seconds that all of it took.
        grown: the answers about the watched strangers, at several sizes of the gallery.
        offsets: by how much a threshold for each target exceeds that for the service's own, or
            why there is none.
        probes, strangers: in the order of the split.
        closed: the probes again, in a closed set.
        others: what became of the strangers, when they were enrolled too.
        duplicates, inconsistent: what the service then said of everybody.
    """

    photos: int
    split: Split
    persons: list[int]
    enrolled: list[Enrolled] = field(default_factory=list)
    filling: float = 0.0
    grown: list[list[Answer]] = field(default_factory=list)
    offsets: dict[float, float | str] = field(default_factory=dict)
    probes: Pass = field(default_factory=lambda: Pass([], 0.0))
    strangers: Pass = field(default_factory=lambda: Pass([], 0.0))
    closed: Pass | None = None
    others: list[Enrolled] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    inconsistent: list[InconsistentPhoto] = field(default_factory=list)


async def observe(
    session: Session, plan: Plan, at_once: int, bars: Bars, unfinished: set[str]
) -> list[Observed]:
    """Fill a gallery with one photo of each person, and one with up to three, and look for the
    others in each; the second is also asked as a closed set, and, the strangers enrolled, for
    duplicates.

    Args:
        at_once: requests under way at a time.
        unfinished: galleries that hold persons of ours; empty at the end.

    Raises:
        Unresolvable: it could not use a single photo to enrol.
        UnusableService: the service is not there, or refuses to work.
    """
    found = []
    for photos in PHOTOS:
        several = photos == max(PHOTOS)
        gallery = _Gallery(session, plan, photos, at_once, bars)
        unfinished.add(gallery.name)
        try:
            await gallery.fill()
            await gallery.ask_for_targets()
            await gallery.look_for_everybody(closed=several)
            if several:
                await gallery.look_for_duplicates()
        finally:
            await gallery.clear()
            unfinished.discard(gallery.name)
        found.append(gallery.observed)
    return found


def requests(plan: Plan) -> int:
    """What the bar of `observe` counts to."""
    counts = []
    for photos in PHOTOS:
        split = plan.split(photos)
        persons = len(np.unique(plan.labels[split.gallery]))
        counts.append(2 * persons + len(split.probes) + len(split.strangers))
    strangers = len(np.unique(plan.labels[split.strangers]))
    # The closed set, strangers enrolled and deleted, and everybody scanned.
    return sum(counts) + len(split.probes) + 3 * strangers + persons


def photo_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def steps(persons: int) -> list[int]:
    """Sizes of a gallery at which to look at it: 1, 2, 5, 10, 20 ... and the last."""
    sizes = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
    return [*(size for size in sizes if size < persons), persons]


class _Gallery:
    def __init__(self, session: Session, plan: Plan, photos: int, at_once: int, bars: Bars) -> None:
        self.name = f"evaluation-{photos}-{secrets.token_hex(4)}"
        split = plan.split(photos)
        self.observed = Observed(photos, split, np.unique(plan.labels[split.gallery]).tolist())
        self._session, self._plan = session, plan
        self._at_once, self._bars = at_once, bars
        self._sent: dict[int, list[Path]] = {}
        # Spread over all of them, so that they are not namesakes.
        places = np.linspace(0, len(split.strangers) - 1, WATCHED).round().astype(int)
        self._watched = [self._path(i) for i in split.strangers[np.unique(places)]]

    @property
    def _title(self) -> str:
        return with_photos(self.observed.photos)

    def _path(self, index: int) -> Path:
        return self._plan.photos[index].path

    async def _enrol(
        self, indices: IntArray, labels: Sequence[int], advance: Callable[[int], object]
    ) -> list[Enrolled]:
        """Enrol persons with those of their photos that are among the indices."""

        async def enrol(label: int) -> Enrolled:
            chosen = indices[self._plan.labels[indices] == label]
            self._sent[label] = [self._path(i) for i in chosen[: self.observed.photos]]
            person_id = self._plan.person_id(label)
            return await self._session.enrol(self.name, person_id, self._sent[label])

        return await self._each(enrol, labels, advance)

    async def fill(self) -> None:
        """Enrol everybody, and look at the watched strangers on the way.

        Raises:
            Unresolvable: the service could not use a single photo.
        """
        persons = self.observed.persons
        advance = self._bars.begin(f"enrolling, {self._title}", len(persons))

        for size in steps(len(persons)):
            started = time.perf_counter()
            part = persons[len(self.observed.enrolled) : size]
            self.observed.enrolled += await self._enrol(self.observed.split.gallery, part, advance)
            self.observed.filling += time.perf_counter() - started
            watched = await self._each(self._identify, self._watched, lambda _: None)
            self.observed.grown.append(watched)
        refused = [code for person in self.observed.enrolled for _, code in person.refused]
        if len(refused) == len(self.observed.split.gallery):
            codes = ", ".join(sorted(set(refused)))
            raise Unresolvable(f"Nobody could be enrolled; the service answered: {codes}.")

    async def ask_for_targets(self) -> None:
        """Find out by how much thresholds for other targets differ; for all faces alike."""
        seen = zip(self._watched, self.observed.grown[-1], strict=True)
        photo, usual = next(((p, a) for p, a in seen if a.threshold is not None), (None, None))
        for target in FPIRS:
            if photo is None or usual is None or usual.threshold is None:
                self.observed.offsets[target] = "In none of the strangers' photos is a usable face."
                continue
            answer = await self._session.identify(self.name, photo, target_fpir=target)
            self.observed.offsets[target] = (
                f"The service refuses this target ({answer.code})."
                if answer.threshold is None
                else answer.threshold - usual.threshold
            )

    async def look_for_everybody(self, closed: bool) -> None:
        split = self.observed.split
        self.observed.probes = await self._ask(split.probes.tolist(), "looking for them", "open")
        self.observed.strangers = await self._ask(
            split.strangers.tolist(), "and for strangers", "open"
        )
        if closed:
            self.observed.closed = await self._ask(split.probes.tolist(), "closed set", "closed")

    async def look_for_duplicates(self) -> None:
        """Enrol the strangers too, so that nobody is left out, and scan the gallery."""
        indices = self.observed.split.strangers
        strangers = np.unique(self._plan.labels[indices]).tolist()
        advance = self._bars.begin("enrolling the strangers", len(strangers))
        self.observed.others = await self._enrol(indices, strangers, advance)
        advance = self._bars.begin("looking for duplicates", len(self._sent))
        people, label = self._plan.people, self._plan.label
        async with aclosing(self._session.duplicates(self.name)) as parts:
            async for part in parts:
                for pair in part["duplicates"]:
                    one, other = sorted(
                        people[label(person_id)] for person_id in pair["person_ids"]
                    )
                    self.observed.duplicates.append(
                        Duplicate(
                            persons=(one, other),
                            similarity=pair["similarity"],
                            threshold=pair["threshold"],
                        )
                    )
                for face in part["inconsistent"]:
                    name = await self._name_of(face["person_id"], face["face_id"])
                    self.observed.inconsistent.append(
                        InconsistentPhoto(
                            photo=name,
                            similarity=face["similarity"],
                            threshold=face["threshold"],
                        )
                    )
                advance(part["scanned"])

    async def clear(self) -> None:
        """Delete everybody who may have been enrolled."""
        advance = self._bars.begin("deleting them again", len(self._sent))

        async def forget(label: int) -> None:
            await self._session.forget(self.name, self._plan.person_id(label))
            del self._sent[label]

        await self._each(forget, sorted(self._sent), advance)

    async def _name_of(self, person_id: str, face_id: str) -> str:
        label = self._plan.label(person_id)
        sent = self._sent[label]
        path = await self._session.photo_of(self.name, person_id, face_id, sent)
        return self._plan.people[label] if path is None else photo_name(path)

    async def _identify(self, photo: Path) -> Answer:
        return await self._session.identify(self.name, photo)

    async def _ask(self, indices: Sequence[int], what: str, mode: str) -> Pass:
        advance = self._bars.begin(f"{what}, {self._title}", len(indices))

        async def identify(index: int) -> Answer:
            return await self._session.identify(self.name, self._path(index), mode=mode)

        started = time.perf_counter()
        answers = await self._each(identify, indices, advance)
        return Pass(answers, time.perf_counter() - started)

    async def _each(
        self,
        call: Callable[[Item], Awaitable[Result]],
        items: Sequence[Item],
        advance: Callable[[int], object],
    ) -> list[Result]:
        """Results in the order of the items; several are under way at once."""
        results: dict[int, Result] = {}
        waiting = iter(enumerate(items))

        async def work() -> None:
            # One iterator for all workers: each item goes to whoever is free next.
            for place, item in waiting:
                results[place] = await call(item)
                advance(1)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._at_once, len(items))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [results[place] for place in range(len(items))]
