"""The collection of a Qdrant server: made, checked, reached.

The server may come later than this service, or go and come back empty: the collection is
created and checked by the first call that reaches the server, whichever that is.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from app.errors import StoreMismatch, StoreUnavailable
from app.store import records
from app.store.base import Embedder
from app.store.vector_index import VectorIndex

_log = logging.getLogger(__name__)

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
        index: that it gets; one that is there with another is given this one.
        may_open: False: it is not known yet whether it is to be made.

    Attributes:
        shards: that it has, once it was reached.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        name: str,
        embedder: Embedder,
        replicas: int,
        shards: int | None,
        index: VectorIndex,
        *,
        may_open: bool = True,
    ) -> None:
        self.name = name
        self._client = client
        self._embedder = embedder
        self._replicas = replicas
        self._shards = shards
        self._index = index
        self._may_open = may_open
        self.shards = 1
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
        is_new = await self._create()
        config = await self._require_same_model()
        self.shards = config.params.shard_number or 1
        if not is_new:
            await self._apply_index(config)
        for field, schema in _INDEXES.items():
            await self._client.create_payload_index(self.name, field, field_schema=schema)
        self._ready = True

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._preparing = None
        if not task.cancelled():
            task.exception()  # looked at, even where nobody waits any more

    async def _require_same_model(self) -> models.CollectionConfig:
        config = (await self._client.get_collection(self.name)).config
        problem = records.mismatch(
            config.metadata or {}, self._embedder, f"collection {self.name!r}"
        )
        if problem is not None:
            raise StoreMismatch(problem)
        return config

    async def _apply_index(self, config: models.CollectionConfig) -> None:
        changes = "; ".join(self._index.changes(config))
        if not changes:
            return
        try:
            await self._client.update_collection(
                self.name,
                hnsw_config=self._index.hnsw(),
                quantization_config=self._index.codes() or models.Disabled.DISABLED,
            )
        except UnexpectedResponse as error:
            if error.status_code != 403:
                raise
            _log.warning(
                "collection %r is not as the settings say (%s), and the key may not change it",
                self.name,
                changes,
            )
        else:
            _log.warning(
                "collection %r is changed to the settings (%s); the server rebuilds its index "
                "in the background",
                self.name,
                changes,
            )

    async def _create(self) -> bool:
        """Create the collection unless it is there; replicas may be doing the same just now."""
        for attempt in range(_ATTEMPTS):
            if await self._client.collection_exists(self.name):
                return False
            try:
                await self._client.create_collection(
                    self.name,
                    vectors_config={
                        records.VECTOR: models.VectorParams(
                            size=self._embedder.dimension, distance=models.Distance.DOT
                        )
                    },
                    hnsw_config=self._index.hnsw(),
                    quantization_config=self._index.codes(),
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
                return True
        return False


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
