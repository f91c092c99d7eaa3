"""Receipts of erasures on a Qdrant server.

They have a collection of their own, so that a snapshot of the persons' collection can be restored
without losing what was erased since.
"""

import secrets

from qdrant_client import AsyncQdrantClient, models

from app.store import records
from app.store.base import Receipt
from app.store.plain import PlainCollection
from app.store.receipts import in_last_state, to_payload, to_receipt

_KEY = str(records.point_id("key of the receipts"))


class ServerReceipts:
    """`Receipts`, shared by all replicas of the service.

    Args:
        client: closed by its owner.
        collection: created at the first use.
        replicas: copies of every point when it is created.
    """

    def __init__(self, client: AsyncQdrantClient, collection: str, replicas: int) -> None:
        self._kept = PlainCollection(client, collection, replicas)

    async def key(self) -> bytes:
        # Of several replicas that make one, the first wins.
        made: dict[str, object] = {"kind": "key", "key": secrets.token_hex(32)}
        await self._kept.put(_KEY, made, models.UpdateMode.INSERT_ONLY)
        (stored,) = await self._kept.payloads([_KEY])
        return bytes.fromhex(stored["key"])

    async def put(self, receipt: Receipt) -> None:
        await self._kept.put(receipt.receipt_id, {"kind": "receipt"} | to_payload(receipt))

    async def all(self) -> list[Receipt]:
        payloads = [dict(point.payload or {}) for point in await self._kept.all()]
        return in_last_state(
            to_receipt(payload) for payload in payloads if payload.pop("kind", None) == "receipt"
        )
