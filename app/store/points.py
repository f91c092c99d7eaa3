"""The points of a collection that several replicas change at the same moment.

A point is read, changed and written back on condition that its `version` is still the one that
was read; who finds another one reads again. So nothing is lost, and a point's vectors and payload
are always of the same write.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

from qdrant_client import models

from app.errors import StoreUnavailable
from app.store.base import FloatArray
from app.store.collection import QdrantCollection, matches, scroll_all

T = TypeVar("T")
Payload = dict[str, Any]
Vectors = dict[str, Any]
Fields = list[str] | bool

# Added to the payload of every point that is changed here.
VERSION_FIELDS = frozenset(("version", "former_versions"))
# Attempts to change a point that other replicas are changing, and what the pauses grow by.
_TURNS = 50
_TURN_S = 0.01
_STRONG = models.WriteOrdering.STRONG


class Points:
    """
    Args:
        collection: every method raises what its `connected` does.
    """

    def __init__(self, collection: QdrantCollection) -> None:
        self._collection = collection
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def payloads(self, ids: Collection[str], fields: Fields = True) -> list[Payload]:
        """Of those that are there."""
        async with self._collection.connected() as client:
            found = await client.retrieve(self._collection.name, list(ids), with_payload=fields)
        return [point.payload or {} for point in found]

    async def whole(self, id_: str) -> models.Record | None:
        """With its vectors."""
        async with self._collection.connected() as client:
            found = await client.retrieve(self._collection.name, [id_], with_vectors=True)
        return found[0] if found else None

    async def page(
        self,
        limit: int,
        offset: str | None,
        *conditions: models.Condition,
        fields: Fields,
        vectors: bool = False,
    ) -> tuple[list[models.Record], str | None]:
        """Those that match, and the offset of the next page."""
        async with self._collection.connected() as client:
            points, following = await client.scroll(
                self._collection.name,
                models.Filter(must=list(conditions)),
                limit=limit,
                offset=offset,
                with_payload=fields,
                with_vectors=vectors,
            )
        return points, None if following is None else str(following)

    async def matching(self, condition: models.Condition) -> list[Payload]:
        async with self._collection.connected() as client:
            found = await scroll_all(
                client, self._collection.name, models.Filter(must=[condition]), True
            )
        return [point.payload or {} for point in found]

    async def nearest(
        self,
        vector: str,
        probes: FloatArray,
        limit: int,
        condition: models.Condition,
        params: models.SearchParams,
        fields: Fields,
    ) -> list[list[models.ScoredPoint]]:
        """For each of the probes those that match, the nearest first."""
        async with self._collection.connected() as client:
            responses = await client.query_batch_points(
                self._collection.name,
                [
                    models.QueryRequest(
                        query=probe,
                        using=vector,
                        filter=models.Filter(must=[condition]),
                        params=params,
                        limit=limit,
                        with_payload=fields,
                    )
                    for probe in probes.tolist()
                ],
            )
        return [response.points for response in responses]

    async def counts(
        self, key: str, limit: int, *conditions: models.Condition
    ) -> list[tuple[Any, int]]:
        """The values of an indexed field, and how many of those that match have it."""
        async with self._collection.connected() as client:
            response = await client.facet(
                self._collection.name,
                key,
                facet_filter=models.Filter(must=list(conditions)),
                limit=limit,
                exact=True,
            )
        return [(hit.value, hit.count) for hit in response.hits]

    async def put(self, points: list[models.PointStruct]) -> None:
        """Write them, whatever is there."""
        async with self._collection.connected() as client:
            await client.upsert(self._collection.name, points, ordering=_STRONG)

    async def delete(self, id_: str, read: Payload | None = None) -> None:
        """Delete a point; with the payload that was read of it, only if nobody has written it
        since."""
        selector: models.PointsSelector = models.PointIdsList(points=[id_])
        if read is not None:
            selector = models.FilterSelector(filter=_unchanged(id_, read))
        async with self._collection.connected() as client:
            await client.delete(self._collection.name, selector, ordering=_STRONG)

    async def change(
        self,
        id_: str,
        name: str,
        change: Callable[[Payload | None], tuple[Payload, Vectors | None]],
    ) -> Payload:
        """Write what `change` makes of a point's payload, which is None of a new one.

        `change` is called again where another replica was faster. It returns the payload to
        write, and the vectors where they are not to stay as they are.

        Raises:
            StoreUnavailable: also if others were faster again and again.
        """

        async def attempt() -> Payload | None:
            before = next(iter(await self.payloads([id_])), None)
            return await self.swap(id_, before, *change(before))

        # Those of this process take turns without a race, but wait for the server together.
        lock = self._changing.setdefault(id_, asyncio.Lock())
        async with self._collection.connected(), lock:
            return await repeated(attempt, name)

    async def swap(
        self, id_: str, before: Payload | None, after: Payload, vectors: Vectors | None
    ) -> Payload | None:
        """Write `after` if the point is still as it was `before`.

        Args:
            before: None: it is not there.
            vectors: None leaves them as they are.

        Returns:
            What was written, with its version; None if nothing was.
        """
        written = after | new_version()
        mode, unchanged = models.UpdateMode.INSERT_ONLY, models.Filter()
        if before is not None:
            former = [before["version"], *before["former_versions"]]
            written["former_versions"] = former[:_TURNS]
            mode, unchanged = models.UpdateMode.UPDATE_ONLY, _unchanged(id_, before)
        async with self._collection.connected() as client:
            if vectors is None:
                await client.set_payload(
                    self._collection.name, written, unchanged, ordering=_STRONG
                )
            else:
                await client.upsert(
                    self._collection.name,
                    [models.PointStruct(id=id_, vector=vectors, payload=written)],
                    update_filter=unchanged,
                    update_mode=mode,
                    ordering=_STRONG,
                )
        # The answer does not tell. By now another replica may have written over it.
        for stored in await self.payloads([id_], sorted(VERSION_FIELDS)):
            if written["version"] in (stored["version"], *stored["former_versions"]):
                return written
        return None


async def repeated(attempt: Callable[[], Awaitable[T | None]], name: str) -> T:
    """What `attempt` returns, which is nothing as long as another replica was faster.

    Args:
        name: of what is being changed.

    Raises:
        StoreUnavailable: it was, too often.
    """
    for turn in range(1, _TURNS + 1):
        result = await attempt()
        if result:
            return result
        await asyncio.sleep(random.uniform(0, turn * _TURN_S))
    raise StoreUnavailable(f"{name} is being changed too often.")


def new_version() -> Payload:
    """The `VERSION_FIELDS` of a point that is written for the first time."""
    return {"version": uuid4().hex, "former_versions": []}


def _unchanged(id_: str, read: Payload) -> models.Filter:
    return models.Filter(
        must=[models.HasIdCondition(has_id=[id_]), matches("version", read["version"])]
    )
