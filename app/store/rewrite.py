"""A gallery of the embedded engine written anew, so that its files hold nothing deleted.

The engine marks what is deleted and leaves it in its files (`app.store.shard`). So everybody
who is there is copied into a new folder, slice by slice while the gallery is in use, what was
written meanwhile is copied after them, and the new folder takes the place of the old one, which is
removed. Unlinking frees the blocks of the disk; it does not overwrite them.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from app.store.base import Embedder, Fuse
from app.store.files import sync
from app.store.segments import add_segments, create
from app.store.shard import PointId, Shard

# Persons in one slice: 2 ms, for which a search may have to wait.
_SLICE = 32
FORMER = ".former-"


class Rewrite:
    """
    Args:
        folder: of the gallery.
        new: a folder name beside it that is swept away at the next opening.

    Attributes:
        gallery: its name.
        shard: that is copied; where it is closed meanwhile, all was in vain.
    """

    shard: Shard
    _copy: Shard

    def __init__(self, folder: Path, new: Path, embedder: Embedder, fuse: Fuse) -> None:
        self.gallery = folder.name
        self._folder = folder
        self._new = new
        self._embedder = embedder
        self._fuse = fuse
        self._offset: PointId | None = None
        self._has_begun = self._is_flushed = False
        self._former = folder.with_name(f"{FORMER}{folder.name}")

    def begin(self, shard: Shard) -> None:
        self.shard = shard
        scratch = self._new.with_name(f"{self._new.name}-segment")
        create(self._new, self._embedder, durable=False)
        add_segments(self._new, shard.segments_wanted - 1, self._embedder, scratch)
        self._copy = Shard(self._new, self._embedder, self._fuse, scratch)
        shard.changed = set()
        self._has_begun = True

    def copy_slice(self) -> bool:
        """Copy the next slice; says whether it was the last one."""
        points, self._offset = self.shard.points(_SLICE, self._offset)
        self._copy.take(points)
        return self._offset is None

    def copy_changes(self) -> None:
        """Copy what was written since the copying began, or since the last time."""
        changed, self.shard.changed = self.shard.changed or set(), set()
        if not changed:
            return
        self._is_flushed = False
        points = self.shard.points_of(changed)
        if points:
            self._copy.take(points)
        gone = changed.difference(point.id for point in points)
        if gone:
            self._copy.drop(gone)

    def sync(self) -> None:
        """Wait until both are on disk, so that flushing and closing them take less time.

        Other threads may use them meanwhile: the files are waited for, not the engine.
        """
        for folder in (self._new, self._folder):
            for entry in [*folder.rglob("*"), folder]:
                with suppress(FileNotFoundError):  # a part of the log that has ended
                    sync(entry)

    def flush(self) -> None:
        self._copy.flush()
        self._is_flushed = True

    def replace(self) -> None:
        """Put the copy, which must be complete, in the place of the gallery; both are closed."""
        if not self._is_flushed:
            self.flush()
        self._copy.close()
        self.shard.close()
        # Between the two the gallery is not there: `recover` then takes the former one.
        former = self._former
        shutil.rmtree(former, ignore_errors=True)  # of a time when it could not be removed
        self._folder.rename(former)
        try:
            self._new.rename(self._folder)
        except OSError:
            former.rename(self._folder)
            raise
        sync(self._folder.parent)

    def remove_former(self) -> None:
        """Once replaced; touches nothing that is in use."""
        shutil.rmtree(self._former)
        sync(self._folder.parent)

    def end(self) -> None:
        """Give up what has not replaced the gallery, which then stays as it is."""
        if self._has_begun:
            self.shard.changed = None
            with suppress(Exception):  # it may be closed already
                self._copy.close()
        shutil.rmtree(self._new, ignore_errors=True)


def recover(path: Path) -> None:
    """Finish, or undo, what a crash left of a replacement in the folder of a store."""
    for former in path.glob(f"{FORMER}*"):
        gallery = path / former.name.removeprefix(FORMER)
        if gallery.exists():
            shutil.rmtree(former)
        else:
            former.rename(gallery)
            sync(path)
