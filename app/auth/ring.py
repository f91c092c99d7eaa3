"""The keys as the service sees them: read again when their file changes, checked quickly."""

import asyncio
import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.auth.file import read
from app.auth.keys import Key, key_id
from app.errors import InvalidKeys

_log = logging.getLogger(__name__)

_Version = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Unproven:
    """What was presented bears a known id, and no request has proved that key so far."""

    key: Key
    presented: str


class KeyRing:
    """
    A key is proved by scrypt once. From then on this process knows it by a digest under a secret
    of its own, and with it every text that has the same id and is not the key: neither the owner
    nor somebody who guesses makes it compute scrypt again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: _Version = None
        self._keys: dict[str, Key] = {}
        self._secret = secrets.token_bytes(32)
        # By the key's hash, so that what was proved of a key never vouches for its successor.
        self._proved: dict[str, bytes] = {}
        self._proving = asyncio.Lock()
        # By the digest of what was presented.
        self._proofs: dict[bytes, asyncio.Task[Key | None]] = {}

    def load(self) -> None:
        """
        Raises:
            InvalidKeys: unreadable, or not a file of keys.
        """
        version = self._stat()
        self._keys = {key.id: key for key in read(self._path)}
        self._version = version
        hashes = {key.hash for key in self._keys.values()}
        self._proved = {h: digest for h, digest in self._proved.items() if h in hashes}

    def find(self, presented: str) -> Key | Unproven | None:
        """Whose key it is; None where it is none, or expired or revoked."""
        self._reload()
        identifier = key_id(presented)
        key = self._keys.get(identifier) if identifier else None
        if key is None or key.is_expired(datetime.now(UTC)):
            return None
        proved = self._proved.get(key.hash)
        if proved is None:
            return Unproven(key, presented)
        return key if hmac.compare_digest(proved, self._digest(presented)) else None

    def is_proving(self, unproven: Unproven) -> bool:
        """Whether the same key is being proved already, so that it costs nothing more."""
        return self._digest(unproven.presented) in self._proofs

    async def prove(self, unproven: Unproven) -> Key | None:
        """One at a time, tens of milliseconds of one core each; who presents the same key
        meanwhile is told the same."""
        digest = self._digest(unproven.presented)
        proof = self._proofs.get(digest)
        if proof is None:
            proof = asyncio.create_task(self._prove(unproven))
            self._proofs[digest] = proof
            proof.add_done_callback(lambda _: self._proofs.pop(digest))
        return await asyncio.shield(proof)

    async def _prove(self, unproven: Unproven) -> Key | None:
        async with self._proving:
            found = self.find(unproven.presented)
            if not isinstance(found, Unproven):
                return found
            key = found.key
            if not await asyncio.to_thread(key.matches, found.presented):
                return None
            self._proved[key.hash] = self._digest(found.presented)
        # It may have been revoked meanwhile.
        found = self.find(unproven.presented)
        return found if isinstance(found, Key) else None

    def _digest(self, presented: str) -> bytes:
        return hmac.digest(self._secret, presented.encode(), "sha256")

    def _reload(self) -> None:
        version = self._stat()
        if version == self._version:
            return
        try:
            self.load()
        except InvalidKeys as error:
            # `faceid keys` never leaves such a file behind. The keys stay as they were.
            self._version = version
            _log.error("%s", error.detail)
        else:
            _log.info("keys read again: %d", len(self._keys))

    def _stat(self) -> _Version:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
