"""Everybody in one file and back, whichever engines are at the ends."""

import asyncio
import gzip
import io
import json
import random
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from app.errors import InvalidBackup
from app.metrics import Metrics
from app.services.erasure import Eraser
from app.store import Store, Targets, backup, transfer
from app.store.backup import Backup, write_backup
from app.store.receipts import erasures_since
from app.store.transfer import StoreSource, WithoutErased, copy, verify
from tests.contract.conftest import ENGINES, Make
from tests.contract.test_transfer import WAYS, bits, exported, fill, ignore
from tests.stores import EMBEDDER, NO_LIMIT, enrol, face, unit, writer_of

pytestmark = pytest.mark.anyio


async def saved(store: Store) -> bytes:
    return b"".join([piece async for piece in write_backup(store, EMBEDDER)])


def flipped(content: bytes, chance: random.Random) -> bytes:
    """With one bit of its body changed."""
    changed = bytearray(content)
    changed[chance.randrange(10, len(content))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def unpacked(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error):
        return None


def altered(content: bytes, line: int, change: dict[str, Any]) -> bytes:
    lines = [json.loads(text) for text in gzip.decompress(content).splitlines()]
    lines[line] |= change
    return gzip.compress("".join(json.dumps(text) + "\n" for text in lines).encode())


@pytest.mark.parametrize("engines", WAYS)
async def test_what_is_restored_is_what_was_backed_up(make: Make, engines: tuple[str, str]) -> None:
    source, destination = [await make(engine) for engine in engines]
    await fill(source)
    began = datetime.now(UTC)
    content = Backup(io.BytesIO(await saved(source)))
    assert began <= content.taken_at <= datetime.now(UTC)
    assert content.faces == sum(size.faces for size in (await source.galleries()).values())
    assert await copy(content, destination, ignore) == transfer.Copied(32, 0)
    await verify(content, destination)
    await verify(StoreSource(source), destination)
    before, after = await exported(source), await exported(destination)
    assert {g: bits(p) for g, p in after.items()} == {g: bits(p) for g, p in before.items()}


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_restore_leaves_out_who_was_erased_since(make: Make, engine: str) -> None:
    source = await make(engine)
    for number in range(4):
        await enrol(source, "default", f"person-{number}", number)
    await enrol(source, "other", "person-1", 1)
    content = Backup(io.BytesIO(await saved(source)))
    eraser = Eraser(writer_of(source), Metrics())
    await eraser.erase("default", "person-1")
    await eraser.erase("default", "person-2")
    # Enrolled anew, and backed up again: the erasure is of the record before.
    await enrol(source, "default", "person-2", 9)
    renewed = Backup(io.BytesIO(await saved(source)))
    for backed_up, expected in ((content, {0, 3}), (renewed, {0, 2, 3})):
        for gallery in ("default", "other"):
            async for page in transfer.pages_of(source, gallery):
                for person in page.persons:
                    await source.delete_person(gallery, person.payload["person_id"])
        restored = WithoutErased(backed_up, await erasures_since(source.receipts))
        await copy(restored, source, ignore)
        await verify(restored, source)
        left = [person.person_id for person in (await source.persons("default", 9)).persons]
        assert set(left) == {f"person-{number}" for number in expected}
        assert (await source.size("other")).persons == 1
    assert restored.left_out == 0


async def test_an_empty_store_is_backed_up_too(make: Make) -> None:
    content = Backup(io.BytesIO(await saved(await make("embedded"))))
    destination = await make("memory")
    assert await copy(content, destination, ignore) == transfer.Copied(0, 0)
    assert await verify(content, destination) == {}


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_changed_after_it_was_written_down_is_written_again(
    make: Make, engine: str
) -> None:
    store, destination = await make(engine), await make("embedded")
    await fill(store)
    await enrol(store, "zz-to-go", "ada")
    stays = (await store.faces("default", "person-3"))[1:]
    pieces = []
    async for piece in write_backup(store, EMBEDDER):
        pieces.append(piece)
        if len(pieces) == 4:  # the header, and one page of each gallery
            await store.delete_person("default", "person-1")
            await store.delete_face(
                "default", "person-3", (await store.faces("default", "person-3"))[0].face_id
            )
            await store.update_person("default", "person-2", {"new": True}, 1000)
            await enrol(store, "default", "newcomer")
            await enrol(store, "another", "newcomer")
            await store.delete_person("zz-to-go", "ada")
            await store.set_targets("another", Targets(0.1))
    content = Backup(io.BytesIO(b"".join(pieces)))
    await copy(content, destination, ignore)
    await verify(content, destination)
    await verify(StoreSource(store), destination)
    assert await destination.faces("default", "person-3") == stays
    assert set(await destination.galleries()) == {"another", "default", "second"}
    assert "person-1" not in bits((await exported(destination))["default"])


@pytest.mark.parametrize("engine", ["embedded", "memory"])
async def test_persons_are_whole_and_the_deleted_stay_away_while_others_write(
    make: Make, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody is enrolled with two faces, then with two more, then perhaps deleted."""
    monkeypatch.setattr(transfer, "_PAGE_PERSONS", 5)
    store, destination = await make(engine), await make("embedded")
    await fill(store, 20)
    log: list[tuple[datetime, str, int]] = []  # when acknowledged, who, faces from then on
    done = False

    async def write(name: int) -> None:
        number = 0
        while not done:
            person_id = f"busy-{name}-{number % 40}"
            for count in (2, 4):
                faces = [face(person_id, count - 2), face(person_id, count - 1)]
                await store.enrol("default", person_id, faces, unit(2, seed=number), NO_LIMIT)
                log.append((datetime.now(UTC), person_id, count))
                await asyncio.sleep(0.001)
            await store.delete_person("default", person_id)
            log.append((datetime.now(UTC), person_id, 0))
            number += 1

    writers = [asyncio.create_task(write(name)) for name in range(4)]
    await asyncio.sleep(0.2)
    content = Backup(io.BytesIO(await saved(store)))
    done = True
    await asyncio.gather(*writers)
    await copy(content, destination, ignore)
    await verify(content, destination)

    restored = {
        p.payload["person_id"]: p.payload["face_count"]
        for p in (await exported(destination))["default"]
    }
    busy = {person_id for _, person_id, _ in log}
    assert {f"person-{n}" for n in range(20)} == restored.keys() - busy
    assert all(restored[person_id] in (2, 4) for person_id in restored.keys() & busy)
    for person_id in busy:
        states = [(when, count) for when, who, count in log if who == person_id]
        before = [count for when, count in states if when <= content.taken_at]
        # At the moment of the second look, or of a write that it did not wait for.
        possible = {(before or [0])[-1]} | {c for when, c in states if when > content.taken_at}
        assert restored.get(person_id, 0) in possible


async def test_a_file_that_is_cut_short_or_altered_is_no_backup(make: Make) -> None:
    store = await make("embedded")
    await fill(store, 3)
    content = await saved(store)
    Backup(io.BytesIO(content))
    chance = random.Random(0)
    damaged = [b"", b"no gzip", content + b"more", content + content]
    damaged += [content[:length] for length in chance.sample(range(len(content)), 60)]
    damaged += [content[:-length] for length in range(1, 9)]
    # Deflate leaves a few bits that nothing reads: a file that differs only there is intact.
    flips = (flipped(content, chance) for _ in range(200))
    damaged += [file for file in flips if unpacked(file) != gzip.decompress(content)]
    lines = gzip.decompress(content).splitlines(keepends=True)
    damaged += [gzip.compress(b"".join(lines[:at] + lines[at + 1 :])) for at in range(len(lines))]
    damaged += [
        altered(content, 1, {"gallery": "other"}),
        altered(content, -2, {"withdrawn": [0]}),
        altered(content, -2, {"targets": {}}),
        altered(content, -1, {"sha256": "0" * 64}),
        altered(content, -1, {"more": 1}),
    ]
    for file in damaged:
        with pytest.raises(InvalidBackup):
            Backup(io.BytesIO(file))


async def test_a_backup_of_another_version_or_model_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await make("embedded")
    content = await saved(store)
    assert Backup(io.BytesIO(content)).mismatch(EMBEDDER) is None
    other = type(EMBEDDER)("other-model", 16, "b" * 64)
    problem = Backup(io.BytesIO(content)).mismatch(other)
    assert problem is not None
    assert problem.startswith("The faces in the backup were embedded by 'test-model'")
    monkeypatch.setattr(backup, "VERSION", 2)
    newer = await saved(store)
    monkeypatch.undo()
    with pytest.raises(InvalidBackup, match="version 2"):
        Backup(io.BytesIO(newer))
