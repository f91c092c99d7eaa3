"""Two stores kept equal: what is written, deleted and copied at the same time, on either engine."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from app.decision.fusion import template
from app.errors import PersonNotFound, StoreUnavailable
from app.inference.embedder import Embedding
from app.metrics import Metrics
from app.services import writes
from app.services.erasure import Eraser
from app.services.models import Model, Pair
from app.services.writes import NewFaces, PersonWriter
from app.store import Consent, EmbeddedStore, Embedder, Face, FloatArray, Store, Targets
from app.store.crops import CropFiles, Crops
from app.store.server import ServerStore
from tests.stores import DIMENSION, EMBEDDER, FixedModels, face, spec

pytestmark = pytest.mark.anyio

OTHER = Embedder("other-model", DIMENSION, "b" * 64)


class Fake:
    """An embedder that makes of a crop a vector of its own, another for each seed."""

    def __init__(self, embedder: Embedder, seed: int) -> None:
        self.spec = spec(embedder)
        self._seed = seed
        self.embedded = 0

    async def embed(self, crops: list[Any]) -> list[Embedding]:
        await asyncio.sleep(0)
        self.embedded += len(crops)
        return [self.of(crop) for crop in crops]

    def of(self, crop: Any) -> Embedding:
        rng = np.random.default_rng([self._seed, int(crop[0, 0, 0])])
        row = rng.standard_normal(DIMENSION).astype(np.float32)
        return Embedding(row / np.linalg.norm(row), float(self._seed))


class World:
    def __init__(self, one: Store, other: Store, folder: Path, *, keep: bool) -> None:
        self.active = Model(spec(EMBEDDER), Fake(EMBEDDER, 1), one)  # type: ignore[arg-type]
        self.other = Model(spec(OTHER), Fake(OTHER, 2), other)  # type: ignore[arg-type]
        self.models = FixedModels(Pair(self.active, self.other))
        self.crops = Crops(CropFiles(folder), bytes(32) if keep else None)
        self.writer = PersonWriter(self.models, self.crops)
        self.faces: dict[str, Face] = {}

    def new(self, person_id: str, number: int) -> NewFaces:
        crop = np.full((112, 112, 3), number, np.uint8)
        name = f"{person_id}/{number}"
        own = self.faces.setdefault(name, face(person_id, number))
        active = self.models.pair.active
        embedded = active.embedder.of(crop)  # type: ignore[attr-defined]
        return NewFaces(
            {own.face_id: own},
            {own.face_id: crop},
            {active.spec.weights_sha256: {own.face_id: embedded}},
        )

    async def enrol(self, person_id: str, number: int = 0, **more: Any) -> str:
        new = self.new(person_id, number)
        await self.writer.enrol("default", person_id, new, 10, **more)
        return next(iter(new.faces))

    async def equal(self) -> bool:
        """Whether both hold the same, each with the embeddings of its own model."""
        kept = []
        for model in (self.active, self.other):
            page = await model.store.export_persons("default", 100)
            kept.append({p.payload["person_id"]: p for p in page.persons})
        one, other = kept
        assert one.keys() == other.keys()
        for name, person in one.items():
            same = ("metadata", "created_at", "updated_at", "face_count", "expires_at")
            assert {n: person.payload.get(n) for n in same} == {
                n: other[name].payload.get(n) for n in same
            }
            first = await self.active.store.faces("default", name)
            second = await self.other.store.faces("default", name)
            assert [f.face_id for f in first] == [f.face_id for f in second]
            assert {f.quality["norm"] for f in second} <= {2.0}
            assert {f.quality["norm"] for f in first} <= {1.0}
        return True


@pytest.fixture(params=["embedded", "memory"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Store]]:
    client = AsyncQdrantClient(":memory:")
    made: list[Store] = []
    for embedder in (EMBEDDER, OTHER):
        if request.param == "embedded":
            made.append(EmbeddedStore(tmp_path / embedder.name, embedder, template, durable=False))
        else:
            made.append(ServerStore(client, embedder, template, collection=embedder.name))
        await made[-1].open()
    yield made
    for store in made:
        await store.close()


@pytest.fixture
def world(stores: list[Store], tmp_path: Path) -> World:
    return World(*stores, tmp_path / "crops", keep=True)


def probe(model: Model, number: int) -> FloatArray:
    crop = np.full((112, 112, 3), number, np.uint8)
    row: FloatArray = model.embedder.of(crop).vector[None]  # type: ignore[attr-defined]
    return row


async def found(model: Model, number: int) -> list[str]:
    (near,) = await model.store.search("default", probe(model, number), 5)
    return [n.person_id for n in near if n.similarity > 0.99]


async def test_whatever_is_written_is_in_both(world: World) -> None:
    first = await world.enrol("ada", 1, consent=Consent(reference="form"))
    await world.enrol("ada", 2)
    await world.enrol("bob", 3)
    await world.writer.update_person("default", "ada", {"a": 1}, 100)
    assert await world.equal()
    await world.writer.delete_face("default", "ada", first)
    assert await world.equal()
    for model in (world.active, world.other):
        assert await found(model, 2) == ["ada"]
        assert await found(model, 1) == []
    assert await world.writer.delete_person("default", "ada") == 1
    assert await world.equal()
    assert await world.crops.get("default", "ada", [first]) == {}


async def test_who_was_there_before_is_carried_over_from_the_crops_and_only_once(
    world: World,
) -> None:
    world.models.pair = alone = Pair(world.active, None)
    await world.enrol("ada", 1)
    await world.enrol("ada", 2)
    world.models.pair = pair = Pair(world.active, world.other)
    assert alone is not pair
    mirrored = await world.writer.mirror(pair, "default", "ada")
    assert mirrored is not None
    assert (mirrored.faces, mirrored.awaiting) == (2, 0)
    assert await world.equal()
    before = world.other.embedder.embedded  # type: ignore[attr-defined]
    await world.writer.mirror(pair, "default", "ada")
    assert world.other.embedder.embedded == before  # type: ignore[attr-defined]


async def test_a_face_without_a_crop_awaits_its_photo_in_either_role(
    stores: list[Store], tmp_path: Path
) -> None:
    world = World(*stores, tmp_path / "crops", keep=False)
    world.models.pair = Pair(world.active, None)
    old = await world.enrol("ada", 1)
    world.models.pair = pair = Pair(world.active, world.other)
    mirrored = await world.writer.mirror(pair, "default", "ada")
    assert mirrored is not None
    assert mirrored.is_lost
    await world.enrol("ada", 2)

    world.models.pair = Pair(world.other, world.active)
    export = await world.other.store.export("default", "ada")
    assert [f.face_id for f in export.awaiting] == [old]
    await world.writer.update_person("default", "ada", {"a": 1}, 100)
    assert [f.face_id for f in await world.active.store.faces("default", "ada")][:1] == [old]
    await world.enrol("ada", 1)
    assert (await world.other.store.export("default", "ada")).awaiting == []
    await world.writer.delete_face("default", "ada", old)
    assert len(await world.active.store.faces("default", "ada")) == 1


async def test_who_is_deleted_while_being_copied_does_not_come_back(world: World) -> None:
    """By another replica, which knows of no lock of this one."""
    pair = world.models.pair
    is_shared = not isinstance(world.active.store, EmbeddedStore)
    replica = PersonWriter(world.models, world.crops) if is_shared else world.writer

    async def delete_after(turns: int, name: str) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await replica.delete_person("default", name)

    for number in range(30):
        name = f"p{number}"
        world.models.pair = Pair(world.active, None)
        await world.enrol(name, number)
        world.models.pair = pair
        await asyncio.gather(world.writer.mirror(pair, "default", name), delete_after(number, name))
        for model in (world.active, world.other):
            with pytest.raises(PersonNotFound):
                await model.store.person("default", name)


async def test_enrolled_by_two_replicas_at_once_both_faces_are_in_both(world: World) -> None:
    replica = PersonWriter(world.models, world.crops)
    if isinstance(world.active.store, EmbeddedStore):
        replica = world.writer
    one, other = world.new("ada", 1), world.new("ada", 2)
    await asyncio.gather(
        world.writer.enrol("default", "ada", one, 10),
        replica.enrol("default", "ada", other, 10),
        world.writer.mirror(world.models.pair, "default", "ada"),
    )
    assert len(await world.other.store.faces("default", "ada")) == 2
    assert await world.equal()


async def test_a_write_that_a_switch_overtakes_is_done_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = Pair(world.other, world.active)
    enrol = world.active.store.enrol

    async def enrol_and_switch(*args: Any, **kwargs: Any) -> int:
        count = await enrol(*args, **kwargs)
        world.models.pair = turned
        # The other replica carries over the other way round, and sees nobody there.
        replica = PersonWriter(world.models, world.crops)
        await replica.mirror(turned, "default", "ada")
        return count

    monkeypatch.setattr(world.active.store, "enrol", enrol_and_switch)
    await world.enrol("ada", 1)
    assert await found(world.other, 1) == ["ada"]
    assert await found(world.active, 1) == ["ada"]


async def test_where_the_other_store_fails_the_caller_has_what_was_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise StoreUnavailable("no")

    with monkeypatch.context() as broken:
        broken.setattr(world.other.store, "revise", fail)
        await world.enrol("ada", 1)
    assert world.models.unequal == 1
    await world.writer.mirror(world.models.pair, "default", "ada")
    assert await world.equal()

    # Not so a deletion: it is not answered before it is complete.
    with monkeypatch.context() as broken:
        broken.setattr(world.other.store, "revise", fail)
        with pytest.raises(StoreUnavailable):
            await world.writer.delete_person("default", "ada")
    assert world.models.unequal == 2
    await world.writer.mirror(world.models.pair, "default", "ada")
    assert await world.equal()


async def test_a_deletion_that_fails_between_the_stores_is_noted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    face_id = await world.enrol("ada", 1)

    async def fail(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("no")

    with monkeypatch.context() as broken:
        broken.setattr(world.active.store, "delete_person", fail)
        broken.setattr(world.active.store, "delete_face", fail)
        with pytest.raises(StoreUnavailable):
            await world.writer.delete_person("default", "ada")
        with pytest.raises(StoreUnavailable):
            await world.writer.delete_face("default", "ada", face_id)
    assert world.models.unequal == 2


async def test_a_deletion_that_fails_in_the_other_store_leaves_no_crop_and_can_be_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await world.enrol("ada", 1), await world.enrol("ada", 2)

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("no")

    with monkeypatch.context() as broken:
        broken.setattr(world.other.store, "revise", fail)
        with pytest.raises(StoreUnavailable):
            await world.writer.delete_face("default", "ada", first)
        assert list(await world.crops.get("default", "ada", [first, second])) == [second]
        eraser = Eraser(world.writer, Metrics())
        with pytest.raises(StoreUnavailable):
            await eraser.erase("default", "ada")
        assert await world.crops.persons() == set()
    assert await world.other.store.stored("default", "ada") is not None
    with pytest.raises(PersonNotFound):
        await eraser.erase("default", "ada")
    assert await world.equal()


async def test_who_is_given_more_time_during_a_purge_keeps_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    face_id = await world.enrol("ada", 1)
    now = datetime.now(UTC)
    await world.writer.update_person("default", "ada", {}, 100, Consent(expires_at=now))
    real = world.active.store.delete_person

    async def given_more_time(*names: str, **named: Any) -> int:
        more = Consent(expires_at=None)  # by another replica
        await world.active.store.update_person("default", "ada", {}, 100, more)
        return await real(*names, **named)

    monkeypatch.setattr(world.active.store, "delete_person", given_more_time)
    with pytest.raises(PersonNotFound):
        await world.writer.delete_person("default", "ada", expired_by=datetime.now(UTC))
    assert await world.equal()
    assert await found(world.other, 1) == ["ada"]
    assert await world.crops.get("default", "ada", [face_id]) != {}


async def test_who_is_enrolled_again_during_a_deletion_is_in_both(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.enrol("ada", 1)
    real = world.active.store.delete_person

    async def delete_and_enrol(*names: str, **named: Any) -> int:
        count = await real(*names, **named)
        monkeypatch.undo()
        replica = PersonWriter(world.models, world.crops)
        new = world.new("ada", 2)
        await replica.enrol("default", "ada", new, 10)
        return count

    monkeypatch.setattr(world.active.store, "delete_person", delete_and_enrol)
    await world.writer.delete_person("default", "ada")
    assert await world.equal()
    assert await found(world.other, 2) == ["ada"]
    assert len(await world.crops.persons()) == 1


async def test_crops_whose_person_does_not_come_are_deleted_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = np.zeros((112, 112, 3), np.uint8)
    await world.crops.put("default", "eve", "1" * 36, crop)
    monkeypatch.setattr(writes, "ORPHANED_S", 0.0)
    await world.writer.vacuum()
    assert await world.crops.persons() != set(), "a store without anybody may be restored yet"
    face_id = await world.enrol("ada", 1)
    monkeypatch.undo()
    await world.writer.vacuum()
    assert len(await world.crops.persons()) == 2, "eve may be about to be stored"
    monkeypatch.setattr(writes, "ORPHANED_S", 0.0)
    await world.writer.vacuum()
    assert await world.crops.get("default", "eve", ["1" * 36]) == {}
    assert await world.crops.get("default", "ada", [face_id]) != {}


async def test_targets_that_are_chosen_while_being_copied_win(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.enrol("ada", 1)
    former, latter = Targets(target_fpir=0.1), Targets(target_fpir=0.01)
    await world.active.store.set_targets("default", former)
    assert await world.active.store.targets("default") == former
    real = world.other.store.set_targets
    replica = world.active.store
    if isinstance(replica, ServerStore):
        replica = ServerStore(
            replica._client, EMBEDDER, template, collection=EMBEDDER.name, may_open=True
        )
        await replica.open()

    async def late(gallery: str, targets: Targets) -> None:
        if targets == former:  # somebody else chooses others before this is written
            await replica.set_targets(gallery, latter)
            await real(gallery, latter)
        await real(gallery, targets)

    monkeypatch.setattr(world.other.store, "set_targets", late)
    await world.writer.mirror_targets(world.models.pair, "default")
    assert await world.other.store.targets("default") == latter


async def test_who_has_more_time_stays_in_both(world: World) -> None:
    await world.enrol("ada", 1)
    with pytest.raises(PersonNotFound):
        await world.writer.delete_person("default", "ada", expired_by=datetime.now(UTC))
    assert await world.equal()
    assert await found(world.other, 1) == ["ada"]


async def test_an_enrolment_that_is_refused_leaves_no_crop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("no")

    monkeypatch.setattr(world.active.store, "enrol", fail)
    with pytest.raises(StoreUnavailable):
        await world.enrol("ada", 1)
    (own,) = world.faces.values()
    assert await world.crops.get("default", "ada", [own.face_id]) == {}


async def test_a_caller_who_goes_away_leaves_both_equal(world: World) -> None:
    task = asyncio.create_task(world.enrol("ada", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.writer.close()
    assert await world.equal()
    assert len(await world.other.store.faces("default", "ada")) == 1
