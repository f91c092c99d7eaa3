"""Expiry, export and receipts, whichever engine is behind the store."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from app.decision.fusion import template
from app.errors import PersonExpired, PersonNotFound
from app.store import Consent, FloatArray, GallerySize, Receipt, Store, records
from app.store.receipts import Erasures, erasures_since, person_digest
from tests.contract.conftest import Open, listed, templates_of
from tests.stores import EMBEDDER, NO_LIMIT, enrol_faces, face, faces_of, unit

pytestmark = pytest.mark.anyio

LATER = datetime(2100, 1, 31, 12, 30, 15, 250_000, tzinfo=UTC)
EARLIER = datetime(2001, 1, 31, tzinfo=UTC)


async def expire(store: Store, person_id: str, at: datetime | None = EARLIER) -> None:
    await store.update_person("default", person_id, {}, 100, Consent(expires_at=at))


async def names(store: Store, probe: FloatArray, limit: int) -> list[str]:
    ((*found,),) = await store.search("default", probe[None], limit)
    return [neighbour.person_id for neighbour in found]


async def test_consent_is_kept_until_it_is_changed(store: Store) -> None:
    rows = unit(3)
    await enrol_faces(store, "bob", rows[:1])
    bob = await store.person("default", "bob")
    assert (bob.consent_reference, bob.expires_at) == (None, None)

    consent = Consent(reference="Vertrag № 7", expires_at=LATER)
    await store.enrol("default", "ada", [face("ada")], rows[1:2], NO_LIMIT, consent)
    await store.enrol("default", "ada", [face("ada", 1)], rows[2:], NO_LIMIT)
    await store.update_person("default", "ada", {"a": 1}, 100)
    ada = await store.person("default", "ada")
    assert (ada.consent_reference, ada.expires_at) == ("Vertrag № 7", LATER)

    abroad = LATER.astimezone(datetime.strptime("+0530", "%z").tzinfo) + timedelta(days=1)
    changed = await store.update_person("default", "ada", {}, 100, Consent(expires_at=abroad))
    assert changed.expires_at == abroad
    assert changed.consent_reference == "Vertrag № 7"
    assert changed.metadata == {"a": 1}
    removed = await store.update_person(
        "default", "ada", {"b": 2}, 100, Consent(reference=None, expires_at=None)
    )
    assert (removed.consent_reference, removed.expires_at) == (None, None)
    assert await store.person("default", "ada") == removed
    assert [p for p in await listed(store, 10) if p.person_id == "ada"] == [removed]


async def test_who_has_expired_is_found_by_nobody_but_is_still_there(store: Store) -> None:
    rows = unit(4)
    await enrol_faces(store, "ada", rows[:2])
    await enrol_faces(store, "bob", rows[2:])
    await expire(store, "ada")
    assert await names(store, template(rows[:2]), 5) == ["bob"]
    assert set(await store.embeddings("default", ["ada", "bob"])) == {"bob"}
    assert set(await templates_of(store)) == {"bob"}

    assert (await store.person("default", "ada")).has_expired(datetime.now(UTC))
    assert {person.person_id for person in await listed(store, 10)} == {"ada", "bob"}
    assert len(await store.faces("default", "ada")) == 2
    assert await store.size("default") == GallerySize(2, 4)

    await expire(store, "ada", LATER)
    assert await names(store, template(rows[:2]), 5) == ["ada", "bob"]
    assert set(await templates_of(store)) == {"ada", "bob"}


async def test_a_person_expires_at_that_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = unit(1)
    consent = Consent(expires_at=LATER)
    await store.enrol("default", "ada", faces_of("ada", 1), rows, NO_LIMIT, consent)
    tick = timedelta(microseconds=1)
    for now, expected in ((LATER - tick, ["ada"]), (LATER, []), (LATER + tick, [])):
        monkeypatch.setattr(records, "moment", lambda now=now: records._moment(now))
        assert await names(store, rows[0], 1) == expected
        assert set(await store.embeddings("default", ["ada"])) == set(expected)


async def test_the_living_are_found_behind_any_number_of_expired(store: Store) -> None:
    probe = unit(1)[0]
    others = unit(40, seed=1)
    near = 0.95 * probe + 0.05 * others
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    for number, row in enumerate(near.astype(np.float32)):
        await enrol_faces(store, f"gone-{number}", row[None])
        await expire(store, f"gone-{number}")
    for number, row in enumerate(others[:3]):
        await enrol_faces(store, f"here-{number}", row[None])
    expected = [f"here-{index}" for index in np.argsort(-(others[:3] @ probe))]
    assert await names(store, probe, 2) == expected[:2]
    assert await names(store, probe, 5) == expected
    both = await store.search("default", np.stack([probe, others[0]]), 1)
    assert [found[0].person_id for found in both] == [expected[0], "here-0"]


async def test_nobody_who_has_expired_is_enrolled(store: Store) -> None:
    rows = unit(3)
    with pytest.raises(PersonExpired):
        await store.enrol(
            "default", "ada", faces_of("ada", 1), rows[:1], NO_LIMIT, Consent(expires_at=EARLIER)
        )
    assert await store.galleries() == {}
    await enrol_faces(store, "ada", rows[:1])
    await expire(store, "ada")
    with pytest.raises(PersonExpired, match="'ada' expired at 2001-01-31"):
        await store.enrol("default", "ada", [face("ada", 1)], rows[1:2], NO_LIMIT)
    assert (await store.person("default", "ada")).face_count == 1
    more_time = Consent(expires_at=LATER)
    assert await store.enrol("default", "ada", [face("ada", 1)], rows[1:2], 9, more_time) == 2
    assert await names(store, template(rows[:2]), 1) == ["ada"]


async def test_only_who_has_expired_by_then_is_deleted(store: Store) -> None:
    await enrol_faces(store, "ada", unit(2))
    for expires_at in (None, LATER):
        await expire(store, "ada", expires_at)
        with pytest.raises(PersonNotFound):
            await store.delete_person("default", "ada", expired_by=LATER - timedelta(seconds=1))
    assert (await store.person("default", "ada")).face_count == 2
    assert await store.delete_person("default", "ada", expired_by=LATER) == 2
    with pytest.raises(PersonNotFound):
        await store.delete_person("default", "ada", expired_by=LATER)


async def test_an_export_is_all_there_is(store: Store) -> None:
    rows = unit(3)
    consent = Consent(reference="form 3", expires_at=EARLIER)
    await enrol_faces(store, "ada", rows)
    await store.update_person("default", "ada", {"name": "Ada"}, 100, consent)
    exported = await store.export("default", "ada")
    assert exported.person == await store.person("default", "ada")
    assert exported.faces == await store.faces("default", "ada")
    np.testing.assert_array_equal(exported.embeddings, rows)
    assert exported.template is not None
    np.testing.assert_allclose(exported.template, template(rows), atol=1e-6)

    await enrol_faces(store, "bob", rows[:1])
    await store.delete_face("default", "bob", face("bob").face_id)
    nothing = await store.export("default", "bob")
    assert (nothing.faces, nothing.template, len(nothing.embeddings)) == ([], None, 0)
    with pytest.raises(PersonNotFound):
        await store.export("default", "eve")


async def test_an_exact_search_finds_what_the_other_finds(store: Store) -> None:
    rows = unit(30)
    for number, row in enumerate(rows):
        await enrol_faces(store, f"p{number}", row[None])
    await expire(store, "p3")
    probes = unit(3, seed=7)
    exact = await store.search("default", probes, 10, exact=True)
    for one, other in zip(exact, await store.search("default", probes, 10), strict=True):
        assert [near.person_id for near in one] == [near.person_id for near in other]
        for near in one:
            number = int(near.person_id[1:])
            probe = probes[exact.index(one)]
            assert near.similarity == pytest.approx(float(rows[number] @ probe), abs=1e-6)
    assert await store.search("nowhere", probes, 10, exact=True) == [[], [], []]


def receipt(number: int, digest: str = "d" * 64) -> Receipt:
    return Receipt(
        receipt_id=f"00000000-0000-0000-0000-{number:012}",
        gallery="default",
        person_digest=digest,
        reason="expired",
        state="begun",
        begun_at=LATER + timedelta(seconds=number),
    )


async def test_receipts_are_kept_in_their_last_state(reopen: Open) -> None:
    store = await reopen(EMBEDDER)
    assert await store.receipts.all() == []
    key = await store.receipts.key()
    assert len(key) == 32
    first, second = receipt(1), receipt(2)
    await store.receipts.put(second)
    await store.receipts.put(first)
    erased_at = LATER + timedelta(hours=1)
    done = replace(first, state="erased", erased_at=erased_at, faces_deleted=3, probes=4)
    await store.receipts.put(done)
    assert await store.receipts.all() == [done, second]
    store = await reopen(EMBEDDER)
    assert await store.receipts.all() == [done, second]
    assert await store.receipts.key() == key
    # They are nobody's persons.
    assert await store.galleries() == {}
    assert "person_id" not in json.dumps([str(kept) for kept in await store.receipts.all()])


async def test_erasures_cover_records_made_before_them(store: Store) -> None:
    key = await store.receipts.key()
    ada = person_digest(key, "default", "ada")
    assert ada != person_digest(key, "other", "ada") != person_digest(b"k" * 32, "other", "ada")
    await store.receipts.put(receipt(0, ada))
    await store.receipts.put(receipt(10, ada))
    await store.receipts.put(replace(receipt(20, ada), state="abandoned"))
    found = await erasures_since(store.receipts, LATER)
    for seconds, erased in ((-9999, True), (5, True), (10, True), (11, False), (19, False)):
        created_at = LATER + timedelta(seconds=seconds)
        assert found.cover("default", "ada", created_at) is erased
    assert not found.cover("other", "ada", LATER)
    assert not found.cover("default", "bob", LATER)
    later = await erasures_since(store.receipts, LATER + timedelta(seconds=11))
    assert not later.cover("default", "ada", EARLIER)
    assert isinstance(later, Erasures)
