"""The collection of a Qdrant server: made, checked, reached.

The server may come later than this service, or go and come back empty: the collection is
created and checked by the first call that reaches the server, whichever that is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from app.errors import StoreMismatch, StoreUnavailable
from app.store import records
from app.store.base import Embedder

_ATTEMPTS = 4
_PAGE = 1000
_KEYWORD = models.KeywordIndexType.KEYWORD
_INDEXES: dict[str, models.KeywordIndexParams | models.IntegerIndexParams] = {
    "gallery": models.KeywordIndexParams(type=_KEYWORD, is_tenant=True),
    "kind": models.KeywordIndexParams(type=_KEYWORD),
    "face_count": models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=True, range=False
    ),
}


class QdrantCollection:
    """
    Args:
        client: whose errors become `StoreUnavailable`.
        name: of the collection, created where missing.
        embedder: whose embeddings it must hold.
        replicas: copies of every point when it is created.
        shards: over which its points are spread then; None: as the server does by itself.
        may_open: False: it is not known yet whether it is to be made.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        name: str,
        embedder: Embedder,
        replicas: int,
        shards: int | None,
        *,
        may_open: bool = True,
    ) -> None:
        self.name = name
        self._client = client
        self._embedder = embedder
        self._replicas = replicas
        self._shards = shards
        self._may_open = may_open
        self._ready = False
        self._preparing: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """
        Raises:
            StoreUnavailable, StoreMismatch.
        """
        async with self.connected():
            await self._require_same_model()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncQdrantClient]:
        """The client, once the collection is known to be there and ours."""
        async with translated():
            try:
                if not self._ready:
                    # One try for all who wait: one each would add up their timeouts.
                    if self._preparing is None:
                        self._preparing = asyncio.create_task(self._prepare())
                        self._preparing.add_done_callback(self._prepared)
                    await asyncio.shield(self._preparing)
                yield self._client
            except UnexpectedResponse as error:
                if error.status_code == 404:
                    self._ready = False  # the collection is gone
                raise

    async def _prepare(self) -> None:
        if not self._may_open:
            raise StoreUnavailable("The Qdrant server has not said yet which models there are.")
        await self._create()
        await self._require_same_model()
        for field, schema in _INDEXES.items():
            await self._client.create_payload_index(self.name, field, field_schema=schema)
        self._ready = True

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._preparing = None
        if not task.cancelled():
            task.exception()  # looked at, even where nobody waits any more

    async def _require_same_model(self) -> None:
        info = await self._client.get_collection(self.name)
        problem = records.mismatch(
            info.config.metadata or {}, self._embedder, f"collection {self.name!r}"
        )
        if problem is not None:
            raise StoreMismatch(problem)

    async def _create(self) -> None:
        """Create the collection unless it is there; replicas may be doing the same just now."""
        for attempt in range(_ATTEMPTS):
            if await self._client.collection_exists(self.name):
                return
            try:
                await self._client.create_collection(
                    self.name,
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
                    shard_number=self._shards,
                    replication_factor=self._replicas,
                    write_consistency_factor=self._replicas,
                    strict_mode_config=models.StrictModeConfig(
                        enabled=True,
                        # Updates are filtered by one id and its `version`; an index on that
                        # would be half of the memory that a person takes.
                        unindexed_filtering_retrieve=False,
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


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """
    Raises:
        StoreUnavailable: the client raised that the server does not answer, or not as it should.
    """
    try:
        yield
    except (ApiException, QdrantException) as error:
        raise StoreUnavailable(f"The Qdrant server did not answer as it should: {error}") from error


def matches(key: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


async def scroll_all(
    client: AsyncQdrantClient, name: str, condition: models.Filter | None, fields: list[str] | bool
) -> list[models.Record]:
    """Every point of a collection that matches, without vectors."""
    found: list[models.Record] = []
    offset = None
    while True:
        points, offset = await client.scroll(
            name, condition, limit=_PAGE, offset=offset, with_payload=fields
        )
        found += points
        if offset is None:
            return found
