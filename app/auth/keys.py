"""One API key: `faceid_<id>_<secret>`, of which the service keeps everything but the secret."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Scope = Literal["identify", "enrol", "embed", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

# RFC 7914's parameters for interactive use: 16 MiB and some 40 ms. The secret has 256 random
# bits, so no parameters are needed to keep anybody from guessing it.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1

_KEY = re.compile(r"faceid_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")

KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+=-]{0,63}$")]
GalleryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class Key(BaseModel):
    """What is kept of a key.

    Attributes:
        id: 12 hex digits; a part of the key, and its name in the audit log.
        name: the operator's own; a rotated key keeps it.
        galleries: the key is of use in these alone; empty: in all.
        salt, hash: hex; scrypt of the whole key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: KeyName
    scopes: tuple[Scope, ...] = Field(min_length=1)
    galleries: tuple[GalleryName, ...] = ()
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def is_for(self, gallery: str) -> bool:
        return not self.galleries or gallery in self.galleries

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def matches(self, presented: str) -> bool:
        """Takes tens of milliseconds, without the interpreter's lock."""
        return hmac.compare_digest(bytes.fromhex(self.hash), _scrypt(presented, self.salt))


def new_key(
    name: str,
    scopes: Sequence[str],
    galleries: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """A key with 256 random bits, and the text that its owner presents.

    Raises:
        ValidationError: a name, scope or gallery that cannot be.
    """
    identifier, salt = secrets.token_hex(6), secrets.token_hex(16)
    text = f"faceid_{identifier}_{secrets.token_urlsafe(32)}"
    key = Key.model_validate(
        {
            "id": identifier,
            "name": name,
            "scopes": tuple(sorted(set(scopes))),
            "galleries": tuple(sorted(set(galleries))),
            "created_at": datetime.now(UTC).replace(microsecond=0),
            "expires_at": expires_at,
            "salt": salt,
            "hash": _scrypt(text, salt).hex(),
        }
    )
    return key, text


def key_id(presented: str) -> str | None:
    """The id in what somebody presents as a key; None where it cannot be one."""
    match = _KEY.fullmatch(presented)
    return match[1] if match else None


def _scrypt(text: str, salt: str) -> bytes:
    return hashlib.scrypt(
        text.encode(), salt=bytes.fromhex(salt), n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=32
    )
