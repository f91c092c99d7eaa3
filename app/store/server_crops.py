"""Encrypted crops of faces on a Qdrant server, in a collection of their own."""

import base64
from collections.abc import Collection
from uuid import UUID

from qdrant_client import AsyncQdrantClient

from app.store import records
from app.store.plain import PlainCollection


class ServerCrops:
    """`SealedCrops` on a Qdrant server."""

    def __init__(self, client: AsyncQdrantClient, collection: str, replicas: int) -> None:
        self._kept = PlainCollection(client, collection, replicas, "person")

    async def put(self, person: UUID, face_id: str, sealed: bytes) -> bool:
        id_ = _point(person, face_id)
        is_new = not await self._kept.payloads([id_])
        await self._kept.put(
            id_,
            {
                "person": str(person),
                "face_id": face_id,
                "sealed": base64.b64encode(sealed).decode(),
            },
        )
        return is_new

    async def get(self, person: UUID, face_ids: Collection[str]) -> dict[str, bytes]:
        found = await self._kept.payloads([_point(person, face_id) for face_id in face_ids])
        return {payload["face_id"]: base64.b64decode(payload["sealed"]) for payload in found}

    async def delete(self, person: UUID, face_ids: Collection[str] | None = None) -> None:
        if face_ids is None:
            await self._kept.delete_matching(str(person))
        else:
            await self._kept.delete([_point(person, face_id) for face_id in face_ids])

    async def persons(self) -> set[UUID]:
        return {UUID((point.payload or {})["person"]) for point in await self._kept.all(["person"])}


def _point(person: UUID, face_id: str) -> str:
    return str(records.point_id("crop", str(person), face_id))
