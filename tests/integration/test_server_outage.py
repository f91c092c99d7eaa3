"""The service and a Qdrant server in trouble, over real connections."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException

from app.decision.fusion import template
from app.store import GallerySize, Receipt, Targets
from app.store.server import ServerStore, connect
from tests.abuse import calls
from tests.abuse.outage import CLIENTS, outage, replica, seconds_until_ready, two_replicas
from tests.abuse.service import Service
from tests.faults import FAULTS, Fault, Proxy, proxied
from tests.qdrant import serving_twin
from tests.stores import EMBEDDER, faces_of, unit

pytestmark = [pytest.mark.anyio, pytest.mark.alone]


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with serving_twin() as upstream, proxied(upstream) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def service(proxy: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Started while there was no server."""
    proxy.fail("refused")
    service = replica(tmp_path_factory.mktemp("one"), proxy)
    service.start()
    try:
        proxy.fail("none")
        with service.client() as client:
            seconds_until_ready(client)
            calls.enrol(client, "ada", [calls.faces(1)[0]]).raise_for_status()
        outage(service, proxy, "503", 20)  # so that nothing is used for the first time later
        yield service
    finally:
        service.stop()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_in_trouble_is_answered_503_and_left_alone_until_it_is_back(
    service: Service, proxy: Proxy, fault: Fault
) -> None:
    before = service.usage()
    found = outage(service, proxy, fault, requests=20)
    after = service.usage()
    assert found.answers == Counter({"503 store_unavailable": 20})
    assert found.sent < 60  # three times each, and some requests make several calls
    # Connections of the clients and to the server; the pool of threads has at most so many.
    assert after.descriptors <= before.descriptors + 2 * CLIENTS
    assert after.threads <= before.threads + CLIENTS


def test_metrics_tell_of_the_breaker(service: Service, proxy: Proxy) -> None:
    with service.client() as client:
        proxy.fail("refused")
        while calls.ready(client).status_code == 503:
            metrics = client.get("/metrics").text
            if "faceid_store_breaker_open 1.0" in metrics:
                break
        assert "faceid_store_up 0.0" in metrics
        proxy.fail("none")
        seconds_until_ready(client)
        assert "faceid_store_breaker_open 0.0" in client.get("/metrics").text


def test_replicas_that_enrol_the_same_persons_on_a_way_that_breaks_lose_nothing(
    service: Service, proxy: Proxy, tmp_path: Path
) -> None:
    other = replica(tmp_path, proxy)
    other.start()
    try:
        statuses = two_replicas(service, other, proxy, persons=6)
        assert statuses[201] == 12
    finally:
        other.stop()


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[AsyncQdrantClient]:
    client = connect(proxy.url)
    yield client
    await client.close()


async def test_replicas_that_start_together_share_one_collection(proxy: Proxy) -> None:
    name = f"faceid-test-{uuid.uuid4().hex}"
    stores = [
        ServerStore(connect(proxy.url), EMBEDDER, template, collection=name) for _ in range(8)
    ]
    try:
        counts = await asyncio.gather(
            *(
                store.enrol("default", "ada", [own], row[None], 8)
                for store, own, row in zip(stores, faces_of("ada", 8), unit(8), strict=True)
            )
        )
        assert sorted(counts) == list(range(1, 9))
        assert await stores[0].size("default") == GallerySize(1, 8)
    finally:
        for store in stores:
            await store.close()


async def test_every_write_may_be_repeated_where_its_answer_was_lost(
    client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.http.client.send_inner
    answered: Counter[tuple[str, str, bytes]] = Counter()

    async def losing(request: httpx.Request) -> httpx.Response:
        response = await real(request)
        which = (request.method, request.url.path, request.content)
        answered[which] += 1
        if answered[which] % 2:
            raise ResponseHandlingException(httpx.ReadError("lost"))
        return response

    monkeypatch.setattr(client.http.client, "send_inner", losing)
    name = f"faceid-test-{uuid.uuid4().hex}"
    store = ServerStore(client, EMBEDDER, template, collection=name)
    await store.open()
    rows = unit(3)
    faces = faces_of("ada", len(rows))
    for number, (its, row) in enumerate(zip(faces, rows, strict=True), 1):
        assert await store.enrol("default", "ada", [its], row[None], 3) == number
    for number in range(3):
        patched = await store.update_person("default", "ada", {str(number): number}, 1000)
        assert len(patched.metadata) == number + 1
    await store.delete_face("default", "ada", faces[0].face_id)
    kept = (await store.embeddings("default", ["ada"]))["ada"]
    assert {row.tobytes() for row in kept} == {row.tobytes() for row in rows[1:]}
    ((found,),) = await store.search("default", template(kept)[None], 5)
    assert found.similarity == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose((await store.templates("default", 5)).templates[0], template(kept))
    exported = await store.export_persons("default", 5)
    await store.import_persons("copies", exported.persons)
    assert await store.galleries() == {"copies": GallerySize(1, 2), "default": GallerySize(1, 2)}
    await store.set_targets("default", Targets(0.02))
    assert await store.all_targets() == {"default": Targets(0.02)}
    receipt = _receipt()
    await store.receipts.put(receipt)
    await store.receipts.put(erased := replace(receipt, state="erased"))
    assert await store.receipts.all() == [erased]
    assert await store.receipts.key() == await store.receipts.key()
    assert await store.delete_person("default", "ada") == 2
    assert await store.galleries() == {"copies": GallerySize(1, 2)}
    repeated: dict[Any, int] = {which: count for which, count in answered.items() if count < 2}
    assert repeated == {}


def _receipt() -> Receipt:
    return Receipt(str(uuid.uuid4()), "default", "d" * 64, "request", "begun", datetime.now(UTC))
