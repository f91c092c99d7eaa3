"""Keys as the service checks them: once slowly, then quickly, and never longer than they live."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import auth
from app.auth import Key, KeyRing, Unproven

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


async def check(ring: KeyRing, text: str) -> Key | None:
    found = ring.find(text)
    return await ring.prove(found) if isinstance(found, Unproven) else found


def altered(text: str) -> str:
    return text[:-1] + ("a" if text[-1] != "a" else "b")


@pytest.fixture
def slow_checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What scrypt was computed of."""
    seen: list[str] = []
    matches = Key.matches

    def counted(self: Key, presented: str) -> bool:
        seen.append(presented)
        return matches(self, presented)

    monkeypatch.setattr(Key, "matches", counted)
    return seen


async def test_a_key_is_proved_slowly_once(path: Path, slow_checks: list[str]) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    for _ in range(3):
        assert await check(ring, text) == key
        assert await check(ring, altered(text)) is None
    assert slow_checks == [text]


async def test_many_who_present_a_key_at_once_share_its_proof(
    path: Path, slow_checks: list[str]
) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    for presented, owner in ((altered(text), None), (text, key)):
        found = ring.find(presented)
        assert isinstance(found, Unproven)
        assert not ring.is_proving(found)
        proofs = [asyncio.create_task(ring.prove(found)) for _ in range(50)]
        await asyncio.sleep(0)
        assert ring.is_proving(found)
        assert await asyncio.gather(*proofs) == [owner] * 50
    assert slow_checks == [altered(text), text]


async def test_a_guess_before_the_key_was_ever_used_is_wrong(
    path: Path, slow_checks: list[str]
) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    assert await check(ring, altered(text)) is None
    assert await check(ring, text) == key
    assert slow_checks == [altered(text), text]


async def test_requests_that_come_together_prove_it_once(
    path: Path, slow_checks: list[str]
) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    assert await asyncio.gather(*(check(ring, text) for _ in range(8))) == [key] * 8
    assert len(slow_checks) == 1


@pytest.mark.parametrize("text", ["", "faceid_", "x" * 10_000, "faceid_000000000000_" + "a" * 43])
async def test_what_is_no_key_costs_nothing(path: Path, slow_checks: list[str], text: str) -> None:
    auth.create(path, "door", ["identify"])
    assert KeyRing(path).find(text) is None
    assert slow_checks == []


async def test_a_revoked_key_is_refused_at_once(path: Path) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    assert await check(ring, text) == key
    auth.revoke(path, key.id)
    assert ring.find(text) is None


async def test_a_new_key_needs_no_restart(path: Path) -> None:
    ring = KeyRing(path)
    ring.load()
    key, text = auth.create(path, "door", ["identify"])
    assert await check(ring, text) == key


async def test_an_expired_key_is_none(path: Path) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    _, text = auth.create(path, "guest", ["identify"], expires_at=past)
    assert KeyRing(path).find(text) is None


async def test_a_key_that_was_exchanged_under_its_id_has_to_be_proved_anew(path: Path) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    assert await check(ring, text) == key
    path.write_text(path.read_text().replace(key.hash, "0" * 64))
    assert await check(ring, text) is None


async def test_a_broken_file_changes_nothing_until_it_is_mended(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    assert await check(ring, text) == key
    whole = path.read_text()
    path.write_text("{")
    assert ring.find(text) == key
    assert ring.find(text) == key
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    path.write_text(whole.replace("identify", "enrol"))
    found = ring.find(text)
    assert isinstance(found, Key)
    assert found.scopes == ("enrol",)


async def test_without_the_file_there_is_no_key(path: Path) -> None:
    _, text = auth.create(path, "door", ["identify"])
    ring = KeyRing(path)
    assert await check(ring, text)
    path.unlink()
    assert ring.find(text) is None
