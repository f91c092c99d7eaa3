"""Erasing persons: on request, or because their time is over; and proving it."""

import asyncio
import logging
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from app.errors import FaceIdError, PersonNotFound
from app.metrics import Metrics
from app.services.finishing import Finishing
from app.services.models import Pair
from app.services.writes import PersonWriter
from app.store import Export, FloatArray, Receipt, Store
from app.store.paging import persons_of
from app.store.receipts import person_digest

_log = logging.getLogger(__name__)

# Neighbours among whom the verification looks for the person. An erased template would be its own
# nearest neighbour.
_NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Purge:
    """What one purge did.

    Attributes:
        persons, faces: that had expired and were erased.
        galleries: that were written anew, to be rid of what was deleted in them.
    """

    persons: int
    faces: int
    galleries: int


class Eraser:
    def __init__(self, writer: PersonWriter, metrics: Metrics) -> None:
        self._writer = writer
        self._metrics = metrics
        self._purging = asyncio.Lock()
        self._purges: set[asyncio.Task[Purge]] = set()
        self._finishing = Finishing()

    async def erase(self, gallery: str, person_id: str) -> Receipt:
        """Erase a person and all of their faces.

        The receipt is on disk before the deletion begins, so that a backup that is restored
        after a crash does not bring back whom somebody wanted erased.

        Raises:
            PersonNotFound: what an earlier try left of them is gone as well.
            StoreUnavailable.
        """
        return await self._finishing.do(self._erase(gallery, person_id, "request", None))

    async def close(self) -> None:
        """Purges are broken off, and begun again by the next process; erasures are waited for."""
        for purge in self._purges:
            purge.cancel()
        await asyncio.gather(*self._purges, return_exceptions=True)
        await self._finishing.all_done()

    async def purge(self) -> Purge:
        """Erase everybody who has expired, and have the store forget what was deleted. A caller
        who goes away does not break it off.

        Safe in several replicas at once: whom another one has erased, or given more time, is
        passed over.

        Raises:
            StoreUnavailable.
        """
        purge = asyncio.create_task(self._purge())
        self._purges.add(purge)
        purge.add_done_callback(self._purges.discard)
        return await asyncio.shield(purge)

    async def _purge(self) -> Purge:
        async with self._purging:
            now = datetime.now(UTC)
            erased = []
            for gallery in await self._pair.active.store.galleries():
                for person_id in await self._expired(gallery, now):
                    try:
                        erasing = self._erase(gallery, person_id, "expired", now)
                        erased.append(await self._finishing.do(erasing))
                    except PersonNotFound:
                        continue
            purge = Purge(
                persons=len(erased),
                faces=sum(receipt.faces_deleted for receipt in erased),
                galleries=await self._writer.vacuum(),
            )
        self._metrics.vacuumed_galleries.inc(purge.galleries)
        self._metrics.last_purge.set(time.time())
        if purge != Purge(0, 0, 0):
            _log.info(
                "purged",
                extra={
                    "persons": purge.persons,
                    "faces": purge.faces,
                    "galleries_rewritten": purge.galleries,
                },
            )
        return purge

    async def purge_regularly(self, interval: float) -> None:
        """Purge now and every `interval` seconds, until cancelled."""
        while True:
            try:
                await self.purge()
            except FaceIdError as error:
                _log.warning("not purged, will be tried again: %s", error.detail)
            except Exception as error:
                _log.error("not purged, will be tried again", exc_info=error)
            await asyncio.sleep(interval)

    @property
    def _pair(self) -> Pair:
        return self._writer.models.pair

    async def _expired(self, gallery: str, now: datetime) -> list[str]:
        pages = persons_of(self._pair.active.store, gallery)
        return [p.person_id async for page in pages for p in page if p.has_expired(now)]

    async def _erase(
        self,
        gallery: str,
        person_id: str,
        reason: Literal["request", "expired"],
        expired_by: datetime | None,
    ) -> Receipt:
        pair = self._pair
        try:
            stored = await pair.active.store.export(gallery, person_id)
        except PersonNotFound:
            await self._writer.clear(gallery, person_id)
            raise
        probes = [(pair.active.store, _probes(stored))]
        if pair.other is not None:
            with suppress(PersonNotFound):
                its = await pair.other.store.export(gallery, person_id)
                probes.append((pair.other.store, _probes(its)))
        receipts = pair.active.store.receipts
        receipt = Receipt(
            receipt_id=str(uuid.uuid4()),
            gallery=gallery,
            person_digest=person_digest(await receipts.key(), gallery, person_id),
            reason=reason,
            state="begun",
            # Not before who is erased, where the clock was set back: a backup brings back whoever
            # is younger than their erasure.
            begun_at=max(datetime.now(UTC), stored.person.created_at),
        )
        await receipts.put(receipt)
        try:
            faces = await self._writer.delete_person(gallery, person_id, expired_by=expired_by)
        except PersonNotFound:
            await receipts.put(replace(receipt, state="abandoned"))
            raise
        except FaceIdError:
            if expired_by is not None:
                # Who is still there may get more time yet, and would be left out by a restore.
                with suppress(FaceIdError):
                    if await pair.active.store.stored(gallery, person_id) is not None:
                        await receipts.put(replace(receipt, state="abandoned"))
            raise
        erased_at = max(datetime.now(UTC), receipt.begun_at)
        found = 0
        for store, rows in probes:
            if len(rows):
                nearest = await store.search(gallery, rows, _NEIGHBOURS, exact=True)
                found += sum(any(n.person_id == person_id for n in near) for near in nearest)
            if expired_by is not None:  # no search finds them, deleted or not
                found += await _has_expired_there(store, gallery, person_id, expired_by)
        receipt = replace(
            receipt,
            state="erased",
            erased_at=erased_at,
            faces_deleted=faces,
            probes=sum(len(rows) for _, rows in probes),
            found=found,
        )
        await receipts.put(receipt)
        self._metrics.erased_persons.labels(reason).inc()
        self._metrics.erased_faces.labels(reason).inc(faces)
        return receipt


async def _has_expired_there(store: Store, gallery: str, person_id: str, moment: datetime) -> bool:
    try:
        return (await store.person(gallery, person_id)).has_expired(moment)
    except PersonNotFound:
        return False


def _probes(stored: Export) -> FloatArray:
    if stored.template is None:
        return stored.embeddings
    return np.concatenate([stored.template[None], stored.embeddings])
