"""Writes to one person at the same time."""

import asyncio

import pytest

from app.store import GallerySize, Store
from tests.contract.conftest import assert_consistent
from tests.stores import NO_LIMIT, enrol_faces, face, unit

pytestmark = pytest.mark.anyio


async def test_concurrent_enrolments_of_one_person_lose_nothing(store: Store) -> None:
    rows = unit(24)
    counts = await asyncio.gather(
        *(
            store.enrol("default", "ada", [face("ada", number)], rows[number][None], NO_LIMIT)
            for number in range(24)
        )
    )
    assert sorted(counts) == list(range(1, 25))
    assert await store.size("default") == GallerySize(1, 24)
    await assert_consistent(store)


async def test_concurrent_writes_to_one_person_leave_what_was_asked_for(store: Store) -> None:
    rows = unit(12)
    await enrol_faces(store, "ada", rows[:6])
    await asyncio.gather(
        *(store.delete_face("default", "ada", face("ada", n).face_id) for n in range(4)),
        *(
            store.enrol("default", "ada", [face("ada", n)], rows[n][None], NO_LIMIT)
            for n in range(6, 12)
        ),
        *(store.update_person("default", "ada", {f"k{n}": n}, 1000) for n in range(4)),
    )
    assert await store.faces("default", "ada") == [face("ada", n) for n in range(4, 12)]
    assert (await store.person("default", "ada")).metadata == {f"k{n}": n for n in range(4)}
    await assert_consistent(store)
