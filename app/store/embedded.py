"""Qdrant inside this process: one folder, no server.

A folder holds a subfolder for each gallery (`app.store.shard`). The engine holds the GIL during
`query`, `update`, `flush` and `load`. A thread of its own therefore gains nothing
for a short read: one is answered in the event loop where the engine is idle, which saves the way
to the worker and back. Everything else is done by one worker, in the order of arrival. A write is
acknowledged when the log is on disk, and the writes that were waiting together share the sync
(group commit).
"""

import asyncio
import itertools
import shutil
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

import numpy as np

from app.errors import FaceIdError, PersonNotFound, StoreUnavailable
from app.store import records
from app.store.base import (
    Consent,
    Embedder,
    Export,
    Face,
    FloatArray,
    Fuse,
    GallerySize,
    Neighbour,
    Page,
    Person,
    Receipts,
    Revise,
    StoredPage,
    StoredPerson,
    Targets,
    TemplatePage,
)
from app.store.galleries import Galleries
from app.store.receipts import FileReceipts

T = TypeVar("T")


class _Search(NamedTuple):
    """A search that waits for the next scan of its gallery."""

    probes: FloatArray
    limit: int
    future: asyncio.Future[list[list[Neighbour]]]


class _Job(NamedTuple):
    call: Callable[[], Any]
    writes: str | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def settle(self, result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the caller's event loop is gone
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _translated(error: BaseException) -> FaceIdError:
    """The engine raises bare exceptions, and panics that are no `Exception`."""
    if isinstance(error, FaceIdError):
        return error
    translated = StoreUnavailable(f"The embedded store failed: {error}")
    translated.__cause__ = error
    return translated


class EmbeddedStore:
    """`Store` on files of this process alone.

    Args:
        path: folder, created where missing, for its owner alone.
        embedder: whose embeddings are stored.
        fuse: makes a person's template.
        durable: acknowledge a write only when it survives power loss. Without it a write
            still survives the end of the process.
        receipts: of erasures; None: in a file in the folder.
    """

    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        fuse: Fuse,
        *,
        durable: bool = True,
        receipts: Receipts | None = None,
    ) -> None:
        self._embedder = embedder
        self._durable = durable
        self._galleries = Galleries(path, embedder, fuse)
        self.receipts = receipts or FileReceipts(path / "erasures.jsonl")
        self._searches: dict[str, list[_Search]] = {}
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Held by whoever is in the engine: the worker, or the event loop for a short read.
        self._engine = threading.Lock()
        self._worker: threading.Thread | None = None

    async def open(self) -> None:
        self._worker = threading.Thread(target=self._work, name="faceid-store", daemon=True)
        self._worker.start()
        try:
            await self._submit(None, self._galleries.open_all)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is queued, make it durable and release the folder."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._jobs.put(None)
            await asyncio.to_thread(worker.join)

    async def check(self) -> None:
        await self._submit(None, self._galleries.check)

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        faces: Sequence[Face],
        embeddings: FloatArray,
        max_faces: int,
        consent: Consent | None = None,
    ) -> int:
        records.check_embeddings(embeddings, len(faces), self._embedder.dimension)

        def enrol() -> int:
            self._galleries.require_space()
            shard = self._galleries.get(gallery)
            if shard is None:
                records.check_face_count(person_id, len(faces), max_faces)
                shard = self._galleries.create(gallery)
            return shard.enrol(person_id, faces, embeddings, max_faces, consent)

        return await self._write(gallery, enrol)

    async def search(
        self, gallery: str, probes: FloatArray, limit: int, *, exact: bool = False
    ) -> list[list[Neighbour]]:
        records.check_embeddings(probes, None, self._embedder.dimension)
        if exact:
            return await self._search_exactly(gallery, probes, limit)
        loop = asyncio.get_running_loop()
        if gallery not in self._searches:
            self._searches[gallery] = []
            loop.call_soon(self._scan, gallery)
        search = _Search(probes, limit, loop.create_future())
        self._searches[gallery].append(search)
        return await search.future

    async def embeddings(self, gallery: str, person_ids: Collection[str]) -> dict[str, FloatArray]:
        def embeddings() -> dict[str, FloatArray]:
            shard = self._galleries.get(gallery)
            return {} if shard is None else shard.embeddings(person_ids)

        return await self._read(gallery, embeddings)

    async def size(self, gallery: str) -> GallerySize:
        return self._galleries.sizes.get(gallery, GallerySize(0, 0))

    async def galleries(self) -> dict[str, GallerySize]:
        return {name: size for name, size in sorted(self._galleries.sizes.items()) if size.persons}

    async def gallery_names(self) -> set[str]:
        return set(self._galleries.sizes)

    async def targets(self, gallery: str) -> Targets:
        return self._galleries.targets.get(gallery, Targets())

    async def set_targets(self, gallery: str, targets: Targets) -> None:
        def set_targets() -> None:
            self._galleries.require_space()
            (self._galleries.get(gallery) or self._galleries.create(gallery)).set_targets(targets)

        await self._write(gallery, set_targets)

    async def all_targets(self) -> dict[str, Targets]:
        found = sorted(self._galleries.targets.items())
        return {name: targets for name, targets in found if targets != Targets()}

    async def templates(self, gallery: str, limit: int, cursor: str | None = None) -> TemplatePage:
        offset = records.decode_cursor(gallery, cursor)

        def templates() -> TemplatePage:
            shard = self._galleries.get(gallery)
            if shard is None:
                return TemplatePage([], np.empty((0, self._embedder.dimension), np.float32), None)
            return shard.templates(limit, offset)

        # A page is as large as the caller likes.
        return await self._read(gallery, templates, short=False)

    async def persons(self, gallery: str, limit: int, cursor: str | None = None) -> Page:
        offset = records.decode_cursor(gallery, cursor)

        def persons() -> Page:
            shard = self._galleries.get(gallery)
            return Page([], None) if shard is None else shard.persons(limit, offset)

        return await self._read(gallery, persons)

    async def export_persons(
        self, gallery: str, limit: int, cursor: str | None = None
    ) -> StoredPage:
        offset = records.decode_cursor(gallery, cursor)

        def export() -> StoredPage:
            shard = self._galleries.get(gallery)
            return StoredPage([], None) if shard is None else shard.export_persons(limit, offset)

        return await self._read(gallery, export, short=False)

    async def import_persons(self, gallery: str, persons: Sequence[StoredPerson]) -> None:
        def import_() -> None:
            galleries = self._galleries
            galleries.require_space()
            (galleries.get(gallery) or galleries.create(gallery)).import_persons(persons)

        await self._write(gallery, import_)

    async def stored(self, gallery: str, person_id: str) -> StoredPerson | None:
        def stored() -> StoredPerson | None:
            shard = self._galleries.get(gallery)
            return None if shard is None else shard.stored(person_id)

        return await self._read(gallery, stored)

    async def revise(self, gallery: str, person_id: str, revise: Revise) -> None:
        before = await self.stored(gallery, person_id)
        after = await revise(before)
        if after is None:
            with suppress(PersonNotFound):
                await self.delete_person(gallery, person_id)
        elif after is not before:
            await self.import_persons(gallery, [after])

    async def person(self, gallery: str, person_id: str) -> Person:
        return await self._read(
            gallery, lambda: self._galleries.of_person(gallery, person_id).person(person_id)
        )

    async def export(self, gallery: str, person_id: str) -> Export:
        return await self._read(
            gallery, lambda: self._galleries.of_person(gallery, person_id).export(person_id)
        )

    async def update_person(
        self,
        gallery: str,
        person_id: str,
        patch: Mapping[str, Any],
        max_bytes: int,
        consent: Consent | None = None,
    ) -> Person:
        def update() -> Person:
            shard = self._galleries.of_person(gallery, person_id)
            self._galleries.require_space()
            return shard.update_person(person_id, patch, max_bytes, consent)

        return await self._write(gallery, update)

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        return await self._read(
            gallery, lambda: self._galleries.of_person(gallery, person_id).faces(person_id)
        )

    async def delete_person(
        self, gallery: str, person_id: str, *, expired_by: datetime | None = None
    ) -> int:
        def delete() -> int:
            shard = self._galleries.of_person(gallery, person_id)
            self._galleries.require_space_to_delete()
            return shard.delete_person(person_id, expired_by)

        return await self._write(gallery, delete)

    async def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        def delete() -> None:
            shard = self._galleries.of_person(gallery, person_id)
            self._galleries.require_space()  # what is left of the person is written anew
            shard.delete_face(person_id, face_id)

        await self._write(gallery, delete)

    async def vacuum(self) -> int:
        rewritten = 0
        failed = ""
        # Emptied ones first: they give the room back that others need.
        galleries = list(self._galleries.sizes)
        for step, gallery in itertools.product((self._drop_empty, self._rewrite), galleries):
            try:
                rewritten += await step(gallery)
            except (StoreUnavailable, OSError) as error:
                # No room for this one, for instance; there may be for the next. Only its text is
                # kept: by way of its traceback it would keep the gallery's files open.
                failed = failed or str(error)
        if failed:
            raise StoreUnavailable(failed)
        return rewritten

    async def _drop_empty(self, gallery: str) -> bool:
        """Remove a gallery that holds nobody and has no targets."""
        dropped = await self._submit(None, partial(self._galleries.drop_empty, gallery))
        if dropped is None:
            return False
        await asyncio.to_thread(shutil.rmtree, dropped)
        return True

    async def _rewrite(self, gallery: str) -> bool:
        """Write a gallery anew where it has remains; False, too, where something came between."""
        rewrite = self._galleries.rewrite(gallery)

        def still_open(call: Callable[[], T]) -> asyncio.Future[T | None]:
            # Closed, or loaded anew, it no longer tells what is written.
            return self._submit(
                None, lambda: call() if self._galleries.get(gallery) is rewrite.shard else None
            )

        try:
            if not await self._submit(None, lambda: self._galleries.begin(rewrite)):
                return False
            while not (last := await still_open(rewrite.copy_slice)):
                if last is None:
                    return False
            # Twice, as the first time may be long, and searches wait for the second.
            await still_open(rewrite.copy_changes)
            await asyncio.to_thread(rewrite.sync)
            await still_open(rewrite.flush)
            await asyncio.to_thread(rewrite.sync)
            if not await still_open(lambda: self._galleries.replace(rewrite)):
                return False
            await asyncio.to_thread(rewrite.remove_former)
            return True
        finally:
            await asyncio.shield(self._submit(None, rewrite.end))

    # The way to the engine.

    async def _search_exactly(
        self, gallery: str, probes: FloatArray, limit: int
    ) -> list[list[Neighbour]]:
        """A probe at a time, as each takes many times as long as another search."""

        def search(probe: FloatArray) -> list[list[Neighbour]]:
            shard = self._galleries.get(gallery)
            return [[]] if shard is None else shard.search(probe[None], limit, exact=True)

        return [
            near for probe in probes for near in await self._submit(None, partial(search, probe))
        ]

    def _scan(self, gallery: str) -> None:
        # By now everybody who was ready to search in this turn of the event loop has joined.
        searches = [s for s in self._searches.pop(gallery) if not s.future.done()]
        if not searches:  # all of them went away
            return
        probes, limit = searches[0].probes, searches[0].limit
        if len(searches) > 1:
            probes = np.concatenate([search.probes for search in searches])
            limit = max(search.limit for search in searches)

        def scan() -> list[list[Neighbour]]:
            shard = self._galleries.get(gallery)
            return [[] for _ in probes] if shard is None else shard.search(probes, limit)

        def deliver(scanned: asyncio.Future[list[list[Neighbour]]]) -> None:
            if error := scanned.exception():
                for search in searches:
                    _settle(search.future, None, error)
                return
            found = iter(scanned.result())
            for search in searches:
                own = [
                    neighbours[: search.limit] for neighbours in islice(found, len(search.probes))
                ]
                _settle(search.future, own, None)

        # Several probes would hold up the event loop for the sum of their searches.
        scanned = self._read(gallery, scan, short=len(probes) == 1)
        if scanned.done():  # no need to wait for the next turn
            deliver(scanned)
        else:
            scanned.add_done_callback(deliver)

    def _read(
        self, gallery: str, call: Callable[[], T], *, short: bool = True
    ) -> asyncio.Future[T]:
        """Read from a gallery: at once where that is short and the engine idle."""
        if not (short and gallery in self._galleries.open and self._engine.acquire(blocking=False)):
            return self._submit(None, call)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(_translated(error))
        finally:
            self._engine.release()
        return future

    async def _write(self, gallery: str, call: Callable[[], T]) -> T:
        def write() -> T:
            try:
                result = call()
            except FaceIdError:  # refused, nothing was written
                raise
            except BaseException:
                self._galleries.discard(gallery)
                raise
            self._galleries.note(gallery)
            return result

        return await self._submit(gallery, write)

    def _submit(self, writes: str | None, call: Callable[[], T]) -> asyncio.Future[T]:
        """Have the worker run `call`; `writes` names the gallery that it changes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._worker is None or not self._worker.is_alive():
            future.set_exception(StoreUnavailable("The store is closed."))
        else:
            self._jobs.put(_Job(call, writes, loop, future))
        return future

    def _work(self) -> None:
        closing = False
        while not closing:
            jobs = [self._jobs.get()]
            with suppress(Empty):
                while True:
                    jobs.append(self._jobs.get_nowait())
            closing = None in jobs
            written = []
            for job in jobs:
                if job is None or job.future.cancelled():
                    continue
                try:
                    with self._engine:
                        result = job.call()
                except BaseException as error:
                    job.settle(None, _translated(error))
                else:
                    if job.writes is None:
                        job.settle(result, None)
                    else:
                        written.append((job, result))
            failed = self._commit({job.writes for job, _ in written if job.writes is not None})
            for job, result in written:
                job.settle(result, failed.get(job.writes or ""))
        with self._engine:
            self._galleries.close_all()

    def _commit(self, names: set[str]) -> dict[str, BaseException]:
        """Make what was written to these galleries durable; the errors of those that failed."""
        failed: dict[str, BaseException] = {}
        for name in names:
            shard = self._galleries.open.get(name)
            if shard is None:  # closed since, which flushed it
                continue
            try:
                if shard.checkpoint_due:
                    with self._engine:
                        shard.checkpoint()
                elif self._durable:
                    # Outside the lock: searches go on while the disk works.
                    shard.sync_log()
            except BaseException as error:
                with self._engine:
                    self._galleries.discard(name)
                failed[name] = _translated(error)
        return failed
