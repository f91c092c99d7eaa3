"""What only the server engine has: a server that is not there yet, or not any more."""

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from httpx import Headers
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from app.decision.fusion import template
from app.errors import PersonNotFound, StoreMismatch, StoreUnavailable
from app.main import stores_of
from app.metrics import Metrics
from app.services.erasure import Eraser
from app.settings import StoreSettings
from app.store import Consent, Embedder, Face, GallerySize, Store, Targets, server
from app.store.server import ServerStore, connect
from tests.stores import writer_of

pytestmark = pytest.mark.anyio

URL = os.environ.get("FACEID_TEST_QDRANT_URL")
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
    lambda store: store.targets("default"),
    lambda store: store.set_targets("default", Targets(0.01)),
    lambda store: store.templates("default", 5),
    lambda store: store.persons("default", 5),
    lambda store: store.person("default", "ada"),
    lambda store: store.update_person("default", "ada", {}, 100),
    lambda store: store.faces("default", "ada"),
    lambda store: store.delete_person("default", "ada"),
    lambda store: store.export("default", "ada"),
    lambda store: store.delete_face("default", "ada", FACE.face_id),
]


@pytest.fixture
async def client() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


async def test_without_a_server_every_call_says_so() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    store = ServerStore(connect(f"http://127.0.0.1:{port}"), EMBEDDER, template)
    with pytest.raises(StoreUnavailable):
        await store.open()
    for call in (*CALLS, lambda store: store.receipts.key(), lambda store: store.receipts.all()):
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
    store = ServerStore(client, EMBEDDER, template)
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
    await ServerStore(client, OTHER, template).open()
    store = ServerStore(client, EMBEDDER, template)
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
    store = ServerStore(client, EMBEDDER, template)
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


async def test_copies_and_shards_are_those_of_the_settings(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, dict[str, Any]] = {}
    real = client.create_collection

    async def create(name: str, **wanted: Any) -> bool:
        made[name] = wanted
        return await real(name, **wanted)

    monkeypatch.setattr(client, "create_collection", create)
    monkeypatch.setattr(server, "connect", lambda *_, **__: client)
    settings = StoreSettings(url="http://server", replication_factor=2, shard_number=6)
    stores = stores_of(settings)
    await stores.open(EMBEDDER)
    await stores.store(EMBEDDER).open()
    await stores.receipts.key()
    await stores.keep(EMBEDDER, b"a model")
    faces = f"faceid-{EMBEDDER.weights_sha256[:12]}"
    assert made[faces]["shard_number"] == 6
    for wanted in made.values():  # those of the receipts and of the models too
        assert wanted["replication_factor"] == wanted["write_consistency_factor"] == 2
    assert set(made) == {faces, "faceid-erasures", "faceid-models"}


async def test_a_caller_who_goes_away_does_not_stop_the_others(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.collection_exists

    async def slow(name: str) -> bool:
        await asyncio.sleep(0.05)
        return await real(name)

    monkeypatch.setattr(client, "collection_exists", slow)
    store = ServerStore(client, EMBEDDER, template)
    first, second = (asyncio.create_task(store.size("default")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == GallerySize(0, 0)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("server", marks=pytest.mark.skipif(URL is None, reason="no server given")),
    ]
)
async def replicas(
    request: pytest.FixtureRequest, client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[ServerStore]]:
    """Four stores of one collection."""
    if request.param == "server":
        assert URL is not None
        client = connect(URL, timeout_s=30)
    else:
        # The twin never lets go of the event loop; a server's client does, for as long as it takes.
        chance = random.Random(0)
        for name in ("retrieve", "upsert", "set_payload"):
            monkeypatch.setattr(client, name, yielding(getattr(client, name), chance))
    collection = f"faceid-test-{uuid.uuid4().hex}"
    stores = [ServerStore(client, EMBEDDER, template, collection=collection) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    yield stores
    await client.delete_collection(collection)
    if request.param == "server":
        await client.close()


def yielding(
    call: Callable[..., Awaitable[Any]], chance: random.Random
) -> Callable[..., Awaitable[Any]]:
    async def late(*arguments: Any, **named: Any) -> Any:
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        return await call(*arguments, **named)

    return late


async def test_replicas_that_change_one_person_together_lose_nothing(
    replicas: list[ServerStore],
) -> None:
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0].astype(np.float32)
    faces = [replace(FACE, face_id=str(number)) for number in range(4)]
    for turn in range(20):
        person_id = f"person-{turn}"
        counts = await asyncio.gather(
            *(
                store.enrol("default", person_id, [face], row[None], 4)
                for store, face, row in zip(replicas, faces, rows, strict=True)
            )
        )
        assert sorted(counts) == [1, 2, 3, 4]
        await asyncio.gather(
            replicas[0].delete_face("default", person_id, "2"),
            replicas[1].update_person("default", person_id, {"a": 1}, 1000),
            replicas[2].delete_face("default", person_id, "3"),
            replicas[3].update_person("default", person_id, {"b": 2}, 1000),
        )
        assert (await replicas[0].person("default", person_id)).metadata == {"a": 1, "b": 2}
        kept = (await replicas[1].embeddings("default", [person_id]))[person_id]
        assert {tuple(row) for row in kept} == {tuple(row) for row in rows[:2]}
        (found,) = await replicas[2].search("default", template(kept)[None], 1)
        assert found[0].similarity == pytest.approx(1.0, abs=1e-4)
    templates = (await replicas[3].templates("default", 100)).templates
    np.testing.assert_allclose(templates, np.tile(template(rows[:2]), (20, 1)), atol=1e-6)


async def test_a_person_deleted_while_being_enrolled_keeps_only_what_comes_after(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (ServerStore(client, EMBEDDER, template) for _ in range(2))
    await store.enrol("default", "ada", [FACE], ROW, 5)
    real = client.upsert

    async def late(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        await other.delete_person("default", "ada")
        return await real(*arguments, **named)

    monkeypatch.setattr(client, "upsert", late)
    again = replace(FACE, face_id="e" * 32)
    assert await store.enrol("default", "ada", [again], ROW, 5) == 1
    assert await store.faces("default", "ada") == [again]
    assert await store.size("default") == GallerySize(1, 1)


async def test_who_is_given_more_time_meanwhile_is_not_deleted_as_expired(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (ServerStore(client, EMBEDDER, template) for _ in range(2))
    await store.enrol("default", "ada", [FACE], ROW, 5)
    await store.update_person("default", "ada", {}, 100, Consent(expires_at=datetime.now(UTC)))
    for method in ("set_payload", "delete"):  # before it is claimed, and after
        real = getattr(client, method)

        async def late(*arguments: Any, _real: Any = real, **named: Any) -> Any:
            monkeypatch.undo()
            await other.update_person("default", "ada", {}, 100, Consent(expires_at=None))
            return await _real(*arguments, **named)

        monkeypatch.setattr(client, method, late)
        with pytest.raises(PersonNotFound):
            await store.delete_person("default", "ada", expired_by=datetime.now(UTC))
        assert (await store.person("default", "ada")).expires_at is None
        monkeypatch.setattr(server, "_CLAIMED_S", -1.0)  # that of the try before is over
        await store.update_person("default", "ada", {}, 100, Consent(expires_at=datetime.now(UTC)))
    assert await store.delete_person("default", "ada", expired_by=datetime.now(UTC)) == 1


async def test_replicas_that_purge_together_erase_everybody_once(
    replicas: list[ServerStore],
) -> None:
    over = Consent(expires_at=datetime.now(UTC))
    for number in range(12):
        await replicas[0].enrol("default", f"person-{number}", [FACE], ROW, 5)
        await replicas[0].update_person("default", f"person-{number}", {}, 100, over)
    await replicas[0].enrol("default", "stays", [FACE], ROW, 5)
    done = await asyncio.gather(
        *(Eraser(writer_of(store), Metrics()).purge() for store in replicas)
    )
    assert sum(purge.persons for purge in done) == 12
    receipts = await replicas[1].receipts.all()
    erased = [receipt for receipt in receipts if receipt.state == "erased"]
    assert len({receipt.person_digest for receipt in erased}) == len(erased) == 12
    assert {receipt.state for receipt in receipts} <= {"erased", "abandoned"}
    assert [p.person_id for p in (await replicas[2].persons("default", 99)).persons] == ["stays"]
    keys = await asyncio.gather(*(store.receipts.key() for store in replicas))
    assert len(set(keys)) == 1
