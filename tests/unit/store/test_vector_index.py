"""What the settings of graph and codes make of a server's collection."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import Headers
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from app.decision.fusion import template
from app.main import stores_of
from app.settings import StoreSettings
from app.store import server
from app.store.server import ServerStore
from app.store.vector_index import VectorIndex
from tests.stores import EMBEDDER, face, unit

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]

BEFORE = VectorIndex()
AFTER = VectorIndex(m=32, quantization="disk")


class Server:
    """The twin in memory, which here keeps what it is told of graph and codes."""

    def __init__(self, client: AsyncQdrantClient, patch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.config: dict[str, Any] = {}
        self.shards: int | None = None
        self.updates = 0
        self.refusal: int | None = None
        self._create, self._get = client.create_collection, client.get_collection
        for method in ("create_collection", "update_collection", "get_collection"):
            patch.setattr(client, method, getattr(self, method))

    async def create_collection(self, name: str, **wanted: Any) -> bool:
        self._keep(wanted)
        self.shards = wanted["shard_number"]
        return await self._create(name, **wanted)

    async def update_collection(self, _: str, **wanted: Any) -> bool:
        if self.refusal is not None:
            raise UnexpectedResponse(self.refusal, "", b"", Headers())
        self.updates += 1
        self._keep(wanted)
        return True

    async def get_collection(self, name: str) -> models.CollectionInfo:
        info = await self._get(name)
        params = info.config.params.model_copy(update={"shard_number": self.shards})
        config = info.config.model_copy(update=self.config | {"params": params})
        return info.model_copy(update={"config": config})

    def _keep(self, wanted: dict[str, Any]) -> None:
        codes = wanted["quantization_config"]
        self.config = {
            "hnsw_config": models.HnswConfig(
                ef_construct=100,
                full_scan_threshold=10000,
                **wanted["hnsw_config"].model_dump(include={"m", "payload_m"}),
            ),
            "quantization_config": None if codes == models.Disabled.DISABLED else codes,
        }


@pytest.fixture
async def server_side(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    client = AsyncQdrantClient(":memory:")
    yield Server(client, monkeypatch)
    await client.close()


async def test_a_collection_is_made_with_the_graph_and_codes_of_the_settings(
    server_side: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "connect", lambda *_, **__: server_side.client)
    stores = stores_of(StoreSettings(url="http://server", hnsw_m=8, quantization="disk"))
    await stores.open(EMBEDDER)
    graph, codes = server_side.config["hnsw_config"], server_side.config["quantization_config"]
    assert (graph.m, graph.payload_m) == (0, 8)
    assert codes.turbo.memory == models.Memory.COLD
    assert codes.turbo.bits == models.TurboQuantBitSize.BITS4


def test_the_settings_have_the_defaults_that_were_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[VectorIndex] = []
    monkeypatch.setattr(server, "connect", lambda *_, **__: None)
    monkeypatch.setattr(
        "app.store.server_models.ServerModels", lambda *_, index, **__: made.append(index)
    )
    stores_of(StoreSettings(url="http://server"))
    assert made == [VectorIndex()]


@pytest.mark.parametrize(
    "after", [AFTER, VectorIndex(m=0), VectorIndex(quantization="off")], ids=repr
)
async def test_a_collection_that_is_there_is_brought_up_to_changed_settings(
    server_side: Server, after: VectorIndex, caplog: pytest.LogCaptureFixture
) -> None:
    await ServerStore(server_side.client, EMBEDDER, template, index=BEFORE).open()
    for _ in range(2):  # again, and there is nothing left to change
        await ServerStore(server_side.client, EMBEDDER, template, index=after).open()
        assert server_side.updates == 1
        assert server_side.config["hnsw_config"].payload_m == after.m
        assert server_side.config["quantization_config"] == after.codes()
    (line,) = caplog.messages
    assert "rebuilds its index" in line
    await ServerStore(server_side.client, EMBEDDER, template, index=BEFORE).open()
    assert server_side.config["quantization_config"] == BEFORE.codes()


async def test_a_key_that_may_not_change_the_collection_is_told_of_in_the_log(
    server_side: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await ServerStore(server_side.client, EMBEDDER, template, index=BEFORE).open()
    server_side.refusal = 403
    store = ServerStore(server_side.client, EMBEDDER, template, index=AFTER)
    with caplog.at_level(logging.WARNING):
        await store.open()
    (line,) = caplog.messages
    assert "links 16 -> 32" in line
    assert "codes bits4, pinned -> bits4, cold" in line
    assert await store.enrol("default", "ada", [face("ada")], unit(1), 5) == 1


async def test_a_search_looks_as_far_as_the_settings_say(
    server_side: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[models.SearchParams] = []
    real = server_side.client.query_batch_points

    async def query(name: str, requests: list[models.QueryRequest]) -> Any:
        asked.extend(request.params for request in requests if request.params is not None)
        return await real(name, requests)

    monkeypatch.setattr(server_side.client, "query_batch_points", query)
    for index in (
        VectorIndex(min_ef=300, oversampling=8.0),
        VectorIndex(min_ef=1, persons_per_ef=1),
    ):
        store = ServerStore(server_side.client, EMBEDDER, template, index=index, shards=2)
        for number in range(6):
            await store.enrol("default", f"p{number}", [face(f"p{number}")], unit(1, number), 5)
        await store.search("default", unit(1), 20)
    least, by_size = asked
    assert least.hnsw_ef == 300
    assert by_size.hnsw_ef == 3, "of six persons in two shards"
    assert least.quantization is not None
    assert least.quantization.oversampling == 8.0
