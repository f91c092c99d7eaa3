"""The file of keys: what is kept, who may read it, what happens to a broken one."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import auth
from app.errors import InvalidKeys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_the_key_itself_is_not_kept(path: Path) -> None:
    key, text = auth.create(path, "door", ["identify"])
    content = path.read_text()
    assert text.startswith(f"faceid_{key.id}_")
    assert text not in content
    assert text.rpartition(key.id)[2].lstrip("_") not in content
    assert key.matches(text)
    assert not key.matches(text[:-1] + ("a" if text[-1] != "a" else "b"))


def test_two_keys_are_never_hashed_alike(path: Path) -> None:
    (a, _), (b, _) = (auth.create(path, "door", ["identify"]) for _ in range(2))
    assert a.id != b.id
    assert a.salt != b.salt
    assert a.hash != b.hash


def test_only_the_owner_may_read_it(path: Path) -> None:
    auth.create(path, "door", ["identify"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_the_first_key_is_made_once(path: Path) -> None:
    made = auth.first(path)
    assert made is not None
    assert made[0].scopes == ("admin",)
    assert auth.first(path) is None
    auth.revoke(path, made[0].id)
    assert auth.first(path) is None, "who revokes the last key gets no new one"


def test_changes_at_the_same_time_lose_nothing(path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: auth.create(path, f"k{i}", ["identify"]), range(24)))
    assert {key.name for key in auth.read(path)} == {f"k{i}" for i in range(24)}


def test_a_rotated_key_passes_on_what_it_may(path: Path) -> None:
    old, _ = auth.create(path, "door", ["identify", "enrol"], ["staff", "guests"])
    new, text = auth.rotate(path, old.id, timedelta(hours=1))
    assert (new.name, new.scopes, new.galleries) == (old.name, old.scopes, old.galleries)
    assert new.matches(text)
    ending = next(key for key in auth.read(path) if key.id == old.id)
    assert not ending.is_expired(datetime.now(UTC))
    assert ending.is_expired(datetime.now(UTC) + timedelta(hours=1))


def test_rotation_makes_no_key_live_longer(path: Path) -> None:
    end = datetime.now(UTC) + timedelta(minutes=1)
    old, _ = auth.create(path, "guest", ["identify"], expires_at=end)
    new, _ = auth.rotate(path, old.id, timedelta(days=1))
    assert [key.expires_at for key in auth.read(path)] == [end, end]
    assert new.expires_at == end


def test_an_unknown_key_cannot_be_revoked_or_rotated(path: Path) -> None:
    auth.create(path, "door", ["identify"])
    before = path.read_bytes()
    with pytest.raises(InvalidKeys, match="No key 'abc'"):
        auth.revoke(path, "abc")
    with pytest.raises(InvalidKeys, match="No key 'abc'"):
        auth.rotate(path, "abc", timedelta())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "scopes", "galleries"),
    [
        ("a\nb", ["identify"], []),
        ("x" * 65, ["identify"], []),
        ("door", [], []),
        ("door", ["everything"], []),
        ("door", ["identify"], ["../x"]),
    ],
)
def test_what_a_key_cannot_be(
    path: Path, name: str, scopes: list[str], galleries: list[str]
) -> None:
    with pytest.raises(ValidationError):
        auth.create(path, name, scopes, galleries)
    assert not path.exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": 1}', '{"version": 2}', '{"keys": [{"id": "x"}]}']
)
def test_a_broken_file_is_named(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(InvalidKeys, match=r"keys\.json is not a file of API keys"):
        auth.read(path)


def test_an_id_belongs_to_one_key(path: Path) -> None:
    auth.create(path, "door", ["identify"])
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"keys": document["keys"] * 2}))
    with pytest.raises(InvalidKeys, match="same id"):
        auth.read(path)
