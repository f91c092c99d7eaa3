"""One gallery in the embedded engine: a folder, its points, its log.

How it is laid out, and what was measured to decide it (2 cores, qdrant-edge-py 0.9.0, 128-d):

- A gallery is one shard, so a search needs no filter: a filter costs 1 ms at 100,000 points.
- A person is one point, and there is no other but the one that says what the shard is. Faces as
  points of their own leave gaps in the scan, even where it does not look at them: 3.8 instead of
  2.9 ms at a million faces of 333,333 persons, in twice the memory.
- The engine scans segments in parallel but makes only one, and adds none as it grows. A gallery
  that has become large is given more, `app.store.segments` says how; small ones would only pay for
  them (0.03 ms a search, 20 ms more to open).
- One upsert is one record of the write-ahead log: all or nothing, under `kill -9` too. A point
  that is written again stays where it is.
- The engine's own `flush()` syncs some 40 files and holds the GIL for all of it (10 to 170 ms),
  so it only marks checkpoints; in between, the log alone is synced.
- The 4-bit codes of a segment that was never optimised are as fast as those of an optimised one
  and rescored exactly. Fewer bits are slower and miss neighbours.
- What is deleted stays in the files: vectors, codes and payload in the segment, all of it in the
  log once more; neither `flush()` nor `optimize()` nor opening it again changes that. Only a
  shard written anew (`app.store.rewrite`) is without it.
- Probes searched together share the scan.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from app.errors import FaceNotFound, PersonNotFound, StoreMismatch
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
    StoredPage,
    StoredPerson,
    Targets,
    TemplatePage,
)
from app.store.files import sync
from app.store.scan import ScanThreads, engine_threads, scan_threads
from app.store.seal import forget_written, note_checkpoint, note_written
from app.store.segments import META_ID, add_segments, config

# Probes of one scan, which is up to twice as fast as one scan each; the GIL is held for all of it.
_BATCH = 16
# Faces written between two checkpoints, about a kilobyte each: what is replayed after a crash.
_CHECKPOINT = 10_000
# Persons from which on new ones go to other segments: with twice as many these are even, and a
# parallel scan gains more than it costs. With both cores busy, as under load they are, its
# threads wait for one another: 2 ms at 100,000 instead of 0.75.
_LARGE = 150_000

# There while the files may hold what is deleted.
_REMAINS = ".remains"

# Numbers come before UUIDs in the order of ids.
_FIRST_PERSON = UUID(int=0)
_MAX_FACE_COUNTS = 2**31 - 1


PointId = int | UUID | str


class Shard:
    """An open gallery. Not for two threads at once, `sync_log` excepted.

    A write that raises anything but a `FaceIdError` leaves the shard in doubt: close it and
    load it again, which replays its log.

    Args:
        folder: named after the gallery, made by `create`.
        embedder: whose embeddings it must hold.
        fuse: makes a person's template.
        scratch: a folder name on the same disk for `add_segments`.

    Raises:
        StoreMismatch: the faces are of another model or layout.

    Attributes:
        size: persons and faces.
        targets: of this gallery.
        unflushed: faces written since the last checkpoint.
        operation: the engine's number of the last write, or a lower one; certain once `sync_log`
            or `flush` returns.
        has_remains: whether the files may hold what is deleted.
        changed: ids of points written since somebody put an empty set here.
    """

    def __init__(self, folder: Path, embedder: Embedder, fuse: Fuse, scratch: Path) -> None:
        self._folder = folder
        self._gallery = folder.name
        self._embedder = embedder
        self._fuse = fuse
        self._scratch = scratch
        self._synced: set[Path] = set()
        self.unflushed = 0
        self.has_remains = (folder / _REMAINS).exists()
        self.changed: set[PointId] | None = None
        self._load()
        try:
            meta = self._engine.retrieve([META_ID], True, False)[0].payload or {}
            problem = records.mismatch(meta, embedder, str(folder))
            if problem is not None:
                raise StoreMismatch(problem)
            self.targets = records.to_targets(meta)
            self.size = self._count()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        others = engine_threads()
        # Given anew, as the number of threads may be that of another machine. The dimension has
        # to be the shard's own: whether it is the embedder's is found out from its record.
        vectors = json.loads((self._folder / "edge_config.json").read_text())["vectors"]
        if set(vectors) != {records.VECTOR}:
            raise StoreMismatch(records.other_format(str(self._folder)))
        large = sum(entry.is_dir() for entry in (self._folder / "segments").iterdir()) > 1
        # One segment is looked through by one thread; a second one, woken for nothing, has to
        # find a core first, and every search waits for it.
        threads = scan_threads() if large else 1
        setup = config(vectors[records.VECTOR]["size"], threads)
        self._engine = edge.EdgeShard.load(str(self._folder), setup)
        self._threads = ScanThreads(engine_threads(others, count=threads) if large else set())
        self.operation = self._version()

    def _version(self) -> int:
        """The engine's number of the last operation that changed a point."""
        segments = self._engine.snapshot_manifest().values()
        return max(segment["segment_version"] or 0 for segment in segments)

    def takes_writes(self) -> bool:
        """Whether a write changes anything; the targets are written again.

        An engine that has lost its log numbers its operations anew, and skips those whose numbers
        are lower than what is there.
        """
        before = self._version()
        self.set_targets(self.targets)
        return self._version() > before

    def close(self) -> None:
        with suppress(OSError):
            forget_written(self._folder)  # the engine flushes what is not flushed yet
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
        note_written(self._folder, self.operation)

    @property
    def segments_wanted(self) -> int:
        """How many threads are worth while for a gallery of this size."""
        return scan_threads() if self.size.persons >= _LARGE else 1

    @property
    def checkpoint_due(self) -> bool:
        return self.unflushed >= _CHECKPOINT

    def flush(self) -> None:
        """Make all of it durable; what the log holds need not be replayed any more."""
        forget_written(self._folder)
        self._engine.flush()
        note_checkpoint(self._folder)
        note_written(self._folder, self.operation)
        self.unflushed = 0

    def checkpoint(self) -> None:
        """Flush, and let a gallery that has become large be scanned in parallel."""
        self.flush()
        missing = self.segments_wanted - self._engine.info().segments_count
        if missing > 0:
            self._engine.close()
            add_segments(self._folder, missing, self._embedder, self._scratch)
            self._load()

    def note_remains(self) -> None:
        """Before something is deleted: remember, over a crash too, that the files will hold it."""
        if not self.has_remains:
            (self._folder / _REMAINS).touch()
            sync(self._folder)
            self.has_remains = True

    def parts(self, limit: int, offset: PointId | None) -> tuple[list[edge.Record], PointId | None]:
        """Everything in the shard, part by part, and where the next part begins."""
        return self._engine.scroll(
            edge.ScrollRequest(offset=offset, limit=limit, with_payload=True, with_vector=True)
        )

    def points(self, limit: int, offset: PointId | None) -> tuple[list[edge.Point], PointId | None]:
        """The same, to be written to another shard."""
        found, following = self.parts(limit, offset)
        return [_point(record) for record in found], following

    def points_of(self, ids: Collection[PointId]) -> list[edge.Point]:
        """Those of them that are there."""
        return [_point(record) for record in self._engine.retrieve(list(ids), True, True)]

    def take(self, points: Sequence[edge.Point]) -> None:
        """Write points of another shard; `size` and `targets` do not follow."""
        self._engine.update(edge.UpdateOperation.upsert_points(list(points)))

    def drop(self, ids: Collection[PointId]) -> None:
        """Delete points; `size` does not follow."""
        self.note_remains()
        self._engine.update(edge.UpdateOperation.delete_points(list(ids)))

    # Faces.

    def enrol(
        self,
        person_id: str,
        faces: Sequence[Face],
        embeddings: FloatArray,
        max_faces: int,
        consent: Consent | None,
    ) -> int:
        known = self._payload(person_id)
        record = records.consented(
            known or records.person_payload(person_id, datetime.now(UTC)), consent
        )
        records.check_not_expired(record)
        before = record["face_count"]
        enrolled = records.enrolled(record).merged(faces, embeddings)
        count = len(enrolled.faces)
        records.check_face_count(person_id, count, max_faces)
        self._put(record, enrolled)
        self._resize(int(known is None), count - before)
        return count

    def search(
        self, probes: FloatArray, limit: int, *, exact: bool = False
    ) -> list[list[Neighbour]]:
        now = records.moment()
        wanted = limit
        while True:
            found = self._nearest(probes, wanted, exact=exact)
            kept = records.neighbours(found, limit, wanted, now)
            if kept is not None:
                return kept
            wanted *= records.FURTHER

    def _nearest(
        self, probes: FloatArray, limit: int, *, exact: bool
    ) -> list[list[edge.ScoredPoint]]:
        self._threads.place()
        params = edge.SearchParams(
            exact=exact,
            quantization=edge.QuantizationSearchParams(
                ignore=exact, rescore=True, oversampling=records.oversampling(limit)
            ),
        )
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(probe, using=records.VECTOR),
                with_payload=records.NEIGHBOUR_FIELDS,
                params=params,
            )
            for probe in probes.tolist()
        ]
        return [
            points
            for start in range(0, len(requests), _BATCH)
            for points in self._engine.query_batch(
                edge.QueryBatchRequest(requests[start : start + _BATCH])
            )
        ]

    def embeddings(self, person_ids: Collection[str]) -> dict[str, FloatArray]:
        points: list[int | UUID | str] = [records.point_id(name) for name in person_ids]
        found = self._engine.retrieve(points, records.EMBEDDING_FIELDS, False)
        return records.embeddings_by_person(point.payload or {} for point in found)

    def faces(self, person_id: str) -> list[Face]:
        return records.to_faces(self._require(person_id))

    def delete_face(self, person_id: str, face_id: str) -> None:
        record = self._require(person_id)
        before = records.enrolled(record)
        if not before.holds(face_id):
            raise FaceNotFound(self._gallery, person_id, face_id)
        enrolled = before.without(face_id)
        self.note_remains()
        self._put(record, enrolled)
        self._resize(0, len(enrolled.faces) - len(before.faces))

    # Persons.

    def persons(self, limit: int, offset: UUID | None) -> Page:
        points, following = self._engine.scroll(
            edge.ScrollRequest(
                offset=offset or _FIRST_PERSON,
                limit=limit,
                with_payload=records.PERSON_FIELDS,
                with_vector=False,
            )
        )
        persons = [records.to_person(point.payload or {}) for point in points]
        return Page(persons, self._cursor(following))

    def templates(self, limit: int, offset: UUID | None) -> TemplatePage:
        points, following = self._engine.scroll(
            edge.ScrollRequest(
                offset=offset or _FIRST_PERSON,
                limit=limit,
                filter=edge.Filter(must=[edge.HasVectorCondition(records.VECTOR)]),
                with_payload=records.NEIGHBOUR_FIELDS,
                with_vector=True,
            )
        )
        person_ids, templates = records.to_templates(
            [(point.payload, point.vector) for point in points], self._embedder.dimension
        )
        return TemplatePage(person_ids, templates, self._cursor(following))

    def export_persons(self, limit: int, offset: UUID | None) -> StoredPage:
        points, following = self._engine.scroll(
            edge.ScrollRequest(
                offset=offset or _FIRST_PERSON, limit=limit, with_payload=True, with_vector=True
            )
        )
        persons = [records.to_stored(point.payload or {}, point.vector) for point in points]
        return StoredPage(persons, self._cursor(following))

    def stored(self, person_id: str) -> StoredPerson | None:
        found = self._engine.retrieve([records.point_id(person_id)], True, True)
        return records.to_stored(found[0].payload or {}, found[0].vector) if found else None

    def import_persons(self, persons: Sequence[StoredPerson]) -> None:
        if not persons:
            return
        records.check_templates(persons, self._embedder.dimension)
        ids: list[PointId] = [records.point_id(p.payload["person_id"]) for p in persons]
        replaced = self._engine.retrieve(ids, ["face_count"], False)
        points = [
            edge.Point(point, records.stored_vectors(person), dict(person.payload))
            for point, person in zip(ids, persons, strict=True)
        ]
        faces = sum(person.payload["face_count"] for person in persons)
        self._write(edge.UpdateOperation.upsert_points(points), ids, len(persons) + faces)
        before = sum((point.payload or {})["face_count"] for point in replaced)
        self._resize(len(persons) - len(replaced), faces - before)

    def person(self, person_id: str) -> Person:
        return records.to_person(self._require(person_id))

    def export(self, person_id: str) -> Export:
        found = self._engine.retrieve([records.point_id(person_id)], True, True)
        if not found:
            raise PersonNotFound(self._gallery, person_id)
        return records.to_export(found[0].payload or {}, found[0].vector)

    def update_person(
        self,
        person_id: str,
        patch: Mapping[str, Any],
        max_bytes: int,
        consent: Consent | None,
    ) -> Person:
        record = self._require(person_id)
        changed = records.consented({}, consent) | {
            "metadata": records.patched(record["metadata"], patch, max_bytes),
            "updated_at": datetime.now(UTC).isoformat(),
        }
        point = records.point_id(person_id)
        self._write(edge.UpdateOperation.set_payload([point], changed), [point], 1)
        return records.to_person(record | changed)

    def delete_person(self, person_id: str, expired_by: datetime | None) -> int:
        record = self._require(person_id)
        records.check_expired_by(record, self._gallery, expired_by)
        count: int = record["face_count"]
        self.note_remains()
        point = records.point_id(person_id)
        self._write(edge.UpdateOperation.delete_points([point]), [point], 1)
        self._resize(-1, -count)
        return count

    def set_targets(self, targets: Targets) -> None:
        self._write(edge.UpdateOperation.set_payload([META_ID], asdict(targets)), [META_ID], 1)
        self.targets = targets

    def _payload(self, person_id: str) -> dict[str, Any] | None:
        found = self._engine.retrieve([records.point_id(person_id)], True, False)
        return found[0].payload if found else None

    def _require(self, person_id: str) -> dict[str, Any]:
        payload = self._payload(person_id)
        if payload is None:
            raise PersonNotFound(self._gallery, person_id)
        return payload

    def _put(self, record: dict[str, Any], enrolled: records.Enrolled) -> None:
        point_id = records.point_id(record["person_id"])
        point = edge.Point(
            point_id,
            records.vectors(enrolled, self._fuse),
            enrolled.into(record),
        )
        self._write(
            edge.UpdateOperation.upsert_points([point]), [point_id], 1 + len(enrolled.faces)
        )

    def _cursor(self, following: object) -> str | None:
        return None if following is None else records.encode_cursor(self._gallery, following)

    def _write(
        self, operation: edge.UpdateOperation, points: Collection[PointId], faces: int
    ) -> None:
        self._engine.update(operation)
        self.operation += 1
        self.unflushed += faces
        if self.changed is not None:
            self.changed.update(points)

    def _resize(self, persons: int, faces: int) -> None:
        self.size = GallerySize(self.size.persons + persons, self.size.faces + faces)

    def _count(self) -> GallerySize:
        request = edge.FacetRequest("face_count", limit=_MAX_FACE_COUNTS, exact=True)
        return records.to_size((hit.value, hit.count) for hit in self._engine.facet(request).hits)


def _point(record: edge.Record) -> edge.Point:
    return edge.Point(record.id, record.vector or {}, record.payload)
