"""A collection of a Qdrant server without vectors, for what is only kept and looked up."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from app.store.collection import matches, scroll_all, translated

_STRONG = models.WriteOrdering.STRONG


class PlainCollection:
    """Made at the first write; before that, reading finds nothing.

    Every method raises `StoreUnavailable` when the server does not answer.

    Args:
        client: closed by its owner.
        replicas: copies of every point when it is made.
        index: the field by which points can be found and deleted, besides their ids.
    """

    def __init__(
        self, client: AsyncQdrantClient, name: str, replicas: int, index: str | None = None
    ) -> None:
        self.name = name
        self._client = client
        self._replicas = replicas
        self._index = index
        self._is_there = False

    async def exists(self) -> bool:
        async with translated():
            self._is_there = self._is_there or await self._client.collection_exists(self.name)
        return self._is_there

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncQdrantClient]:
        """The client, once the collection is there."""
        async with translated():
            if not await self.exists():
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
        if self._index is not None:
            await self._client.create_payload_index(
                self.name, self._index, field_schema=models.PayloadSchemaType.KEYWORD
            )
        self._is_there = True

    async def put(
        self, id_: str, payload: dict[str, object], mode: models.UpdateMode | None = None
    ) -> None:
        """
        Args:
            mode: None: whatever is there.
        """
        async with self.connected() as client:
            point = models.PointStruct(id=id_, vector={}, payload=payload)
            await client.upsert(self.name, [point], update_mode=mode, ordering=_STRONG)

    async def payloads(self, ids: Collection[str]) -> list[dict[str, Any]]:
        """Of those that are there."""
        if not await self.exists():
            return []
        async with self.connected() as client:
            found = await client.retrieve(self.name, list(ids))
        return [point.payload or {} for point in found]

    async def all(self, fields: list[str] | bool = True) -> list[models.Record]:
        return await self._scroll(None, fields)

    async def matching(self, value: str, fields: list[str] | bool = True) -> list[models.Record]:
        """Those whose indexed field is `value`."""
        return await self._scroll(self._has(value), fields)

    async def _scroll(
        self, condition: models.Filter | None, fields: list[str] | bool
    ) -> list[models.Record]:
        if not await self.exists():
            return []
        async with self.connected() as client:
            return await scroll_all(client, self.name, condition, fields)

    async def delete(self, ids: Collection[str]) -> None:
        if ids:
            await self._delete(models.PointIdsList(points=list(ids)))

    async def delete_matching(self, value: str) -> None:
        """Those whose indexed field is `value`."""
        await self._delete(models.FilterSelector(filter=self._has(value)))

    async def _delete(self, which: models.PointsSelector) -> None:
        if await self.exists():
            async with self.connected() as client:
                await client.delete(self.name, which, ordering=_STRONG)

    def _has(self, value: str) -> models.Filter:
        assert self._index is not None
        return models.Filter(must=[matches(self._index, value)])
