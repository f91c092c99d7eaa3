"""Writing the audit log: several processes of one machine may, and each line is whole or absent."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.audit.chain import EMPTY, Head, closed_file, closed_files, head_file, seal, unseal
from app.errors import AuditUnavailable, AuditUnusable
from app.files import open_private, sync_folder, wait_for_lock

_TAIL = 1 << 16


@dataclass(frozen=True, slots=True)
class Event:
    """
    Attributes:
        action: `person.delete` and the like.
        outcome: `done`, `refused` (the caller's fault), `failed` (the service's) or `abandoned`
            (the caller hung up; it may have been done).
        status: of the HTTP answer; None outside of HTTP.
        key: id of the API key; None where none was needed.
        details: counts and ids; never a similarity, an embedding or anything of a photo.
    """

    action: str
    outcome: str
    status: int | None = None
    key: str | None = None
    gallery: str | None = None
    person_id: str | None = None
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": self.action,
            "outcome": self.outcome,
            "status": self.status,
            "key": self.key,
            "gallery": self.gallery,
            "person_id": self.person_id,
            "request_id": self.request_id,
            "details": dict(self.details),
        }


class AuditLog:
    """
    Args:
        path: made where missing; so is its folder.
        max_file_bytes: a file that has reached it is renamed and the next one begun.
    """

    def __init__(self, path: Path, max_file_bytes: int) -> None:
        self._path = path
        self._max_file_bytes = max_file_bytes
        self._waiting: list[tuple[Event, bool, asyncio.Future[None]]] = []
        self._writing = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()
        self._failed = False

    def open(self) -> None:
        """
        Raises:
            AuditUnusable: it could not be written to.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._append([], durable=False)
        except OSError as error:
            raise AuditUnusable(
                f"The audit log {self._path} cannot be written: {error.strerror}. Make its folder "
                "writable, or name another file by FACEID_AUDIT__PATH."
            ) from None

    def write(self, event: Event) -> None:
        """Append one line and wait until it is on disk.

        Raises:
            AuditUnavailable: nothing was written.
        """
        try:
            self._append([event], durable=True)
        except OSError as error:
            raise self._unavailable(error) from None

    async def close(self) -> None:
        """Wait for lines of requests that did not wait for them."""
        await asyncio.gather(*self._flushes)

    async def check(self) -> None:
        """After a line could not be written: whether lines can be written again.

        Raises:
            AuditUnavailable.
        """
        if self._failed:
            await self.record(Event("audit.resume", "done"), durable=True)

    async def record(self, event: Event, *, durable: bool) -> None:
        """Append one line; lines that wait together are written together.

        Args:
            durable: wait until it is on disk, not only with the operating system.

        Raises:
            AuditUnavailable: the line was not written.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((event, durable, written))
        # A task of its own: what a request did is written down even if it is cancelled here.
        flush = asyncio.create_task(self._flush())
        self._flushes.add(flush)
        flush.add_done_callback(self._flushes.discard)
        await written

    async def _flush(self) -> None:
        async with self._writing:
            batch, self._waiting = self._waiting, []
            if batch:
                await self._write_batch(batch)

    async def _write_batch(self, batch: list[tuple[Event, bool, asyncio.Future[None]]]) -> None:
        events = [event for event, _, _ in batch]
        try:
            await asyncio.to_thread(
                self._append, events, durable=any(durable for _, durable, _ in batch)
            )
        except Exception as error:  # whatever it is, nobody must wait for ever
            self._failed = True
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(self._unavailable(error))
        else:
            self._failed = False
            for _, _, future in batch:
                if not future.done():
                    future.set_result(None)

    def _unavailable(self, error: Exception) -> AuditUnavailable:
        reason = error.strerror if isinstance(error, OSError) else error
        return AuditUnavailable(
            f"What was done cannot be written to the audit log ({reason}), so nothing more is "
            "changed until it can."
        )

    def _append(self, events: Sequence[Event], *, durable: bool) -> None:
        # Opened each time: another process may have begun the next file.
        with open_private(head_file(self._path)) as guard:
            wait_for_lock(guard)
            with open_private(self._path) as file:
                head = self._resume(guard.read(), file)
                start = file.seek(0, os.SEEK_END)
                lines = []
                for event in events:
                    line, head = seal(event.record(), head)
                    lines.append(line)
                try:
                    _write_all(file.fileno(), b"".join(lines))
                    if durable:
                        os.fsync(file.fileno())
                        if start == 0:
                            sync_folder(self._path.parent)
                except OSError:
                    # A line that was not acknowledged must not be found half there.
                    with suppress(OSError):
                        file.truncate(start)
                    raise
                if durable:
                    # It must never be ahead of what is on disk: that reads as lines removed.
                    guard.seek(0)
                    guard.write(f"{head.seq:015d}:{head.hash}\n".encode())
                size = file.seek(0, os.SEEK_END)
            if events and size >= self._max_file_bytes:
                self._begin_next()

    def _resume(self, known: bytes, file: Any) -> Head:
        """The head that the next line follows; a line that a crash cut short is removed."""
        last = _last_line(file)
        if last is None and (closed := closed_files(self._path)):
            with closed[-1].open("rb") as before:
                last = _last_line(before)
        try:
            found = unseal(last).head if last is not None else EMPTY
        except ValueError:
            found = EMPTY
        try:
            durable = Head.parse(known.decode())
        except ValueError:
            durable = EMPTY
        # Lines that were removed since leave a gap, which `verify` finds.
        return max(durable, found, key=lambda head: head.seq)

    def _begin_next(self) -> None:
        with self._path.open("rb") as file:
            try:
                first = unseal(file.readline().rstrip(b"\n")).seq
            except ValueError:
                return  # changed by somebody: `verify` is to find it where it is
        self._path.rename(closed_file(self._path, first))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _last_line(file: Any) -> bytes | None:
    """The last whole line; what a crash left after it is cut off."""
    end = file.seek(0, os.SEEK_END)
    span = _TAIL
    while True:
        start = max(0, end - span)
        file.seek(start)
        tail = file.read(end - start)
        whole = tail.rfind(b"\n") + 1
        before = tail.rfind(b"\n", 0, max(0, whole - 1)) + 1
        if start == 0 or (whole and before):
            break
        span *= 2
    if start + whole < end and file.writable():
        file.truncate(start + whole)
    return tail[before : whole - 1] if whole else None
