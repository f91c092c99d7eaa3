"""Any number of stores of either engine, for tests of what goes from one to another."""

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from app.decision.fusion import template
from app.store import EmbeddedStore, Store
from app.store.server import ServerStore, connect
from tests.stores import EMBEDDER

URL = os.environ.get("FACEID_TEST_QDRANT_URL")
NeedsServer = pytest.mark.skipif(URL is None, reason="no server given")

Make = Callable[[str], Awaitable[Store]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Opens an empty store of the engine named: `embedded`, `memory` or `server`."""
    opened: list[Store] = []
    collections: list[tuple[AsyncQdrantClient, str]] = []

    async def make(engine: str) -> Store:
        store: Store
        if engine == "embedded":
            path = tmp_path / f"store-{len(opened)}"
            store = EmbeddedStore(path, EMBEDDER, template, durable=False)
        else:
            client = AsyncQdrantClient(":memory:")
            if engine == "server":
                assert URL is not None
                client = connect(URL, timeout_s=30)
            collections.append((client, f"faceid-test-{uuid.uuid4().hex}"))
            store = ServerStore(client, EMBEDDER, template, collection=collections[-1][1])
        await store.open()
        opened.append(store)
        return store

    yield make
    for client, collection in collections:
        await client.delete_collection(collection)
    for store in opened:
        await store.close()
