"""Files that are there in full or not at all."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import NoSpace


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to that takes the place of `path` once the block has ended well.

    Raises:
        NoSpace: the disk is full; `path` is what it was before.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"No space left to write {path}. Make room and run the same command again; what "
                "was written before is intact."
            ) from None
        raise
    finally:
        partial.unlink(missing_ok=True)
