"""What is deleted leaves the files of the embedded engine, whatever else happens meanwhile."""

import asyncio
import base64
import logging
import stat
from pathlib import Path

import numpy as np
import pytest

from app.decision.fusion import template
from app.errors import StoreUnavailable
from app.store import EmbeddedStore, GallerySize, Targets
from app.store import rewrite as rewrites
from app.store.rewrite import Rewrite, recover
from app.store.shard import Shard
from tests.stores import embedded, enrol, face, reopened, unit

pytestmark = pytest.mark.anyio

LOG, PAYLOADS, VECTORS, CODES = "wal/", "payload_storage/", "vectors/", "quantized_data/"


def holding(path: Path, needle: bytes) -> list[str]:
    """The files of a store that hold these bytes."""
    files = (entry for entry in path.rglob("*") if entry.is_file())
    return [file.relative_to(path).as_posix() for file in files if needle in file.read_bytes()]


async def needles(store: EmbeddedStore, gallery: str, person_id: str) -> dict[str, bytes]:
    """All that tells of a person, as it lies in the files."""
    person = await store.export(gallery, person_id)
    assert person.template is not None
    return {
        "template": person.template.tobytes(),
        # The engine ends it by where the text stood in the payload.
        "embeddings": base64.b64encode(person.embeddings.tobytes())[:-4],
        "id": person_id.encode(),
        "photo": person.faces[0].image_sha256.encode(),
    }


async def code_of(path: Path, row: np.ndarray) -> bytes:
    """What the engine makes of a template for its scan, from a store that holds nobody else."""
    store = embedded(path)
    await store.open()
    await store.enrol("default", "somebody", [face("somebody")], row[None], 1)
    await store.close()
    (file,) = (path / "default").glob(f"segments/*/*/{CODES}chunk_0.mmap")
    return file.read_bytes().strip(b"\0")


async def test_the_bytes_of_a_deleted_person_leave_the_files(
    store: EmbeddedStore, path: Path, tmp_path: Path
) -> None:
    for number in range(40):
        await enrol(store, "default", f"person-{number}-of-forty", number)
    victim = "person-20-of-forty"
    await store.update_person("default", victim, {"name": "Ada of Forty"}, 100)
    wanted = await needles(store, "default", victim)
    wanted["code"] = await code_of(tmp_path / "alone", template(unit(1, 20)))
    kept = await needles(store, "default", "person-21-of-forty")

    await store.delete_person("default", victim)
    store = await reopened(store, path)
    # The engine has left all of it there: if this fails, it cleans up and `rewrite` can go.
    where = {name: " ".join(holding(path, needle)) for name, needle in wanted.items()}
    assert VECTORS in where["template"]
    assert LOG in where["embeddings"]
    assert PAYLOADS in where["embeddings"]
    assert LOG in where["id"]
    assert CODES in where["code"]

    assert await store.vacuum() == 1
    assert {name: holding(path, needle) for name, needle in wanted.items()} == {
        name: [] for name in wanted
    }
    await store.close()
    assert not any(holding(path, needle) for needle in wanted.values())
    assert all(holding(path, needle) for name, needle in kept.items() if name != "photo")


async def test_the_bytes_of_a_deleted_face_leave_the_files(
    store: EmbeddedStore, path: Path
) -> None:
    going = await enrol(store, "default", "ada", 1)
    await enrol(store, "default", "ada", 2)
    needle = base64.b64encode(unit(1, 1).tobytes())[:-4]
    await store.delete_face("default", "ada", going)
    assert holding(path, needle)
    assert await store.vacuum() == 1
    assert not holding(path, needle)
    np.testing.assert_array_equal((await store.embeddings("default", ["ada"]))["ada"], unit(1, 2))
    await store.close()


async def test_an_emptied_gallery_leaves_the_disk(store: EmbeddedStore, path: Path) -> None:
    for gallery in ("emptied", "aimed", "peopled"):
        await enrol(store, gallery, "ada", 1)
    await store.set_targets("aimed", Targets(target_fpir=0.02))
    for gallery in ("emptied", "aimed"):
        await store.delete_person(gallery, "ada")
    await store.vacuum()
    assert await store.gallery_names() == {"aimed", "peopled"}
    assert {entry.name for entry in path.iterdir() if entry.is_dir()} == {"aimed", "peopled"}
    assert await store.size("emptied") == GallerySize(0, 0)
    await enrol(store, "emptied", "ada", 1)
    store = await reopened(store, path)
    assert await store.size("emptied") == GallerySize(1, 1)


async def test_writes_during_a_vacuum_are_kept(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrites, "_SLICE", 1)
    for number in range(60):
        await enrol(store, "default", f"p{number}", number)
    await store.delete_person("default", "p0")
    vacuum = asyncio.create_task(store.vacuum())
    writes = 0
    for number in range(1, 20):
        await store.delete_person("default", f"p{number}")
        await enrol(store, "default", f"p{number + 20}", 100 + number)  # a second face
        await enrol(store, "default", f"new{number}", 200 + number)
        await store.update_person("default", f"p{number + 40}", {"n": number}, 100)
        writes += not vacuum.done()
    assert writes > 5  # or nothing was tested
    await store.set_targets("default", Targets(0.001, None))
    assert await vacuum == 1
    for opened in (store, await reopened(store, path)):
        if opened is store:
            continue
        assert await opened.size("default") == GallerySize(40 + 19, 40 + 19 + 19)
        assert await opened.targets("default") == Targets(0.001, None)
        page = await opened.persons("default", 100)
        expected = {f"p{n}" for n in range(20, 60)} | {f"new{n}" for n in range(1, 20)}
        assert {person.person_id for person in page.persons} == expected
        assert {p.person_id: p.metadata for p in page.persons}["p45"] == {"n": 5}
        for number in range(1, 20):
            ((found,),) = await opened.search("default", unit(1, 200 + number), 1)
            assert found.person_id == f"new{number}"
        # Who was deleted after they were copied goes the next time.
        assert await opened.vacuum() == 1
        assert not holding(path, base64.b64encode(unit(1, 19).tobytes())[:-4])
        await opened.close()


async def test_searches_go_on_during_a_vacuum(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrites, "_SLICE", 1)
    for number in range(50):
        await enrol(store, "default", f"p{number}", number)
    await store.delete_person("default", "p0")
    vacuum = asyncio.create_task(store.vacuum())
    answered = 0
    while not vacuum.done():
        ((found,),) = await store.search("default", unit(1, 7), 1)
        assert found.person_id == "p7"
        answered += 1
    assert answered > 10
    assert await vacuum == 1


@pytest.mark.parametrize("step", ["copy_slice", "copy_changes", "flush", "sync", "replace"])
async def test_a_vacuum_that_fails_leaves_the_gallery_as_it_is(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await enrol(store, "default", "ada")
    await enrol(store, "default", "bob", 1)
    await store.delete_person("default", "bob")

    def fail(_: Rewrite) -> None:
        raise OSError("no more")

    monkeypatch.setattr(Rewrite, step, fail)
    with pytest.raises((StoreUnavailable, OSError)):
        await store.vacuum()
    monkeypatch.undo()
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "default"]
    await enrol(store, "default", "eve", 2)
    assert await store.size("default") == GallerySize(2, 2)
    assert await store.vacuum() == 1
    assert len((await store.search("default", unit(1), 5))[0]) == 2


async def test_a_gallery_without_room_for_its_copy_holds_up_no_other(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for gallery in ("large", "small"):
        for number in range(2):
            await enrol(store, gallery, f"p{number}", number)
        await store.delete_person(gallery, "p0")
    begin = Rewrite.begin

    def without_room(rewrite: Rewrite, shard: Shard) -> None:
        if rewrite.gallery == "large":
            raise StoreUnavailable("full")
        begin(rewrite, shard)

    with monkeypatch.context() as full:
        full.setattr(Rewrite, "begin", without_room)
        with pytest.raises(StoreUnavailable, match="full"):
            await store.vacuum()
    assert await store.vacuum() == 1, "the small one was written anew then"


async def test_what_could_not_be_removed_once_is_in_nobodys_way(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await enrol(store, "default", f"p{number}", number)

    def fail(_: Rewrite) -> None:
        raise OSError("busy")

    with monkeypatch.context() as busy:
        busy.setattr(Rewrite, "remove_former", fail)
        await store.delete_person("default", "p0")
        with pytest.raises(StoreUnavailable, match="busy"):
            await store.vacuum()
    await store.delete_person("default", "p1")
    assert await store.vacuum() == 1
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "default"]
    assert await store.size("default") == GallerySize(1, 1)


async def test_a_vacuum_that_is_cancelled_leaves_the_gallery_as_it_is(
    store: EmbeddedStore, path: Path
) -> None:
    for number in range(40):
        await enrol(store, "default", f"p{number}", number)
    await store.delete_person("default", "p0")
    with store._engine:  # the worker waits here
        vacuum = asyncio.create_task(store.vacuum())
        await asyncio.sleep(0.05)
        vacuum.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await vacuum
    await store.check()
    assert await store.size("default") == GallerySize(39, 39)
    assert await store.vacuum() == 1
    store = await reopened(store, path)
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "default"]
    await store.close()


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_crash_between_the_renames_is_mended(
    store: EmbeddedStore, path: Path, replaced: bool
) -> None:
    await enrol(store, "default", "ada")
    await store.close()
    (path / "default").rename(path / f"{rewrites.FORMER}default")
    if replaced:
        other = embedded(path)
        recover(path)
        await other.open()
        await other.close()
        (path / f"{rewrites.FORMER}default").mkdir()
    store = embedded(path)
    await store.open()
    assert await store.size("default") == GallerySize(1, 1)
    await store.close()
    assert sorted(entry.name for entry in path.iterdir()) == [".lock", "default"]


@pytest.mark.usefixtures("store")
async def test_a_new_folder_is_its_owners_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


async def test_a_folder_that_others_can_read_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    caplog.set_level(logging.WARNING)
    store = embedded(folder)
    await store.open()
    await store.close()
    assert f"{folder} can be read by other users" in caplog.text
