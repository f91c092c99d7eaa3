"""A Qdrant server (1.18 or newer), shared by any number of replicas of this service.

One collection holds every gallery. A person's record is a point without a vector, ids are
derived from what they stand for, and the model's identity is the collection's own metadata:
it comes into being with the collection, so two replicas cannot disagree about it.

The server may come later than this service, or go and come back empty: the collection is
created and checked by the first call that reaches the server, whichever that is.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from app.errors import FaceNotFound, PersonNotFound, StoreMismatch, StoreUnavailable
from app.store import records
from app.store.base import Embedder, Face, FloatArray, GallerySize, Neighbour, Page, Person

# The threshold of an identification follows the gallery's size by its logarithm: what other
# replicas wrote in the last seconds does not move it.
_SIZE_TTL_S = 5.0
_PAGE = 1000
_ATTEMPTS = 10
_ALL_GALLERIES = 100_000
_INDEXES = {
    "gallery": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "person_id": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD),
    "kind": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD),
    "updated_at": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD),
}
_STRONG = models.WriteOrdering.STRONG


def connect(url: str, *, api_key: str | None = None, timeout_s: int = 5) -> AsyncQdrantClient:
    """A client for `ServerStore`; nothing is sent before the store is opened."""
    return AsyncQdrantClient(url=url, api_key=api_key, timeout=timeout_s, check_compatibility=False)


class ServerStore:
    """`Store` on a Qdrant server.

    Args:
        client: closed with the store.
        embedder: whose embeddings are stored.
        collection: created where missing.
        replicas: copies of every point when the collection is created. A write waits for all
            of them, so that a deletion is seen by the next search wherever it goes.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        embedder: Embedder,
        *,
        collection: str = "faceid",
        replicas: int = 1,
    ) -> None:
        self._client = client
        self._embedder = embedder
        self._collection = collection
        self._replicas = replicas
        self._sizes: dict[str, tuple[float, GallerySize]] = {}
        self._ready = False
        self._preparing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Create what is missing; a store whose opening failed tries again at every call.

        Raises:
            StoreUnavailable: the server does not answer.
            StoreMismatch: the stored faces belong to another embedder. Both are raised by
                every other call too, until it has worked once.
        """
        await self.check()

    async def close(self) -> None:
        await self._client.close()

    async def check(self) -> None:
        async with self._connected() as client:
            await self._require_same_model(client)

    async def enrol(
        self,
        gallery: str,
        person_id: str,
        faces: Sequence[Face],
        embeddings: FloatArray,
        max_faces: int,
    ) -> int:
        """As `Store.enrol`, but `max_faces` is counted before the write: replicas that enrol
        the same person at the same moment may together exceed it by what they send.
        """
        records.check_embeddings(embeddings, len(faces), self._embedder.dimension)
        record = records.person_payload(person_id, datetime.now(UTC)) | {"gallery": gallery}
        points = [
            models.PointStruct(
                id=_face_point(gallery, person_id, face.face_id),
                vector={records.VECTOR: vector},
                payload=records.face_payload(face) | {"gallery": gallery, "kind": "face"},
            )
            for face, vector in zip(faces, embeddings.tolist(), strict=True)
        ]
        ids = [point.id for point in points]
        points.append(
            models.PointStruct(id=_person_point(gallery, person_id), vector={}, payload=record)
        )
        async with self._connected() as client:
            present = await self._face_count(client, gallery, person_id)
            replaced = await client.retrieve(self._collection, ids, with_payload=False)
            count = present + len(faces) - len(replaced)
            records.check_face_count(person_id, count, max_faces)
            await client.upsert(
                self._collection,
                points,
                # Faces may be replaced, a person's record that is there already must not be.
                update_filter=models.Filter(must=[_matches("kind", "face")]),
                ordering=_STRONG,
            )
            self._sizes.pop(gallery, None)
            return await self._face_count(client, gallery, person_id)

    async def search(self, gallery: str, probes: FloatArray, limit: int) -> list[list[Neighbour]]:
        records.check_embeddings(probes, None, self._embedder.dimension)
        if not len(probes):
            return []
        params = models.SearchParams(
            hnsw_ef=256,
            quantization=models.QuantizationSearchParams(
                rescore=True, oversampling=records.oversampling(limit)
            ),
        )
        async with self._connected() as client:
            responses = await client.query_batch_points(
                self._collection,
                [
                    models.QueryRequest(
                        query=probe,
                        using=records.VECTOR,
                        filter=models.Filter(must=[_matches("gallery", gallery)]),
                        params=params,
                        limit=limit,
                        with_payload=["person_id", "face_id"],
                    )
                    for probe in probes.tolist()
                ],
            )
        return [
            [records.to_neighbour(point.payload or {}, point.score) for point in response.points]
            for response in responses
        ]

    async def embeddings(self, gallery: str, person_ids: Collection[str]) -> dict[str, FloatArray]:
        condition = models.FieldCondition(
            key="person_id", match=models.MatchAny(any=list(person_ids))
        )
        rows: dict[str, list[Any]] = {}
        for point in await self._scroll(gallery, condition, _matches("kind", "face"), vectors=True):
            if point.payload is not None and isinstance(point.vector, dict):
                rows.setdefault(point.payload["person_id"], []).append(point.vector[records.VECTOR])
        return {person_id: np.array(row, dtype=np.float32) for person_id, row in rows.items()}

    async def size(self, gallery: str) -> GallerySize:
        expires, size = self._sizes.get(gallery, (0.0, GallerySize(0, 0)))
        if time.monotonic() >= expires:
            kinds = await self._facet("kind", 8, _matches("gallery", gallery))
            size = GallerySize(kinds.get("person", 0), kinds.get("face", 0))
            self._sizes[gallery] = time.monotonic() + _SIZE_TTL_S, size
        return size

    async def galleries(self) -> dict[str, GallerySize]:
        persons, faces = await asyncio.gather(
            self._facet("gallery", _ALL_GALLERIES, _matches("kind", "person")),
            self._facet("gallery", _ALL_GALLERIES, _matches("kind", "face")),
        )
        return {
            name: GallerySize(count, faces.get(name, 0)) for name, count in sorted(persons.items())
        }

    async def persons(self, gallery: str, limit: int, cursor: str | None = None) -> Page:
        offset = None
        if cursor is not None:
            try:
                offset = str(UUID(records.decode_cursor(gallery, cursor)))
            except ValueError as error:
                raise records.invalid_cursor(cursor) from error
        async with self._connected() as client:
            points, following = await client.scroll(
                self._collection,
                models.Filter(must=[_matches("gallery", gallery), _matches("kind", "person")]),
                limit=limit,
                offset=offset,
            )
        payloads = [point.payload or {} for point in points]
        ids = [payload["person_id"] for payload in payloads]
        counts = await self._facet(
            "person_id",
            max(len(ids), 1),
            _matches("gallery", gallery),
            _matches("kind", "face"),
            models.FieldCondition(key="person_id", match=models.MatchAny(any=ids)),
        )
        persons = [
            records.to_person(payload, counts.get(payload["person_id"], 0)) for payload in payloads
        ]
        return Page(
            persons, None if following is None else records.encode_cursor(gallery, following)
        )

    async def person(self, gallery: str, person_id: str) -> Person:
        record = await self._record(gallery, person_id)
        async with self._connected() as client:
            return records.to_person(record, await self._face_count(client, gallery, person_id))

    async def update_metadata(
        self, gallery: str, person_id: str, patch: Mapping[str, Any], max_bytes: int
    ) -> Person:
        for _ in range(_ATTEMPTS):
            record = await self._record(gallery, person_id)
            read = record["updated_at"]
            changed = {
                "metadata": records.patched(record["metadata"], patch, max_bytes),
                "updated_at": datetime.now(UTC).isoformat(),
            }
            # Written only over what was read: another replica may be patching the same person.
            unchanged = models.Filter(
                must=[
                    models.HasIdCondition(has_id=[_person_point(gallery, person_id)]),
                    _matches("updated_at", read),
                ]
            )
            async with self._connected() as client:
                await client.set_payload(
                    self._collection, changed, points=unchanged, ordering=_STRONG
                )
            if (record | changed) == await self._record(gallery, person_id):
                return await self.person(gallery, person_id)
        raise StoreUnavailable(f"Person {person_id!r} is being changed too often.")

    async def faces(self, gallery: str, person_id: str) -> list[Face]:
        await self._record(gallery, person_id)
        points = await self._scroll(
            gallery, _matches("person_id", person_id), _matches("kind", "face")
        )
        return records.to_faces([point.payload or {} for point in points])

    async def delete_person(self, gallery: str, person_id: str) -> int:
        await self._record(gallery, person_id)
        everything = models.Filter(
            must=[_matches("gallery", gallery), _matches("person_id", person_id)]
        )
        async with self._connected() as client:
            count = await self._face_count(client, gallery, person_id)
            await client.delete(
                self._collection, models.FilterSelector(filter=everything), ordering=_STRONG
            )
        self._sizes.pop(gallery, None)
        return count

    async def delete_face(self, gallery: str, person_id: str, face_id: str) -> None:
        await self._record(gallery, person_id)
        point = _face_point(gallery, person_id, face_id)
        async with self._connected() as client:
            if not await client.retrieve(self._collection, [point], with_payload=False):
                raise FaceNotFound(gallery, person_id, face_id)
            await client.delete(
                self._collection, models.PointIdsList(points=[point]), ordering=_STRONG
            )
        self._sizes.pop(gallery, None)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncQdrantClient]:
        """The client, once the collection is known to be there and ours."""
        try:
            if not self._ready:
                # One try for all who wait: one each would add up their timeouts.
                if self._preparing is None:
                    self._preparing = asyncio.create_task(self._prepare())
                    self._preparing.add_done_callback(self._prepared)
                await asyncio.shield(self._preparing)
            yield self._client
        except (ApiException, QdrantException) as error:
            if isinstance(error, UnexpectedResponse) and error.status_code == 404:
                self._ready = False  # the collection is gone
            raise StoreUnavailable(
                f"The Qdrant server did not answer as it should: {error}"
            ) from error

    async def _prepare(self) -> None:
        await self._create(self._client)
        await self._require_same_model(self._client)
        for field, schema in _INDEXES.items():
            await self._client.create_payload_index(self._collection, field, field_schema=schema)
        self._ready = True

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._preparing = None
        if not task.cancelled():
            task.exception()  # looked at, even where nobody waits any more

    async def _require_same_model(self, client: AsyncQdrantClient) -> None:
        info = await client.get_collection(self._collection)
        problem = records.mismatch(
            info.config.metadata or {}, self._embedder, f"collection {self._collection!r}"
        )
        if problem is not None:
            raise StoreMismatch(problem)

    async def _create(self, client: AsyncQdrantClient) -> None:
        """Create the collection unless it is there; replicas may be doing the same just now."""
        for attempt in range(_ATTEMPTS):
            if await client.collection_exists(self._collection):
                return
            try:
                await client.create_collection(
                    self._collection,
                    vectors_config={
                        records.VECTOR: models.VectorParams(
                            size=self._embedder.dimension, distance=models.Distance.DOT
                        )
                    },
                    # A graph for each gallery, none across them.
                    hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
                    quantization_config=models.TurboQuantization(
                        turbo=models.TurboQuantQuantizationConfig(
                            bits=models.TurboQuantBitSize.BITS4, memory=models.Memory.PINNED
                        )
                    ),
                    replication_factor=self._replicas,
                    write_consistency_factor=self._replicas,
                    strict_mode_config=models.StrictModeConfig(
                        enabled=True,
                        unindexed_filtering_retrieve=False,
                        unindexed_filtering_update=False,
                    ),
                    metadata=records.meta_payload(self._embedder),
                )
            except UnexpectedResponse as error:
                # 409, or for a moment 500, where another replica was faster.
                if error.status_code not in (400, 409, 500) or attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.1 * (attempt + 1))
            else:
                return

    async def _record(self, gallery: str, person_id: str) -> dict[str, Any]:
        async with self._connected() as client:
            found = await client.retrieve(self._collection, [_person_point(gallery, person_id)])
        if not found:
            raise PersonNotFound(gallery, person_id)
        return found[0].payload or {}

    async def _face_count(self, client: AsyncQdrantClient, gallery: str, person_id: str) -> int:
        result = await client.count(
            self._collection,
            models.Filter(
                must=[
                    _matches("gallery", gallery),
                    _matches("person_id", person_id),
                    _matches("kind", "face"),
                ]
            ),
            exact=True,
        )
        return result.count

    async def _facet(
        self, key: str, limit: int, *conditions: models.FieldCondition
    ) -> dict[str, int]:
        async with self._connected() as client:
            response = await client.facet(
                self._collection,
                key,
                facet_filter=models.Filter(must=list(conditions)),
                limit=limit,
                exact=True,
            )
        return {str(hit.value): hit.count for hit in response.hits}

    async def _scroll(
        self, gallery: str, *conditions: models.FieldCondition, vectors: bool = False
    ) -> list[models.Record]:
        """All points of the gallery that match."""
        matching = models.Filter(must=[_matches("gallery", gallery), *conditions])
        found: list[models.Record] = []
        offset = None
        async with self._connected() as client:
            while True:
                points, offset = await client.scroll(
                    self._collection, matching, limit=_PAGE, offset=offset, with_vectors=vectors
                )
                found += points
                if offset is None:
                    return found


def _person_point(gallery: str, person_id: str) -> str:
    return str(records.point_id(gallery, person_id))


def _face_point(gallery: str, person_id: str, face_id: str) -> str:
    return str(records.point_id(gallery, person_id, face_id))


def _matches(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
