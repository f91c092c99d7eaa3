"""What every store does, whichever engine is behind it.

The real server takes part where `FACEID_TEST_QDRANT_URL` names one.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from app.decision.fusion import template
from app.errors import (
    FaceNotFound,
    InvalidEmbedding,
    InvalidRequest,
    MetadataTooLarge,
    PersonNotFound,
    StoreMismatch,
    TooManyFaces,
)
from app.store import (
    EmbeddedStore,
    Embedder,
    Face,
    FloatArray,
    GallerySize,
    Person,
    Store,
    Targets,
    records,
)
from app.store.server import ServerStore, connect

pytestmark = [
    pytest.mark.anyio,
    # What the in-memory twin of the server cannot do and does not need.
    pytest.mark.filterwarnings("ignore:Local mode performs exact"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
]

DIMENSION = 32
EMBEDDER = Embedder("test-model", DIMENSION, "a" * 64)
URL = os.environ.get("FACEID_TEST_QDRANT_URL")
NO_LIMIT = 10_000
START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)

Open = Callable[[Embedder], Awaitable[Store]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def embedded(path: Path) -> AsyncIterator[Open]:
    stores: list[Store] = []

    async def reopen(embedder: Embedder) -> Store:
        for store in stores:
            await store.close()
        store = EmbeddedStore(path, embedder, template)
        stores.append(store)
        await store.open()
        return store

    yield reopen
    for store in stores:
        await store.close()


@asynccontextmanager
async def server(client: AsyncQdrantClient) -> AsyncIterator[Open]:
    collection = f"faceid-test-{uuid.uuid4().hex}"

    async def reopen(embedder: Embedder) -> Store:
        store = ServerStore(client, embedder, template, collection=collection)
        await store.open()
        return store

    yield reopen
    await client.delete_collection(collection)
    await client.close()


@pytest.fixture(
    params=[
        "embedded",
        "memory",
        pytest.param("server", marks=pytest.mark.skipif(URL is None, reason="no server given")),
    ]
)
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the same store again, for another embedder where that is wanted."""
    if request.param == "embedded":
        engine = embedded(tmp_path / "store")
    elif request.param == "memory":
        engine = server(AsyncQdrantClient(":memory:"))
    else:
        assert URL is not None
        engine = server(connect(URL, timeout_s=30))
    async with engine as opened:
        yield opened


@pytest.fixture
async def store(reopen: Open) -> Store:
    return await reopen(EMBEDDER)


def unit(count: int, seed: int = 0, dimension: int = DIMENSION) -> FloatArray:
    rows = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def face(person_id: str, number: int = 0) -> Face:
    return Face(
        face_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{person_id} {number}")),
        person_id=person_id,
        box=(10.5, 20.25, 64.0, 80.125),
        detection_score=0.875,
        quality={"sharpness": 0.5, "yaw_degrees": -12.25},
        image_sha256=f"{number:064x}",
        enrolled_at=START + timedelta(seconds=number),
    )


def faces_of(person_id: str, count: int) -> list[Face]:
    return [face(person_id, number) for number in range(count)]


async def enrol(
    store: Store, person_id: str, embeddings: FloatArray, gallery: str = "default"
) -> int:
    faces = faces_of(person_id, len(embeddings))
    return await store.enrol(gallery, person_id, faces, embeddings, NO_LIMIT)


async def templates_of(
    store: Store, limit: int = 1000, gallery: str = "default"
) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    cursor = None
    while True:
        page = await store.templates(gallery, limit, cursor)
        assert page.templates.dtype == np.float32
        assert page.templates.shape == (len(page.person_ids), DIMENSION)
        assert len(page.person_ids) <= limit
        found |= dict(zip(page.person_ids, page.templates, strict=True))
        cursor = page.cursor
        if cursor is None:
            return found


async def assert_consistent(store: Store, gallery: str = "default") -> None:
    """Every template is that of the stored faces, everywhere it can be seen."""
    templates = await templates_of(store, gallery=gallery)
    persons = await listed(store, 1000, gallery)
    kept = await store.embeddings(gallery, [person.person_id for person in persons])
    assert set(templates) == set(kept) == {p.person_id for p in persons if p.face_count}
    for person in persons:
        rows = kept.get(person.person_id, unit(0))
        faces = await store.faces(gallery, person.person_id)
        assert person.face_count == len(rows) == len(faces)
        if len(rows):
            np.testing.assert_allclose(templates[person.person_id], template(rows), atol=1e-6)
    size = GallerySize(len(persons), sum(person.face_count for person in persons))
    assert await store.size(gallery) == size
    if templates:
        probes = np.stack(list(templates.values()))
        found = await store.search(gallery, probes, 1)
        assert [nearest.person_id for (nearest,) in found] == list(templates)


async def listed(store: Store, limit: int, gallery: str = "default") -> list[Person]:
    persons: list[Person] = []
    cursor = None
    while True:
        page = await store.persons(gallery, limit, cursor)
        assert len(page.persons) <= limit
        persons += page.persons
        cursor = page.cursor
        if cursor is None:
            return persons


async def test_a_person_is_found_at_once_by_the_template_of_all_faces(store: Store) -> None:
    embeddings = unit(3)
    assert await enrol(store, "ada", embeddings) == 3
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
    await enrol(store, "ada", rows[:3])
    await enrol(store, "bob", rows[3:5])
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
    await enrol(store, "bob", rows[7:])
    await assert_consistent(store)
    assert (await store.person("default", "bob")).metadata == {"name": "Bob"}


async def test_a_face_enrolled_again_is_replaced(store: Store) -> None:
    first, second = unit(2)
    await enrol(store, "ada", first[None])
    assert await enrol(store, "ada", second[None]) == 1
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
    await enrol(store, "ada", embeddings[:2])
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


async def test_galleries_are_apart(store: Store) -> None:
    ada, bob = unit(2)
    await enrol(store, "ada", ada[None], "left")
    await enrol(store, "bob", bob[None], "right")
    await enrol(store, "ada", bob[None], "right")
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


async def test_search_is_exact(store: Store) -> None:
    rows = unit(3000, seed=1)
    persons = [f"person-{number}" for number in range(1000)]
    await asyncio.gather(
        *(enrol(store, name, rows[3 * n : 3 * n + 3]) for n, name in enumerate(persons))
    )
    templates = np.stack([template(three) for three in rows.reshape(1000, 3, DIMENSION)])
    probes = np.concatenate([unit(20, seed=2), rows[:5]])
    exact = probes @ templates.T
    hits = 0
    for similarities, found in zip(exact, await store.search("default", probes, 10), strict=True):
        best = np.argsort(-similarities)[:10]
        hits += len({persons[index] for index in best} & {near.person_id for near in found})
        got = [neighbour.similarity for neighbour in found]
        assert got == sorted(got, reverse=True)
        for neighbour in found:
            assert neighbour.similarity == pytest.approx(
                similarities[persons.index(neighbour.person_id)], abs=1e-4
            )
    assert hits / (10 * len(probes)) >= 0.999


async def test_a_limit_beyond_the_gallery_gives_all_of_it(store: Store) -> None:
    embeddings = unit(3)
    for number, row in enumerate(embeddings):
        await enrol(store, f"person-{number}", row[None])
    (found,) = await store.search("default", -embeddings[:1], 1000)
    assert sorted(near.person_id for near in found) == ["person-0", "person-1", "person-2"]
    assert found[-1].person_id == "person-0"
    assert found[-1].similarity == pytest.approx(-1.0, abs=1e-4)
    assert found[-1].similarity >= -1.0
    assert await store.search("default", embeddings[:0], 5) == []


async def test_embeddings_come_back_as_they_went(store: Store) -> None:
    rows = unit(5)
    await enrol(store, "ada", rows[:3])
    await enrol(store, "bob", rows[3:])
    kept = await store.embeddings("default", {"ada", "bob", "nobody"})
    assert set(kept) == {"ada", "bob"}
    assert kept["ada"].dtype == np.float32
    assert kept["ada"].shape == (3, DIMENSION)
    assert {tuple(row) for row in kept["ada"]} == {tuple(row) for row in rows[:3]}
    assert {tuple(row) for row in kept["bob"]} == {tuple(row) for row in rows[3:]}
    assert await store.embeddings("default", []) == {}


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_pages_are_complete(store: Store, limit: int) -> None:
    rows = unit(30)
    for number, row in enumerate(rows):
        await enrol(store, f"person-{number}", row[None])
    await enrol(store, "person-3", rows[:3])
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
        await enrol(store, f"person-{number}", row[None])
    await enrol(store, "elsewhere", rows[:1], "other")
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
        await enrol(store, f"old-{number}", rows[number][None])
    seen: list[str] = []
    cursor = None
    for step in range(20):
        page = await store.persons("default", 3, cursor)
        seen += [person.person_id for person in page.persons]
        cursor = page.cursor
        if cursor is None:
            break
        await enrol(store, f"new-{step}", rows[20 + step][None])
        if step == 2:
            await store.delete_person("default", seen[0])
    assert len(seen) == len(set(seen))
    assert {f"old-{number}" for number in range(20)} <= set(seen)


@pytest.mark.parametrize(
    "cursor", ["", "x", "default", "ä", "ZGVmYXVsdC8", "ZGVmYXVsdC9mb28", "-1", "9" * 400]
)
async def test_a_made_up_cursor_is_refused(store: Store, cursor: str) -> None:
    await enrol(store, "ada", unit(1))
    with pytest.raises(InvalidRequest):
        await store.persons("default", 5, cursor)
    with pytest.raises(InvalidRequest):
        await store.templates("default", 5, cursor)


async def test_a_cursor_of_another_gallery_is_refused(store: Store) -> None:
    for person_id in ("ada", "bob"):
        await enrol(store, person_id, unit(1), "left")
    cursor = (await store.persons("left", 1)).cursor
    assert cursor is not None
    for call in (store.persons, store.templates):
        with pytest.raises(InvalidRequest):
            await call("right", 1, cursor)


async def test_metadata_is_merged(store: Store) -> None:
    await enrol(store, "ada", unit(1))
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
    await enrol(store, "ada", unit(1))
    await store.update_person("default", "ada", {"k": "ä" * 10}, 28)
    with pytest.raises(MetadataTooLarge):
        await store.update_person("default", "ada", {"k": "ä" * 11}, 28)
    assert (await store.person("default", "ada")).metadata == {"k": "ä" * 10}


async def test_metadata_that_is_no_json_is_refused(store: Store) -> None:
    await enrol(store, "ada", unit(1))
    with pytest.raises(InvalidRequest):
        await store.update_person("default", "ada", {"k": float("nan")}, 1000)
    assert (await store.person("default", "ada")).metadata == {}


async def test_faces_are_listed_oldest_first(store: Store) -> None:
    rows = unit(3)
    given = [face("ada", 2), face("ada", 0), face("ada", 1)]
    await store.enrol("default", "ada", given, rows, NO_LIMIT)
    assert await store.faces("default", "ada") == sorted(given, key=lambda f: f.enrolled_at)


async def test_a_deleted_person_is_gone_for_the_next_search(store: Store) -> None:
    rows = unit(4)
    await enrol(store, "ada", rows[:3])
    await enrol(store, "bob", rows[3:])
    assert await store.delete_person("default", "ada") == 3
    assert [n.person_id for n in (await store.search("default", rows[:1], 10))[0]] == ["bob"]
    assert await store.size("default") == GallerySize(1, 1)
    assert await store.embeddings("default", ["ada"]) == {}
    for call in (store.person, store.faces, store.delete_person):
        with pytest.raises(PersonNotFound):
            await call("default", "ada")
    assert await enrol(store, "ada", rows[:1]) == 1
    assert (await store.person("default", "ada")).metadata == {}


async def test_a_deleted_face_is_gone_for_the_next_search(store: Store) -> None:
    rows = unit(2)
    await enrol(store, "ada", rows)
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
    await enrol(store, "ada", unit(1))
    absent = str(uuid.uuid4())
    with pytest.raises(FaceNotFound, match=absent):
        await store.delete_face("default", "ada", absent)
    with pytest.raises(PersonNotFound, match="bob"):
        await store.delete_face("default", "bob", absent)
    with pytest.raises(PersonNotFound, match="bob"):
        await store.update_person("default", "bob", {}, 100)


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
    await enrol(store, "ada", rows[:6])
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


@pytest.mark.parametrize("person_id", ["a.b@c:d+e=f", "..", "-", "P" * 128, "0", "a~b", "free"])
async def test_odd_person_ids(store: Store, person_id: str) -> None:
    rows = unit(2)
    await enrol(store, person_id, rows[:1])
    await enrol(store, person_id + "2", rows[1:])
    assert (await store.search("default", rows[:1], 1))[0][0].person_id == person_id
    assert (await store.person("default", person_id)).person_id == person_id
    assert len(await store.faces("default", person_id)) == 1
    assert set(await store.embeddings("default", [person_id])) == {person_id}
    assert await store.delete_person("default", person_id) == 1
    assert [person.person_id for person in await listed(store, 10)] == [person_id + "2"]


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
    await enrol(store, "ada", unit(2))
    await enrol(store, "bob", unit(1), "other")
    await store.set_targets("other", Targets(0.02, 1e-5))
    assert await store.galleries() == {"default": GallerySize(1, 2), "other": GallerySize(1, 1)}
    store = await reopen(EMBEDDER)
    assert await store.gallery_names() == {"default", "other"}
    assert await store.targets("default") == Targets(0.001, None)
    assert await store.targets("other") == Targets(0.02, 1e-5)
    await store.set_targets("other", Targets(None, 1e-6))
    assert await store.targets("other") == Targets(None, 1e-6)
    await assert_consistent(store)


async def test_ids_mean_nothing_to_the_engine(reopen: Open) -> None:
    store = await reopen(EMBEDDER)
    ids = ["a", "A", "a.b", "a*", "a=b", "a b", "a%", "[a]", "a\nb", 'a" or "1', "../a", "a/../b"]
    galleries = ["default", "other"]
    for gallery in galleries:
        for person_id in ids:
            await enrol(store, person_id, unit(1), gallery)
    for gone, person_id in enumerate(ids, 1):
        assert (await store.person("default", person_id)).person_id == person_id
        await store.delete_person("default", person_id)
        page = await store.persons("default", 50)
        assert {person.person_id for person in page.persons} == set(ids[gone:])
    assert await store.size("other") == GallerySize(len(ids), len(ids))
    await assert_consistent(store)


async def test_all_is_there_after_reopening(reopen: Open) -> None:
    rows = unit(6)
    store = await reopen(EMBEDDER)
    await enrol(store, "ada", rows[:3])
    await enrol(store, "bob", rows[3:5])
    await store.update_person("default", "ada", {"name": "Ada"}, 100)
    await store.delete_face("default", "ada", face("ada", 0).face_id)
    await enrol(store, "eve", rows[5:], "other")
    persons, faces = await listed(store, 10), await store.faces("default", "ada")
    store = await reopen(EMBEDDER)
    await store.check()
    assert await listed(store, 10) == persons
    assert await store.faces("default", "ada") == faces
    assert await store.galleries() == {"default": GallerySize(2, 4), "other": GallerySize(1, 1)}
    assert (await store.search("other", rows[5:], 1))[0][0].person_id == "eve"
    await enrol(store, "joe", rows[:1])
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
    await enrol(store, "ada", unit(1))
    with pytest.raises(StoreMismatch, match=r"test-model.*enrol the photos anew"):
        await reopen(other)
    store = await reopen(EMBEDDER)
    assert await store.size("default") == GallerySize(1, 1)


async def test_faces_of_another_layout_are_refused(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FORMAT", records.FORMAT + 1)
    store = await reopen(EMBEDDER)
    await enrol(store, "ada", unit(1))
    monkeypatch.undo()
    with pytest.raises(StoreMismatch, match=r"another version.*enrol the photos anew"):
        await reopen(EMBEDDER)
