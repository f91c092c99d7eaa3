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
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from qdrant_client import AsyncQdrantClient, models

from app.errors import StoreMismatch, StoreUnavailable
from app.store import records
from app.store.base import Embedder, Fuse, Receipts, Store
from app.store.collection import translated
from app.store.crops import SealedCrops
from app.store.models import Chosen
from app.store.plain import PlainCollection
from app.store.server import ServerStore
from app.store.server_crops import ServerCrops
from app.store.server_receipts import ServerReceipts
from app.store.vector_index import DEFAULT_INDEX, VectorIndex

# A server takes 32 MiB in one request.
_CHUNK_BYTES = 8 * 2**20


class ServerModels:
    """`ModelStores` on a Qdrant server.

    Args:
        client: closed with it.
        fuse: as in `ServerStore`.
        prefix: of the names of collections and aliases.
        replicas, shards, index: as in `ServerStore`.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        fuse: Fuse,
        *,
        prefix: str = "faceid",
        replicas: int = 1,
        shards: int | None = None,
        index: VectorIndex = DEFAULT_INDEX,
    ) -> None:
        self._client = client
        self._fuse = fuse
        self._prefix = prefix
        self._replicas = replicas
        self._shards = shards
        self._index = index
        self._active, self._other = f"{prefix}-active", f"{prefix}-other"
        self.receipts: Receipts = ServerReceipts(client, f"{prefix}-erasures", replicas)
        self.crops: SealedCrops = ServerCrops(client, f"{prefix}-crops", replicas)
        self._kept = PlainCollection(client, f"{prefix}-models", replicas, "kind")
        self._configured: Embedder | None = None
        self._is_open = False
        self._models: dict[str, Embedder] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None

    async def open(self, configured: Embedder) -> Chosen:
        self._configured = configured
        chosen = await self.chosen()
        await self.finish_removals()
        return chosen

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
            model = Embedder(meta["model"], meta["dimension"], meta["weights_sha256"])
            # A collection that was removed, and made again under another name.
            self._models = {name: its for name, its in self._models.items() if its != model}
            self._models[collection] = model
        return self._models[collection]

    async def choose(self, chosen: Chosen) -> None:
        async with translated():
            aliases = await self._aliases()
            kept = {self._collection(model) for model in chosen if model is not None}
            own = {aliases[name] for name in (self._active, self._other) if name in aliases}
            for collection in own - kept:
                await self._note_dropped(await self._model(collection), collection)
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
            index=self._index,
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
            await self._kept.put(
                _chunk(model, number),
                {"kind": "chunk", "data": base64.b64encode(chunk).decode()},
            )
        # Last, so that who finds it finds all of them.
        await self._kept.put(
            _whole(model),
            {"kind": "file", "chunks": len(chunks), "sha256": hashlib.sha256(data).hexdigest()},
        )

    async def file(self, model: Embedder) -> Path | None:
        whole = await self._kept.payloads([_whole(model)])
        if not whole:
            return None
        data = b""
        for number in range(whole[0]["chunks"]):
            for chunk in await self._kept.payloads([_chunk(model, number)]):
                data += base64.b64decode(chunk["data"])
        if hashlib.sha256(data).hexdigest() != whole[0]["sha256"]:
            raise StoreUnavailable(f"The file of {model.name} is not whole on the Qdrant server.")
        try:
            return await asyncio.to_thread(self._write, f"{model.weights_sha256}.onnx", data)
        except OSError as error:
            raise StoreUnavailable(
                f"There is no room for the file of {model.name} in {tempfile.gettempdir()}: "
                f"{error.strerror}."
            ) from error

    def _write(self, name: str, data: bytes) -> Path:
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="faceid-")
        path = Path(self._files.name) / name
        for former in path.parent.iterdir():  # it was read when it was loaded
            former.unlink()
        path.write_bytes(data)
        return path

    async def remove(self, model: Embedder, store: Store | None) -> None:
        _ = store  # it has nothing to close: all share a client
        collection = self._collection(model)
        async with translated():
            if await self._client.collection_exists(collection):
                await self._client.delete_collection(collection)
        self._models.pop(collection, None)
        whole = await self._kept.payloads([_whole(model)])
        chunks = whole[0]["chunks"] if whole else 0
        await self._kept.delete(
            [_whole(model), *(_chunk(model, number) for number in range(chunks))]
        )
        await self._kept.delete([_dropped(model)])

    async def finish_removals(self) -> None:
        for point in await self._kept.matching("dropped"):
            note = point.payload or {}
            model = Embedder(**note["embedder"])
            if model not in await self.chosen():
                self._models[note["collection"]] = model
                await self.remove(model, None)

    async def _note_dropped(self, model: Embedder, collection: str) -> None:
        """No alias will tell of it any more, should its removal be cut short."""
        await self._kept.put(
            _dropped(model),
            {"kind": "dropped", "embedder": asdict(model), "collection": collection},
        )

    async def note_unequal(self) -> None:
        await self._kept.put(str(uuid4()), {"kind": "note"})

    async def unequal(self) -> frozenset[str]:
        return frozenset(str(point.id) for point in await self._kept.matching("note"))

    async def clear(self, notes: frozenset[str]) -> None:
        await self._kept.delete(notes)

    async def close(self) -> None:
        if self._files is not None:
            self._files.cleanup()
        await self._client.close()


def _alias(name: str, collection: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(alias_name=name, collection_name=collection)
    )


def _dropped(model: Embedder) -> str:
    return str(records.point_id("model dropped", model.weights_sha256))


def _whole(model: Embedder) -> str:
    return str(records.point_id("model file", model.weights_sha256))


def _chunk(model: Embedder, number: int) -> str:
    return str(records.point_id("model file", model.weights_sha256, str(number)))
