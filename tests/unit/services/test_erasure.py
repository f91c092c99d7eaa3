"""Erasures on the embedded store, step by step."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import PersonNotFound, StoreUnavailable
from app.metrics import Metrics
from app.services import erasure
from app.services.erasure import Eraser
from app.store import Consent, EmbeddedStore
from app.store.receipts import erasures_since
from tests.stores import embedded, enrol, unit, writer_of

pytestmark = pytest.mark.anyio

OVER = Consent(expires_at=datetime(2001, 1, 1, tzinfo=UTC))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    store = embedded(tmp_path / "store")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def eraser(store: EmbeddedStore) -> AsyncIterator[Eraser]:
    eraser = Eraser(writer_of(store), Metrics())
    yield eraser
    await eraser.close()


async def test_the_receipt_is_there_before_anything_is_deleted(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    created_at = (await store.person("default", "ada")).created_at

    async def fail(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("no")

    monkeypatch.setattr(store, "delete_person", fail)
    with pytest.raises(StoreUnavailable):
        await eraser.erase("default", "ada")
    (receipt,) = await store.receipts.all()
    assert (receipt.state, receipt.erased_at) == ("begun", None)
    erasures = await erasures_since(store.receipts, created_at)
    assert erasures.cover("default", "ada", created_at)


async def test_an_erasure_counts_where_the_clock_was_set_back(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    created_at = (await store.person("default", "ada")).created_at

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr(erasure, "datetime", SetBack)
    receipt = await eraser.erase("default", "ada")
    assert receipt.erased_at is not None
    assert receipt.erased_at >= receipt.begun_at >= created_at
    erasures = await erasures_since(store.receipts, created_at)
    assert erasures.cover("default", "ada", created_at), "no backup brings her back"


async def test_who_was_not_there_leaves_no_receipt(store: EmbeddedStore, eraser: Eraser) -> None:
    with pytest.raises(PersonNotFound):
        await eraser.erase("default", "ada")
    assert await store.receipts.all() == []


async def test_two_who_erase_one_person_share_one_erasure(
    store: EmbeddedStore, eraser: Eraser
) -> None:
    await enrol(store, "default", "ada")
    both = await asyncio.gather(
        *(eraser.erase("default", "ada") for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["PersonNotFound", "Receipt"]
    states = sorted(receipt.state for receipt in await store.receipts.all())
    assert states in (["abandoned", "erased"], ["erased"])


async def test_the_proof_finds_who_is_still_there(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada", 1)
    await enrol(store, "default", "ada", 2)
    await enrol(store, "default", "bob", 3)

    async def pretend(*_: Any, **__: Any) -> int:
        return 2

    monkeypatch.setattr(store, "delete_person", pretend)
    receipt = await eraser.erase("default", "ada")
    assert (receipt.probes, receipt.found) == (3, 3)
    monkeypatch.undo()
    receipt = await eraser.erase("default", "ada")
    assert (receipt.faces_deleted, receipt.probes, receipt.found) == (2, 3, 0)


async def test_the_proof_finds_who_has_expired_and_is_still_there(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    await store.update_person("default", "ada", {}, 100, OVER)

    async def pretend(*_: Any, **__: Any) -> int:
        return 1

    monkeypatch.setattr(store, "delete_person", pretend)
    await eraser.purge()
    assert [receipt.found for receipt in await store.receipts.all()] == [1]


async def test_a_person_without_faces_is_erased_without_searches(
    store: EmbeddedStore, eraser: Eraser
) -> None:
    face_id = await enrol(store, "default", "ada")
    await store.delete_face("default", "ada", face_id)
    receipt = await eraser.erase("default", "ada")
    assert (receipt.state, receipt.faces_deleted, receipt.probes) == ("erased", 0, 0)


async def test_a_purge_passes_over_who_is_given_more_time(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, person_id in enumerate(("ada", "bob", "eve")):
        await enrol(store, "default", person_id, number)
    for person_id in ("ada", "bob"):
        await store.update_person("default", person_id, {}, 100, OVER)
    real = store.delete_person

    async def late(gallery: str, person_id: str, **named: Any) -> int:
        if person_id == "ada":
            await store.update_person(gallery, person_id, {}, 100, Consent(expires_at=None))
        return await real(gallery, person_id, **named)

    monkeypatch.setattr(store, "delete_person", late)
    assert (await eraser.purge()).persons == 1
    left = [person.person_id for person in (await store.persons("default", 9)).persons]
    assert sorted(left) == ["ada", "eve"]
    receipts = await store.receipts.all()
    assert sorted(receipt.state for receipt in receipts) == ["abandoned", "erased"]
    # She was not erased, so a restore brings her back.
    ada = await store.person("default", "ada")
    erasures = await erasures_since(store.receipts, ada.created_at)
    assert not erasures.cover("default", "ada", ada.created_at)


async def test_everybody_of_a_large_gallery_is_looked_at(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.paging._PAGE", 3)
    for number in range(10):
        await enrol(store, "default", f"p{number}", number)
        if number % 2:
            await store.update_person("default", f"p{number}", {}, 100, OVER)
    assert (await eraser.purge()).persons == 5
    for number in range(10):
        found = await store.search("default", unit(1, number), 10)
        assert [near.person_id for near in found[0]].count(f"p{number}") == 1 - number % 2
    assert np.all([receipt.found == 0 for receipt in await store.receipts.all()])


async def test_a_purge_goes_on_when_who_asked_for_it_has_gone(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, person_id in enumerate(("ada", "bob")):
        await enrol(store, "default", person_id, number)
    await store.update_person("default", "ada", {}, 100, OVER)
    reached, goes_on = asyncio.Event(), asyncio.Event()
    vacuum = store.vacuum

    async def slow() -> int:
        reached.set()
        await goes_on.wait()
        return await vacuum()

    monkeypatch.setattr(store, "vacuum", slow)
    asked = asyncio.create_task(eraser.purge())
    await reached.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    goes_on.set()
    assert (await eraser.purge()).galleries == 0, "after the first, which had left nothing to do"


async def test_an_erasure_is_proved_also_when_who_asked_for_it_has_gone(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    deleted = asyncio.Event()
    real = store.delete_person

    async def delete(*names: str, **named: Any) -> int:
        count = await real(*names, **named)
        deleted.set()
        return count

    monkeypatch.setattr(store, "delete_person", delete)
    asked = asyncio.create_task(eraser.erase("default", "ada"))
    await deleted.wait()
    asked.cancel()
    await eraser.close()
    (receipt,) = await store.receipts.all()
    assert (receipt.state, receipt.found) == ("erased", 0)


async def test_an_expired_person_who_cannot_be_erased_may_be_given_more_time(
    store: EmbeddedStore, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrol(store, "default", "ada")
    await store.update_person("default", "ada", {}, 100, OVER)

    async def fail(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("no")

    with monkeypatch.context() as broken:
        broken.setattr(store, "delete_person", fail)
        with pytest.raises(StoreUnavailable):
            await eraser.purge()
    ada = await store.update_person("default", "ada", {}, 100, Consent(expires_at=None))
    erasures = await erasures_since(store.receipts, ada.created_at)
    assert not erasures.cover("default", "ada", ada.created_at), "a restore brings her back"


async def test_purging_goes_on_after_a_failure(
    store: EmbeddedStore,
    eraser: Eraser,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await enrol(store, "default", "ada")
    await store.update_person("default", "ada", {}, 100, OVER)
    failures: list[Exception] = [StoreUnavailable("down"), RuntimeError("bug")]
    real = store.galleries

    async def galleries() -> Any:
        if failures:
            raise failures.pop()
        return await real()

    monkeypatch.setattr(store, "galleries", galleries)
    caplog.set_level(logging.WARNING)
    task = asyncio.create_task(eraser.purge_regularly(0.01))
    async with asyncio.timeout(10):
        while await real():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "not purged, will be tried again: down" in caplog.text
    assert "RuntimeError: bug" in caplog.text
