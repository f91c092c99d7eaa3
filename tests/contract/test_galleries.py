"""Galleries: apart from each other, empty or full, with targets of their own."""

import pytest

from app.errors import PersonNotFound
from app.store import GallerySize, Store, Targets
from tests.contract.conftest import Open, assert_consistent, listed
from tests.stores import EMBEDDER, enrol_faces, unit

pytestmark = pytest.mark.anyio


async def test_galleries_are_apart(store: Store) -> None:
    ada, bob = unit(2)
    await enrol_faces(store, "ada", ada[None], "left")
    await enrol_faces(store, "bob", bob[None], "right")
    await enrol_faces(store, "ada", bob[None], "right")
    assert [found.person_id for found in (await store.search("left", bob[None], 9))[0]] == ["ada"]
    assert await store.galleries() == {"left": GallerySize(1, 1), "right": GallerySize(2, 2)}
    assert set(await store.embeddings("left", ["ada", "bob"])) == {"ada"}
    assert [person.person_id for person in await listed(store, 10, "left")] == ["ada"]
    await store.update_person("left", "ada", {"side": "left"}, 1000)
    assert (await store.person("right", "ada")).metadata == {}
    assert await store.delete_person("right", "ada") == 1
    assert (await store.person("left", "ada")).face_count == 1
    with pytest.raises(PersonNotFound):
        await store.delete_person("left", "bob")


async def test_an_unknown_gallery_reads_as_empty(store: Store) -> None:
    assert await store.search("nowhere", unit(2), 5) == [[], []]
    assert await store.embeddings("nowhere", ["ada"]) == {}
    assert await store.size("nowhere") == GallerySize(0, 0)
    assert await store.persons("nowhere", 10) == ([], None)
    for call in (store.person, store.faces, store.delete_person):
        with pytest.raises(PersonNotFound):
            await call("nowhere", "ada")
    assert await store.galleries() == {}


async def test_a_gallery_has_targets_of_its_own(reopen: Open) -> None:
    store = await reopen(EMBEDDER)
    assert await store.targets("default") == Targets(None, None)
    await store.set_targets("default", Targets(target_fpir=0.001))
    assert await store.targets("default") == Targets(0.001, None)
    assert await store.targets("other") == Targets()
    # Targets alone make nobody.
    assert await store.galleries() == {}
    assert await store.gallery_names() == {"default"}
    assert await store.size("default") == GallerySize(0, 0)
    assert await store.persons("default", 5) == ([], None)
    assert await store.search("default", unit(1), 5) == [[]]
    with pytest.raises(PersonNotFound):
        await store.person("default", "ada")
    await enrol_faces(store, "ada", unit(2))
    await enrol_faces(store, "bob", unit(1), "other")
    await store.set_targets("other", Targets(0.02, 1e-5))
    assert await store.galleries() == {"default": GallerySize(1, 2), "other": GallerySize(1, 1)}
    store = await reopen(EMBEDDER)
    assert await store.gallery_names() == {"default", "other"}
    assert await store.targets("default") == Targets(0.001, None)
    assert await store.targets("other") == Targets(0.02, 1e-5)
    await store.set_targets("other", Targets(None, 1e-6))
    assert await store.targets("other") == Targets(None, 1e-6)
    await assert_consistent(store)
