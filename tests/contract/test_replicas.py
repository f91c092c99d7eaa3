"""Two replicas on one server, and a model that one of them is given."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from app.decision.fusion import template
from app.errors import ModelConflict, NotCarriedOver, StoreMismatch, StoreUnavailable
from app.inference.embedder import CpuEmbedder, FaceEmbedder
from app.inference.pool import CorePool
from app.metrics import Metrics
from app.models.spec import SHIPPED_EMBEDDER
from app.services.models import Pair
from app.services.swap import Swap
from app.services.writes import NewFaces
from app.store import Face, Targets
from app.store.crops import Crops
from app.store.server import ServerStore
from app.store.server_models import ServerModels

pytestmark = pytest.mark.anyio

NEW = SHIPPED_EMBEDDER.with_name("sface-arcface.onnx")


class Closing(CpuEmbedder):
    is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class Replica:
    def __init__(self, client: AsyncQdrantClient, pool: CorePool, file: Path) -> None:
        async def load(path: Path) -> FaceEmbedder:
            self.loaded.append(Closing(path, 1, pool))
            return self.loaded[-1]

        self.loaded: list[Closing] = []
        self.seen: list[Pair] = []
        self.stores = ServerModels(client, template)
        self.swap = Swap(
            self.stores,
            Crops(self.stores.crops, bytes(32)),
            file,
            load,
            Targets(target_fpir=0.01, target_fmr=1e-4),
            self.seen.append,
            Metrics(),
            workers=2,
            is_shared=True,
        )

    async def enrol(self, person_id: str, number: int) -> None:
        crop = np.random.default_rng(number).integers(0, 256, (112, 112, 3), np.uint8)
        face_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{person_id}/{number}"))
        now = datetime.now(UTC)
        own = Face(face_id, person_id, (0, 0, 9, 9), 0.9, {}, "0" * 64, now)
        new = NewFaces({face_id: own}, {face_id: crop}, {})
        await self.swap.writer.enrol("default", person_id, new, 10)

    async def complete(self) -> None:
        running = asyncio.create_task(self.swap.carry.run())
        while not (self.swap.carry.report.state == "complete" and self.swap.carry.is_exact):
            await asyncio.sleep(0.01)
        running.cancel()

    def names(self) -> tuple[str, str | None]:
        pair = self.swap.pair
        return pair.active.spec.name, None if pair.other is None else pair.other.spec.name


@pytest.fixture
async def client() -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(":memory:")
    yield client
    await client.close()


@pytest.fixture
async def replicas(client: AsyncQdrantClient) -> AsyncIterator[list[Replica]]:
    pool = CorePool(1)
    made = [Replica(client, pool, SHIPPED_EMBEDDER) for _ in range(2)]
    for replica in made:
        await replica.swap.open()
    yield made
    for replica in made:
        await replica.stores.close()
    pool.close()


async def test_what_one_is_told_the_other_follows_and_nobody_is_lost(
    replicas: list[Replica],
) -> None:
    one, two = replicas
    await one.enrol("ada", 1)
    await one.swap.add(NEW.read_bytes())
    # The other has heard nothing yet; its write is done again for both models.
    await two.enrol("bob", 2)
    assert two.names() == ("sface-2021dec", "sface-arcface")
    new = one.swap.pair.other
    assert new is not None
    assert (await new.store.person("default", "bob")).face_count == 1

    with pytest.raises(NotCarriedOver):
        await one.swap.switch(accept_loss=False)
    await one.complete()
    await one.swap.switch(accept_loss=False)
    await asyncio.gather(*(two.enrol(f"late{n}", 10 + n) for n in range(3)))
    assert one.names() == two.names() == ("sface-arcface", "sface-2021dec")
    names = {"ada", "bob", "late0", "late1", "late2"}
    for replica in replicas:
        for model in (replica.swap.pair.active, replica.swap.pair.other):
            assert model is not None
            page = await model.store.persons("default", 100)
            assert {(p.person_id, p.face_count) for p in page.persons} == {(n, 1) for n in names}

    removed = [replica.swap.pair.other for replica in replicas]
    await one.swap.remove()
    await two.swap.current()
    assert two.names() == ("sface-arcface", None)
    async with asyncio.timeout(10):
        while not all(model.embedder.is_closed for model in removed):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
    assert not two.swap.pair.active.embedder.is_closed  # type: ignore[attr-defined]
    await two.swap.writer.delete_person("default", "ada")
    assert await one.stores.crops.persons() != set()


async def test_a_replica_that_has_not_heard_of_a_switch_removes_what_is_the_other_now(
    replicas: list[Replica],
) -> None:
    one, two = replicas
    await one.enrol("ada", 1)
    await one.swap.add(NEW.read_bytes())
    await two.swap.current()
    await one.complete()
    await one.swap.switch(accept_loss=False)
    assert two.names() == ("sface-2021dec", "sface-arcface")
    await two.swap.remove()
    assert two.names() == ("sface-arcface", None)
    assert (await two.swap.pair.active.store.person("default", "ada")).face_count == 1


async def test_a_removal_that_is_cut_short_is_finished_later(
    replicas: list[Replica], client: AsyncQdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replicas
    foreign = models.VectorParams(size=4, distance=models.Distance.DOT)
    await client.create_collection("shop", vectors_config=foreign)
    await client.update_collection_aliases(
        [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(alias_name="shop-live", collection_name="shop")
            )
        ]
    )
    before = {c.name for c in (await client.get_collections()).collections}

    async def fail(*_: object) -> None:
        raise StoreUnavailable("no")

    for finisher in ("the next who asks", "the next who starts"):
        await one.swap.add(NEW.read_bytes())
        await one.enrol("ada", 1)
        with monkeypatch.context() as broken:
            broken.setattr(one.stores, "remove", fail)
            with pytest.raises(StoreUnavailable):
                await one.swap.remove()
        left = {c.name for c in (await client.get_collections()).collections} - before
        assert any(name.startswith("faceid-") and len(name) == 19 for name in left)
        if finisher == "the next who asks":
            with pytest.raises(ModelConflict):
                await two.swap.remove()
        else:
            await Replica(client, CorePool(1), SHIPPED_EMBEDDER).swap.open()
        left = {c.name for c in (await client.get_collections()).collections} - before
        assert left <= {"faceid-models", "faceid-crops"}


async def test_what_cannot_be_adopted_is_not_kept_in_memory(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replicas

    async def fail(*_: object) -> None:
        raise StoreUnavailable("no")

    with monkeypatch.context() as broken:
        broken.setattr(ServerStore, "open", fail)
        with pytest.raises(StoreUnavailable):
            await one.swap.add(NEW.read_bytes())
    await one.swap.add(NEW.read_bytes())
    with monkeypatch.context() as broken:
        broken.setattr(ServerStore, "open", fail)
        with pytest.raises(StoreUnavailable):
            await two.swap.current()
    await two.swap.current()
    assert [embedder.is_closed for embedder in one.loaded] == [False, True, False]
    assert [embedder.is_closed for embedder in two.loaded] == [False, True, False]


async def test_one_that_starts_later_takes_the_model_from_the_server(
    replicas: list[Replica], client: AsyncQdrantClient
) -> None:
    one, _ = replicas
    await one.swap.add(NEW.read_bytes())
    await one.complete()
    await one.swap.switch(accept_loss=False)
    pool = CorePool(1)
    late = Replica(client, pool, SHIPPED_EMBEDDER)
    await late.swap.open()
    assert late.names() == ("sface-arcface", "sface-2021dec")
    await late.stores.close()
    pool.close()


async def test_a_store_of_an_embedder_that_is_not_at_hand_is_refused(
    replicas: list[Replica], client: AsyncQdrantClient
) -> None:
    assert replicas
    pool = CorePool(1)
    with pytest.raises(StoreMismatch, match="model swap"):
        await Replica(client, pool, NEW).swap.open()
    pool.close()


async def test_a_write_that_failed_in_the_other_store_holds_up_the_switch_of_any_replica(
    replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = replicas
    await one.swap.add(NEW.read_bytes())
    await two.swap.current()
    await one.complete()

    async def fail(*_: object) -> None:
        raise StoreUnavailable("no")

    other = two.swap.pair.other
    assert other is not None
    with monkeypatch.context() as broken:
        broken.setattr(other.store, "revise", fail)
        await two.enrol("ada", 1)
    with pytest.raises(NotCarriedOver):
        await one.swap.switch(accept_loss=False)
    one.swap.carry.again()
    await one.complete()
    await one.swap.switch(accept_loss=False)
    assert (await one.swap.pair.active.store.person("default", "ada")).face_count == 1
