"""The folder and the worker of the embedded engine."""

import asyncio
import errno
import multiprocessing
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidRequest, StoreLocked, StoreUnavailable
from app.store import EmbeddedStore, FloatArray, GallerySize, galleries
from app.store import shard as shards
from tests.stores import embedded, enrol, reopened, unit

pytestmark = pytest.mark.anyio


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
    second = embedded(path)
    with pytest.raises(StoreLocked, match=str(path)):
        await second.open()
    await store.close()
    await second.open()
    await second.close()


def hold(path: Path, opened: Any, release: Any) -> None:
    async def body() -> None:
        store = embedded(path)
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
            await embedded(path).open()
    finally:
        release.set()
        process.join()


async def test_a_half_made_gallery_is_swept_away(store: EmbeddedStore, path: Path) -> None:
    await enrol(store, "default", "ada")
    shutil.copytree(path / "default" / "segments", path / f"{galleries._NEW}1" / "segments")
    store = await reopened(store, path)
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "default"]
    await store.close()


async def test_galleries_beyond_the_limit_are_closed_and_opened_again(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries, "_MAX_OPEN", 2)
    for number in range(4):
        await enrol(store, f"g{number}", f"person-{number}", number)
    assert list(store._galleries.open) == ["g2", "g3"]
    for number in range(4):
        ((found,),) = await store.search(f"g{number}", unit(1, number), 1)
        assert found.person_id == f"person-{number}"
        assert await store.size(f"g{number}") == GallerySize(1, 1)
    assert len(store._galleries.open) == 2
    # In one drain: written to and closed again before the log would have been synced.
    await asyncio.gather(*(enrol(store, f"g{number}", "more", 9) for number in range(4)))
    assert list((await store.galleries()).values()) == [GallerySize(2, 2)] * 4


async def test_many_writes_at_once_share_a_sync(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    synced = 0
    real = shards.Shard.sync_log

    def counted(self: shards.Shard) -> None:
        nonlocal synced
        synced += 1
        real(self)

    monkeypatch.setattr(shards.Shard, "sync_log", counted)
    await asyncio.gather(*(enrol(store, "default", f"p{number}", number) for number in range(50)))
    assert 1 <= synced <= 25


@pytest.mark.parametrize("durable", [True, False])
async def test_durable_writes_wait_for_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    store = embedded(path, durable=durable)
    await store.open()
    await enrol(store, "default", "ada")
    gate = threading.Event()
    real = shards.sync

    def slow(file: Path) -> None:
        gate.wait(10)
        real(file)

    monkeypatch.setattr(shards, "sync", slow)
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
    free = 2**21
    monkeypatch.setattr(galleries.shutil, "disk_usage", lambda _: usage(10**9, 0, free))
    with pytest.raises(StoreUnavailable, match="full"):
        await enrol(store, "default", "bob")
    assert await store.size("default") == GallerySize(1, 1)
    assert len((await store.search("default", unit(1), 5))[0]) == 1
    await store.check()
    free = 1
    with pytest.raises(StoreUnavailable, match="last byte"):
        await store.delete_person("default", "ada")
    free = 2**21
    await store.delete_person("default", "ada")


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
    shard = store._galleries.open["default"]
    shard._engine = Broken(shard._engine, error, "update")  # type: ignore[assignment]
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

    monkeypatch.setattr(shards, "sync", fail)
    with pytest.raises(StoreUnavailable, match="Input/output"):
        await enrol(store, "default", "bob")
    monkeypatch.undo()
    await store.check()


async def test_a_gallery_that_cannot_be_loaded_is_reported(
    store: EmbeddedStore, path: Path
) -> None:
    await enrol(store, "default", "ada")
    await enrol(store, "other", "bob")
    shard = store._galleries.open["default"]
    shard._engine = Broken(shard._engine, Exception("engine"), "update")  # type: ignore[assignment]
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
    real = shards.Shard.search

    def counted(self: shards.Shard, probes: FloatArray, limit: int) -> Any:
        scans.append(len(probes))
        return real(self, probes, limit)

    monkeypatch.setattr(shards.Shard, "search", counted)
    probes = np.concatenate([unit(1, number) for number in range(3)])
    searches = [
        asyncio.create_task(store.search("default", probes, 1)),
        asyncio.create_task(store.search("default", probes[1:2], 2)),
        asyncio.create_task(store.search("default", probes[2:], 3)),
    ]
    await asyncio.sleep(0)
    searches[1].cancel()
    first, second, third = await asyncio.gather(*searches, return_exceptions=True)
    assert scans == [4]  # nobody waits for the fifth probe any more
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
    store = embedded(path)
    await store.open()
    assert await store.size("default") == GallerySize(20, 20)
    await store.close()
