"""Ids of persons are text and nothing else."""

import pytest

from app.store import GallerySize, Store
from tests.contract.conftest import Open, assert_consistent, listed
from tests.stores import EMBEDDER, enrol_faces, unit

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("person_id", ["a.b@c:d+e=f", "..", "-", "P" * 128, "0", "a~b", "free"])
async def test_odd_person_ids(store: Store, person_id: str) -> None:
    rows = unit(2)
    await enrol_faces(store, person_id, rows[:1])
    await enrol_faces(store, person_id + "2", rows[1:])
    assert (await store.search("default", rows[:1], 1))[0][0].person_id == person_id
    assert (await store.person("default", person_id)).person_id == person_id
    assert len(await store.faces("default", person_id)) == 1
    assert set(await store.embeddings("default", [person_id])) == {person_id}
    assert await store.delete_person("default", person_id) == 1
    assert [person.person_id for person in await listed(store, 10)] == [person_id + "2"]


async def test_ids_mean_nothing_to_the_engine(reopen: Open) -> None:
    store = await reopen(EMBEDDER)
    ids = ["a", "A", "a.b", "a*", "a=b", "a b", "a%", "[a]", "a\nb", 'a" or "1', "../a", "a/../b"]
    galleries = ["default", "other"]
    for gallery in galleries:
        for person_id in ids:
            await enrol_faces(store, person_id, unit(1), gallery)
    for gone, person_id in enumerate(ids, 1):
        assert (await store.person("default", person_id)).person_id == person_id
        await store.delete_person("default", person_id)
        page = await store.persons("default", 50)
        assert {person.person_id for person in page.persons} == set(ids[gone:])
    assert await store.size("other") == GallerySize(len(ids), len(ids))
    await assert_consistent(store)
