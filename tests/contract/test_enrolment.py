"""Faces go in, each with its embedding."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest

from app.decision.fusion import template
from app.errors import InvalidEmbedding, PersonNotFound, TooManyFaces
from app.store import Face, FloatArray, GallerySize, Store
from tests.contract.conftest import assert_consistent, templates_of
from tests.stores import DIMENSION, NO_LIMIT, START, enrol_faces, face, faces_of, unit

pytestmark = pytest.mark.anyio


async def test_a_person_is_found_at_once_by_the_template_of_all_faces(store: Store) -> None:
    embeddings = unit(3)
    assert await enrol_faces(store, "ada", embeddings) == 3
    expected = template(embeddings)
    probes = np.concatenate([embeddings, expected[None]])
    for probe, found in zip(probes, await store.search("default", probes, 5), strict=True):
        assert [nearest.person_id for nearest in found] == ["ada"]
        assert found[0].similarity == pytest.approx(float(probe @ expected), abs=1e-4)
    assert await store.size("default") == GallerySize(persons=1, faces=3)
    person = await store.person("default", "ada")
    assert (person.person_id, person.face_count, person.metadata) == ("ada", 3, {})
    assert person.created_at.utcoffset() == timedelta(0)


async def test_every_write_leaves_the_template_of_the_faces(store: Store) -> None:
    rows = unit(8)
    await enrol_faces(store, "ada", rows[:3])
    await enrol_faces(store, "bob", rows[3:5])
    await assert_consistent(store)
    await store.enrol("default", "ada", [face("ada", 9)], rows[5:6], NO_LIMIT)  # one more
    await assert_consistent(store)
    await store.enrol("default", "ada", [face("ada", 1)], rows[6:7], NO_LIMIT)  # replaced
    await assert_consistent(store)
    await store.update_person("default", "ada", {"name": "Ada"}, 100)
    await assert_consistent(store)
    await store.delete_face("default", "ada", face("ada", 0).face_id)
    await assert_consistent(store)
    for number in range(2):
        await store.delete_face("default", "bob", face("bob", number).face_id)
    await assert_consistent(store)
    await store.update_person("default", "bob", {"name": "Bob"}, 100)
    assert set(await templates_of(store)) == {"ada"}
    await enrol_faces(store, "bob", rows[7:])
    await assert_consistent(store)
    assert (await store.person("default", "bob")).metadata == {"name": "Bob"}


async def test_a_face_enrolled_again_is_replaced(store: Store) -> None:
    first, second = unit(2)
    await enrol_faces(store, "ada", first[None])
    assert await enrol_faces(store, "ada", second[None]) == 1
    assert await store.size("default") == GallerySize(1, 1)
    kept = await store.embeddings("default", ["ada"])
    np.testing.assert_array_equal(kept["ada"], second[None])
    ((found,),) = await store.search("default", second[None], 5)
    assert found.similarity == pytest.approx(1.0, abs=1e-4)


async def test_one_face_id_for_two_persons_are_two_faces(store: Store) -> None:
    shared = face("ada")
    embeddings = unit(2)
    await store.enrol("default", "ada", [shared], embeddings[:1], NO_LIMIT)
    other = Face(shared.face_id, "bob", (0, 0, 1, 1), 0.5, {}, "0" * 64, START)
    await store.enrol("default", "bob", [other], embeddings[1:], NO_LIMIT)
    assert await store.size("default") == GallerySize(2, 2)
    await store.delete_face("default", "bob", shared.face_id)
    assert [found.face_id for found in await store.faces("default", "ada")] == [shared.face_id]


async def test_a_person_grows(store: Store) -> None:
    embeddings = unit(4)
    await enrol_faces(store, "ada", embeddings[:2])
    created = (await store.person("default", "ada")).created_at
    await store.update_person("default", "ada", {"name": "Ada"}, 1000)
    assert await store.enrol("default", "ada", [face("ada", 7)], embeddings[2:3], NO_LIMIT) == 3
    person = await store.person("default", "ada")
    assert (person.face_count, person.created_at) == (3, created)
    assert person.metadata == {"name": "Ada"}


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(lambda rows: rows * np.float32(1.01), id="not of unit length"),
        pytest.param(lambda rows: rows * np.float32(0), id="zero"),
        pytest.param(lambda rows: np.where(rows == rows[1, 0], np.nan, rows), id="nan"),
        pytest.param(lambda rows: np.where(rows == rows[1, 0], np.inf, rows), id="infinite"),
        pytest.param(lambda _: unit(2, dimension=DIMENSION + 1), id="wrong dimension"),
        pytest.param(lambda rows: rows.astype(np.float64), id="wrong dtype"),
        pytest.param(lambda rows: rows[0], id="wrong shape"),
    ],
)
async def test_bad_embeddings_are_refused_whole(
    store: Store, spoiled: Callable[[FloatArray], FloatArray]
) -> None:
    bad = spoiled(unit(2))
    with pytest.raises(InvalidEmbedding):
        await store.enrol("default", "ada", faces_of("ada", 2), bad, NO_LIMIT)
    with pytest.raises(InvalidEmbedding):
        await store.search("default", bad, 5)
    assert await store.size("default") == GallerySize(0, 0)
    with pytest.raises(PersonNotFound):
        await store.person("default", "ada")


async def test_as_many_embeddings_as_faces(store: Store) -> None:
    with pytest.raises(InvalidEmbedding):
        await store.enrol("default", "ada", faces_of("ada", 3), unit(2), NO_LIMIT)
    assert await store.galleries() == {}


async def test_a_person_has_at_most_so_many_faces(store: Store) -> None:
    rows = unit(6)
    with pytest.raises(TooManyFaces, match="'ada' would have 3 faces; 2 are allowed"):
        await store.enrol("default", "ada", faces_of("ada", 3), rows[:3], 2)
    assert await store.galleries() == {}
    assert await store.enrol("default", "ada", faces_of("ada", 3), rows[:3], 3) == 3
    # Two that are there already, changed, and one too many.
    with pytest.raises(TooManyFaces, match="would have 4 faces"):
        await store.enrol("default", "ada", faces_of("ada", 4)[1:], rows[3:], 3)
    kept = await store.embeddings("default", ["ada"])
    assert {tuple(row) for row in kept["ada"]} == {tuple(row) for row in rows[:3]}
    assert await store.enrol("default", "ada", faces_of("ada", 3), rows[3:], 3) == 3
    await store.delete_face("default", "ada", face("ada", 0).face_id)
    assert await store.enrol("default", "ada", [face("ada", 9)], rows[:1], 3) == 3
    with pytest.raises(TooManyFaces):
        await store.enrol("default", "bob", faces_of("bob", 4), rows[:4], 3)
    assert await store.size("default") == GallerySize(1, 3)
    with pytest.raises(PersonNotFound):
        await store.person("default", "bob")


async def test_embeddings_come_back_as_they_went(store: Store) -> None:
    rows = unit(5)
    await enrol_faces(store, "ada", rows[:3])
    await enrol_faces(store, "bob", rows[3:])
    kept = await store.embeddings("default", {"ada", "bob", "nobody"})
    assert set(kept) == {"ada", "bob"}
    assert kept["ada"].dtype == np.float32
    assert kept["ada"].shape == (3, DIMENSION)
    assert {tuple(row) for row in kept["ada"]} == {tuple(row) for row in rows[:3]}
    assert {tuple(row) for row in kept["bob"]} == {tuple(row) for row in rows[3:]}
    assert await store.embeddings("default", []) == {}


async def test_faces_are_listed_oldest_first(store: Store) -> None:
    rows = unit(3)
    given = [face("ada", 2), face("ada", 0), face("ada", 1)]
    await store.enrol("default", "ada", given, rows, NO_LIMIT)
    assert await store.faces("default", "ada") == sorted(given, key=lambda f: f.enrolled_at)
