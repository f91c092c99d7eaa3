"""What only the embedded engine has: its folder, its worker, its slots."""

import asyncio
import errno
import multiprocessing
import shutil
import threading
import uuid
from collections import namedtuple
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidRequest, StoreLocked, StoreUnavailable
from app.store import EmbeddedStore, Embedder, Face, FloatArray, GallerySize
from app.store import embedded as engine

pytestmark = pytest.mark.anyio

DIMENSION = 16
EMBEDDER = Embedder("test-model", DIMENSION, "a" * 64)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[EmbeddedStore]:
    store = EmbeddedStore(path, EMBEDDER)
    await store.open()
    yield store
    await store.close()


def unit(count: int, seed: int = 0) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def face(person_id: str) -> Face:
    now = datetime.now(UTC)
    return Face(str(uuid.uuid4()), person_id, (0, 0, 9, 9), 0.9, {}, "0" * 64, now)


async def enrol(store: EmbeddedStore, gallery: str, person_id: str, seed: int = 0) -> str:
    added = face(person_id)
    await store.enrol(gallery, person_id, [added], unit(1, seed))
    return added.face_id


async def reopened(store: EmbeddedStore, path: Path) -> EmbeddedStore:
    await store.close()
    store = EmbeddedStore(path, EMBEDDER)
    await store.open()
    return store


async def test_reading_creates_nothing(store: EmbeddedStore, path: Path) -> None:
    await store.search("nowhere", unit(1), 5)
    await store.size("nowhere")
    await store.embeddings("nowhere", ["ada"])
    assert [entry.name for entry in path.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".lock", "", "A", "a" * 64, "a\n", "-a"])
async def test_a_gallery_cannot_leave_the_folder(
    store: EmbeddedStore, path: Path, name: str
) -> None:
    with pytest.raises(InvalidRequest):
        await enrol(store, name, "ada")
    assert await store.search(name, unit(1), 5) == [[]]
    assert [entry.name for entry in path.iterdir()] == [".lock"]
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


async def test_a_second_store_is_refused_until_the_first_closes(
    store: EmbeddedStore, path: Path
) -> None:
    second = EmbeddedStore(path, EMBEDDER)
    with pytest.raises(StoreLocked, match=str(path)):
        await second.open()
    await store.close()
    await second.open()
    await second.close()


def hold(path: Path, opened: Any, release: Any) -> None:
    async def body() -> None:
        store = EmbeddedStore(path, EMBEDDER)
        await store.open()
        opened.set()
        release.wait()
        await store.close()

    asyncio.run(body())


async def test_a_second_process_is_refused(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    opened, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, opened, release))
    process.start()
    try:
        assert await asyncio.to_thread(opened.wait, 60)
        with pytest.raises(StoreLocked):
            await EmbeddedStore(path, EMBEDDER).open()
    finally:
        release.set()
        process.join()


async def test_a_half_made_gallery_is_swept_away(store: EmbeddedStore, path: Path) -> None:
    await enrol(store, "default", "ada")
    shutil.copytree(path / "default" / "segments", path / f"{engine._NEW}1" / "segments")
    store = await reopened(store, path)
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "default"]
    await store.close()


async def test_galleries_beyond_the_limit_are_closed_and_opened_again(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_MAX_OPEN", 2)
    for number in range(4):
        await enrol(store, f"g{number}", f"person-{number}", number)
    assert list(store._open) == ["g2", "g3"]
    for number in range(4):
        ((found,),) = await store.search(f"g{number}", unit(1, number), 1)
        assert found.person_id == f"person-{number}"
        assert await store.size(f"g{number}") == GallerySize(1, 1)
    assert len(store._open) == 2
    # In one drain: written to and closed again before the log would have been synced.
    await asyncio.gather(*(enrol(store, f"g{number}", "more", 9) for number in range(4)))
    assert list((await store.galleries()).values()) == [GallerySize(2, 2)] * 4


async def test_records_fill_slots_and_outlive_reopening(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BLOCK", 4)
    for number in range(6):
        await enrol(store, "default", f"person-{number}", number)
    await store.delete_person("default", "person-1")
    store = await reopened(store, path)
    assert len(store._open["default"].free) == 2
    for number in range(6, 12):
        await enrol(store, "default", f"person-{number}", number)
    assert await store.size("default") == GallerySize(11, 11)
    page = await store.persons("default", 100)
    assert [person.person_id for person in page.persons] == [
        f"person-{number}" for number in range(12) if number != 1
    ]
    await store.close()


async def test_deleted_faces_are_dropped_at_opening(store: EmbeddedStore, path: Path) -> None:
    ids = []
    for number in range(20):
        faces = [face(f"person-{number}") for _ in range(100)]
        ids.append(faces[0].face_id)
        await store.enrol("default", f"person-{number}", faces, unit(100, number))
    for number in range(15):
        await store.delete_person("default", f"person-{number}")
    store = await reopened(store, path)
    assert await store.size("default") == GallerySize(5, 500)
    assert not store._open["default"].shard.optimize()
    for number in range(15, 20):
        ((found,),) = await store.search("default", unit(100, number)[:1], 1)
        assert found.face_id == ids[number]
        assert found.similarity == pytest.approx(1, abs=1e-4)
    for number in range(15):
        await enrol(store, "default", f"person-{number}", 100 + number)
    store = await reopened(store, path)
    assert await store.size("default") == GallerySize(20, 515)
    assert len((await store.persons("default", 100)).persons) == 20
    await store.close()


async def test_a_checkpoint_follows_many_writes(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_CHECKPOINT", 5)
    await enrol(store, "default", "ada")  # with a block of slots
    assert store._open["default"].unflushed == 0
    await enrol(store, "default", "ada", 1)
    assert store._open["default"].unflushed == 1
    store = await reopened(store, path)
    assert await store.size("default") == GallerySize(1, 2)
    await store.close()


async def test_many_writes_at_once_share_a_sync(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    synced = 0
    real = engine._Gallery.sync_log

    def counted(self: engine._Gallery) -> None:
        nonlocal synced
        synced += 1
        real(self)

    monkeypatch.setattr(engine._Gallery, "sync_log", counted)
    await asyncio.gather(*(enrol(store, "default", f"p{number}", number) for number in range(50)))
    assert 1 <= synced <= 25


@pytest.mark.parametrize("durable", [True, False])
async def test_durable_writes_wait_for_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    store = EmbeddedStore(path, EMBEDDER, durable=durable)
    await store.open()
    await enrol(store, "default", "ada")
    gate = threading.Event()
    real = engine._sync

    def slow(file: Path) -> None:
        gate.wait(10)
        real(file)

    monkeypatch.setattr(engine, "_sync", slow)
    write = asyncio.create_task(enrol(store, "default", "bob", 1))
    await asyncio.wait([write], timeout=0.3)
    assert write.done() is not durable
    # The disk is at work, the engine is not: searches are answered meanwhile.
    assert len((await store.search("default", unit(1), 5))[0]) == 2
    gate.set()
    await write
    await store.close()


async def test_a_full_disk_refuses_writes_and_serves_reads(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(engine.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1, 1))
    with pytest.raises(StoreUnavailable, match="full"):
        await enrol(store, "default", "bob")
    assert await store.size("default") == GallerySize(1, 1)
    assert len((await store.search("default", unit(1), 5))[0]) == 1
    await store.check()
    await store.delete_person("default", "ada")  # which is how room is made


class Broken:
    """A shard that fails, as `EdgeShard` has no Python attributes to patch."""

    def __init__(self, shard: Any, error: BaseException, *methods: str) -> None:
        self._shard, self._error, self._methods = shard, error, methods

    def __getattr__(self, name: str) -> Any:
        if name not in self._methods:
            return getattr(self._shard, name)

        def fail(*_: object) -> None:
            raise self._error

        return fail


class Panic(BaseException):
    """As pyo3's PanicException, which is no `Exception` either."""


@pytest.mark.parametrize("error", [Exception("engine"), OSError(errno.EIO, "io"), Panic("boom")])
async def test_a_failed_write_spoils_neither_the_gallery_nor_the_worker(
    store: EmbeddedStore, error: BaseException
) -> None:
    await enrol(store, "default", "ada")
    gallery = store._open["default"]
    gallery.shard = Broken(gallery.shard, error, "update")  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        await enrol(store, "default", "bob")
    await store.check()
    assert await store.size("default") == GallerySize(1, 1)
    await enrol(store, "default", "bob")
    assert await store.size("default") == GallerySize(2, 2)


async def test_a_failed_sync_is_not_acknowledged(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(engine, "_sync", fail)
    with pytest.raises(StoreUnavailable, match="Input/output"):
        await enrol(store, "default", "bob")
    monkeypatch.undo()
    await store.check()


async def test_a_gallery_that_cannot_be_loaded_is_reported(
    store: EmbeddedStore, path: Path
) -> None:
    await enrol(store, "default", "ada")
    await enrol(store, "other", "bob")
    gallery = store._open["default"]
    gallery.shard = Broken(gallery.shard, Exception("engine"), "update")  # type: ignore[assignment]
    (path / "default").rename(path / "gone")
    with pytest.raises(StoreUnavailable):
        await enrol(store, "default", "bob")
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await store.search("default", unit(1), 1)
    assert len((await store.search("other", unit(1), 5))[0]) == 1
    (path / "gone").rename(path / "default")
    await store.check()
    assert len((await store.search("default", unit(1), 5))[0]) == 1


async def test_a_cancelled_call_is_skipped(store: EmbeddedStore) -> None:
    await enrol(store, "default", "ada")
    with store._engine:  # the worker waits here
        first = asyncio.create_task(enrol(store, "default", "bob"))
        second = asyncio.create_task(enrol(store, "default", "eve"))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await store.size("default") == GallerySize(2, 2)


async def test_concurrent_searches_share_a_scan(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await enrol(store, "default", f"person-{number}", number)
    scans: list[int] = []
    real = store._search

    def counted(name: str, probes: FloatArray, limit: int) -> Any:
        scans.append(len(probes))
        return real(name, probes, limit)

    monkeypatch.setattr(store, "_search", counted)
    probes = np.concatenate([unit(1, number) for number in range(3)])
    searches = [
        asyncio.create_task(store.search("default", probes, 1)),
        asyncio.create_task(store.search("default", probes[1:2], 2)),
        asyncio.create_task(store.search("default", probes[2:], 3)),
    ]
    await asyncio.sleep(0)
    searches[1].cancel()
    first, second, third = await asyncio.gather(*searches, return_exceptions=True)
    assert scans == [5]
    assert isinstance(first, list)
    assert isinstance(second, asyncio.CancelledError)
    assert isinstance(third, list)
    assert [[found.person_id for found in row] for row in first] == [
        ["person-0"],
        ["person-1"],
        ["person-2"],
    ]
    assert [len(row) for row in third] == [3]
    assert third[0][0].person_id == "person-2"


async def test_closing_finishes_what_is_queued(store: EmbeddedStore, path: Path) -> None:
    writes = [asyncio.create_task(enrol(store, "default", f"p{n}", n)) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    with pytest.raises(StoreUnavailable):
        await enrol(store, "default", "late")
    with pytest.raises(StoreUnavailable):
        await store.check()
    await store.close()
    store = EmbeddedStore(path, EMBEDDER)
    await store.open()
    assert await store.size("default") == GallerySize(20, 20)
    await store.close()
