"""Files that are there in full or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import NoSpace


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` once the block has ended well.

    Raises:
        NoSpace: the disk is full; `path` is what it was before.
    """
    partial = path.with_name(f".{path.name}.partial")
    with full_disk_explained(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write(path: Path, content: bytes | memoryview) -> None:
    """Write a file in full or not at all, power cut included.

    Raises:
        NoSpace: the disk is full; `path` is what it was before.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Raise `NoSpace` instead of the operating system's error when `path` is written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            f"No space left to write {path}. Make room and run the same command again; what was "
            "written before is intact."
        ) from None
