"""What the embedded store asks of the file system."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from app.errors import StoreLocked

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BLOCK = 2**16
_ZEROS = bytes(_BLOCK)


def lock_folder(path: Path) -> IO[bytes]:
    """Lock a folder until the file returned is closed or the process ends, however it ends."""
    file = (path / ".lock").open("ab")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoreLocked(
            f"Another process uses the store in {path}. Stop it, or give this one a path of its "
            "own; several processes share a Qdrant server instead."
        ) from error
    return file


def readable_by_others(path: Path) -> bool:
    """Whether its owner is not the only one who may look into a folder."""
    return sys.platform != "win32" and bool(path.stat().st_mode & 0o077)


def size_on_disk(folder: Path) -> int:
    """Bytes of the files in a folder, holes not counted where the system tells."""
    stats = [entry.stat() for entry in folder.rglob("*") if entry.is_file()]
    return sum(stat.st_blocks * 512 if os.name == "posix" else stat.st_size for stat in stats)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where in a file there is anything but zeros, and what; holes are passed over."""
    with path.open("rb", buffering=0) as file:
        offset = _next_data(file.fileno(), 0)
        while offset is not None:
            file.seek(offset)
            block = file.read(_BLOCK)
            if not block:
                return
            if block != _ZEROS[: len(block)]:
                yield offset, block
            offset = _next_data(file.fileno(), offset + len(block))


def _next_data(descriptor: int, offset: int) -> int | None:
    if sys.platform == "win32":
        return offset
    try:
        found = os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:  # nothing but a hole
        return None
    return found - found % _BLOCK
