"""The file of keys: read by the service, changed by `faceid keys`, one change at a time."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from app.auth.keys import Key, new_key
from app.errors import InvalidKeys
from app.files import locked, replace_private


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "_File":
        if self.version != 1:
            raise ValueError(f"version {self.version} is not known, only 1 is")
        if len({key.id for key in self.keys}) != len(self.keys):
            raise ValueError("two keys have the same id")
        return self


def read(path: Path) -> tuple[Key, ...]:
    """The keys in a file; none where there is no file.

    Raises:
        InvalidKeys: unreadable, or not such a file.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InvalidKeys(f"The keys in {path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidKeys(
            f"{path} is not a file of API keys ({where or 'whole file'}: {first['msg']}). Bring "
            "back a copy of it, or remove it and make new keys with `faceid keys create`."
        ) from None


def create(
    path: Path,
    name: str,
    scopes: Sequence[str],
    galleries: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Add a key; returns it with the text that is never to be seen again.

    Raises:
        InvalidKeys: the file cannot be read or written.
        ValidationError: a name, scope or gallery that cannot be.
    """
    key, text = new_key(name, scopes, galleries, expires_at)
    _change(path, lambda keys: (*keys, key))
    return key, text


def first(path: Path) -> tuple[Key, str] | None:
    """An admin key where there is no file of keys yet; None where there is one, even an empty one.

    Raises:
        InvalidKeys: the file cannot be read or written.
    """
    if path.exists():
        return None
    key, text = new_key("first", ["admin"])
    added = False

    def add(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        nonlocal added
        added = not path.exists()  # another replica may have been faster
        return (key,) if added else keys

    _change(path, add)
    return (key, text) if added else None


def rotate(path: Path, identifier: str, overlap: timedelta) -> tuple[Key, str]:
    """Add a key that may do the same; the old one ends after `overlap`.

    Raises:
        InvalidKeys: no such key, or the file cannot be read or written.
    """
    created: tuple[Key, str] | None = None

    def exchange(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        nonlocal created
        old = _find(path, keys, identifier)
        created = new_key(old.name, old.scopes, old.galleries, old.expires_at)
        end = datetime.now(UTC).replace(microsecond=0) + overlap
        if old.expires_at is not None:
            end = min(end, old.expires_at)
        ending = old.model_copy(update={"expires_at": end})
        return (*(ending if key is old else key for key in keys), created[0])

    _change(path, exchange)
    assert created is not None
    return created


def revoke(path: Path, identifier: str) -> Key:
    """Remove a key: from then on it is as if it had never been.

    Raises:
        InvalidKeys: no such key, or the file cannot be read or written.
    """
    removed: list[Key] = []

    def remove(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        removed.append(_find(path, keys, identifier))
        return tuple(key for key in keys if key is not removed[0])

    _change(path, remove)
    return removed[0]


def _find(path: Path, keys: tuple[Key, ...], identifier: str) -> Key:
    for key in keys:
        if key.id == identifier:
            return key
    raise InvalidKeys(f"No key {identifier!r} in {path}; `faceid keys list` names them.")


def _change(path: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    try:
        with locked(path.with_name(f"{path.name}.lock")):
            file = _File(keys=change(read(path)))
            replace_private(path, file.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise InvalidKeys(f"The keys in {path} cannot be written: {error.strerror}.") from None
