"""Stores of either engine, for what has to hold whichever is behind it.

The real server takes part where `FACEID_TEST_QDRANT_URL` names one.
"""

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from app.decision.fusion import template
from app.store import EmbeddedStore, Embedder, FloatArray, GallerySize, Person, Store
from app.store.server import ServerStore, connect
from tests.stores import DIMENSION, EMBEDDER, unit

URL = os.environ.get("FACEID_TEST_QDRANT_URL")
NeedsServer = pytest.mark.skipif(URL is None, reason="no server given")
ENGINES = ["embedded", "memory", pytest.param("server", marks=NeedsServer)]

Open = Callable[[Embedder], Awaitable[Store]]
Make = Callable[[str], Awaitable[Store]]


def client_of(engine: str) -> AsyncQdrantClient:
    if engine == "memory":
        return AsyncQdrantClient(":memory:")
    assert URL is not None
    return connect(URL, timeout_s=30)


@asynccontextmanager
async def _embedded(path: Path) -> AsyncIterator[Open]:
    stores: list[Store] = []

    async def reopen(embedder: Embedder) -> Store:
        for store in stores:
            await store.close()
        store = EmbeddedStore(path, embedder, template)
        stores.append(store)
        await store.open()
        return store

    yield reopen
    for store in stores:
        await store.close()


@asynccontextmanager
async def _server(client: AsyncQdrantClient) -> AsyncIterator[Open]:
    collection = f"faceid-test-{uuid.uuid4().hex}"

    async def reopen(embedder: Embedder) -> Store:
        store = ServerStore(client, embedder, template, collection=collection)
        await store.open()
        return store

    yield reopen
    await client.delete_collection(collection)
    await client.close()


@pytest.fixture(params=ENGINES)
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the same store again, for another embedder where that is wanted."""
    if request.param == "embedded":
        engine = _embedded(tmp_path / "store")
    else:
        engine = _server(client_of(request.param))
    async with engine as opened:
        yield opened


@pytest.fixture
async def store(reopen: Open) -> Store:
    return await reopen(EMBEDDER)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Opens an empty store of the engine named; any number of them."""
    opened: list[Store] = []
    collections: list[tuple[AsyncQdrantClient, str]] = []

    async def make(engine: str) -> Store:
        store: Store
        if engine == "embedded":
            path = tmp_path / f"store-{len(opened)}"
            store = EmbeddedStore(path, EMBEDDER, template, durable=False)
        else:
            collections.append((client_of(engine), f"faceid-test-{uuid.uuid4().hex}"))
            client, collection = collections[-1]
            store = ServerStore(client, EMBEDDER, template, collection=collection)
        await store.open()
        opened.append(store)
        return store

    yield make
    for client, collection in collections:
        await client.delete_collection(collection)
    for store in opened:
        await store.close()


async def listed(store: Store, limit: int, gallery: str = "default") -> list[Person]:
    persons: list[Person] = []
    cursor = None
    while True:
        page = await store.persons(gallery, limit, cursor)
        assert len(page.persons) <= limit
        persons += page.persons
        cursor = page.cursor
        if cursor is None:
            return persons


async def templates_of(store: Store, limit: int = 1000) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    cursor = None
    while True:
        page = await store.templates("default", limit, cursor)
        assert page.templates.dtype == np.float32
        assert page.templates.shape == (len(page.person_ids), DIMENSION)
        assert len(page.person_ids) <= limit
        found |= dict(zip(page.person_ids, page.templates, strict=True))
        cursor = page.cursor
        if cursor is None:
            return found


async def assert_consistent(store: Store) -> None:
    """Every template is that of the stored faces, everywhere it can be seen."""
    templates = await templates_of(store)
    persons = await listed(store, 1000)
    kept = await store.embeddings("default", [person.person_id for person in persons])
    assert set(templates) == set(kept) == {p.person_id for p in persons if p.face_count}
    for person in persons:
        rows = kept.get(person.person_id, unit(0))
        faces = await store.faces("default", person.person_id)
        assert person.face_count == len(rows) == len(faces)
        if len(rows):
            np.testing.assert_allclose(templates[person.person_id], template(rows), atol=1e-6)
    size = GallerySize(len(persons), sum(person.face_count for person in persons))
    assert await store.size("default") == size
    if templates:
        probes = np.stack(list(templates.values()))
        found = await store.search("default", probes, 1)
        assert [nearest.person_id for (nearest,) in found] == list(templates)
