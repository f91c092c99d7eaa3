"""Every write about persons, into the store of the active model and into that of the other.

The active store is what counts; the other is made equal to it, person by person. For that a person
is read from the active store and written to the other with the embeddings of the other model: those
it has, those of the crops at hand, those of the crops that were kept. A face of which there is none
of these is written down as awaiting a photo, so that it is not forgotten, nor taken for deleted
when the roles change.

A write counts only if the models are still the same once it is done, otherwise it is done again
for those that are now. So several replicas need no common clock when the models are switched.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np

from app.decision.fusion import template
from app.errors import (
    FaceIdError,
    FaceNotFound,
    InferenceFailed,
    NotFound,
    PersonNotFound,
    StoreUnavailable,
)
from app.inference.embedder import Embedding
from app.services.finishing import Finishing
from app.services.models import Model, Models, Pair
from app.store import Consent, Face, Person, StoredPerson, Targets, records
from app.store.crops import Crops
from app.store.paging import persons_of
from app.vision.image import Image

_log = logging.getLogger(__name__)

T = TypeVar("T")

ORPHANED_S = 3600.0
"""For so long crops may wait for their person to be stored."""


class _Superseded(Exception):
    """The models are not those any more that a write began with."""


@dataclass(slots=True)
class NewFaces:
    """Faces to enrol, by their ids.

    Attributes:
        faces: measured by the model that embedded them first.
        crops: (112, 112, 3) uint8 RGB, aligned.
        embedded: by the SHA-256 of the weights; other models are asked when they are needed.
    """

    faces: Mapping[str, Face]
    crops: Mapping[str, Image]
    embedded: dict[str, Mapping[str, Embedding]]

    async def by(self, model: Model) -> Mapping[str, Embedding]:
        weights = model.spec.weights_sha256
        if weights not in self.embedded:
            found = await model.embedder.embed(list(self.crops.values()))
            self.embedded[weights] = dict(zip(self.crops, found, strict=True))
        return self.embedded[weights]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A person in the other store, made equal.

    Attributes:
        faces, awaiting: how many are embedded there, and how many are not.
        has_changed: whether `awaiting` or `is_lost` is another than before.
    """

    faces: int = 0
    awaiting: int = 0
    has_changed: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether no search in the other store would find the person."""
        return self.awaiting > 0 and self.faces == 0


class PersonWriter:
    """
    Attributes:
        on_mirrored: told of every person who is enrolled, changed or deleted in both stores.
    """

    def __init__(self, models: Models, crops: Crops) -> None:
        self.models = models
        self.crops = crops
        self.on_mirrored: Callable[[Mirrored], None] = lambda _: None
        self._changing: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._finishing = Finishing()
        # Persons with crops whom no store holds, and when they were first found.
        self._orphans: dict[UUID, float] = {}

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        new: NewFaces,
        max_faces: int,
        consent: Consent | None = None,
    ) -> int:
        """As `Store.enrol`; keeps the crops where that is wanted.

        Raises:
            InvalidEmbedding, TooManyFaces, PersonExpired, StoreUnavailable, InferenceFailed.
        """

        async def enrol(pair: Pair) -> int:
            embedded = await new.by(pair.active)
            faces = [_measured(face, embedded[face_id]) for face_id, face in new.faces.items()]
            rows = np.stack([embedded[face_id].vector for face_id in new.faces])
            count = await pair.active.store.enrol(
                gallery, person_id, faces, rows, max_faces, consent
            )
            await self._follow(pair, gallery, person_id, new)
            return count

        async def keep_and_enrol() -> int:
            kept = []
            try:
                if self.crops.are_kept:
                    for face_id, crop in new.crops.items():
                        if await self.crops.put(gallery, person_id, face_id, crop):
                            kept.append(face_id)
                return await self._settled(enrol)
            except FaceIdError:
                if kept:
                    with suppress(FaceIdError):
                        await self.crops.delete(gallery, person_id, kept)
                raise

        return await self._alone(gallery, person_id, keep_and_enrol)

    async def update_person(
        self,
        gallery: str,
        person_id: str,
        patch: Mapping[str, Any],
        max_bytes: int,
        consent: Consent | None = None,
    ) -> Person:
        """As `Store.update_person`."""

        async def update(pair: Pair) -> Person:
            store = pair.active.store
            person = await store.update_person(gallery, person_id, patch, max_bytes, consent)
            await self._follow(pair, gallery, person_id)
            return person

        return await self._alone(gallery, person_id, lambda: self._settled(update))

    async def delete_person(
        self, gallery: str, person_id: str, *, expired_by: datetime | None = None
    ) -> int:
        """As `Store.delete_person`; the kept crops go too.

        The active store comes first: until it has let them go, another replica may give somebody
        who has expired more time.

        Raises:
            PersonNotFound: what an earlier try left of them is gone as well.
            StoreUnavailable: also where they are gone from the active store alone; then it is
                noted, and made up for.
        """
        deleted: int | None = None
        held: set[str] = set()

        async def delete(pair: Pair) -> int:
            nonlocal deleted, held
            async with self._in_both(pair):
                # Within, as where the models changed meanwhile they are deleted from some already.
                held |= _face_ids(await pair.active.store.stored(gallery, person_id))
                try:
                    count = await pair.active.store.delete_person(
                        gallery, person_id, expired_by=expired_by
                    )
                    deleted = count if deleted is None else deleted
                except PersonNotFound:
                    # Another replica or an earlier try deleted them, or they have more time now.
                    if deleted is None:
                        await self._clear(pair, gallery, person_id, held)
                        raise
                await self._clear(pair, gallery, person_id, held)
            return deleted or 0

        return await self._alone(gallery, person_id, lambda: self._settled(delete))

    async def clear(self, gallery: str, person_id: str) -> None:
        """Delete what an interrupted deletion left of somebody who is not stored any more.

        Raises:
            StoreUnavailable.
        """

        async def clear(pair: Pair) -> None:
            async with self._in_both(pair):
                await self._clear(pair, gallery, person_id, set())

        await self._alone(gallery, person_id, lambda: self._settled(clear))

    async def _clear(self, pair: Pair, gallery: str, person_id: str, held: set[str]) -> None:
        """After faces were deleted from the active store: the crops, and the other one.

        The crops first: they are pictures, and need no other store to be deleted.

        Args:
            held: ids of the faces there were before.
        """
        # They may have been enrolled again by now.
        stored = await pair.active.store.stored(gallery, person_id)
        gone = None if stored is None else held - _face_ids(stored)
        await self.crops.delete(gallery, person_id, gone)
        if pair.other is not None:
            self.on_mirrored(await self._mirror(pair, gallery, person_id))

    @asynccontextmanager
    async def _in_both(self, pair: Pair) -> AsyncIterator[None]:
        """Around a write to both stores: where it fails between the two, that is noted."""
        try:
            yield
        except _Superseded:
            pass  # it is done again for the models there are now
        except NotFound:
            raise
        except FaceIdError:
            if pair.other is not None:
                with suppress(FaceIdError):
                    await self.models.note_unequal()
            raise

    async def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        """As `Store.delete_face`; the kept crop goes too.

        Raises:
            PersonNotFound, FaceNotFound: what an earlier try left of it is gone as well.
            StoreUnavailable, QueueFull: also where it is gone from the active store alone; then it
                is noted, and made up for.
        """
        is_deleted = False

        async def delete(pair: Pair) -> None:
            nonlocal is_deleted
            async with self._in_both(pair):
                try:
                    await pair.active.store.delete_face(gallery, person_id, face_id)
                    is_deleted = True
                except (PersonNotFound, FaceNotFound):
                    if not is_deleted:
                        await self._clear(pair, gallery, person_id, {face_id})
                        raise
                await self._clear(pair, gallery, person_id, {face_id})

        await self._alone(gallery, person_id, lambda: self._settled(delete))

    async def set_targets(self, gallery: str, targets: Targets) -> None:
        """As `Store.set_targets`."""

        async def write(pair: Pair) -> None:
            await pair.active.store.set_targets(gallery, targets)
            await self._followed(self._mirror_targets(pair, gallery))

        await self._finishing.do(self._settled(write))

    async def mirror_targets(self, pair: Pair, gallery: str) -> None:
        """Give the gallery in the other store the targets that it has in the active one.

        Raises:
            StoreUnavailable.
        """
        with suppress(_Superseded):
            await self._finishing.do(self._mirror_targets(pair, gallery))

    async def _mirror_targets(self, pair: Pair, gallery: str) -> None:
        if pair.other is None:
            return
        wanted = None
        while True:
            # Of all of them: a replica may keep those of one for seconds.
            now = (await pair.active.store.all_targets()).get(gallery, Targets())
            if now == wanted:
                return
            if await self.models.current() is not pair:
                raise _Superseded
            await pair.other.store.set_targets(gallery, now)
            wanted = now  # others may be chosen meanwhile, and have been written before

    async def vacuum(self) -> int:
        """As `Store.vacuum`, for both; also deletes crops of persons who were never stored."""
        pair = self.models.pair
        rewritten, failed = 0, None
        for model in (pair.active, pair.other):
            if model is not None:
                try:
                    rewritten += await model.store.vacuum()
                except StoreUnavailable as error:
                    failed = StoreUnavailable(error.detail)
        await self._delete_orphans(pair)
        if failed is not None:
            raise failed
        return rewritten

    async def _delete_orphans(self, pair: Pair) -> None:
        """Crops are kept before their person is stored, so that they count as left behind only
        when nobody has come to them for long. A store that holds nobody may be about to be
        restored."""
        kept = await self.crops.persons()
        stored = await self._everybody(pair) if kept else set()
        orphans = kept - stored if stored else set()
        now = time.monotonic()
        self._orphans = {person: self._orphans.get(person, now) for person in orphans}
        await self.crops.delete_persons(
            [person for person, since in self._orphans.items() if now - since >= ORPHANED_S]
        )

    async def _everybody(self, pair: Pair) -> set[UUID]:
        store = pair.active.store
        return {
            records.point_id(gallery, person.person_id)
            for gallery in await store.galleries()
            async for page in persons_of(store, gallery)
            for person in page
        }

    async def mirror(self, pair: Pair, gallery: str, person_id: str) -> Mirrored | None:
        """Make one person of the other store what they are in the active one.

        Returns:
            None where the models are others by now.

        Raises:
            StoreUnavailable, QueueFull.
        """

        async def mirror() -> Mirrored | None:
            try:
                return await self._mirror(pair, gallery, person_id)
            except _Superseded:
                return None

        return await self._alone(gallery, person_id, mirror)

    async def close(self) -> None:
        """Wait for the writes that are being made."""
        await self._finishing.all_done()

    async def _alone(self, gallery: str, person_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """Nobody else in this process changes the person meanwhile. A caller who goes away does
        not stop what would leave the two stores different."""
        lock = self._changing.setdefault((gallery, person_id), asyncio.Lock())

        async def locked() -> T:
            async with lock:
                return await call()

        return await self._finishing.do(locked())

    async def _settled(self, write: Callable[[Pair], Awaitable[T]]) -> T:
        """Write, again where the models were changed meanwhile."""
        pair = self.models.pair
        while True:
            result = await write(pair)
            now = await self.models.current()
            if now is pair:
                return result
            pair = now

    async def _follow(
        self, pair: Pair, gallery: str, person_id: str, new: NewFaces | None = None
    ) -> None:
        """Have the other store follow what was done in the active one. Where it cannot, that is
        noted and made up for later: the caller has what was asked for."""
        if pair.other is None:
            return

        async def follow() -> None:
            self.on_mirrored(await self._mirror(pair, gallery, person_id, new))

        await self._followed(follow())

    async def _followed(self, following: Awaitable[None]) -> None:
        try:
            await following
        except _Superseded:
            pass  # it is done again for the models there are now
        except FaceIdError as error:
            _log.warning("the other model's store does not follow: %s", error.detail)
            await self.models.note_unequal()

    async def _mirror(
        self, pair: Pair, gallery: str, person_id: str, new: NewFaces | None = None
    ) -> Mirrored:
        other = pair.other
        assert other is not None
        mirrored = Mirrored()

        async def revise(before: StoredPerson | None) -> StoredPerson | None:
            nonlocal mirrored
            # In this order: what is written to the active store later finds the other one changed.
            if await self.models.current() is not pair:
                raise _Superseded
            wanted = await pair.active.store.stored(gallery, person_id)
            after = None
            if wanted is not None:
                after = await self._translated(other, gallery, wanted, before, new)
            mirrored = _compared(before, after)
            if before is not None and after is not None and _same(before, after):
                return before
            return after

        await other.store.revise(gallery, person_id, revise)
        return mirrored

    async def _translated(
        self,
        model: Model,
        gallery: str,
        wanted: StoredPerson,
        before: StoredPerson | None,
        new: NewFaces | None,
    ) -> StoredPerson:
        """A person of another store, as they are to lie in the model's own."""
        person_id: str = wanted.payload["person_id"]
        held = records.enrolled(wanted.payload)
        faces = {face.face_id: face for face in (*held.faces, *held.awaiting)}
        known: dict[str, Embedding] = {}
        if before is not None:
            own = records.enrolled(before.payload)
            for face, row in zip(own.faces, own.embeddings, strict=True):
                known[face.face_id] = Embedding(row, face.quality.get("norm", 0.0))
        if new is not None:
            known |= await new.by(model)
        missing = [face_id for face_id in faces if face_id not in known]
        for face_id, crop in (await self.crops.get(gallery, person_id, missing)).items():
            with suppress(InferenceFailed):
                (known[face_id],) = await model.embedder.embed([crop])
        embedded = [_measured(face, known[i]) for i, face in faces.items() if i in known]
        rows = np.zeros((0, 0), np.float32)
        if embedded:
            rows = np.stack([known[face.face_id].vector for face in embedded])
        awaiting = [face for face_id, face in faces.items() if face_id not in known]
        awaiting.sort(key=lambda face: (face.enrolled_at, face.face_id))
        translated = records.Enrolled([], rows[:0], awaiting).merged(embedded, rows)
        return StoredPerson(
            translated.into(wanted.payload),
            template(translated.embeddings) if embedded else None,
        )


def _measured(face: Face, embedding: Embedding) -> Face:
    """With the norm that this model gives it."""
    if face.quality.get("norm") == embedding.norm:
        return face
    return replace(face, quality={**face.quality, "norm": embedding.norm})


def _face_ids(stored: StoredPerson | None) -> set[str]:
    """Of all faces of a person, those that await their photo too."""
    if stored is None:
        return set()
    held = records.enrolled(stored.payload)
    return {face.face_id for face in (*held.faces, *held.awaiting)}


def _compared(before: StoredPerson | None, after: StoredPerson | None) -> Mirrored:
    def counts(stored: StoredPerson | None) -> Sequence[int]:
        if stored is None:
            return 0, 0
        return stored.payload["face_count"], len(records.to_awaiting(stored.payload))

    (had, awaited), (has, awaits) = counts(before), counts(after)
    was_lost, is_lost = awaited > 0 and not had, awaits > 0 and not has
    return Mirrored(has, awaits, awaited != awaits or was_lost != is_lost)


def _same(one: StoredPerson, other: StoredPerson) -> bool:
    def fields(stored: StoredPerson) -> dict[str, Any]:
        return {name: value for name, value in stored.payload.items() if value is not None}

    return fields(one) == fields(other)
