"""A Qdrant server (1.19 or newer), shared by any number of replicas of this service.

One collection holds every gallery. Ids are derived from what they stand for, and the model's
identity is the collection's own metadata: it comes into being with the collection, so two
replicas cannot disagree about it.

`app.store.points` has how replicas that change the same person at the same moment lose nothing.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from qdrant_client import AsyncQdrantClient, models

from app.errors import FaceNotFound, PersonNotFound
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
from app.store.collection import QdrantCollection, matches
from app.store.points import VERSION_FIELDS, Payload, Points, Vectors, new_version, repeated
from app.store.resilience import CircuitBreaker, Resilience
from app.store.server_receipts import ServerReceipts
from app.store.vector_index import DEFAULT_INDEX, VectorIndex

_log = logging.getLogger(__name__)

# The threshold of an identification follows the gallery's size by its logarithm: what other
# replicas wrote in the last seconds does not move it. New targets may take as long.
_CACHED_S = 5.0
_ALL_GALLERIES = 100_000
_ALL_FACE_COUNTS = 100_000
# In a person's payload, and of no meaning to another engine.
_OWN_FIELDS = VERSION_FIELDS | {"kind", "gallery", "claimed_until"}
# A replica that has claimed a person to delete may be dead by then.
_CLAIMED_S = 60.0
# So many calls that fail in a row, and the server is left alone; so long, less than a client is
# asked to wait before it comes again.
_FAILURES = 5
_BREAK_S = 2.0


def connect(
    url: str,
    *,
    api_key: str | None = None,
    timeout_s: int = 5,
    observe: Callable[[bool], object] = lambda _: None,
) -> AsyncQdrantClient:
    """A client for `ServerStore`; nothing is sent before the store is opened.

    Args:
        timeout_s: of one call, with what is repeated of it.
        observe: told whether requests are held back, as the server fails, whenever that changes.
    """

    def noted(is_open: bool) -> None:
        _log.warning("%s %s", url, "fails, and is left alone" if is_open else "answers again")
        observe(is_open)

    client = AsyncQdrantClient(
        url=url, api_key=api_key, timeout=timeout_s, check_compatibility=False
    )
    breaker = CircuitBreaker(_FAILURES, _BREAK_S, noted)
    client.http.client.add_middleware(Resilience(timeout_s, breaker))
    return client


class ServerStore:
    """`Store` on a Qdrant server.

    Args:
        client: closed with the store.
        embedder: whose embeddings are stored.
        fuse: makes a person's template.
        collection: created where missing.
        replicas: copies of every point when the collection is created. A write waits for all
            of them, so that a deletion is seen by the next search wherever it goes.
        shards: over which its points are spread; None: as many as the server thinks fit.
        index: how templates are indexed, and searched.
        receipts: of erasures; None: in a collection named after this one.
        may_open: False: every call raises `StoreUnavailable`.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        embedder: Embedder,
        fuse: Fuse,
        *,
        collection: str = "faceid",
        replicas: int = 1,
        shards: int | None = None,
        index: VectorIndex = DEFAULT_INDEX,
        receipts: Receipts | None = None,
        may_open: bool = True,
    ) -> None:
        self._client = client
        self._embedder = embedder
        self._index = index
        self._fuse = fuse
        self._collection = QdrantCollection(
            client, collection, embedder, replicas, shards, index, may_open=may_open
        )
        self._points = Points(self._collection)
        self.receipts = receipts or ServerReceipts(client, f"{collection}-erasures", replicas)
        self._sizes: dict[str, tuple[float, GallerySize]] = {}
        self._targets: dict[str, tuple[float, Targets]] = {}

    async def open(self) -> None:
        """Create what is missing; a store whose opening failed tries again at every call.

        Raises:
            StoreUnavailable: the server does not answer.
            StoreMismatch: the stored faces are of another model or layout. Both are raised by
                every other call too, until it has worked once.
        """
        await self.check()

    async def close(self) -> None:
        await self._client.close()

    async def check(self) -> None:
        await self._collection.check()

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
        now = datetime.now(UTC)

        def add(record: Payload | None) -> tuple[Payload, records.Enrolled]:
            record = record or _own(gallery, records.person_payload(person_id, now))
            record = records.consented(record, consent)
            records.check_not_expired(record)
            enrolled = records.enrolled(record).merged(faces, embeddings)
            records.check_face_count(person_id, len(enrolled.faces), max_faces)
            return record, enrolled

        count: int = (await self._change(gallery, person_id, add))["face_count"]
        return count

    async def search(
        self, gallery: str, probes: FloatArray, limit: int, *, exact: bool = False
    ) -> list[list[Neighbour]]:
        records.check_embeddings(probes, None, self._embedder.dimension)
        if not len(probes):
            return []
        now = records.moment()
        wanted = limit
        while True:
            found = await self._nearest(gallery, probes, wanted, exact=exact)
            kept = records.neighbours(found, limit, wanted, now)
            if kept is not None:
                return kept
            wanted *= records.FURTHER

    async def _nearest(
        self, gallery: str, probes: FloatArray, limit: int, *, exact: bool
    ) -> list[list[models.ScoredPoint]]:
        persons = (await self.size(gallery)).persons
        # Each shard has a graph of its own persons.
        share = persons // self._collection.shards
        return await self._points.nearest(
            records.VECTOR,
            probes,
            limit,
            matches("gallery", gallery),
            self._index.search(share, limit, exact=exact),
            records.NEIGHBOUR_FIELDS,
        )

    async def embeddings(self, gallery: str, person_ids: Collection[str]) -> dict[str, FloatArray]:
        points = [_person_point(gallery, person_id) for person_id in person_ids]
        return records.embeddings_by_person(
            await self._points.payloads(points, records.EMBEDDING_FIELDS)
        )

    async def size(self, gallery: str) -> GallerySize:
        expires, size = self._sizes.get(gallery, (0.0, GallerySize(0, 0)))
        if time.monotonic() >= expires:
            size = records.to_size(
                await self._points.counts(
                    "face_count", _ALL_FACE_COUNTS, matches("gallery", gallery)
                )
            )
            self._sizes[gallery] = time.monotonic() + _CACHED_S, size
        return size

    async def galleries(self) -> dict[str, GallerySize]:
        # By number of faces, as there can be many more galleries than such numbers.
        counts = await self._points.counts("face_count", _ALL_FACE_COUNTS)
        found: dict[str, list[tuple[Any, int]]] = {}
        for count, _ in counts:
            alike = await self._points.counts(
                "gallery", _ALL_GALLERIES, matches("face_count", count)
            )
            for gallery, persons in alike:
                found.setdefault(str(gallery), []).append((count, persons))
        return {gallery: records.to_size(found[gallery]) for gallery in sorted(found)}

    async def gallery_names(self) -> set[str]:
        return {*await self.galleries(), *await self.all_targets()}

    async def targets(self, gallery: str) -> Targets:
        expires, targets = self._targets.get(gallery, (0.0, Targets()))
        if time.monotonic() >= expires:
            found = await self._points.payloads([_gallery_point(gallery)])
            targets = records.to_targets(found[0] if found else {})
            self._targets[gallery] = time.monotonic() + _CACHED_S, targets
        return targets

    async def set_targets(self, gallery: str, targets: Targets) -> None:
        payload = {"kind": "gallery", "gallery": gallery} | asdict(targets)
        point = models.PointStruct(id=_gallery_point(gallery), vector={}, payload=payload)
        await self._points.put([point])
        self._targets.pop(gallery, None)

    async def all_targets(self) -> dict[str, Targets]:
        found = {
            payload["gallery"]: records.to_targets(payload)
            for payload in await self._points.matching(matches("kind", "gallery"))
        }
        return {name: found[name] for name in sorted(found) if found[name] != Targets()}

    async def templates(self, gallery: str, limit: int, cursor: str | None = None) -> TemplatePage:
        findable = models.HasVectorCondition(has_vector=records.VECTOR)
        points, following = await self._page(
            gallery, limit, cursor, findable, fields=records.NEIGHBOUR_FIELDS, vectors=True
        )
        person_ids, templates = records.to_templates(
            [(point.payload, point.vector) for point in points], self._embedder.dimension
        )
        return TemplatePage(person_ids, templates, following)

    async def persons(self, gallery: str, limit: int, cursor: str | None = None) -> Page:
        points, following = await self._page(
            gallery, limit, cursor, matches("kind", "person"), fields=records.PERSON_FIELDS
        )
        return Page([records.to_person(point.payload or {}) for point in points], following)

    async def export_persons(
        self, gallery: str, limit: int, cursor: str | None = None
    ) -> StoredPage:
        points, following = await self._page(
            gallery, limit, cursor, matches("kind", "person"), fields=True, vectors=True
        )
        return StoredPage([_stored(point) for point in points], following)

    async def import_persons(self, gallery: str, persons: Sequence[StoredPerson]) -> None:
        records.check_templates(persons, self._embedder.dimension)
        points = [
            models.PointStruct(
                id=_person_point(gallery, person.payload["person_id"]),
                vector=records.stored_vectors(person),
                payload=_own(gallery, person.payload) | new_version(),
            )
            for person in persons
        ]
        await self._points.put(points)
        self._sizes.pop(gallery, None)

    async def stored(self, gallery: str, person_id: str) -> StoredPerson | None:
        found = await self._points.whole(_person_point(gallery, person_id))
        return None if found is None else _stored(found)

    async def revise(self, gallery: str, person_id: str, revise: Revise) -> None:
        point = _person_point(gallery, person_id)

        async def attempt() -> bool:
            found = await self._points.whole(point)
            stored = None if found is None else _stored(found)
            record = None if found is None else found.payload or {}
            if record is None:
                # Somebody without faces holds the place: a deletion takes them away, and what
                # follows finds nobody to write over.
                nobody = _own(gallery, records.person_payload(person_id, datetime.now(UTC)))
                record = await self._points.swap(point, None, nobody, {})
                if record is None:
                    return False
            try:
                revised = await revise(stored)
            except BaseException:
                if stored is None:
                    await self._points.delete(point, record)
                raise
            if revised is None:
                await self._points.delete(point, record)
                return True
            if revised is stored:
                return True
            after = _own(gallery, revised.payload)
            if not await self._points.swap(point, record, after, records.stored_vectors(revised)):
                return False
            self._sizes.pop(gallery, None)
            return True

        await repeated(attempt, f"Person {person_id!r}")

    async def person(self, gallery: str, person_id: str) -> Person:
        return records.to_person(await self._record(gallery, person_id, records.PERSON_FIELDS))

    async def export(self, gallery: str, person_id: str) -> Export:
        found = await self._points.whole(_person_point(gallery, person_id))
        if found is None:
            raise PersonNotFound(gallery, person_id)
        return records.to_export(found.payload or {}, found.vector)

    async def update_person(
        self,
        gallery: str,
        person_id: str,
        patch: Mapping[str, Any],
        max_bytes: int,
        consent: Consent | None = None,
    ) -> Person:
        def merge(record: Payload | None) -> tuple[Payload, None]:
            if record is None:
                raise PersonNotFound(gallery, person_id)
            metadata = records.patched(record["metadata"], patch, max_bytes)
            now = datetime.now(UTC).isoformat()
            changed = {"metadata": metadata, "updated_at": now}
            return records.consented(record, consent) | changed, None

        return records.to_person(await self._change(gallery, person_id, merge))

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        return records.to_faces(await self._record(gallery, person_id))

    async def delete_person(
        self, gallery: str, person_id: str, *, expired_by: datetime | None = None
    ) -> int:
        point = _person_point(gallery, person_id)
        record = await self._record(gallery, person_id, expired_by is not None or ["face_count"])
        claimed = None
        if expired_by is not None:
            records.check_expired_by(record, gallery, expired_by)
            if record.get("claimed_until", 0.0) > time.time():
                raise PersonNotFound(gallery, person_id)
            # Of several replicas one deletes, and only whom nobody has given more time since.
            claim = record | {"claimed_until": time.time() + _CLAIMED_S}
            claimed = await self._points.swap(point, record, claim, None)
            if claimed is None:
                raise PersonNotFound(gallery, person_id)
        await self._points.delete(point, claimed)
        self._sizes.pop(gallery, None)
        if expired_by is not None and await self._points.payloads([point], ["person_id"]):
            raise PersonNotFound(gallery, person_id)
        count: int = record["face_count"]
        return count

    async def vacuum(self) -> int:
        return 0  # the server's optimiser drops what is deleted when it thinks fit

    async def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        def remove(record: Payload | None) -> tuple[Payload, records.Enrolled]:
            if record is None:
                raise PersonNotFound(gallery, person_id)
            enrolled = records.enrolled(record)
            if not enrolled.holds(face_id):
                raise FaceNotFound(gallery, person_id, face_id)
            return record, enrolled.without(face_id)

        await self._change(gallery, person_id, remove)

    async def _change(
        self,
        gallery: str,
        person_id: str,
        change: Callable[[Payload | None], tuple[Payload, records.Enrolled | None]],
    ) -> Payload:
        """Write what `change` makes of a person's payload, which is None of somebody new.

        It returns the payload to write, and the faces to put in it where they are not those that
        were read.
        """

        def changed(before: Payload | None) -> tuple[Payload, Vectors | None]:
            after, enrolled = change(before)
            if enrolled is None:
                return after, None
            return enrolled.into(after), records.vectors(enrolled, self._fuse)

        point = _person_point(gallery, person_id)
        written = await self._points.change(point, f"Person {person_id!r}", changed)
        self._sizes.pop(gallery, None)
        return written

    async def _record(
        self, gallery: str, person_id: str, fields: list[str] | bool = True
    ) -> Payload:
        for payload in await self._points.payloads([_person_point(gallery, person_id)], fields):
            return payload
        raise PersonNotFound(gallery, person_id)

    async def _page(
        self,
        gallery: str,
        limit: int,
        cursor: str | None,
        condition: models.Condition,
        *,
        fields: list[str] | bool,
        vectors: bool = False,
    ) -> tuple[list[models.Record], str | None]:
        """Of the gallery's points that match, and the cursor of the next page."""
        offset = records.decode_cursor(gallery, cursor)
        points, following = await self._points.page(
            limit,
            None if offset is None else str(offset),
            matches("gallery", gallery),
            condition,
            fields=fields,
            vectors=vectors,
        )
        return points, None if following is None else records.encode_cursor(gallery, following)


def _stored(point: models.Record) -> StoredPerson:
    payload = point.payload or {}
    shared = {name: value for name, value in payload.items() if name not in _OWN_FIELDS}
    return records.to_stored(shared, point.vector)


def _own(gallery: str, payload: Mapping[str, Any]) -> Payload:
    """A person's payload as it lies in a point here, but for the version."""
    return {**payload, "kind": "person", "gallery": gallery}


def _person_point(gallery: str, person_id: str) -> str:
    return str(records.point_id(gallery, person_id))


def _gallery_point(gallery: str) -> str:
    return str(records.point_id(gallery))
