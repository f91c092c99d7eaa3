"""Qdrant inside this process: one folder, no server.

How it is laid out, and what was measured to decide it (2 cores, qdrant-edge-py 0.9.0, 128-d):

- A gallery is one shard (one folder), so a search needs no filter: a filter costs 1 ms more at
  100,000 faces.
- Persons are points without a vector. Scattered among the faces they make the scan three times
  slower (16 ms instead of 5 ms at a million), because it runs over gaps; in one piece they cost
  nothing. Hence they are written into blocks of `_BLOCK` slots laid out beforehand, and an
  upsert of a slot stays where the slot is.
- Faces and the record of a new person are one upsert, that is one record of the write-ahead log:
  all or nothing, under `kill -9` too.
- A write is acknowledged when the log is on disk (`fsync`, group commit). The engine's own
  `flush()` syncs some 40 files and holds the GIL for all of it (10 to 170 ms), so it only marks
  checkpoints. 20,000 records are replayed in 0.4 s.
- The engine holds the GIL during `query`, `update`, `flush`, `optimize` and `load`. A thread of
  its own therefore gains nothing for a short read: one is answered in the event loop where
  the engine is idle, which saves the way to the worker and back.
- The 4-bit codes of a segment that was never optimised are as fast as those of an optimised one
  and rescored exactly. `optimize()` is only used to drop deleted faces (12 s for a million), so
  it runs in `open()`, before serving.
- Probes searched together share the scan: 4.5 ms each instead of 8 ms at a million faces.
"""

import asyncio
import os
import re
import shutil
import struct
import sys
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import qdrant_edge as edge

from app.errors import (
    FaceIdError,
    FaceNotFound,
    InvalidRequest,
    PersonNotFound,
    StoreLocked,
    StoreMismatch,
    StoreUnavailable,
)
from app.store import records
from app.store.base import (
    Embedder,
    Face,
    FloatArray,
    GallerySize,
    Neighbour,
    Page,
    Person,
)

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

T = TypeVar("T")

# An open gallery costs about 35 MB of memory, opening one again 25 ms or more.
_MAX_OPEN = 16
# Person records per block: runs of this length are scanned at full speed.
_BLOCK = 256
# Probes of one scan, which is up to twice as fast as one scan each; the GIL is held for all of it.
_BATCH = 16
# Points written between two checkpoints: what has to be replayed after a crash, 0.2 s.
_CHECKPOINT = 10_000
# The engine maps files of 32 MiB and dies of SIGBUS where the disk has no room behind them.
_MIN_FREE_BYTES = 256 * 2**20

_META_ID = 0
_GALLERY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NEW = ".new-"

_ALL = 2**31 - 1  # no limit

_SEARCH = edge.SearchParams(
    quantization=edge.QuantizationSearchParams(rescore=True, oversampling=records.OVERSAMPLING)
)


@dataclass(slots=True)
class _Gallery:
    """An open shard.

    Attributes:
        log: folder of its write-ahead log.
        free: ids of slots laid out for person records to come.
        next_slot: first id of the next block of them.
        unflushed: points written since the last checkpoint.
        synced: the log's files when it was last synced.
    """

    shard: edge.EdgeShard
    log: Path
    free: deque[int]
    next_slot: int
    unflushed: int = 0
    synced: set[Path] = field(default_factory=set)

    def record(self, person_id: str) -> tuple[int, dict[str, Any]] | None:
        """The slot and the payload of a person's record."""
        condition = edge.Filter(must=[_is_person(person_id), _is_kind("person")])
        for point in _scroll(self.shard, condition):
            return int(str(point.id)), point.payload or {}
        return None

    def face_count(self, person_id: str) -> int:
        # All points of a person but the record.
        return (
            self.shard.count(edge.CountRequest(filter=edge.Filter(must=[_is_person(person_id)])))
            - 1
        )

    def flush(self) -> None:
        self.shard.flush()
        self.unflushed = 0

    def sync_log(self) -> None:
        """Wait until every record of the log is on disk; the GIL is free meanwhile."""
        files = {file for file in self.log.iterdir() if file.name.startswith(("open-", "closed-"))}
        for file in files:
            if file.name.startswith("open-") or file not in self.synced:
                _sync(file)
        if files != self.synced:
            _sync(self.log)
            self.synced = files


@dataclass(slots=True)
class _Batch:
    """Searches of one gallery that wait for the same scan."""

    probes: list[FloatArray] = field(default_factory=list)
    limit: int = 0
    task: asyncio.Task[list[list[Neighbour]]] = field(init=False)


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


@contextmanager
def _translated() -> Iterator[None]:
    """The engine raises bare exceptions, and panics that are no `Exception`."""
    try:
        yield
    except FaceIdError:
        raise
    except BaseException as error:
        raise StoreUnavailable(f"The embedded store failed: {error}") from error


def _lock_folder(path: Path) -> IO[bytes]:
    """Lock a folder until the file returned is closed or the process ends, however it ends."""
    file = (path / ".lock").open("ab")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoreLocked(
            f"Another process uses the store in {path}. Stop it, or give this one a path of its "
            "own; several processes share a Qdrant server instead."
        ) from error
    return file


def _sync(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _config(dimension: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={records.VECTOR: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)},
        payload_memory=edge.Memory.Cached,
        # m=0: no graph; building one holds up the process for seconds, a scan is exact.
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10),
        quantization_config=edge.TurboQuantQuantizationConfig(
            bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
        ),
        # Never "index" (12 s for a million faces, nothing gained): optimize() is for vacuum.
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=2**40),
        # There is one segment to search.
        max_search_threads=1,
    )


def _is_kind(kind: str) -> edge.FieldCondition:
    return edge.FieldCondition("kind", match=edge.MatchValue(kind))


def _is_person(person_id: str) -> edge.FieldCondition:
    return edge.FieldCondition("person_id", match=edge.MatchValue(person_id))


def _scroll(
    shard: edge.EdgeShard,
    condition: edge.Filter,
    *,
    payload: bool | list[str] = True,
    vectors: bool = False,
) -> list[edge.Record]:
    """All points that match."""
    request = edge.ScrollRequest(
        limit=_ALL, filter=condition, with_payload=payload, with_vector=vectors
    )
    return shard.scroll(request)[0]


_KIND_PERSON = edge.Filter(must=[_is_kind("person")])
_KIND_FREE = edge.Filter(must=[_is_kind("free")])


class EmbeddedStore:
    """`Store` on files of this process alone.

    Args:
        path: folder, created where missing.
        embedder: whose embeddings are stored.
        durable: acknowledge a write only when it survives power loss. Without it a write
            still survives the end of the process.
    """

    def __init__(self, path: Path, embedder: Embedder, *, durable: bool = True) -> None:
        self._path = path
        self._embedder = embedder
        self._durable = durable
        self._sizes: dict[str, GallerySize] = {}
        self._open: OrderedDict[str, _Gallery] = OrderedDict()
        self._broken: set[str] = set()
        self._batches: dict[str, _Batch] = {}
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # Held by whoever is in the engine: the worker, or the event loop for a short read.
        self._engine = threading.Lock()
        self._worker: threading.Thread | None = None
        self._lock: IO[bytes] | None = None

    async def open(self) -> None:
        self._worker = threading.Thread(target=self._work, name="faceid-store", daemon=True)
        self._worker.start()
        try:
            await self._submit(None, self._open_all)
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
        await self._submit(None, self._check)

    async def enrol(
        self, gallery: str, person_id: str, faces: Sequence[Face], embeddings: FloatArray
    ) -> int:
        records.check_embeddings(embeddings, len(faces), self._embedder.dimension)
        return await self._submit(
            gallery, lambda: self._enrol(gallery, person_id, faces, embeddings)
        )

    async def search(self, gallery: str, probes: FloatArray, limit: int) -> list[list[Neighbour]]:
        records.check_embeddings(probes, None, self._embedder.dimension)
        batch = self._batches.get(gallery)
        if batch is None:
            batch = self._batches[gallery] = _Batch()
            batch.task = asyncio.create_task(self._search_together(gallery, batch))
        start = sum(map(len, batch.probes))
        batch.probes.append(probes)
        batch.limit = max(batch.limit, limit)
        # Shielded: one caller who goes away must not take the others' answer along.
        found = await asyncio.shield(batch.task)
        return [neighbours[:limit] for neighbours in found[start : start + len(probes)]]

    async def embeddings(self, gallery: str, person_ids: Collection[str]) -> dict[str, FloatArray]:
        return await self._read(gallery, lambda: self._embeddings(gallery, person_ids))

    async def size(self, gallery: str) -> GallerySize:
        return self._sizes.get(gallery, GallerySize(0, 0))

    async def galleries(self) -> dict[str, GallerySize]:
        return {name: size for name, size in sorted(self._sizes.items()) if size.persons}

    async def persons(self, gallery: str, limit: int, cursor: str | None = None) -> Page:
        offset = None
        if cursor is not None:
            text = records.decode_cursor(gallery, cursor)
            if not text.isdecimal() or not text.isascii() or len(text) > 18:
                raise records.invalid_cursor(cursor)
            offset = int(text)
        return await self._read(gallery, lambda: self._persons(gallery, limit, offset))

    async def person(self, gallery: str, person_id: str) -> Person:
        return await self._read(gallery, lambda: self._person(gallery, person_id))

    async def update_metadata(
        self, gallery: str, person_id: str, patch: Mapping[str, Any], max_bytes: int
    ) -> Person:
        return await self._submit(
            gallery, lambda: self._update_metadata(gallery, person_id, patch, max_bytes)
        )

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        return await self._read(gallery, lambda: self._faces(gallery, person_id))

    async def delete_person(self, gallery: str, person_id: str) -> int:
        return await self._submit(gallery, lambda: self._delete_person(gallery, person_id))

    async def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        await self._submit(gallery, lambda: self._delete_face(gallery, person_id, face_id))

    # The way to the engine.

    async def _search_together(self, gallery: str, batch: _Batch) -> list[list[Neighbour]]:
        # By now everybody who was ready to search in this turn of the event loop has joined.
        del self._batches[gallery]
        probes = np.concatenate(batch.probes)
        # Several probes would hold up the event loop for the sum of their searches.
        return await self._read(
            gallery, lambda: self._search(gallery, probes, batch.limit), short=len(probes) == 1
        )

    async def _read(self, gallery: str, call: Callable[[], T], *, short: bool = True) -> T:
        if short and gallery in self._open and self._engine.acquire(blocking=False):
            try:
                with _translated():
                    return call()
            finally:
                self._engine.release()
        return await self._submit(None, call)

    async def _submit(self, writes: str | None, call: Callable[[], T]) -> T:
        """Run `call` in the worker; `writes` names the gallery that it changes."""
        if self._worker is None or not self._worker.is_alive():
            raise StoreUnavailable("The store is closed.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(call, writes, loop, future))
        return await future

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
                    with self._engine, _translated():
                        result = job.call()
                except BaseException as error:
                    job.settle(None, error)
                else:
                    if job.writes is None:
                        job.settle(result, None)
                    else:
                        written.append((job, result))
            failed = self._commit({job.writes for job, _ in written if job.writes is not None})
            for job, result in written:
                job.settle(result, failed.get(job.writes or ""))
        with self._engine:
            self._close_all()

    def _commit(self, names: set[str]) -> dict[str, BaseException]:
        """Make what was written to these galleries durable; the errors of those that failed."""
        failed: dict[str, BaseException] = {}
        for name in names:
            gallery = self._open.get(name)
            if gallery is None:  # closed since, which flushed it
                continue
            try:
                with _translated():
                    if gallery.unflushed >= _CHECKPOINT:
                        with self._engine:
                            gallery.flush()
                    elif self._durable:
                        # Outside the lock: searches go on while the disk works.
                        gallery.sync_log()
            except BaseException as error:
                with self._engine:
                    self._discard(name)
                failed[name] = error
        return failed

    # In the engine, one at a time.

    def _open_all(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(self._path)
        for folder in sorted(self._path.iterdir()):
            if folder.name.startswith(_NEW):
                shutil.rmtree(folder)
            elif folder.is_dir() and _GALLERY.fullmatch(folder.name):
                gallery = self._load(folder.name)
                gallery.shard.optimize()
                gallery.flush()

    def _close_all(self) -> None:
        for name in list(self._open):
            with suppress(Exception):
                self._close(name)
        self._open.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check(self) -> None:
        for name in list(self._broken):
            self._gallery(name)
        for gallery in self._open.values():
            gallery.shard.info()

    def _gallery(self, name: str) -> _Gallery | None:
        """The open gallery, None where there is none of this name."""
        gallery = self._open.get(name)
        if gallery is not None:
            self._open.move_to_end(name)
            return gallery
        if name not in self._sizes:
            return None
        return self._load(name)

    def _load(self, name: str) -> _Gallery:
        while len(self._open) >= _MAX_OPEN:
            self._close(next(iter(self._open)))
        folder = self._path / name
        shard = edge.EdgeShard.load(str(folder))
        try:
            meta = shard.retrieve([_META_ID], True, False)[0].payload or {}
            problem = records.mismatch(meta, self._embedder, str(folder))
            if problem is not None:
                raise StoreMismatch(problem)
            free = [int(str(point.id)) for point in _scroll(shard, _KIND_FREE, payload=False)]
            persons = shard.count(edge.CountRequest(filter=_KIND_PERSON))
            points = shard.count(edge.CountRequest())
        except BaseException:
            shard.close()
            raise
        gallery = _Gallery(shard, folder / "wal", deque(free), meta["slots"])
        self._open[name] = gallery
        self._sizes[name] = GallerySize(persons, points - persons - len(free) - 1)
        self._broken.discard(name)
        return gallery

    def _create(self, name: str) -> _Gallery:
        if not _GALLERY.fullmatch(name):
            raise InvalidRequest(f"{name!r} is no name for a gallery.")
        # Built aside and renamed, so that a gallery is there with all it needs or not at all.
        folder = self._path / f"{_NEW}{uuid.uuid4().hex}"
        shard = edge.EdgeShard.create(str(folder), _config(self._embedder.dimension))
        for key in ("person_id", "kind"):
            shard.update(edge.UpdateOperation.create_field_index(key, edge.KeywordIndexParams()))
        meta = records.meta_payload(self._embedder) | {"slots": _META_ID + 1}
        shard.update(edge.UpdateOperation.upsert_points([edge.Point(_META_ID, {}, meta)]))
        shard.flush()
        shard.close()
        folder.rename(self._path / name)
        _sync(self._path)
        return self._load(name)

    def _close(self, name: str) -> None:
        gallery = self._open.pop(name)
        try:
            gallery.flush()
        finally:
            gallery.shard.close()

    def _discard(self, name: str) -> None:
        """Close a gallery whose state is uncertain; its next use loads it from its log."""
        self._broken.add(name)
        gallery = self._open.pop(name, None)
        if gallery is not None:
            with suppress(Exception):
                gallery.shard.close()

    def _write(self, name: str, operation: edge.UpdateOperation, points: int) -> None:
        gallery = self._open[name]
        try:
            gallery.shard.update(operation)
        except BaseException:
            self._discard(name)
            raise
        gallery.unflushed += points

    def _resize(self, name: str, persons: int, faces: int) -> None:
        size = self._sizes[name]
        self._sizes[name] = GallerySize(size.persons + persons, size.faces + faces)

    def _take_slot(self, name: str) -> int:
        gallery = self._open[name]
        if not gallery.free:
            first = gallery.next_slot
            slots = range(first, first + _BLOCK)
            meta = records.meta_payload(self._embedder) | {"slots": slots.stop}
            points = [edge.Point(slot, {}, {"kind": "free"}) for slot in slots]
            points.append(edge.Point(_META_ID, {}, meta))
            self._write(name, edge.UpdateOperation.upsert_points(points), len(points))
            gallery.free.extend(slots)
            gallery.next_slot = slots.stop
        return gallery.free.popleft()

    def _enrol(
        self, name: str, person_id: str, faces: Sequence[Face], embeddings: FloatArray
    ) -> int:
        self._require_space()
        gallery = self._gallery(name) or self._create(name)
        points = [
            edge.Point(
                records.point_id(person_id, face.face_id),
                {records.VECTOR: vector},
                records.face_payload(face),
            )
            for face, vector in zip(faces, embeddings.tolist(), strict=True)
        ]
        known = len(gallery.shard.retrieve([point.id for point in points], False, False))
        new_person = gallery.record(person_id) is None
        if new_person:
            payload = records.person_payload(person_id, datetime.now(UTC))
            points.append(edge.Point(self._take_slot(name), {}, payload))
        self._write(name, edge.UpdateOperation.upsert_points(points), len(points))
        self._resize(name, int(new_person), len(faces) - known)
        return gallery.face_count(person_id)

    def _search(self, name: str, probes: FloatArray, limit: int) -> list[list[Neighbour]]:
        gallery = self._gallery(name)
        if gallery is None:
            return [[] for _ in probes]
        requests = [
            edge.QueryRequest(
                limit=max(limit, records.MIN_CANDIDATES),
                query=edge.Query.Nearest(probe, using=records.VECTOR),
                with_payload=["person_id", "face_id"],
                params=_SEARCH,
            )
            for probe in probes.tolist()
        ]
        return [
            [records.to_neighbour(point.payload or {}, point.score) for point in points[:limit]]
            for start in range(0, len(requests), _BATCH)
            for points in gallery.shard.query_batch(
                edge.QueryBatchRequest(requests[start : start + _BATCH])
            )
        ]

    def _embeddings(self, name: str, person_ids: Collection[str]) -> dict[str, FloatArray]:
        gallery = self._gallery(name)
        if gallery is None:
            return {}
        condition = edge.FieldCondition("person_id", match=edge.MatchAny(list(person_ids)))
        # struct is twice as fast as numpy at turning the engine's lists into float32.
        pack = struct.Struct(f"{self._embedder.dimension}f").pack
        rows: dict[str, list[bytes]] = {}
        points = _scroll(
            gallery.shard, edge.Filter(must=[condition]), payload=["person_id"], vectors=True
        )
        for point in points:
            vector = point.vector.get(records.VECTOR) if isinstance(point.vector, dict) else None
            if isinstance(vector, list):  # a person's record has none
                person_id = (point.payload or {})["person_id"]
                rows.setdefault(person_id, []).append(pack(*vector))
        return {
            person_id: np.frombuffer(bytearray().join(packed), np.float32).reshape(len(packed), -1)
            for person_id, packed in rows.items()
        }

    def _persons(self, name: str, limit: int, offset: int | None) -> Page:
        gallery = self._gallery(name)
        if gallery is None:
            return Page([], None)
        points, following = gallery.shard.scroll(
            edge.ScrollRequest(
                offset=offset,
                limit=limit,
                filter=_KIND_PERSON,
                with_payload=True,
                with_vector=False,
            )
        )
        payloads = [point.payload or {} for point in points]
        persons = [
            records.to_person(payload, gallery.face_count(payload["person_id"]))
            for payload in payloads
        ]
        cursor = None if following is None else records.encode_cursor(name, following)
        return Page(persons, cursor)

    def _require(self, name: str, person_id: str) -> tuple[_Gallery, int, dict[str, Any]]:
        """The gallery, the slot of the person's record and the record."""
        gallery = self._gallery(name)
        if gallery is None or (found := gallery.record(person_id)) is None:
            raise PersonNotFound(name, person_id)
        slot, record = found
        return gallery, slot, record

    def _person(self, name: str, person_id: str) -> Person:
        gallery, _, record = self._require(name, person_id)
        return records.to_person(record, gallery.face_count(person_id))

    def _update_metadata(
        self, name: str, person_id: str, patch: Mapping[str, Any], max_bytes: int
    ) -> Person:
        gallery, slot, record = self._require(name, person_id)
        self._require_space()
        record["metadata"] = records.patched(record["metadata"], patch, max_bytes)
        record["updated_at"] = datetime.now(UTC).isoformat()
        operation = edge.UpdateOperation.upsert_points([edge.Point(slot, {}, record)])
        self._write(name, operation, 1)
        return records.to_person(record, gallery.face_count(person_id))

    def _faces(self, name: str, person_id: str) -> list[Face]:
        gallery, slot, _ = self._require(name, person_id)
        points = _scroll(gallery.shard, edge.Filter(must=[_is_person(person_id)]))
        return records.to_faces([point.payload or {} for point in points if point.id != slot])

    def _delete_person(self, name: str, person_id: str) -> int:
        gallery, _, _ = self._require(name, person_id)
        points = _scroll(gallery.shard, edge.Filter(must=[_is_person(person_id)]), payload=False)
        ids = [point.id for point in points]
        self._write(name, edge.UpdateOperation.delete_points(ids), len(ids))
        self._resize(name, -1, 1 - len(ids))
        return len(ids) - 1

    def _delete_face(self, name: str, person_id: str, face_id: str) -> None:
        gallery, _, _ = self._require(name, person_id)
        point = records.point_id(person_id, face_id)
        if not gallery.shard.retrieve([point], False, False):
            raise FaceNotFound(name, person_id, face_id)
        self._write(name, edge.UpdateOperation.delete_points([point]), 1)
        self._resize(name, 0, -1)

    def _require_space(self) -> None:
        if shutil.disk_usage(self._path).free < _MIN_FREE_BYTES:
            raise StoreUnavailable(f"The disk of {self._path} is full; nothing was stored.")
