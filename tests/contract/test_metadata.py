"""What is kept of a person besides faces."""

import pytest

from app.errors import InvalidRequest, MetadataTooLarge
from app.store import Store
from tests.stores import enrol_faces, unit

pytestmark = pytest.mark.anyio


async def test_metadata_is_merged(store: Store) -> None:
    await enrol_faces(store, "ada", unit(1))
    before = await store.person("default", "ada")
    patch = {"name": "Ada Łovelace 🙂", "a": {"b": {"c": 1, "d": [1, {"e": None}]}}, "n": 2**70}
    first = await store.update_person("default", "ada", patch, 1000)
    assert first.metadata == patch
    second = await store.update_person(
        "default", "ada", {"a": {"b": {"c": None, "x": {"y": None, "z": 0.1}}}, "n": None}, 1000
    )
    assert second.metadata == {
        "name": "Ada Łovelace 🙂",
        "a": {"b": {"d": [1, {"e": None}], "x": {"z": 0.1}}},
    }
    third = await store.update_person("default", "ada", {"a": [1], "absent": None}, 1000)
    assert third.metadata == {"name": "Ada Łovelace 🙂", "a": [1]}
    fourth = await store.update_person("default", "ada", {"a": {"b": None, "c": 1}}, 1000)
    assert fourth.metadata == {"name": "Ada Łovelace 🙂", "a": {"c": 1}}
    assert await store.person("default", "ada") == fourth
    assert fourth.created_at == before.created_at
    assert fourth.updated_at > before.updated_at
    assert fourth.face_count == 1


async def test_metadata_too_large_leaves_the_old(store: Store) -> None:
    await enrol_faces(store, "ada", unit(1))
    await store.update_person("default", "ada", {"k": "ä" * 10}, 28)
    with pytest.raises(MetadataTooLarge):
        await store.update_person("default", "ada", {"k": "ä" * 11}, 28)
    assert (await store.person("default", "ada")).metadata == {"k": "ä" * 10}


async def test_metadata_that_is_no_json_is_refused(store: Store) -> None:
    await enrol_faces(store, "ada", unit(1))
    with pytest.raises(InvalidRequest):
        await store.update_person("default", "ada", {"k": float("nan")}, 1000)
    assert (await store.person("default", "ada")).metadata == {}
