"""What only the embedded engine has: its folder, its worker, its slots, its segments."""

import asyncio
import errno
import multiprocessing
import os
import shutil
import sys
import threading
import uuid
from collections import namedtuple
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InvalidRequest, StoreLocked, StoreUnavailable
from app.store import EmbeddedStore, Embedder, Face, FloatArray, GallerySize, scan
from app.store import embedded as engine
from app.store import shard as shards

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
    await store.enrol(gallery, person_id, [added], unit(1, seed), 100)
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
    monkeypatch.setattr(shards, "_BLOCK", 4)
    for number in range(6):
        await enrol(store, "default", f"person-{number}", number)
    await store.delete_person("default", "person-1")
    store = await reopened(store, path)
    assert len(store._open["default"]._free) == 2
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
        await store.enrol("default", f"person-{number}", faces, unit(100, number), 100)
    for number in range(15):
        await store.delete_person("default", f"person-{number}")
    store = await reopened(store, path)
    assert await store.size("default") == GallerySize(5, 500)
    assert not store._open["default"]._engine.optimize()
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


def segments(path: Path) -> list[Path]:
    return [entry for entry in (path / "segments").iterdir() if entry.is_dir()]


def points(segment: Path) -> int:
    """What the engine has written to a segment: eight bytes for each point, its version."""
    file = segment / "mutable_id_tracker.versions"
    return file.stat().st_size // 8 if file.exists() else 0


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Galleries of 100 faces are scanned by three threads, whatever the machine."""
    monkeypatch.setattr(shards, "_LARGE", 100)
    monkeypatch.setattr(shards, "_CHECKPOINT", 200)
    monkeypatch.setattr(shards, "scan_threads", lambda: 3)


@pytest.mark.usefixtures("small_is_large")
async def test_a_large_gallery_is_spread_over_segments(store: EmbeddedStore, path: Path) -> None:
    rows = unit(1800)
    ids: list[str] = []
    for number in range(600):
        faces = [face(f"person-{number}") for _ in range(3)]
        ids += [face.face_id for face in faces]
        await store.enrol(
            "default", f"person-{number}", faces, rows[3 * number : 3 * number + 3], 3
        )
        if number == 20:
            assert len(segments(path / "default")) == 1  # a small one is not
    # If this fails with another release of the engine, `add_segments` no longer does its work.
    assert store._open["default"]._engine.info().segments_count == 3
    await store.close()
    held = [points(segment) for segment in segments(path / "default")]
    assert len(held) == 3
    assert min(held) > 400
    assert [entry.name for entry in path.iterdir() if entry.name.startswith(engine._NEW)] == []

    store = EmbeddedStore(path, EMBEDDER)
    await store.open()
    assert await store.size("default") == GallerySize(600, 1800)
    probes = unit(20, seed=5)
    exact = probes @ rows.T
    for similarities, found in zip(exact, await store.search("default", probes, 10), strict=True):
        best = np.argsort(-similarities)[:10]
        assert [neighbour.face_id for neighbour in found] == [ids[index] for index in best]
        assert [neighbour.similarity for neighbour in found] == pytest.approx(
            similarities[best].tolist(), abs=1e-4
        )
    await store.close()


@pytest.mark.usefixtures("small_is_large")
async def test_a_spread_gallery_survives_a_vacuum_and_grows_on(
    store: EmbeddedStore, path: Path
) -> None:
    kept: dict[str, FloatArray] = {}
    for generation in range(3):
        for number in range(60):
            person_id = f"person-{generation}-{number}"
            rows = unit(100, 1000 * generation + number)
            await store.enrol("default", person_id, [face(person_id) for _ in rows], rows, 100)
            if number % 2:
                await store.delete_person("default", person_id)
            else:
                kept[person_id] = rows
        store = await reopened(store, path)
        assert not store._open["default"]._engine.optimize()  # was done at opening
        assert store._open["default"]._engine.info().segments_count >= 3
        assert await store.size("default") == GallerySize(len(kept), 100 * len(kept))
        stored = await store.embeddings("default", kept)
        for person_id, rows in kept.items():
            assert {row.tobytes() for row in stored[person_id]} == {row.tobytes() for row in rows}
        person_id = next(iter(kept))
        ((found,),) = await store.search("default", kept[person_id][:1], 1)
        assert found.person_id == person_id
        assert found.similarity == pytest.approx(1, abs=1e-4)
        await store.update_metadata("default", person_id, {"generation": generation}, 100)
    await store.close()


def ids_in_place(segment: Path) -> list[int | None]:
    """The ids of a segment's points in the order of the scan, None for a face.

    Each entry of the file is: 1 and eight bytes of a number, or 2 and the sixteen of a UUID; then
    four bytes, the place in the segment.
    """
    log = (segment / "mutable_id_tracker.mappings").read_bytes()
    places: dict[int, int | None] = {}
    at = 0
    while at < len(log):
        number = int.from_bytes(log[at + 1 : at + 9], "little") if log[at] == 1 else None
        assert log[at] in (1, 2)
        at += 9 if log[at] == 1 else 17
        places[int.from_bytes(log[at : at + 4], "little")] = number
        at += 4
    return [places[place] for place in sorted(places)]


@pytest.mark.usefixtures("small_is_large")
async def test_blocks_of_slots_stay_in_one_piece(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_BLOCK", 25)
    for number in range(300):
        await enrol(store, "default", f"person-{number}", number)
    await store.close()
    assert len(segments(path / "default")) == 3
    slots = []
    for segment in segments(path / "default"):
        slots.append(0)
        for is_slot, run in groupby(ids_in_place(segment), lambda number: number not in (None, 0)):
            if is_slot:
                numbers = list(run)
                assert len(numbers) % 25 == 0
                slots[-1] += len(numbers)
    assert sum(slots) == 300
    assert min(slots) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says where threads run")
@pytest.mark.skipif(len(scan.available_cores()) < 2, reason="one core")
async def test_scanning_threads_have_cores_of_their_own_while_nothing_else_runs(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "scan_threads", lambda: 2)
    monkeypatch.setattr(shards, "_LARGE", 3)
    for number in range(3):
        await enrol(store, "default", f"person-{number}", number)
    store = await reopened(store, store._path)
    await store.search("default", unit(1), 1)
    threads = store._open["default"]._threads
    first, second = threads._threads
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(scan, "_LOOK_EVERY_S", 0.0)
    threads._look_again = 0.0
    monkeypatch.setattr(scan, "_running_tasks", lambda: 1)
    await store.search("default", unit(1), 1)
    assert not os.sched_getaffinity(first) & os.sched_getaffinity(second)
    assert os.sched_getaffinity(first) | os.sched_getaffinity(second) == cores
    monkeypatch.setattr(scan, "_running_tasks", lambda: 10**6)
    await store.search("default", unit(1), 1)
    assert os.sched_getaffinity(first) == os.sched_getaffinity(second) == cores
    await store.close()


async def test_a_checkpoint_follows_many_writes(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_CHECKPOINT", 5)
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
    store = EmbeddedStore(path, EMBEDDER, durable=durable)
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
    shard = store._open["default"]
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
    shard = store._open["default"]
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
    store = EmbeddedStore(path, EMBEDDER)
    await store.open()
    assert await store.size("default") == GallerySize(20, 20)
    await store.close()
