"""What only the server engine has: a server that is not there yet, or not any more."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from httpx import Headers
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.errors import StoreMismatch, StoreUnavailable
from app.store import Embedder, Face, GallerySize, Store
from app.store.server import ServerStore, connect

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]

EMBEDDER = Embedder("test-model", 4, "a" * 64)
OTHER = Embedder("other-model", 4, "b" * 64)
ROW = np.array([[1, 0, 0, 0]], dtype=np.float32)
FACE = Face("f" * 32, "ada", (0, 0, 9, 9), 0.9, {}, "0" * 64, datetime.now(UTC))

CALLS: list[Callable[[Store], Awaitable[object]]] = [
    lambda store: store.check(),
    lambda store: store.enrol("default", "ada", [FACE], ROW, 5),
    lambda store: store.search("default", ROW, 5),
    lambda store: store.embeddings("default", ["ada"]),
    lambda store: store.size("default"),
    lambda store: store.galleries(),
    lambda store: store.persons("default", 5),
    lambda store: store.person("default", "ada"),
    lambda store: store.update_metadata("default", "ada", {}, 100),
    lambda store: store.faces("default", "ada"),
    lambda store: store.delete_person("default", "ada"),
    lambda store: store.delete_face("default", "ada", FACE.face_id),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


async def test_without_a_server_every_call_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    store = ServerStore(connect(f"http://127.0.0.1:{port}"), EMBEDDER)
    with pytest.raises(StoreUnavailable):
        await store.open()
    for call in CALLS:
        with pytest.raises(StoreUnavailable):
            await call(store)
    await store.close()


async def test_a_store_whose_opening_failed_works_once_the_server_is_there(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def refused(*_: Any, **__: Any) -> bool:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.01)
        raise ResponseHandlingException(ConnectionError("refused"))

    monkeypatch.setattr(client, "collection_exists", refused)
    store = ServerStore(client, EMBEDDER)
    with pytest.raises(StoreUnavailable, match="refused"):
        await store.open()
    results = await asyncio.gather(*(call(store) for call in CALLS), return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert tries == 2  # those who come together share a try

    monkeypatch.undo()
    assert await store.enrol("default", "ada", [FACE], ROW, 5) == 1
    await store.check()
    assert await store.size("default") == GallerySize(1, 1)


async def test_another_models_collection_is_refused_until_it_is_gone(
    client: AsyncQdrantClient,
) -> None:
    await ServerStore(client, OTHER).open()
    store = ServerStore(client, EMBEDDER)
    with pytest.raises(StoreMismatch):
        await store.open()
    for call in CALLS:
        with pytest.raises(StoreMismatch):
            await call(store)
    await client.delete_collection("faceid")
    assert await store.enrol("default", "ada", [FACE], ROW, 5) == 1
    await store.check()


async def test_a_collection_that_vanished_is_made_anew(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ServerStore(client, EMBEDDER)
    await store.open()
    await client.delete_collection("faceid")

    async def missing(*_: Any, **__: Any) -> None:
        raise UnexpectedResponse(404, "Not Found", b"", Headers())

    # As a server says it; the twin in memory raises a ValueError.
    monkeypatch.setattr(client, "get_collection", missing)
    with pytest.raises(StoreUnavailable):
        await store.check()
    monkeypatch.undo()
    await store.check()
    assert await store.enrol("default", "ada", [FACE], ROW, 5) == 1


async def test_a_caller_who_goes_away_does_not_stop_the_others(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.collection_exists

    async def slow(name: str) -> bool:
        await asyncio.sleep(0.05)
        return await real(name)

    monkeypatch.setattr(client, "collection_exists", slow)
    store = ServerStore(client, EMBEDDER)
    first, second = (asyncio.create_task(store.size("default")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == GallerySize(0, 0)
