"""Everybody from one store into another, bit for bit.

Nothing is written down on the way. What the destination holds tells where a transfer was stopped:
a person is written in one step, so whoever is there is there whole, and a second run leaves them
alone. Who is there and not in the source, or not just so, is somebody else's: then nothing is
written at all.
"""

import hashlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from app.errors import DestinationOccupied, TransferIncomplete
from app.store.base import FloatArray, Neighbour, Store, StoredPerson, Targets
from app.store.receipts import Erasures

# What a page is meant to hold, about a kilobyte each; a server takes 32 MiB in one request.
_PAGE_FACES = 1000
_PAGE_PERSONS = 250
_WRITE_BYTES = 8 * 2**20

_SEARCHES = 256
_NEIGHBOURS = 10
_PROBES = 16
# An engine's sum of d products in float32 depends on the order it adds them in.
_SIMILARITY_TOLERANCE = 1e-5

Advance = Callable[[int], None]


class Stored(NamedTuple):
    """Some persons of one gallery."""

    gallery: str
    persons: list[StoredPerson]


@dataclass(slots=True)
class Contents:
    """What a gallery holds.

    Attributes:
        digest: sum of the persons' digests modulo 2**256; their order does not matter.
    """

    persons: int = 0
    faces: int = 0
    digest: int = 0

    def add(self, person: StoredPerson, digest: bytes) -> None:
        self.persons += 1
        self.faces += person.payload["face_count"]
        self.digest = (self.digest + int.from_bytes(digest)) % 2**256


class Source(Protocol):
    """What can be copied into a store."""

    def pages(self) -> AsyncIterator[Stored]:
        """Everybody, once."""
        ...

    async def targets(self) -> dict[str, Targets]:
        """Of every gallery that has any."""
        ...

    async def contents(self) -> dict[str, Contents]:
        """Of every gallery with anybody in it."""
        ...


class StoreSource:
    """An open store as a source."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pages(self) -> AsyncIterator[Stored]:
        for gallery in await self._store.galleries():
            async for page in pages_of(self._store, gallery):
                yield page

    async def targets(self) -> dict[str, Targets]:
        return await self._store.all_targets()

    async def contents(self) -> dict[str, Contents]:
        return await _contents(self)


class WithoutErased:
    """A source without those whom receipts tell to be erased after their record was made.

    Attributes:
        left_out: how many persons, of the last time that `pages` was gone through.
    """

    def __init__(self, source: Source, erasures: Erasures) -> None:
        self._source = source
        self._erasures = erasures
        self.left_out = 0

    async def pages(self) -> AsyncIterator[Stored]:
        self.left_out = 0
        async for gallery, persons in self._source.pages():
            kept = [person for person in persons if not self._is_erased(gallery, person)]
            self.left_out += len(persons) - len(kept)
            if kept:
                yield Stored(gallery, kept)

    async def targets(self) -> dict[str, Targets]:
        return await self._source.targets()

    async def contents(self) -> dict[str, Contents]:
        return await _contents(self)

    def _is_erased(self, gallery: str, person: StoredPerson) -> bool:
        created_at = datetime.fromisoformat(person.payload["created_at"])
        return self._erasures.cover(gallery, person.payload["person_id"], created_at)


async def _contents(source: Source) -> dict[str, Contents]:
    found: dict[str, Contents] = {}
    async for gallery, persons in source.pages():
        contents = found.setdefault(gallery, Contents())
        for person in persons:
            contents.add(person, digest(person))
    return found


class Positions:
    """Where digests stand in a list, by their first 8 bytes: 16 bytes of memory for each."""

    def __init__(self, keys: Sequence[int]) -> None:
        given = np.array(keys, np.uint64)
        self._order = np.argsort(given)
        self._sorted = given[self._order]

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, keys: Sequence[int]) -> npt.NDArray[np.intp]:
        """The place of each, -1 where it is not in the list."""
        wanted = np.array(keys, np.uint64)
        if not len(self):
            return np.full(len(wanted), -1, np.intp)
        at = np.searchsorted(self._sorted, wanted).clip(max=len(self) - 1)
        return np.where(self._sorted[at] == wanted, self._order[at], -1)


def digest(person: StoredPerson) -> bytes:
    """SHA-256 of the payload as JSON with sorted names, and of the template's bits."""
    payload = json.dumps(person.payload, sort_keys=True, separators=(",", ":")).encode()
    template = b"" if person.template is None else person.template.tobytes()
    return hashlib.sha256(payload + b"\n" + template).digest()


def key(person_digest: bytes) -> int:
    """For `Positions`."""
    return int.from_bytes(person_digest[:8])


async def pages_of(store: Store, gallery: str) -> AsyncIterator[Stored]:
    size = await store.size(gallery)
    limit = max(1, min(_PAGE_PERSONS, _PAGE_FACES * size.persons // max(size.faces, 1)))
    cursor = None
    while True:
        page = await store.export_persons(gallery, limit, cursor)
        if page.persons:
            yield Stored(gallery, page.persons)
        cursor = page.cursor
        if cursor is None:
            return


@dataclass(frozen=True, slots=True)
class Copied:
    """How many persons were written, and how many were there from an earlier try."""

    written: int
    present: int


async def copy(source: Source, destination: Store, advance: Advance) -> Copied:
    """Write everybody whom the destination does not have yet, and all targets.

    Args:
        advance: told the number of faces after each page.

    Raises:
        DestinationOccupied: it holds what the source does not; nothing was written.
        StoreUnavailable: an engine does not answer; call it again later.
    """
    there = await _stored_keys(destination)
    await _require_ours(source, destination, there)
    written = present = 0
    async for gallery, persons in source.pages():
        known = there.get(gallery, _NOBODY).find([key(digest(person)) for person in persons])
        missing = [person for person, at in zip(persons, known, strict=True) if at < 0]
        for part in _parts(missing):
            await destination.import_persons(gallery, part)
        written += len(missing)
        present += len(persons) - len(missing)
        advance(sum(person.payload["face_count"] for person in persons))
    for gallery, targets in (await source.targets()).items():
        await destination.set_targets(gallery, targets)
    return Copied(written, present)


_NOBODY = Positions([])


async def _stored_keys(store: Store) -> dict[str, Positions]:
    keys: dict[str, list[int]] = {}
    async for gallery, persons in StoreSource(store).pages():
        keys.setdefault(gallery, []).extend(key(digest(person)) for person in persons)
    return {gallery: Positions(found) for gallery, found in keys.items()}


async def _require_ours(source: Source, destination: Store, there: dict[str, Positions]) -> None:
    wanted = await source.targets()
    for gallery, targets in (await destination.all_targets()).items():
        if targets != wanted.get(gallery):
            raise DestinationOccupied(
                f"The destination has other targets for gallery {gallery!r}. Choose an empty one."
            )
    others = {gallery: len(keys) for gallery, keys in there.items()}
    if not others:
        return
    async for gallery, persons in source.pages():
        if gallery in there:
            found = there[gallery].find([key(digest(person)) for person in persons])
            others[gallery] -= int(np.count_nonzero(found >= 0))
    if any(others.values()):
        names = ", ".join(f"{count} in {gallery!r}" for gallery, count in others.items() if count)
        raise DestinationOccupied(
            f"The destination holds persons whom the source does not have, or not like this "
            f"({names}). Nothing was written: choose an empty destination, or empty this one."
        )


def _parts(persons: Sequence[StoredPerson]) -> Iterator[list[StoredPerson]]:
    """In writes that no engine finds too large."""
    part: list[StoredPerson] = []
    size = 0
    for person in persons:
        length = sum(len(value) for value in person.payload.values() if isinstance(value, str))
        if part and size + length > _WRITE_BYTES:
            yield part
            part, size = [], 0
        part.append(person)
        size += length
    if part:
        yield part


async def verify(source: Source, destination: Store) -> dict[str, Contents]:
    """Read both again and compare them: counts, digests over all points, targets.

    Raises:
        TransferIncomplete.
    """
    wanted, found = await source.contents(), await StoreSource(destination).contents()
    for gallery in sorted(wanted.keys() | found.keys()):
        expected, stored = wanted.get(gallery, Contents()), found.get(gallery, Contents())
        counted = await destination.size(gallery)
        if expected != stored or (counted.persons, counted.faces) != (stored.persons, stored.faces):
            raise TransferIncomplete(
                f"Gallery {gallery!r} has {expected.persons} persons with {expected.faces} faces "
                f"in the source, {stored.persons} with {stored.faces} in the destination"
                + (", and they are not the same. " if expected != stored else ". ")
                + "Was one of them in use? Stop every service that writes to them and start again."
            )
    if await source.targets() != await destination.all_targets():
        raise TransferIncomplete("The targets of some galleries differ; run it again.")
    return found


@dataclass(slots=True)
class Agreement:
    """How alike two stores answer the same searches.

    Attributes:
        neighbours: of all searches.
        missed: of them, found by one store only.
    """

    searches: int = 0
    neighbours: int = 0
    missed: int = 0
    largest_difference: float = 0.0

    def compare(self, one: list[Neighbour], other: list[Neighbour]) -> None:
        self.searches += 1
        self.neighbours += max(len(one), len(other))
        first, second = dict(one), dict(other)
        both = first.keys() & second.keys()
        differences = [abs(first[person_id] - second[person_id]) for person_id in both]
        self.largest_difference = max([self.largest_difference, *differences])
        # Of several who are equally far, either may be the last.
        last = min([*first.values(), *second.values()], default=0.0) + _SIMILARITY_TOLERANCE
        alone = [v for k, v in (first | second).items() if k not in both and v > last]
        self.missed += max(len(alone), abs(len(one) - len(other)))

    def require(self) -> None:
        """
        Raises:
            TransferIncomplete.
        """
        if self.missed or self.largest_difference > _SIMILARITY_TOLERANCE:
            raise TransferIncomplete(
                f"Everything was moved, but {self.missed} of {self.neighbours} neighbours are "
                f"found by one store only, and similarities differ by up to "
                f"{self.largest_difference:.1e}. Does somebody write to one of them? Stop that and "
                "run it again."
            )


async def compare_searches(source: Store, destination: Store) -> Agreement:
    """Search both stores for a random sample of the destination's templates.

    Exactly: what an index finds depends on how it was built, not on what was moved.

    Raises:
        TransferIncomplete: they find different persons, or the same with other similarities.
    """
    chance = random.Random(0)
    sample: list[tuple[str, FloatArray]] = []
    seen = 0
    async for gallery, persons in StoreSource(destination).pages():
        for person in persons:
            if person.template is None:
                continue
            seen += 1
            if len(sample) < _SEARCHES:
                sample.append((gallery, person.template))
            elif (at := chance.randrange(seen)) < _SEARCHES:
                sample[at] = gallery, person.template
    agreement = Agreement()
    for gallery in sorted({gallery for gallery, _ in sample}):
        probes = np.stack([template for name, template in sample if name == gallery])
        for start in range(0, len(probes), _PROBES):
            some = probes[start : start + _PROBES]
            ones = await source.search(gallery, some, _NEIGHBOURS, exact=True)
            others = await destination.search(gallery, some, _NEIGHBOURS, exact=True)
            for one, other in zip(ones, others, strict=True):
                agreement.compare(one, other)
    agreement.require()
    return agreement
