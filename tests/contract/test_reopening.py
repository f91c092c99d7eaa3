"""A store that is opened again, by its own model and by another."""

import pytest

from app.errors import StoreMismatch
from app.store import Embedder, GallerySize, records
from tests.contract.conftest import Open, assert_consistent, listed
from tests.stores import DIMENSION, EMBEDDER, enrol_faces, face, unit

pytestmark = pytest.mark.anyio


async def test_all_is_there_after_reopening(reopen: Open) -> None:
    rows = unit(6)
    store = await reopen(EMBEDDER)
    await enrol_faces(store, "ada", rows[:3])
    await enrol_faces(store, "bob", rows[3:5])
    await store.update_person("default", "ada", {"name": "Ada"}, 100)
    await store.delete_face("default", "ada", face("ada", 0).face_id)
    await enrol_faces(store, "eve", rows[5:], "other")
    persons, faces = await listed(store, 10), await store.faces("default", "ada")
    store = await reopen(EMBEDDER)
    await store.check()
    assert await listed(store, 10) == persons
    assert await store.faces("default", "ada") == faces
    assert await store.galleries() == {"default": GallerySize(2, 4), "other": GallerySize(1, 1)}
    assert (await store.search("other", rows[5:], 1))[0][0].person_id == "eve"
    await enrol_faces(store, "joe", rows[:1])
    assert len(await listed(store, 10)) == 3
    await assert_consistent(store)


@pytest.mark.parametrize(
    "other",
    [
        Embedder("other-model", DIMENSION, "a" * 64),
        Embedder("test-model", DIMENSION, "b" * 64),
        Embedder("test-model", DIMENSION + 1, "a" * 64),
    ],
)
async def test_faces_of_another_model_are_refused(reopen: Open, other: Embedder) -> None:
    store = await reopen(EMBEDDER)
    await enrol_faces(store, "ada", unit(1))
    with pytest.raises(StoreMismatch, match=r"test-model.*enrol the photos anew"):
        await reopen(other)
    store = await reopen(EMBEDDER)
    assert await store.size("default") == GallerySize(1, 1)


async def test_faces_of_another_layout_are_refused(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FORMAT", records.FORMAT + 1)
    store = await reopen(EMBEDDER)
    await enrol_faces(store, "ada", unit(1))
    monkeypatch.undo()
    with pytest.raises(StoreMismatch, match=r"another version.*enrol the photos anew"):
        await reopen(EMBEDDER)
