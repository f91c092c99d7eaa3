"""The models of a store, on either engine: which they are, and that their faces never mix."""

import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from app.decision.fusion import template
from app.errors import StoreLocked, StoreMismatch
from app.store import EmbeddedStore, Embedder
from app.store.models import Chosen, ModelFolders, ModelStores
from app.store.server import ServerStore
from app.store.server_models import ServerModels
from tests.contract.conftest import ENGINES, client_of
from tests.stores import DIMENSION, EMBEDDER, enrol, face, unit

pytestmark = pytest.mark.anyio

OTHER = Embedder("other-model", DIMENSION, "b" * 64)

Open = Callable[[], Awaitable[ModelStores]]


@pytest.fixture(params=ENGINES)
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """The same place again, by a process of its own."""
    opened: list[ModelStores] = []
    client = client_of("memory") if request.param == "memory" else None
    prefix = f"faceid-test-{uuid.uuid4().hex}"

    async def reopen() -> ModelStores:
        stores: ModelStores
        if request.param == "embedded":
            for former in opened:
                await former.close()
            stores = ModelFolders(tmp_path / "store", template, durable=False)
        else:
            own = client or client_of("server")
            stores = ServerModels(own, template, prefix=prefix)
        opened.append(stores)
        return stores

    yield reopen
    if request.param == "server":
        own = client_of("server")
        for collection in (await own.get_collections()).collections:
            if collection.name.startswith(prefix):
                await own.delete_collection(collection.name)
    for stores in opened:
        await stores.close()


async def test_a_new_store_belongs_to_the_configured_model(reopen: Open) -> None:
    assert await (await reopen()).open(EMBEDDER) == Chosen(EMBEDDER)
    assert await (await reopen()).open(EMBEDDER) == Chosen(EMBEDDER)


async def test_who_is_chosen_outlasts_a_restart_whatever_is_configured(reopen: Open) -> None:
    stores = await reopen()
    await stores.open(EMBEDDER)
    await stores.keep(OTHER, b"file")
    store = stores.store(OTHER)
    await store.open()
    await stores.choose(Chosen(EMBEDDER, OTHER))
    assert await stores.chosen() == Chosen(EMBEDDER, OTHER)
    await stores.choose(Chosen(OTHER, EMBEDDER))
    if isinstance(store, EmbeddedStore):
        await store.close()
    assert await (await reopen()).open(EMBEDDER) == Chosen(OTHER, EMBEDDER)


async def test_a_models_file_is_kept_and_goes_with_it(reopen: Open) -> None:
    stores = await reopen()
    await stores.open(EMBEDDER)
    assert await stores.file(OTHER) is None
    data = os.urandom(9 * 2**20)  # more than goes to a server at once
    await stores.keep(OTHER, data)
    await stores.choose(Chosen(EMBEDDER))
    file = await stores.file(OTHER)
    assert file is not None
    assert file.read_bytes() == data
    await stores.remove(OTHER, None)
    assert await stores.file(OTHER) is None


async def test_each_model_has_its_faces_to_itself(reopen: Open) -> None:
    stores = await reopen()
    await stores.open(EMBEDDER)
    one, other = stores.store(EMBEDDER), stores.store(OTHER)
    await one.open()
    await other.open()
    await one.enrol("default", "ada", [face("ada")], unit(1), 10)
    assert await other.search("default", unit(1), 5) == [[]]
    assert (await other.galleries(), list(await one.galleries())) == ({}, ["default"])
    assert one.receipts is other.receipts
    await stores.remove(OTHER, other)
    assert len((await one.search("default", unit(1), 5))[0]) == 1
    if isinstance(one, EmbeddedStore):
        await one.close()


async def test_crops_are_sealed_by_whoever_keeps_them(reopen: Open) -> None:
    stores = await reopen()
    await stores.open(EMBEDDER)
    ada, bob = uuid.uuid4(), uuid.uuid4()
    assert await stores.crops.get(ada, ["1"]) == {}
    await stores.crops.delete(ada)
    assert await stores.crops.put(ada, "1", b"sealed")
    assert not await stores.crops.put(ada, "1", b"again")
    await stores.crops.put(ada, "2", b"other")
    await stores.crops.put(bob, "1", b"bob's")
    assert await stores.crops.persons() == {ada, bob}
    assert await stores.crops.get(ada, ["1", "2", "3"]) == {"1": b"again", "2": b"other"}
    await stores.crops.delete(ada, ["1"])
    assert await stores.crops.get(ada, ["1", "2"]) == {"2": b"other"}
    await stores.crops.delete(ada)
    assert await stores.crops.persons() == {bob}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def test_a_folder_of_before_is_moved_and_a_crash_in_between_is_gone_on_with(
    path: Path,
) -> None:
    former = EmbeddedStore(path, EMBEDDER, template)
    await former.open()
    await enrol(former, "default", "ada")
    await enrol(former, "staff", "bob")
    await former.close()
    folder = path / f"model.{EMBEDDER.weights_sha256[:12]}"
    folder.mkdir()
    (path / "staff").rename(folder / "staff")

    stores = ModelFolders(path, template)
    with pytest.raises(StoreMismatch):
        await stores.open(OTHER)
    assert (path / "default").is_dir(), "nothing was moved"
    await stores.open(EMBEDDER)
    store = stores.store(EMBEDDER)
    await store.open()
    assert list(await store.galleries()) == ["default", "staff"]
    await store.close()
    await stores.close()


async def test_one_process_at_a_time_has_the_folder(path: Path) -> None:
    stores = ModelFolders(path, template)
    await stores.open(EMBEDDER)
    with pytest.raises(StoreLocked):
        await ModelFolders(path, template).open(EMBEDDER)
    await stores.close()
    await stores.open(EMBEDDER)
    await stores.close()


async def test_an_empty_store_takes_whatever_is_configured(path: Path) -> None:
    stores = ModelFolders(path, template)
    await stores.open(EMBEDDER)
    await stores.close()
    assert await stores.open(OTHER) == Chosen(OTHER)
    await stores.close()


async def test_what_a_crash_left_of_another_model_is_removed(path: Path) -> None:
    stores = ModelFolders(path, template)
    await stores.open(EMBEDDER)
    await stores.keep(OTHER, b"half added")
    await stores.close()
    stores = ModelFolders(path, template)
    await stores.open(EMBEDDER)
    assert not list(path.glob("model.bbb*"))
    await stores.close()


async def test_without_the_file_that_names_the_models_nothing_is_guessed(path: Path) -> None:
    stores = ModelFolders(path, template)
    await stores.open(EMBEDDER)
    await stores.keep(EMBEDDER, b"")
    await stores.keep(OTHER, b"")
    await stores.choose(Chosen(EMBEDDER, OTHER))
    await stores.close()
    (path / "models.json").unlink()
    with pytest.raises(StoreMismatch, match="is missing, which says"):
        await ModelFolders(path, template).open(EMBEDDER)
    (path / "models.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(StoreMismatch, match="another version"):
        await ModelFolders(path, template).open(EMBEDDER)
    (path / "models.json").write_text("{")
    with pytest.raises(StoreMismatch, match="cannot be read"):
        await ModelFolders(path, template).open(EMBEDDER)


async def test_a_collection_of_before_is_that_of_its_model() -> None:
    client = AsyncQdrantClient(":memory:")
    former = ServerStore(client, EMBEDDER, template)
    await former.open()
    await former.enrol("default", "ada", [face("ada")], unit(1), 10)
    stores = ServerModels(client, template)
    assert await stores.open(EMBEDDER) == Chosen(EMBEDDER)
    store = stores.store(EMBEDDER)
    assert (await store.size("default")).persons == 1
    await stores.close()
