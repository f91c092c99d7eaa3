"""Receipts of erasures on a Qdrant server.

They have a collection of their own, so that a snapshot of the persons' collection can be restored
without losing what was erased since.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from app.errors import StoreUnavailable
from app.store import records
from app.store.base import Receipt
from app.store.receipts import in_last_state, to_payload, to_receipt

_KEY = str(records.point_id("key of the receipts"))
_PAGE = 1000
_STRONG = models.WriteOrdering.STRONG


class ServerReceipts:
    """`Receipts`, shared by all replicas of the service.

    Args:
        client: closed by its owner.
        collection: created at the first use.
        replicas: copies of every point when it is created.
    """

    def __init__(self, client: AsyncQdrantClient, collection: str, replicas: int) -> None:
        self._client = client
        self._collection = collection
        self._replicas = replicas

    async def key(self) -> bytes:
        async with self._translated():
            await self._create()
            # Of several replicas that make one, the first wins.
            made = models.PointStruct(
                id=_KEY, vector={}, payload={"kind": "key", "key": secrets.token_hex(32)}
            )
            await self._client.upsert(
                self._collection,
                [made],
                update_mode=models.UpdateMode.INSERT_ONLY,
                ordering=_STRONG,
            )
            (stored,) = await self._client.retrieve(self._collection, [_KEY])
        return bytes.fromhex((stored.payload or {})["key"])

    async def put(self, receipt: Receipt) -> None:
        payload = {"kind": "receipt"} | to_payload(receipt)
        point = models.PointStruct(id=receipt.receipt_id, vector={}, payload=payload)
        async with self._translated():
            await self._create()
            await self._client.upsert(self._collection, [point], ordering=_STRONG)

    async def all(self) -> list[Receipt]:
        found: list[Receipt] = []
        offset = None
        async with self._translated():
            if not await self._client.collection_exists(self._collection):
                return []
            while True:
                points, offset = await self._client.scroll(
                    self._collection, limit=_PAGE, offset=offset, with_payload=True
                )
                payloads = [dict(point.payload or {}) for point in points]
                found += [
                    to_receipt(payload)
                    for payload in payloads
                    if payload.pop("kind", None) == "receipt"
                ]
                if offset is None:
                    return in_last_state(found)

    async def _create(self) -> None:
        if await self._client.collection_exists(self._collection):
            return
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config={},
                replication_factor=self._replicas,
                write_consistency_factor=self._replicas,
            )
        except UnexpectedResponse:
            # Another replica may have been faster.
            if not await self._client.collection_exists(self._collection):
                raise

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (ApiException, QdrantException) as error:
            raise StoreUnavailable(
                f"The Qdrant server did not answer as it should: {error}"
            ) from error
