"""Receipts of erasures: whom they mean, and the file the embedded store keeps them in.

A receipt that named the person would keep what it says is gone. It holds a digest instead, keyed
with a secret of the store's: who has an id at hand, as a restore has, can tell whether it was
erased; who has only the receipts learns no id. Ids are short, so whoever has the key as well
can try them all: the digest is a pseudonym, not anonymous.
"""

import asyncio
import errno
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from app.errors import StoreUnavailable
from app.store.base import Receipt, Receipts
from app.store.files import sync


def person_digest(key: bytes, gallery: str, person_id: str) -> str:
    """HMAC-SHA256 of gallery and person, as 64 hex digits."""
    return hmac.new(key, f"{gallery}\0{person_id}".encode(), hashlib.sha256).hexdigest()


class Erasures:
    """Whose erasure the receipts of a store speak of.

    Args:
        key: of the store's receipts.
    """

    def __init__(self, key: bytes, receipts: Iterable[Receipt]) -> None:
        self._key = key
        self._begun_at: dict[str, datetime] = {}
        for receipt in receipts:
            # An erasure that a crash left unfinished was asked for all the same.
            if receipt.state != "abandoned":
                before = self._begun_at.get(receipt.person_digest, receipt.begun_at)
                self._begun_at[receipt.person_digest] = max(before, receipt.begun_at)

    def cover(self, gallery: str, person_id: str, created_at: datetime) -> bool:
        """Whether a person whose record is of `created_at` was erased after that.

        Somebody enrolled anew after their erasure has a later record, and is not covered.
        """
        begun_at = self._begun_at.get(person_digest(self._key, gallery, person_id))
        return begun_at is not None and begun_at >= created_at


async def erasures_since(receipts: Receipts, since: datetime | None = None) -> Erasures:
    """Which persons were erased since then; None: ever.

    Raises:
        StoreUnavailable.
    """
    found = [r for r in await receipts.all() if since is None or r.begun_at >= since]
    # A store without any is not to be given a key for having been asked.
    return Erasures(await receipts.key() if found else b"", found)


def to_payload(receipt: Receipt) -> dict[str, Any]:
    times = {
        name: time.isoformat() if time is not None else None
        for name, time in (("begun_at", receipt.begun_at), ("erased_at", receipt.erased_at))
    }
    return asdict(receipt) | times


def to_receipt(payload: dict[str, Any]) -> Receipt:
    times = {
        name: datetime.fromisoformat(payload[name]) if payload[name] else None
        for name in ("begun_at", "erased_at")
    }
    return Receipt(**payload | times)


def in_last_state(receipts: Iterable[Receipt]) -> list[Receipt]:
    """Of each the one that came last, oldest first."""
    last = {receipt.receipt_id: receipt for receipt in receipts}
    return sorted(last.values(), key=lambda receipt: (receipt.begun_at, receipt.receipt_id))


class FileReceipts:
    """`Receipts` as lines of JSON, of which the first one is the key. Lines are only appended.

    Args:
        path: made at the first use; of one process alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None
        self._lock = asyncio.Lock()

    async def key(self) -> bytes:
        async with self._lock:
            return await asyncio.to_thread(self._translated, self._opened_key)

    async def put(self, receipt: Receipt) -> None:
        async with self._lock:
            await asyncio.to_thread(self._translated, self._put, receipt)

    async def all(self) -> list[Receipt]:
        async with self._lock:
            return await asyncio.to_thread(self._translated, self._all)

    def _translated(self, call: Any, *args: Any) -> Any:
        try:
            return call(*args)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"The receipts of erasures in {self._path} cannot be used: {error}"
            ) from error

    def _opened_key(self) -> bytes:
        """The key; what a crash left of a line is cut off before anything is appended."""
        if self._key is None:
            data = self._path.read_bytes() if self._path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                os.truncate(self._path, len(whole))
            if not whole:
                self._append({"key": secrets.token_hex(32)})
                sync(self._path.parent)
                whole = self._path.read_bytes()
            self._key = bytes.fromhex(json.loads(whole.partition(b"\n")[0])["key"])
        return self._key

    def _put(self, receipt: Receipt) -> None:
        self._opened_key()
        self._append(to_payload(receipt))

    def _all(self) -> list[Receipt]:
        if not self._path.exists():
            return []
        self._opened_key()
        lines = self._path.read_bytes().splitlines()[1:]
        return in_last_state(to_receipt(json.loads(line)) for line in lines)

    def _append(self, document: dict[str, Any]) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self._path, flags, 0o600)
        try:
            line = json.dumps(document).encode() + b"\n"
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            self._key = None  # half a line may be there; the next use looks again
            raise
        finally:
            os.close(descriptor)
