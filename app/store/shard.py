"""One gallery in the embedded engine: a folder, its points, its slots, its log.

How it is laid out, and what was measured to decide it (2 cores, qdrant-edge-py 0.9.0, 128-d):

- A gallery is one shard, so a search needs no filter: a filter costs 1 ms more at 100,000 faces.
- The engine scans segments in parallel but makes only one, and adds none as it grows. A gallery
  that has become large is given more, `add_segments` says how; small ones would only pay for
  them (0.03 ms a search, 20 ms more to open).
- Persons are points without a vector. Scattered among the faces they make the scan three times
  slower (16 ms instead of 5 ms at a million), because it runs over gaps; in one piece each costs
  no more than a face. Hence they are written into blocks of `_BLOCK` slots laid out beforehand,
  and an upsert of a slot stays where the slot is. One upsert goes to one segment, and so does a
  block.
- Faces and the record of a new person are one upsert, that is one record of the write-ahead log:
  all or nothing, under `kill -9` too.
- The engine's own `flush()` syncs some 40 files and holds the GIL for all of it (10 to 170 ms),
  so it only marks checkpoints; in between, the log alone is synced. 20,000 records are replayed
  in 0.4 s.
- The 4-bit codes of a segment that was never optimised are as fast as those of an optimised one
  and rescored exactly. Fewer bits are slower and miss neighbours. `optimize()` is only used to
  drop deleted faces (12 s for a million).
- Probes searched together share the scan: 4.5 ms each instead of 8 ms at a million faces.
"""

import json
import shutil
import struct
import uuid
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from app.errors import FaceNotFound, PersonNotFound, StoreMismatch
from app.store import records
from app.store.base import Embedder, Face, FloatArray, GallerySize, Neighbour, Page, Person
from app.store.files import sync
from app.store.scan import ScanThreads, engine_threads, scan_threads

# Person records per block: runs of this length are scanned at full speed. A prime number, as
# persons enrolled with as many faces each go to the segments in turn: with 256 every block of
# two or four segments would be laid out in the same one (4.7 instead of 4.1 ms at a million).
_BLOCK = 257
# Probes of one scan, which is up to twice as fast as one scan each; the GIL is held for all of it.
_BATCH = 16
# Points written between two checkpoints: what has to be replayed after a crash, 0.2 s.
_CHECKPOINT = 10_000
# Faces from which on a parallel scan gains more than it costs. With both cores busy, as under
# load they are, its threads wait for one another: 2 ms at 100,000 faces instead of 0.75.
_LARGE = 300_000

_META_ID = 0
_ALL = 2**31 - 1  # no limit


def create(folder: Path, embedder: Embedder) -> None:
    """Make the shard of an empty gallery; the caller makes its folder's name durable."""
    shard = _new(folder, embedder.dimension)
    meta = records.meta_payload(embedder) | {"slots": _META_ID + 1}
    shard.update(edge.UpdateOperation.upsert_points([edge.Point(_META_ID, {}, meta)]))
    shard.flush()
    shard.close()


def add_segments(folder: Path, count: int, embedder: Embedder, scratch: Path) -> None:
    """Give a closed shard `count` more segments to spread its faces over.

    The engine writes each upsert to the smallest of its appendable segments, and loads whatever
    lies in its folder: so an empty segment of another new shard, moved in, is filled until it is
    as large as the others. A crash in between leaves one segment more or less, which is no harm.
    All of this is how release 0.9.0 does it and promised by nobody: that is why the dependency
    is pinned, and a test fails where a release does otherwise.

    Args:
        scratch: a folder name on the same disk, used and removed.
    """
    for _ in range(count):
        _new(scratch, embedder.dimension).close()
        (segment,) = (entry for entry in (scratch / "segments").iterdir() if entry.is_dir())
        for entry in segment.rglob("*"):
            sync(entry)
        segment.rename(folder / "segments" / str(uuid.uuid4()))
        shutil.rmtree(scratch)
    sync(folder / "segments")


class Shard:
    """An open gallery. Not for two threads at once, `sync_log` excepted.

    A write that raises anything but a `FaceIdError` leaves the shard in doubt: close it and
    load it again, which replays its log.

    Args:
        folder: named after the gallery, made by `create`.
        embedder: whose embeddings it must hold.
        scratch: a folder name on the same disk for `add_segments`.

    Raises:
        StoreMismatch: the faces were embedded by another model.

    Attributes:
        size: persons and faces.
        unflushed: points written since the last checkpoint.
    """

    def __init__(self, folder: Path, embedder: Embedder, scratch: Path) -> None:
        self._folder = folder
        self._gallery = folder.name
        self._embedder = embedder
        self._scratch = scratch
        self._synced: set[Path] = set()
        self.unflushed = 0
        self._load()
        try:
            meta = self._engine.retrieve([_META_ID], True, False)[0].payload or {}
            problem = records.mismatch(meta, embedder, str(folder))
            if problem is not None:
                raise StoreMismatch(problem)
            self._next_slot: int = meta["slots"]
            free = self._scroll(_is_kind("free"), payload=False)
            self._free = deque(int(str(point.id)) for point in free)
            persons = self._count(_is_kind("person"))
            self.size = GallerySize(persons, self._count() - persons - len(free) - 1)
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        others = engine_threads()
        # Given anew, as the number of threads may be that of another machine. The dimension has
        # to be the shard's own: whether it is the embedder's is found out from its record.
        stored = json.loads((self._folder / "edge_config.json").read_text())
        large = sum(entry.is_dir() for entry in (self._folder / "segments").iterdir()) > 1
        # One segment is looked through by one thread; a second one, woken for nothing, has to
        # find a core first, and every search waits for it.
        threads = scan_threads() if large else 1
        config = _config(stored["vectors"][records.VECTOR]["size"], threads)
        self._engine = edge.EdgeShard.load(str(self._folder), config)
        self._threads = ScanThreads(engine_threads(others, count=threads) if large else set())

    def close(self) -> None:
        self._engine.close()

    def check(self) -> None:
        """Raise where the engine no longer answers."""
        self._engine.info()

    # Keeping it durable, small and fast.

    def sync_log(self) -> None:
        """Wait until every record of the log is on disk; the GIL is free meanwhile."""
        log = self._folder / "wal"
        files = {file for file in log.iterdir() if file.name.startswith(("open-", "closed-"))}
        for file in files:
            if file.name.startswith("open-") or file not in self._synced:
                sync(file)
        if files != self._synced:
            sync(log)
            self._synced = files

    @property
    def checkpoint_due(self) -> bool:
        return self.unflushed >= _CHECKPOINT

    def flush(self) -> None:
        """Make all of it durable; what the log holds need not be replayed any more."""
        self._engine.flush()
        self.unflushed = 0

    def checkpoint(self) -> None:
        """Flush, and let a gallery that has become large be scanned in parallel."""
        self.flush()
        missing = scan_threads() - self._engine.info().segments_count
        if self.size.faces >= _LARGE and missing > 0:
            self._engine.close()
            add_segments(self._folder, missing, self._embedder, self._scratch)
            self._load()

    def vacuum(self) -> None:
        """Drop deleted faces where they are more than a fifth; it can take seconds."""
        self._engine.optimize()
        self.checkpoint()

    # Faces.

    def enrol(
        self, person_id: str, faces: Sequence[Face], embeddings: FloatArray, max_faces: int
    ) -> int:
        points = [
            edge.Point(
                records.point_id(person_id, face.face_id),
                {records.VECTOR: vector},
                records.face_payload(face),
            )
            for face, vector in zip(faces, embeddings.tolist(), strict=True)
        ]
        known = len(self._engine.retrieve([point.id for point in points], False, False))
        new_person = self._record(person_id) is None
        count = len(faces) - known + (0 if new_person else self._face_count(person_id))
        records.check_face_count(person_id, count, max_faces)
        if new_person:
            payload = records.person_payload(person_id, datetime.now(UTC))
            points.append(edge.Point(self._take_slot(), {}, payload))
        self._write(edge.UpdateOperation.upsert_points(points), len(points))
        self._resize(int(new_person), len(faces) - known)
        return count

    def search(self, probes: FloatArray, limit: int) -> list[list[Neighbour]]:
        self._threads.place()
        params = edge.SearchParams(
            quantization=edge.QuantizationSearchParams(
                rescore=True, oversampling=records.oversampling(limit)
            )
        )
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(probe, using=records.VECTOR),
                with_payload=["person_id", "face_id"],
                params=params,
            )
            for probe in probes.tolist()
        ]
        return [
            [records.to_neighbour(point.payload or {}, point.score) for point in points]
            for start in range(0, len(requests), _BATCH)
            for points in self._engine.query_batch(
                edge.QueryBatchRequest(requests[start : start + _BATCH])
            )
        ]

    def embeddings(self, person_ids: Collection[str]) -> dict[str, FloatArray]:
        # struct is twice as fast as numpy at turning the engine's lists into float32.
        pack = struct.Struct(f"{self._embedder.dimension}f").pack
        rows: dict[str, list[bytes]] = {}
        condition = edge.FieldCondition("person_id", match=edge.MatchAny(list(person_ids)))
        for point in self._scroll(condition, payload=["person_id"], vectors=True):
            vector = point.vector.get(records.VECTOR) if isinstance(point.vector, dict) else None
            if isinstance(vector, list):  # a person's record has none
                person_id = (point.payload or {})["person_id"]
                rows.setdefault(person_id, []).append(pack(*vector))
        return {
            person_id: np.frombuffer(bytearray().join(packed), np.float32).reshape(len(packed), -1)
            for person_id, packed in rows.items()
        }

    def faces(self, person_id: str) -> list[Face]:
        slot, _ = self._require(person_id)
        points = self._scroll(_is_person(person_id))
        return records.to_faces([point.payload or {} for point in points if point.id != slot])

    def delete_face(self, person_id: str, face_id: str) -> None:
        self._require(person_id)
        point = records.point_id(person_id, face_id)
        if not self._engine.retrieve([point], False, False):
            raise FaceNotFound(self._gallery, person_id, face_id)
        self._write(edge.UpdateOperation.delete_points([point]), 1)
        self._resize(0, -1)

    # Persons.

    def persons(self, limit: int, offset: int | None) -> Page:
        points, following = self._engine.scroll(
            edge.ScrollRequest(
                offset=offset,
                limit=limit,
                filter=edge.Filter(must=[_is_kind("person")]),
                with_payload=True,
                with_vector=False,
            )
        )
        payloads = [point.payload or {} for point in points]
        persons = [
            records.to_person(payload, self._face_count(payload["person_id"]))
            for payload in payloads
        ]
        cursor = None if following is None else records.encode_cursor(self._gallery, following)
        return Page(persons, cursor)

    def person(self, person_id: str) -> Person:
        _, record = self._require(person_id)
        return records.to_person(record, self._face_count(person_id))

    def update_metadata(self, person_id: str, patch: Mapping[str, Any], max_bytes: int) -> Person:
        slot, record = self._require(person_id)
        record["metadata"] = records.patched(record["metadata"], patch, max_bytes)
        record["updated_at"] = datetime.now(UTC).isoformat()
        self._write(edge.UpdateOperation.upsert_points([edge.Point(slot, {}, record)]), 1)
        return records.to_person(record, self._face_count(person_id))

    def delete_person(self, person_id: str) -> int:
        self._require(person_id)
        ids = [point.id for point in self._scroll(_is_person(person_id), payload=False)]
        self._write(edge.UpdateOperation.delete_points(ids), len(ids))
        self._resize(-1, 1 - len(ids))
        return len(ids) - 1

    def _record(self, person_id: str) -> tuple[int, dict[str, Any]] | None:
        """The slot and the payload of a person's record."""
        for point in self._scroll(_is_person(person_id), _is_kind("person")):
            return int(str(point.id)), point.payload or {}
        return None

    def _require(self, person_id: str) -> tuple[int, dict[str, Any]]:
        found = self._record(person_id)
        if found is None:
            raise PersonNotFound(self._gallery, person_id)
        return found

    def _face_count(self, person_id: str) -> int:
        return self._count(_is_person(person_id)) - 1  # all of their points but the record

    def _take_slot(self) -> int:
        if not self._free:
            slots = range(self._next_slot, self._next_slot + _BLOCK)
            meta = records.meta_payload(self._embedder) | {"slots": slots.stop}
            points = [edge.Point(slot, {}, {"kind": "free"}) for slot in slots]
            points.append(edge.Point(_META_ID, {}, meta))
            self._write(edge.UpdateOperation.upsert_points(points), len(points))
            self._free.extend(slots)
            self._next_slot = slots.stop
        return self._free.popleft()

    # Points.

    def _write(self, operation: edge.UpdateOperation, points: int) -> None:
        self._engine.update(operation)
        self.unflushed += points

    def _resize(self, persons: int, faces: int) -> None:
        self.size = GallerySize(self.size.persons + persons, self.size.faces + faces)

    def _count(self, *conditions: edge.FieldCondition) -> int:
        return self._engine.count(edge.CountRequest(filter=edge.Filter(must=list(conditions))))

    def _scroll(
        self,
        *conditions: edge.FieldCondition,
        payload: bool | list[str] = True,
        vectors: bool = False,
    ) -> list[edge.Record]:
        """All points that match."""
        request = edge.ScrollRequest(
            limit=_ALL,
            filter=edge.Filter(must=list(conditions)),
            with_payload=payload,
            with_vector=vectors,
        )
        return self._engine.scroll(request)[0]


def _config(dimension: int, threads: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={records.VECTOR: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)},
        payload_memory=edge.Memory.Cached,
        # m=0: no graph; building one holds up the process for seconds, a scan is exact.
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10),
        quantization_config=edge.TurboQuantQuantizationConfig(
            bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
        ),
        optimizers=edge.EdgeOptimizersConfig(
            # Never "index" (12 s for a million faces, nothing gained): optimize() is for vacuum.
            indexing_threshold=2**40,
            # Nor merge what is scanned in parallel.
            default_segment_number=64,
        ),
        max_search_threads=threads,
    )


def _new(folder: Path, dimension: int) -> edge.EdgeShard:
    """A new shard, open, with one empty segment."""
    shard = edge.EdgeShard.create(str(folder), _config(dimension, threads=1))
    for key in ("person_id", "kind"):
        shard.update(edge.UpdateOperation.create_field_index(key, edge.KeywordIndexParams()))
    shard.flush()
    return shard


def _is_kind(kind: str) -> edge.FieldCondition:
    return edge.FieldCondition("kind", match=edge.MatchValue(kind))


def _is_person(person_id: str) -> edge.FieldCondition:
    return edge.FieldCondition("person_id", match=edge.MatchValue(person_id))
