"""The embedded store where a file of a gallery is not what it was."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.store import EmbeddedStore, galleries
from tests.damage import (
    DAMAGES,
    Damage,
    content,
    contents,
    cut,
    files_of,
    flip,
    lose,
    put_back,
    zero,
)
from tests.stores import embedded, enrol, reopened, unit

pytestmark = pytest.mark.anyio

PERSONS = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def filled(path: Path) -> EmbeddedStore:
    """Two faces for every third, somebody without any, somebody deleted."""
    store = embedded(path)
    await store.open()
    for number in range(PERSONS):
        face_id = await enrol(store, "default", f"person-{number}", number)
        if number % 3 == 0:
            await enrol(store, "default", f"person-{number}", 100 + number)
    await store.delete_person("default", "person-7")
    await store.delete_face("default", f"person-{PERSONS - 1}", face_id)
    await enrol(store, "other", "ada")
    return store


async def everything(store: EmbeddedStore) -> list[Any]:
    """All that can be asked of the store."""
    persons = (await store.persons("default", 1000)).persons
    stored = await store.embeddings("default", [person.person_id for person in persons])
    templates = await store.templates("default", 1000)
    found = await store.search("default", unit(20, seed=5), 10)
    return [
        await store.galleries(),
        persons,
        {person_id: rows.tobytes() for person_id, rows in stored.items()},
        [await store.faces("default", person.person_id) for person in persons],
        templates.person_ids,
        templates.templates.tobytes(),
        [[(near.person_id, round(near.similarity, 6)) for near in row] for row in found],
    ]


async def refusal(path: Path) -> str:
    """What is said instead of opening it; nothing in it is changed by that."""
    before = contents(path)
    with pytest.raises(StoreUnavailable) as refused:
        await embedded(path).open()
    assert contents(path) == before
    return refused.value.detail


@pytest.mark.parametrize("damage", DAMAGES)
async def test_every_damage_to_a_closed_gallery_is_noticed_before_anything_is_written(
    path: Path, damage: Damage
) -> None:
    await (await filled(path)).close()
    chance = random.Random(1)
    for file in files_of(path / "default"):
        if file.name == ".seal" and damage is lose:
            continue
        damaged = path / "default" / file
        whole = content(damaged)
        damage(damaged, chance)
        if not damaged.exists() or content(damaged) != whole:
            said = await refusal(path)
            assert str(path / "default") in said
            assert file.as_posix() in said
        put_back(damaged, whole)
    store = embedded(path)
    await store.open()
    await store.close()


async def test_without_its_checksums_a_gallery_is_tried_out(path: Path) -> None:
    store = await filled(path)
    whole = await everything(store)
    await store.close()
    (path / "default" / ".seal").unlink()
    store = embedded(path)
    await store.open()
    assert await everything(store) == whole
    await store.close()


async def test_a_file_that_was_not_there_is_noticed(path: Path) -> None:
    await (await filled(path)).close()
    (path / "default" / "segments" / "another").write_bytes(b"")
    assert "segments/another was not there" in await refusal(path)


@pytest.mark.parametrize(
    ("damage", "files"),
    [
        (lose, "payload_storage/tracker.dat"),
        (zero, "payload_storage/page_0.dat"),
        (zero, "vectors/chunk_0.mmap"),
        (lose, "deleted/flags_a.dat"),
        (lose, "mutable_id_tracker.versions"),
        (zero, "mutable_id_tracker.mappings"),
        (cut, "mutable_id_tracker.mappings"),
        (cut, "mutable_id_tracker.versions"),
        (cut, "segment.json"),
        (lose, "edge_config.json"),
    ],
)
async def test_a_damaged_gallery_of_a_killed_process_is_refused_and_left_as_it_is(
    path: Path, tmp_path: Path, damage: Damage, files: str
) -> None:
    store = await filled(path)
    store._galleries.open["default"].checkpoint()
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)
    await store.close()
    (damaged,) = (killed / "default").rglob(f"*{files}")
    damage(damaged, random.Random(1))
    said = await refusal(killed)
    assert str(killed / "default") in said
    assert galleries._NEW not in said


@pytest.mark.parametrize("damage", [lose, zero, flip])
async def test_a_log_that_ends_before_what_was_acknowledged_is_refused(
    path: Path, tmp_path: Path, damage: Damage
) -> None:
    store = await filled(path)
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)
    await store.close()
    damage(killed / "default" / "wal" / "open-1", random.Random(1))
    assert str(killed / "default") in await refusal(killed)


async def test_a_deletion_that_was_acknowledged_is_missed_in_the_log_too(
    path: Path, tmp_path: Path
) -> None:
    store = await filled(path)
    log = path / "default" / "wal" / "open-1"
    before = content(log)
    await store.delete_person("default", "person-0")
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)
    await store.close()
    put_back(killed / "default" / "wal" / "open-1", before)
    assert "its log ends before" in await refusal(killed)


async def test_a_log_that_is_lost_with_nothing_in_it_is_refused(path: Path, tmp_path: Path) -> None:
    store = await filled(path)
    store._galleries.open["default"].checkpoint()
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)
    await store.close()
    for part in (killed / "default" / "wal").glob("open-*"):
        part.unlink()
    assert "does not go on" in await refusal(killed)


class Copying:
    """An engine that copies the store before it flushes, and after."""

    def __init__(self, engine: Any, path: Path, before: Path, after: Path) -> None:
        self._engine, self._path, self._before, self._after = engine, path, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def flush(self) -> None:
        shutil.copytree(self._path, self._before)
        self._engine.flush()
        shutil.copytree(self._path, self._after)

    def close(self) -> None:  # of which flushing is a part
        self.flush()
        self._engine.close()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    "not_yet", ["", "segment.json", "versions segment.json", ".dat .mmap versions segment.json"]
)
async def test_a_gallery_killed_while_it_was_flushed_is_whole(
    path: Path, tmp_path: Path, not_yet: str, closed: bool
) -> None:
    store = await filled(path)
    shard = store._galleries.open["default"]
    shard.checkpoint()
    for number in range(3):  # nothing in the log tells of them but these
        await store.delete_person("default", f"person-{number}")
    whole = await everything(store)
    killed, after = tmp_path / "killed", tmp_path / "after"
    engine = shard._engine
    shard._engine = Copying(engine, path, killed, after)  # type: ignore[assignment]
    if closed:
        shard.close()
        del store._galleries.open["default"]
    else:
        shard.flush()
        shard._engine = engine
    await store.close()
    # In the engine's order: who is there, what is known of them, in which write, and the segment.
    for file in files_of(after / "default" / "segments"):
        if not file.name.endswith(tuple(not_yet.split())):
            (killed / "default" / "segments" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(after / "default" / "segments" / file, killed / "default/segments" / file)
    store = embedded(killed)
    await store.open()
    assert await everything(store) == whole
    await store.close()


async def test_where_one_gallery_is_damaged_no_other_is_written_to(path: Path) -> None:
    await (await filled(path)).close()
    cut(path / "other" / "edge_config.json", random.Random())
    assert str(path / "other") in await refusal(path)


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def scarce() -> None:
        monkeypatch.setattr(
            galleries.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0)
        )

    return scarce


async def test_without_room_for_a_copy_a_gallery_is_opened_all_the_same(
    path: Path, scarce: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = await filled(path)
    whole = await everything(store)
    await store.close()
    (path / "default" / ".seal").unlink()
    scarce()
    store = embedded(path)
    await store.open()
    assert await everything(store) == whole
    assert str(path / "default") in caplog.text
    await store.close()


async def test_a_gallery_damaged_while_it_is_closed_is_refused_and_the_others_go_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries, "_MAX_OPEN", 1)
    store = await filled(path)  # of which only the other one is open
    damaged = path / "default" / "edge_config.json"
    whole = damaged.read_bytes()
    cut(damaged, random.Random())
    with pytest.raises(StoreUnavailable, match=r"edge_config\.json"):
        await store.search("default", unit(1), 1)
    with pytest.raises(StoreUnavailable, match=r"edge_config\.json"):
        await store.check()
    assert len((await store.search("other", unit(1), 5))[0]) == 1
    damaged.write_bytes(whole)
    await store.check()
    store = await reopened(store, path)
    assert (await store.galleries())["default"].persons == PERSONS - 1
    await store.close()
