"""Carrying the faces of the active model over to the other one, while requests are served.

Everybody is looked at and made equal, page by page. Nothing is written down on the way: who is
equal already is passed over, so after a crash it simply begins again.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from app.errors import FaceIdError, PersonNotFound
from app.metrics import Metrics
from app.services.models import Models, Pair
from app.services.together import together
from app.services.writes import Mirrored, PersonWriter
from app.store import GallerySize, Store
from app.store.models import ModelStores
from app.store.paging import persons_of

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_LEAST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_MOST_NAMED = 100

State = Literal["none", "carrying", "complete"]
_STATES: tuple[State, ...] = ("none", "carrying", "complete")


@dataclass(slots=True)
class Report:
    """What was found when everybody was last looked at; of the current look until there is one.

    Attributes:
        state: `none` where there is one model, `complete` where both stores are equal.
        awaiting: faces that cannot be embedded before their photos come again.
        lost: persons of whom every face is awaiting: no search would find them.
        named: the first hundred of them, as gallery and person.
    """

    state: State = "none"
    awaiting: int = 0
    lost: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)


class CarryOver:
    """
    Args:
        workers: persons who are looked at together: as many as can be embedded at once.

    Attributes:
        is_exact: whether nothing has changed since that `report` would count otherwise.
    """

    def __init__(
        self,
        models: Models,
        writer: PersonWriter,
        stores: ModelStores,
        metrics: Metrics,
        workers: int,
    ) -> None:
        self._models = models
        self._writer = writer
        self._stores = stores
        self._metrics = metrics
        self._workers = workers
        self._woken = asyncio.Event()
        self._is_due = True
        self.is_exact = False
        self.report = Report()
        # What `report` was when the model that is active now was the other one.
        self._reverse = Report()
        writer.on_mirrored = self._note

    async def carried(self) -> GallerySize:
        """What the other store holds, all galleries together; nothing where there is none.

        Raises:
            StoreUnavailable.
        """
        other = self._models.pair.other
        return _sum({} if other is None else await other.store.galleries())

    async def sizes(self) -> tuple[GallerySize, GallerySize]:
        """What the active store holds, and the other one; all galleries together.

        Raises:
            StoreUnavailable.
        """
        pair = self._models.pair
        carried = await self.carried()
        return _sum(await pair.active.store.galleries()), carried

    def begin(self) -> None:
        """There is another model, or none any more."""
        self.report = Report("none" if self._models.pair.other is None else "carrying")
        self._reverse = Report()
        self._show()
        self.recount()

    def turn(self) -> None:
        """The two have changed their roles, and are equal as before."""
        self.report, self._reverse = replace(self._reverse, state="complete"), self.report
        self._is_due = True
        self._woken.set()

    def recount(self) -> None:
        """Look at everybody again; what is complete stays so."""
        self._is_due = True
        self.is_exact = False
        self._woken.set()

    def again(self) -> None:
        """Something may be missing: look at everybody before it is complete."""
        if self.report.state == "complete":
            self.report.state = "carrying"
            self._show()
        self.recount()

    def _note(self, mirrored: Mirrored) -> None:
        if mirrored.has_changed:
            self.recount()

    async def run(self) -> None:
        """Carry over whenever there is something to be, until cancelled."""
        while True:
            pair = self._models.pair
            if pair.other is not None and not self._is_due and await self._is_unequal():
                self.again()
            if pair.other is None or not self._is_due:
                self._woken.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), _LOOK_EVERY_S)
                continue
            begun = time.monotonic()
            try:
                await self._carry(pair, pair.other.store)
            except FaceIdError as error:
                _log.warning("carrying over will be tried again: %s", error.detail)
                self._is_due = True
            except Exception as error:
                _log.error("carrying over will be tried again", exc_info=error)
                self._is_due = True
            # Where photos keep coming for faces that await them, this is not done for each.
            took = time.monotonic() - begun
            await asyncio.sleep(min(_LEAST_PAUSE_S + took, _LONGEST_PAUSE_S))

    async def _is_unequal(self) -> bool:
        try:
            return bool(await self._stores.unequal())
        except FaceIdError:
            return False
        except Exception as error:
            _log.error("not known whether the stores are equal", exc_info=error)
            return False

    async def _carry(self, pair: Pair, other: Store) -> None:
        notes = await self._stores.unequal()
        self._is_due = False
        active = pair.active.store
        now = Report(self.report.state)
        if now.state == "carrying":
            self.report = now
        wanted, found = await active.all_targets(), await other.all_targets()
        for gallery in wanted.keys() | found.keys():
            if wanted.get(gallery) != found.get(gallery):
                await self._writer.mirror_targets(pair, gallery)
        galleries = (await active.galleries()).keys() | (await other.galleries()).keys()
        for gallery in sorted(galleries):
            async for page in persons_of(active, gallery):
                if not await self._page(pair, gallery, [p.person_id for p in page], now):
                    return
            async for page in persons_of(other, gallery):
                left = [
                    person.person_id
                    for person in page
                    if not await _is_in(active, gallery, person.person_id)
                ]
                if not await self._page(pair, gallery, left, Report()):
                    return
        await self._stores.clear(notes)
        if self._models.pair is not pair:
            return
        self.is_exact = not self._is_due
        now.state = "carrying" if self._is_due and self.report.state == "carrying" else "complete"
        if now.state == "complete" and self.report.state != "complete":
            _log.info(
                "carried over",
                extra={"awaiting": now.awaiting, "lost": now.lost},
            )
        self.report = now
        self._show()

    async def _page(self, pair: Pair, gallery: str, person_ids: list[str], now: Report) -> bool:
        """Make these equal and count them; False where the models are others by now."""
        # Replicas that do the same just now find most of each other's work done.
        waiting = iter(random.sample(person_ids, len(person_ids)))

        async def work() -> bool:
            for person_id in waiting:
                mirrored = await self._writer.mirror(pair, gallery, person_id)
                if mirrored is None:
                    return False
                now.awaiting += mirrored.awaiting
                if mirrored.is_lost:
                    now.lost += 1
                    if len(now.named) < _MOST_NAMED:
                        now.named.append((gallery, person_id))
                await asyncio.sleep(0)  # all of it may have been there without waiting
            return True

        found = await together(work() for _ in range(self._workers))
        self._show()
        return all(found)

    def _show(self) -> None:
        self._metrics.swap_state.set(_STATES.index(self.report.state))
        self._metrics.carried_faces.labels("awaiting").set(self.report.awaiting)


def _sum(sizes: Mapping[str, GallerySize]) -> GallerySize:
    return GallerySize(
        sum(size.persons for size in sizes.values()), sum(size.faces for size in sizes.values())
    )


async def _is_in(store: Store, gallery: str, person_id: str) -> bool:
    try:
        await store.person(gallery, person_id)
    except PersonNotFound:
        return False
    return True
