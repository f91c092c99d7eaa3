"""Persons and their templates, page by page."""

import numpy as np
import pytest

from app.errors import InvalidRequest
from app.store import Store
from tests.contract.conftest import listed, templates_of
from tests.stores import DIMENSION, enrol_faces, face, unit

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_pages_are_complete(store: Store, limit: int) -> None:
    rows = unit(30)
    for number, row in enumerate(rows):
        await enrol_faces(store, f"person-{number}", row[None])
    await enrol_faces(store, "person-3", rows[:3])
    persons = await listed(store, limit)
    assert sorted(person.person_id for person in persons) == sorted(
        f"person-{number}" for number in range(30)
    )
    assert {person.person_id: person.face_count for person in persons}["person-3"] == 3


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_all_templates_come_page_by_page_in_the_order_of_persons(
    store: Store, limit: int
) -> None:
    rows = unit(30)
    for number, row in enumerate(rows):
        await enrol_faces(store, f"person-{number}", row[None])
    await enrol_faces(store, "elsewhere", rows[:1], "other")
    await store.delete_face("default", "person-4", face("person-4").face_id)
    templates = await templates_of(store, limit)
    persons = [person.person_id for person in await listed(store, 100)]
    assert list(templates) == [name for name in persons if name != "person-4"]
    for number in range(30):
        if number != 4:
            np.testing.assert_allclose(templates[f"person-{number}"], rows[number], atol=1e-6)
    page = await store.templates("nowhere", 5)
    assert (page.person_ids, page.templates.shape, page.cursor) == ([], (0, DIMENSION), None)


async def test_pages_hold_while_persons_come_and_go(store: Store) -> None:
    rows = unit(40)
    for number in range(20):
        await enrol_faces(store, f"old-{number}", rows[number][None])
    seen: list[str] = []
    cursor = None
    for step in range(20):
        page = await store.persons("default", 3, cursor)
        seen += [person.person_id for person in page.persons]
        cursor = page.cursor
        if cursor is None:
            break
        await enrol_faces(store, f"new-{step}", rows[20 + step][None])
        if step == 2:
            await store.delete_person("default", seen[0])
    assert len(seen) == len(set(seen))
    assert {f"old-{number}" for number in range(20)} <= set(seen)


@pytest.mark.parametrize(
    "cursor", ["", "x", "default", "ä", "ZGVmYXVsdC8", "ZGVmYXVsdC9mb28", "-1", "9" * 400]
)
async def test_a_made_up_cursor_is_refused(store: Store, cursor: str) -> None:
    await enrol_faces(store, "ada", unit(1))
    with pytest.raises(InvalidRequest):
        await store.persons("default", 5, cursor)
    with pytest.raises(InvalidRequest):
        await store.templates("default", 5, cursor)


async def test_a_cursor_of_another_gallery_is_refused(store: Store) -> None:
    for person_id in ("ada", "bob"):
        await enrol_faces(store, person_id, unit(1), "left")
    cursor = (await store.persons("left", 1)).cursor
    assert cursor is not None
    for call in (store.persons, store.templates):
        with pytest.raises(InvalidRequest):
            await call("right", 1, cursor)
