"""Files that only their owner may read, and that are never seen half written."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PRIVATE = 0o600


def open_private(path: Path) -> IO[bytes]:
    """A file to read and write, unbuffered, made where missing.

    Raises:
        OSError.
    """
    is_new = not path.exists()
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE), "r+b", buffering=0)
    if is_new:
        _give_to_owner_of(path.parent, file)
    return file


def replace_private(path: Path, data: bytes) -> None:
    """Write a whole file: whoever opens it sees the old content or the new, also after a power cut.

    Raises:
        OSError.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            _give_to_owner_of(path if path.exists() else path.parent, file)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        scratch.replace(path)
    finally:
        with suppress(FileNotFoundError):
            scratch.unlink()
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, each waiting for its turn; `path` is made and stays empty.

    Raises:
        OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open_private(path) as file:
        wait_for_lock(file)
        yield


def wait_for_lock(file: IO[bytes]) -> None:
    """Have a file for oneself until it is closed, or the process ends."""
    if sys.platform == "win32":
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX)


def _give_to_owner_of(path: Path, file: IO[bytes]) -> None:
    # root may add a key for a service that runs as somebody else.
    if sys.platform != "win32" and os.geteuid() == 0:
        owner = path.stat()
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk.

    Raises:
        OSError.
    """
    if os.name == "nt":
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
