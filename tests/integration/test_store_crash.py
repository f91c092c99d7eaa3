"""The embedded store after the process died in the middle of writing."""

import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import time
import uuid
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from app.decision.fusion import template
from app.store import EmbeddedStore, Embedder, Face, FloatArray
from app.store import shard as shards
from tests.commands import forked

DIMENSION = 64
EMBEDDER = Embedder("test-model", DIMENSION, "a" * 64)
ROUNDS = 50

# What happened, gallery, person, face ids.
Message = tuple[str, str, str, list[str]]


def embedding(face_id: str) -> FloatArray:
    """What this face must have been stored with, known to parent and child alike."""
    seed = int.from_bytes(hashlib.sha256(face_id.encode()).digest()[:8])
    row = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def face(person_id: str, face_id: str) -> Face:
    return Face(face_id, person_id, (0, 0, 9, 9), 0.9, {}, "0" * 64, datetime.now(UTC))


async def enrol(store: EmbeddedStore, gallery: str, person_id: str, count: int) -> list[str]:
    ids = [str(uuid.uuid4()) for _ in range(count)]
    faces = [face(person_id, face_id) for face_id in ids]
    await store.enrol(gallery, person_id, faces, np.stack([embedding(i) for i in ids]), count)
    return ids


async def enrol_for_ever(path: Path, round_number: int, acknowledge: Connection) -> None:
    """The child: four writers at once, a message before each try and after each success, and the
    galleries written anew all the while."""
    # Soon spread over several segments, with a checkpoint now and then.
    shards._LARGE, shards._CHECKPOINT = 50, 500
    shards.scan_threads = lambda: 3
    store = EmbeddedStore(path, EMBEDDER, template, durable=False)
    await store.open()

    async def writer(name: int) -> None:
        for number in range(1_000_000):
            gallery, person_id = f"g{number % 2}", f"{round_number}-{name}-{number // 4}"
            ids = [str(uuid.uuid4()) for _ in range(1 + number % 5)]
            faces = [face(person_id, face_id) for face_id in ids]
            rows = np.stack([embedding(face_id) for face_id in ids])
            acknowledge.send(("try", gallery, person_id, ids))
            await store.enrol(gallery, person_id, faces, rows, 100)
            acknowledge.send(("done", gallery, person_id, ids))
            if number % 5 == 4:
                acknowledge.send(("try-delete-face", gallery, person_id, ids[:1]))
                await store.delete_face(gallery, person_id, ids[0])
                acknowledge.send(("deleted-face", gallery, person_id, ids[:1]))
            if number % 7 == 6:
                acknowledge.send(("try-delete", gallery, person_id, []))
                await store.delete_person(gallery, person_id)
                acknowledge.send(("deleted", gallery, person_id, []))

    async def vacuum() -> None:
        while True:
            await store.vacuum()
            await asyncio.sleep(0.02)

    await asyncio.gather(vacuum(), *(writer(name) for name in range(4)))


def child(path: Path, round_number: int, acknowledge: Connection) -> None:
    asyncio.run(enrol_for_ever(path, round_number, acknowledge))


def kill_while_writing(
    path: Path, round_number: int, after_messages: int, and_s: float
) -> list[Message]:
    """What a child said that was killed so many messages and seconds after its first one."""
    said, acknowledge = multiprocessing.Pipe(duplex=False)
    process = forked.Process(target=child, args=(path, round_number, acknowledge))
    process.start()
    acknowledge.close()
    messages: list[Message] = [said.recv() for _ in range(1 + after_messages)]
    time.sleep(and_s)
    process.kill()
    # A message cut short by the kill raises OSError, the end EOFError.
    with contextlib.suppress(EOFError, OSError):
        while True:
            messages.append(said.recv())
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return messages


class Expected:
    """What the messages promise: faces by (gallery, person)."""

    def __init__(self) -> None:
        self.acknowledged: dict[tuple[str, str], set[str]] = {}
        self.uncertain: dict[tuple[str, str], list[frozenset[str]]] = {}
        self.maybe_deleted: set[tuple[str, str]] = set()
        self.maybe_deleted_faces: set[str] = set()

    def read(self, messages: list[Message]) -> None:
        for what, gallery, person_id, ids in messages:
            key, group = (gallery, person_id), frozenset(ids)
            if what == "try":
                self.uncertain.setdefault(key, []).append(group)
            elif what == "done":
                self.uncertain[key].remove(group)
                self.acknowledged.setdefault(key, set()).update(group)
            elif what == "try-delete-face":
                self.maybe_deleted_faces |= group
            elif what == "deleted-face":
                self.maybe_deleted_faces -= group
                self.acknowledged[key] -= group
            elif what == "try-delete":
                self.maybe_deleted.add(key)
            else:
                self.maybe_deleted.discard(key)
                self.acknowledged.pop(key, None)


async def verify(path: Path, expected: Expected) -> int:
    store = EmbeddedStore(path, EMBEDDER, template)
    await store.open()
    try:
        await store.check()
        seen = 0
        for gallery, size in (await store.galleries()).items():
            persons = (await store.persons(gallery, 1_000_000)).persons
            ids = [person.person_id for person in persons]
            assert len(ids) == len(set(ids)) == size.persons
            stored = await store.embeddings(gallery, ids)
            page = await store.templates(gallery, 1_000_000)
            templates = dict(zip(page.person_ids, page.templates, strict=True))
            # Nobody without a face, nor without a template.
            assert set(templates) == set(stored) == set(ids)
            assert sum(len(rows) for rows in stored.values()) == size.faces
            for person in persons:
                faces = {f.face_id for f in await store.faces(gallery, person.person_id)}
                key = (gallery, person.person_id)
                acknowledged = expected.acknowledged.pop(key, set())
                assert person.face_count == len(faces)
                assert acknowledged - expected.maybe_deleted_faces <= faces
                rest = faces - acknowledged
                for group in expected.uncertain.get(key, []):
                    assert group <= rest or not group & rest, "half an enrolment"
                    rest -= group
                assert not rest
                rows = {row.tobytes() for row in stored[person.person_id]}
                assert rows == {embedding(face_id).tobytes() for face_id in faces}
                fused = template(stored[person.person_id])
                np.testing.assert_array_equal(templates[person.person_id], fused)
                seen += len(faces)
                expected.acknowledged[key] = faces
        lost = {
            key
            for key in expected.acknowledged
            if key not in expected.maybe_deleted
            and (key[0] not in await store.galleries() or not await has(store, *key))
        }
        assert not lost
        for key in expected.maybe_deleted:
            if not await has(store, *key):
                expected.acknowledged.pop(key, None)
        expected.uncertain.clear()
        expected.maybe_deleted.clear()
        expected.maybe_deleted_faces.clear()
        return seen
    finally:
        await store.close()


async def has(store: EmbeddedStore, gallery: str, person_id: str) -> bool:
    return person_id in await store.embeddings(gallery, [person_id])


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    chance = random.Random(20240501)
    expected = Expected()
    for round_number in range(ROUNDS):
        expected.read(
            kill_while_writing(
                tmp_path / "store", round_number, chance.randrange(150), chance.uniform(0, 0.005)
            )
        )
        # Every child opens what the one before left; looking closely is the slow part.
        if round_number < 3 or round_number % 10 == 9 or round_number == ROUNDS - 1:
            seen = asyncio.run(verify(tmp_path / "store", expected))
    assert seen > 10 * ROUNDS
    for gallery in ("g0", "g1"):
        assert len(list((tmp_path / "store" / gallery / "segments").iterdir())) >= 3


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "store", 0, 0, 0.0)

    async def reopen() -> None:
        store = EmbeddedStore(tmp_path / "store", EMBEDDER, template)
        await store.open()
        await store.close()

    asyncio.run(reopen())


def test_an_acknowledged_write_needs_only_the_synced_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut nothing is sure to be there but what was synced.

    The engine's segments are put back to what they were at the last checkpoint, and each file
    of the log to what it held when it was last passed to `fsync`.
    """
    store_path, survivor = tmp_path / "store", tmp_path / "survivor"
    synced: dict[str, bytes] = {}
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        if file.parent.name == "wal":
            synced[file.name] = file.read_bytes()

    async def scenario() -> list[str]:
        store = EmbeddedStore(store_path, EMBEDDER, template)
        await store.open()
        ids = await enrol(store, "default", "ada", 3)
        await store.close()
        shutil.copytree(store_path, survivor)
        (survivor / "default" / ".seal").unlink()  # as the next opening does, for good

        store = EmbeddedStore(store_path, EMBEDDER, template)
        await store.open()
        monkeypatch.setattr(os, "fsync", watched)
        for number in range(20):
            ids += await enrol(store, "default", f"person-{number}", 2)
        monkeypatch.undo()
        for name, content in synced.items():
            (survivor / "default" / "wal" / name).write_bytes(content)
        await store.close()

        store = EmbeddedStore(survivor, EMBEDDER, template)
        await store.open()
        persons = ["ada", *(f"person-{number}" for number in range(20))]
        stored = await store.embeddings("default", persons)
        found = await store.search("default", np.stack([template(stored[p]) for p in persons]), 1)
        await store.close()
        rows = {row.tobytes() for person_id in persons for row in stored[person_id]}
        assert rows == {embedding(face_id).tobytes() for face_id in ids}
        assert [nearest.person_id for (nearest,) in found] == persons
        assert [nearest.similarity for (nearest,) in found] == pytest.approx([1.0] * 21)
        return ids

    assert len(asyncio.run(scenario())) == 43
