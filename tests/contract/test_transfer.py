"""Everybody from one store into another, whichever engines they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from app.errors import DestinationOccupied, InvalidEmbedding, InvalidRequest, TransferIncomplete
from app.store import GallerySize, Store, StoredPerson, Targets, transfer
from app.store.transfer import StoreSource, compare_searches, copy, verify
from tests.contract.conftest import ENGINES, Make, NeedsServer
from tests.stores import enrol, faces_of, unit

pytestmark = pytest.mark.anyio

Engines = tuple[str, str]
WAYS = [
    ("embedded", "memory"),
    ("memory", "embedded"),
    ("embedded", "embedded"),
    pytest.param(("embedded", "server"), marks=NeedsServer),
    pytest.param(("server", "embedded"), marks=NeedsServer),
]
# What a later version may keep of a person: it is moved without being known.
UNKNOWN = {
    "whole": 1,
    "real": 1.0,
    "tenth": 0.1,
    "largest": 2**63 - 1,
    "negative zero": -0.0,
    "nothing": None,
    "yes": True,
    "text": "é\u0000\U0001f600",
    "nested": {"list": [1, 2.5, None, {"b": [], "a": ""}]},
}


def ignore(_: int) -> None:
    pass


async def fill(store: Store, persons: int = 30) -> None:
    for number in range(persons):
        person_id = f"person-{number}"
        rows = unit(1 + number % 4, seed=number)
        await store.enrol("default", person_id, faces_of(person_id, len(rows)), rows, 100)
        await store.update_person("default", person_id, {"näme": [number, 1e300]}, 1000)
    faceless = await enrol(store, "second", "without")
    await store.delete_face("second", "without", faceless)
    await enrol(store, "second", "person-1", seed=99)
    (some,) = [p for p in (await exported(store))["second"] if p.template is not None]
    await store.import_persons("second", [StoredPerson({**some.payload, **UNKNOWN}, some.template)])
    await store.set_targets("second", Targets(0.02, 1e-5))
    await store.set_targets("empty", Targets(None, 1e-6))


async def exported(store: Store, limit: int = 7) -> dict[str, list[StoredPerson]]:
    found: dict[str, list[StoredPerson]] = {}
    for gallery in await store.galleries():
        cursor, found[gallery] = None, []
        while True:
            page = await store.export_persons(gallery, limit, cursor)
            assert len(page.persons) <= limit
            found[gallery] += page.persons
            cursor = page.cursor
            if cursor is None:
                break
    return found


def bits(persons: Sequence[StoredPerson]) -> dict[str, tuple[str, bytes | None]]:
    """By id; told apart are 1 and 1.0, 0.0 and -0.0."""
    return {
        p.payload["person_id"]: (
            repr(sorted(p.payload.items())),
            None if p.template is None else p.template.tobytes(),
        )
        for p in persons
    }


@pytest.mark.parametrize("engines", WAYS)
async def test_everybody_arrives_bit_for_bit(make: Make, engines: Engines) -> None:
    source, destination = [await make(engine) for engine in engines]
    await fill(source)
    told: list[int] = []
    copied = await copy(StoreSource(source), destination, told.append)
    assert copied == transfer.Copied(32, 0)
    sizes = await source.galleries()
    assert sum(told) == sum(size.faces for size in sizes.values())
    await verify(StoreSource(source), destination)
    agreement = await compare_searches(source, destination)
    assert (agreement.searches, agreement.missed) == (31, 0)

    before, after = await exported(source), await exported(destination)
    assert {g: bits(p) for g, p in after.items()} == {g: bits(p) for g, p in before.items()}
    assert await destination.galleries() == sizes
    assert await destination.all_targets() == {
        "empty": Targets(None, 1e-6),
        "second": Targets(0.02, 1e-5),
    }
    assert await destination.targets("empty") == Targets(None, 1e-6)
    for person_id in ("person-1", "person-7"):
        assert await destination.person("default", person_id) == await source.person(
            "default", person_id
        )
        assert await destination.faces("default", person_id) == await source.faces(
            "default", person_id
        )

    # They can be lived with: changed, added to, forgotten.
    await enrol(destination, "default", "person-1", seed=1000)
    assert (await destination.person("default", "person-1")).face_count == 3
    await destination.update_person("default", "person-2", {"changed": True}, 1000)
    assert (await destination.person("default", "person-2")).metadata["changed"]
    assert await destination.delete_person("default", "person-3") == 4
    assert await destination.size("default") == GallerySize(29, sizes["default"].faces + 1 - 4)


@pytest.mark.parametrize("engine", ENGINES)
async def test_pages_come_in_a_stable_order(make: Make, engine: str) -> None:
    store = await make(engine)
    await fill(store)
    orders = [
        [p.payload["person_id"] for p in (await exported(store, limit))["default"]]
        for limit in (1, 7, 1000)
    ]
    assert orders[0] == orders[1] == orders[2]
    assert len(set(orders[0])) == len(orders[0]) == 30
    assert await store.export_persons("nowhere", 5) == ([], None)
    cursor = (await store.export_persons("default", 5)).cursor
    for gallery, odd in (("second", cursor), ("default", "nonsense")):
        with pytest.raises(InvalidRequest):
            await store.export_persons(gallery, 5, odd)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_imported_person_replaces_the_one_who_is_there(make: Make, engine: str) -> None:
    store = await make(engine)
    await fill(store)
    before = await store.galleries()
    one, other = (await exported(store))["default"][:2]
    changed = StoredPerson({**one.payload, "person_id": other.payload["person_id"]}, one.template)
    await store.import_persons("default", [one, changed])
    faces = before["default"].faces - other.payload["face_count"] + one.payload["face_count"]
    assert await store.galleries() == {**before, "default": GallerySize(30, faces)}
    assert await store.size("default") == GallerySize(30, faces)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_template_that_is_none_is_refused_with_its_whole_page(
    make: Make, engine: str
) -> None:
    store = await make(engine)
    await fill(store, 2)
    before = await exported(store)
    good = before["default"][0]
    new = StoredPerson({**good.payload, "person_id": "new"}, good.template)
    for template in (np.full(16, np.nan, np.float32), unit(1)[0] * 2, np.ones(3, np.float32)):
        bad = StoredPerson({**good.payload, "person_id": "bad"}, template)
        with pytest.raises(InvalidEmbedding):
            await store.import_persons("default", [new, bad])
    after = await exported(store)
    assert {g: bits(p) for g, p in after.items()} == {g: bits(p) for g, p in before.items()}


class Stopped(Exception):
    pass


def stopping(store: Store, after: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have a store die after some writes; the list gets the persons of each."""
    written: list[int] = []
    original = store.import_persons

    async def import_persons(gallery: str, persons: Sequence[StoredPerson]) -> None:
        if len(written) == after:
            raise Stopped
        await original(gallery, persons)
        written.append(len(persons))

    monkeypatch.setattr(store, "import_persons", import_persons)
    return written


@pytest.mark.parametrize("engines", WAYS)
async def test_a_second_run_goes_on_where_the_first_was_stopped(
    make: Make, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_PAGE_PERSONS", 7)
    source, destination = [await make(engine) for engine in engines]
    await fill(source)
    with monkeypatch.context() as patch:
        written = stopping(destination, 3, patch)
        with pytest.raises(Stopped):
            await copy(StoreSource(source), destination, ignore)
    assert written == [7, 7, 7]
    with pytest.raises(TransferIncomplete, match="30 persons with 73 faces in the source, 21"):
        await verify(StoreSource(source), destination)
    copied = await copy(StoreSource(source), destination, ignore)
    assert copied == transfer.Copied(written=11, present=21)
    await verify(StoreSource(source), destination)
    assert await copy(StoreSource(source), destination, ignore) == transfer.Copied(0, 32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("other", ["somebody", "changed", "gallery", "targets"])
async def test_a_destination_with_anything_else_in_it_is_left_alone(
    make: Make, engine: str, other: str
) -> None:
    source, destination = await make("embedded"), await make(engine)
    await fill(source, 3)
    await fill(destination, 0)  # its own faces, so other ones
    if other == "changed":
        await destination.delete_person("second", "person-1")
        await destination.delete_person("second", "without")
        (same, *_) = (await exported(source))["default"]
        await destination.import_persons(
            "default", [StoredPerson({**same.payload, "more": 1}, same.template)]
        )
    elif other == "gallery":
        await enrol(destination, "third", "ada")
    elif other == "targets":
        await destination.delete_person("second", "person-1")
        await destination.delete_person("second", "without")
        await destination.set_targets("third", Targets(0.5))
    before = {g: bits(p) for g, p in (await exported(destination)).items()}
    with pytest.raises(DestinationOccupied, match="empty"):
        await copy(StoreSource(source), destination, ignore)
    assert {g: bits(p) for g, p in (await exported(destination)).items()} == before


@pytest.mark.parametrize("change", ["lost", "added", "payload", "template", "targets"])
async def test_verification_sees_the_smallest_difference(make: Make, change: str) -> None:
    source, destination = await make("embedded"), await make("memory")
    await fill(source, 3)
    await copy(StoreSource(source), destination, ignore)
    (person, *_) = (await exported(destination))["default"]
    assert person.template is not None
    payload: dict[str, Any] = {**person.payload}
    template = person.template.copy()
    if change == "lost":
        await destination.delete_person("second", "without")
    elif change == "added":
        await enrol(destination, "third", "ada")
    elif change == "payload":
        payload["updated_at"] = payload["updated_at"].replace("+00:00", "+00:01")
    elif change == "template":
        template.view(np.uint32)[5] ^= 1
    else:
        await destination.set_targets("second", Targets(0.02, 1.1e-5))
    if change in ("payload", "template"):
        await destination.import_persons("default", [StoredPerson(payload, template)])
    with pytest.raises(TransferIncomplete):
        await verify(StoreSource(source), destination)


async def test_searches_that_find_others_are_noticed(make: Make) -> None:
    source, destination = await make("embedded"), await make("memory")
    await fill(source)
    persons = (await exported(source))["default"]
    shifted = [
        StoredPerson(person.payload, other.template)
        for person, other in zip(persons, persons[1:] + persons[:1], strict=True)
    ]
    await destination.import_persons("default", shifted)
    with pytest.raises(TransferIncomplete, match="similarities differ"):
        await compare_searches(source, destination)
    await destination.import_persons("default", persons)
    for person in persons[::3]:
        await destination.delete_person("default", person.payload["person_id"])
    with pytest.raises(TransferIncomplete, match="found by one store only"):
        await compare_searches(source, destination)


async def test_no_write_is_too_large_for_a_server(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1000
    monkeypatch.setattr(transfer, "_WRITE_BYTES", limit)
    source, destination = await make("embedded"), await make("memory")
    for number in range(9):
        person_id = f"person-{number}"
        rows = unit(1 if number else 80, seed=number)
        await source.enrol("default", person_id, faces_of(person_id, len(rows)), rows, 100)
    writes: list[list[int]] = []
    original = destination.import_persons

    async def import_persons(gallery: str, persons: Sequence[StoredPerson]) -> None:
        lengths = [sum(len(v) for v in p.payload.values() if isinstance(v, str)) for p in persons]
        writes.append(lengths)
        await original(gallery, persons)

    monkeypatch.setattr(destination, "import_persons", import_persons)
    await copy(StoreSource(source), destination, ignore)
    await verify(StoreSource(source), destination)
    assert all(sum(write) <= limit for write in writes if len(write) > 1)
    assert 4 <= len(writes) < 9
    assert sum(write[0] > limit for write in writes) == 1
