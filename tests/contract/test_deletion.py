"""Persons and faces that are deleted, or were never there."""

import uuid

import pytest

from app.errors import FaceNotFound, PersonNotFound
from app.store import GallerySize, Store
from tests.stores import enrol_faces, face, unit

pytestmark = pytest.mark.anyio


async def test_a_deleted_person_is_gone_for_the_next_search(store: Store) -> None:
    rows = unit(4)
    await enrol_faces(store, "ada", rows[:3])
    await enrol_faces(store, "bob", rows[3:])
    assert await store.delete_person("default", "ada") == 3
    assert [n.person_id for n in (await store.search("default", rows[:1], 10))[0]] == ["bob"]
    assert await store.size("default") == GallerySize(1, 1)
    assert await store.embeddings("default", ["ada"]) == {}
    for call in (store.person, store.faces, store.delete_person):
        with pytest.raises(PersonNotFound):
            await call("default", "ada")
    assert await enrol_faces(store, "ada", rows[:1]) == 1
    assert (await store.person("default", "ada")).metadata == {}


async def test_a_deleted_face_is_gone_for_the_next_search(store: Store) -> None:
    rows = unit(2)
    await enrol_faces(store, "ada", rows)
    await store.delete_face("default", "ada", face("ada", 0).face_id)
    ((found,),) = await store.search("default", rows[:1], 10)
    assert found.similarity == pytest.approx(float(rows[0] @ rows[1]), abs=1e-4)
    with pytest.raises(FaceNotFound):
        await store.delete_face("default", "ada", face("ada", 0).face_id)
    await store.delete_face("default", "ada", face("ada", 1).face_id)
    assert await store.faces("default", "ada") == []
    assert (await store.person("default", "ada")).face_count == 0
    assert await store.size("default") == GallerySize(1, 0)
    assert await store.search("default", rows[:1], 10) == [[]]


async def test_what_is_not_there_is_named(store: Store) -> None:
    await enrol_faces(store, "ada", unit(1))
    absent = str(uuid.uuid4())
    with pytest.raises(FaceNotFound, match=absent):
        await store.delete_face("default", "ada", absent)
    with pytest.raises(PersonNotFound, match="bob"):
        await store.delete_face("default", "bob", absent)
    with pytest.raises(PersonNotFound, match="bob"):
        await store.update_person("default", "bob", {}, 100)
