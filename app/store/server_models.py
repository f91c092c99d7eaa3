"""The models of a store on a Qdrant server: a collection for each, behind an alias.

`faceid-active` is an alias of the active model's collection, `faceid-other` of the other one's; the
server moves both in one step. Which model a collection belongs to stands in its metadata. What
belongs to no model lies in collections without vectors: the models' files, so that a replica that
has only its environment comes by them, and the crops.
"""

import asyncio
import base64
import hashlib
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from app.errors import StoreMismatch, StoreUnavailable
from app.store import records
from app.store.base import Embedder, Fuse, Receipts, Store
from app.store.crops import SealedCrops
from app.store.models import Chosen
from app.store.server import ServerStore
from app.store.server_receipts import ServerReceipts

# A server takes 32 MiB in one request.
_CHUNK_BYTES = 8 * 2**20
_PAGE = 1000
_STRONG = models.WriteOrdering.STRONG


class _Points:
    """A collection without vectors, made at its first use."""

    def __init__(self, client: AsyncQdrantClient, name: str, replicas: int, index: str) -> None:
        self.name = name
        self._client = client
        self._replicas = replicas
        self._index = index
        self._is_there = False

    async def exist(self) -> bool:
        async with translated():
            self._is_there = self._is_there or await self._client.collection_exists(self.name)
        return self._is_there

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncQdrantClient]:
        async with translated():
            if not await self.exist():
                await self._create()
            try:
                yield self._client
            except UnexpectedResponse as error:
                if error.status_code == 404:
                    self._is_there = False
                raise

    async def _create(self) -> None:
        try:
            await self._client.create_collection(
                self.name,
                vectors_config={},
                replication_factor=self._replicas,
                write_consistency_factor=self._replicas,
            )
        except UnexpectedResponse:
            # Another replica may have been faster.
            if not await self._client.collection_exists(self.name):
                raise
        await self._client.create_payload_index(
            self.name, self._index, field_schema=models.PayloadSchemaType.KEYWORD
        )
        self._is_there = True

    async def upsert(self, id_: str, payload: dict[str, object]) -> None:
        async with self.connected() as client:
            point = models.PointStruct(id=id_, vector={}, payload=payload)
            await client.upsert(self.name, [point], ordering=_STRONG)

    async def retrieve(self, ids: Collection[str]) -> list[models.Record]:
        if not await self.exist():
            return []
        async with self.connected() as client:
            return await client.retrieve(self.name, list(ids))

    async def matching(self, value: str | None, fields: list[str]) -> list[models.Record]:
        """Those whose indexed field is `value`; None: all."""
        found: list[models.Record] = []
        if not await self.exist():
            return found
        offset = None
        condition = None if value is None else models.Filter(must=[self._is(value)])
        while True:
            async with self.connected() as client:
                points, offset = await client.scroll(
                    self.name, condition, limit=_PAGE, offset=offset, with_payload=fields
                )
            found += points
            if offset is None:
                return found

    async def delete(self, which: Collection[str] | None, value: str = "") -> None:
        """By ids; None: those whose indexed field is `value`."""
        if not await self.exist():
            return
        selector: models.PointsSelector = models.PointIdsList(points=list(which or ()))
        if which is None:
            selector = models.FilterSelector(filter=models.Filter(must=[self._is(value)]))
        elif not which:
            return
        async with self.connected() as client:
            await client.delete(self.name, selector, ordering=_STRONG)

    def _is(self, value: str) -> models.FieldCondition:
        return models.FieldCondition(key=self._index, match=models.MatchValue(value=value))


class ServerCrops:
    """`SealedCrops` on a Qdrant server."""

    def __init__(self, client: AsyncQdrantClient, collection: str, replicas: int) -> None:
        self._points = _Points(client, collection, replicas, "person")

    async def put(self, person: UUID, face_id: str, sealed: bytes) -> bool:
        id_ = _point(person, face_id)
        is_new = not await self._points.retrieve([id_])
        await self._points.upsert(
            id_,
            {
                "person": str(person),
                "face_id": face_id,
                "sealed": base64.b64encode(sealed).decode(),
            },
        )
        return is_new

    async def get(self, person: UUID, face_ids: Collection[str]) -> dict[str, bytes]:
        found = await self._points.retrieve([_point(person, face_id) for face_id in face_ids])
        payloads = [point.payload or {} for point in found]
        return {payload["face_id"]: base64.b64decode(payload["sealed"]) for payload in payloads}

    async def delete(self, person: UUID, face_ids: Collection[str] | None = None) -> None:
        ids = None if face_ids is None else [_point(person, face_id) for face_id in face_ids]
        await self._points.delete(ids, str(person))

    async def persons(self) -> set[UUID]:
        found = await self._points.matching(None, ["person"])
        return {UUID((point.payload or {})["person"]) for point in found}


class ServerModels:
    """`ModelStores` on a Qdrant server.

    Args:
        client: closed with it.
        fuse: as in `ServerStore`.
        prefix: of the names of collections and aliases.
        replicas, shards: as in `ServerStore`.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        fuse: Fuse,
        *,
        prefix: str = "faceid",
        replicas: int = 1,
        shards: int | None = None,
    ) -> None:
        self._client = client
        self._fuse = fuse
        self._prefix = prefix
        self._replicas = replicas
        self._shards = shards
        self._active, self._other = f"{prefix}-active", f"{prefix}-other"
        self.receipts: Receipts = ServerReceipts(client, f"{prefix}-erasures", replicas)
        self.crops: SealedCrops = ServerCrops(client, f"{prefix}-crops", replicas)
        self._points = _Points(client, f"{prefix}-models", replicas, "kind")
        self._configured: Embedder | None = None
        self._is_open = False
        self._models: dict[str, Embedder] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None

    async def open(self, configured: Embedder) -> Chosen:
        self._configured = configured
        return await self.chosen()

    async def chosen(self) -> Chosen:
        async with translated():
            aliases = await self._aliases()
            if self._active not in aliases:
                aliases = await self._first()
            active = await self._model(aliases[self._active])
            other = aliases.get(self._other)
            chosen = Chosen(active, None if other is None else await self._model(other))
        self._is_open = True
        return chosen

    async def _first(self) -> dict[str, str]:
        """Nobody has chosen yet: it is the configured one."""
        assert self._configured is not None, "not open"
        # A collection of this name is of a time before the aliases, and holds all that there is.
        collection = self._prefix
        if not await self._client.collection_exists(collection):
            collection = self._name(self._configured)
        self._is_open = True
        await self._store(self._configured, collection).open()
        await self._client.update_collection_aliases([_alias(self._active, collection)])
        return await self._aliases()

    async def _aliases(self) -> dict[str, str]:
        found = (await self._client.get_aliases()).aliases
        return {alias.alias_name: alias.collection_name for alias in found}

    async def _model(self, collection: str) -> Embedder:
        if collection not in self._models:
            meta = (await self._client.get_collection(collection)).config.metadata or {}
            if meta.get("format") != records.FORMAT:
                raise StoreMismatch(records.other_format(f"collection {collection!r}"))
            self._models[collection] = Embedder(
                meta["model"], meta["dimension"], meta["weights_sha256"]
            )
        return self._models[collection]

    async def choose(self, chosen: Chosen) -> None:
        async with translated():
            aliases = await self._aliases()
            operations: list[models.AliasOperations] = [
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
                for name in (self._active, self._other)
                if name in aliases
            ]
            operations.append(_alias(self._active, self._collection(chosen.active)))
            if chosen.other is not None:
                operations.append(_alias(self._other, self._collection(chosen.other)))
            await self._client.update_collection_aliases(operations)

    def store(self, model: Embedder) -> Store:
        return self._store(model, self._collection(model))

    def _store(self, model: Embedder, collection: str) -> Store:
        return ServerStore(
            self._client,
            model,
            self._fuse,
            collection=collection,
            replicas=self._replicas,
            shards=self._shards,
            receipts=self.receipts,
            # Before the server has said which models there are, no collection is made for one.
            may_open=self._is_open,
        )

    def _collection(self, model: Embedder) -> str:
        for collection, its in self._models.items():
            if its == model:
                return collection
        return self._name(model)

    def _name(self, model: Embedder) -> str:
        return f"{self._prefix}-{model.weights_sha256[:12]}"

    async def keep(self, model: Embedder, data: bytes) -> None:
        chunks = [data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES)]
        for number, chunk in enumerate(chunks):
            await self._points.upsert(
                _chunk(model, number),
                {"kind": "chunk", "data": base64.b64encode(chunk).decode()},
            )
        # Last, so that who finds it finds all of them.
        await self._points.upsert(
            _whole(model),
            {"kind": "file", "chunks": len(chunks), "sha256": hashlib.sha256(data).hexdigest()},
        )

    async def file(self, model: Embedder) -> Path | None:
        whole = await self._points.retrieve([_whole(model)])
        if not whole:
            return None
        payload = whole[0].payload or {}
        data = b""
        for number in range(payload["chunks"]):
            for chunk in await self._points.retrieve([_chunk(model, number)]):
                data += base64.b64decode((chunk.payload or {})["data"])
        if hashlib.sha256(data).hexdigest() != payload["sha256"]:
            raise StoreUnavailable(f"The file of {model.name} is not whole on the Qdrant server.")
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="faceid-")
        path = Path(self._files.name) / f"{model.weights_sha256}.onnx"
        await asyncio.to_thread(path.write_bytes, data)
        return path

    async def remove(self, model: Embedder, store: Store | None) -> None:
        _ = store  # it has nothing to close: all share a client
        collection = self._collection(model)
        async with translated():
            if await self._client.collection_exists(collection):
                await self._client.delete_collection(collection)
        self._models.pop(collection, None)
        whole = await self._points.retrieve([_whole(model)])
        chunks = (whole[0].payload or {})["chunks"] if whole else 0
        await self._points.delete(
            [_whole(model), *(_chunk(model, number) for number in range(chunks))]
        )

    async def note_unequal(self) -> None:
        await self._points.upsert(str(uuid4()), {"kind": "note"})

    async def unequal(self) -> frozenset[str]:
        return frozenset(str(point.id) for point in await self._points.matching("note", ["kind"]))

    async def clear(self, notes: frozenset[str]) -> None:
        await self._points.delete(notes)

    async def close(self) -> None:
        if self._files is not None:
            self._files.cleanup()
        await self._client.close()


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    try:
        yield
    except (ApiException, QdrantException) as error:
        raise StoreUnavailable(f"The Qdrant server did not answer as it should: {error}") from error


def _alias(name: str, collection: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(alias_name=name, collection_name=collection)
    )


def _point(person: UUID, face_id: str) -> str:
    return str(records.point_id("crop", str(person), face_id))


def _whole(model: Embedder) -> str:
    return str(records.point_id("model file", model.weights_sha256))


def _chunk(model: Embedder, number: int) -> str:
    return str(records.point_id("model file", model.weights_sha256, str(number)))
