"""The galleries of a folder: which there are, and which of them are open.

Not for two threads at once.
"""

import logging
import re
import shutil
import uuid
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import IO

from app.errors import InvalidRequest, PersonNotFound, StoreUnavailable
from app.store.base import Embedder, Fuse, GallerySize, Targets
from app.store.files import lock_folder, readable_by_others, size_on_disk, sync
from app.store.rewrite import FORMER, Rewrite, recover
from app.store.seal import break_seal, is_sealed, seal
from app.store.segments import create as create_shard
from app.store.shard import Shard
from app.store.trial import try_out

_log = logging.getLogger(__name__)

# An open gallery costs about 35 MB of memory, opening one again 25 ms or more.
_MAX_OPEN = 16
# The engine maps files of 32 MiB and dies of SIGBUS where the disk has no room behind them.
_MIN_FREE_BYTES = 256 * 2**20
# A deletion may begin a page of some of them.
_FREE_BYTES_TO_DELETE = 2**20

_GALLERY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NEW = ".new-"


def is_gallery(name: str) -> bool:
    """Whether a folder of this name is a gallery, or one that is being replaced."""
    return _GALLERY.fullmatch(name.removeprefix(FORMER)) is not None


class Galleries:
    """
    Args:
        path: folder, created where missing, for its owner alone.
        embedder: whose embeddings are stored.
        fuse: makes a person's template.

    Attributes:
        open: the open ones, the one used last at the end.
        sizes: of every gallery, open or not.
        targets: the same.
    """

    def __init__(self, path: Path, embedder: Embedder, fuse: Fuse) -> None:
        self._path = path
        self._embedder = embedder
        self._fuse = fuse
        self.open: OrderedDict[str, Shard] = OrderedDict()
        self.sizes: dict[str, GallerySize] = {}
        self.targets: dict[str, Targets] = {}
        self._broken: set[str] = set()
        self._lock: IO[bytes] | None = None

    def open_all(self) -> None:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if readable_by_others(self._path):
            _log.warning("%s can be read by other users; chmod 700 it", self._path)
        self._lock = lock_folder(self._path)
        recover(self._path)
        names = []
        for folder in sorted(self._path.iterdir()):
            if folder.name.startswith(_NEW):
                shutil.rmtree(folder)
            elif folder.is_dir() and _GALLERY.fullmatch(folder.name):
                names.append(folder.name)
        # All of them before the first one is opened: where one is damaged, none is written to.
        for name in names:
            self._examine(self._path / name)
        for name in names:
            self._open(name).checkpoint()

    def _examine(self, folder: Path) -> None:
        """
        Raises:
            StoreUnavailable: the gallery is damaged.
        """
        if is_sealed(folder):
            return
        if shutil.disk_usage(self._path).free < size_on_disk(folder) + _MIN_FREE_BYTES:
            _log.warning("%s is opened without being tried out on a copy: no room", folder)
            return
        try_out(folder, self._unused_folder(), self._embedder, self._fuse)

    def close_all(self) -> None:
        for name in list(self.open):
            with suppress(Exception):
                self._close(name)
        self.open.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check(self) -> None:
        for name in list(self._broken):
            self.get(name)
        for shard in self.open.values():
            shard.check()

    def get(self, name: str) -> Shard | None:
        """The open gallery, None where there is none of this name."""
        shard = self.open.get(name)
        if shard is not None:
            self.open.move_to_end(name)
            return shard
        if name not in self.sizes:
            return None
        return self._open_again(name)

    def of_person(self, name: str, person_id: str) -> Shard:
        shard = self.get(name)
        if shard is None:
            raise PersonNotFound(name, person_id)
        return shard

    def _open_again(self, name: str) -> Shard:
        try:
            is_sealed(self._path / name)
        except StoreUnavailable:
            self._broken.add(name)
            raise
        return self._open(name)

    def _open(self, name: str) -> Shard:
        while len(self.open) >= _MAX_OPEN:
            self._close(next(iter(self.open)))
        break_seal(self._path / name)
        shard = Shard(self._path / name, self._embedder, self._fuse, self._unused_folder())
        self.open[name] = shard
        self.note(name)
        self._broken.discard(name)
        return shard

    def note(self, name: str) -> None:
        self.sizes[name] = self.open[name].size
        self.targets[name] = self.open[name].targets

    def create(self, name: str) -> Shard:
        if not _GALLERY.fullmatch(name):
            raise InvalidRequest(f"{name!r} is no name for a gallery.")
        # Built aside and renamed, so that a gallery is there with all it needs or not at all.
        folder = self._unused_folder()
        create_shard(folder, self._embedder)
        folder.rename(self._path / name)
        sync(self._path)
        return self._open(name)

    def _unused_folder(self) -> Path:
        """Of a name that is swept away at the next opening."""
        return self._path / f"{_NEW}{uuid.uuid4().hex}"

    def _close(self, name: str) -> None:
        shard = self.open.pop(name)
        try:
            shard.flush()
        finally:
            shard.close()
        seal(self._path / name)

    def discard(self, name: str) -> None:
        """Close a gallery whose state is uncertain; its next use loads it from its log."""
        self._broken.add(name)
        shard = self.open.pop(name, None)
        if shard is not None:
            with suppress(BaseException):
                shard.close()

    def drop_empty(self, name: str) -> Path | None:
        """Close a gallery that holds nobody and has no targets, and take its folder away; the
        folder's new name, to be removed, or None where it stays."""
        if self.sizes[name].persons or self.targets[name] != Targets():
            return None
        shard = self.get(name)
        if shard is None:
            return None
        del self.open[name]
        shard.close()
        folder = self._unused_folder()
        (self._path / name).rename(folder)
        sync(self._path)
        del self.sizes[name], self.targets[name]
        return folder

    def rewrite(self, name: str) -> Rewrite:
        """One that has not begun."""
        return Rewrite(self._path / name, self._unused_folder(), self._embedder, self._fuse)

    def begin(self, rewrite: Rewrite) -> bool:
        """Begin it, where there is anything that a gallery's files are to be rid of."""
        shard = self.get(rewrite.gallery)
        if shard is None or not shard.has_remains or shard.changed is not None:
            return False
        self.require_space(size_on_disk(self._path / rewrite.gallery))
        rewrite.begin(shard)
        return True

    def replace(self, rewrite: Rewrite) -> bool:
        """Have what is written anew take the place of its gallery."""
        rewrite.copy_changes()
        del self.open[rewrite.gallery]
        self._broken.add(rewrite.gallery)
        rewrite.replace()
        self._open(rewrite.gallery)
        return True

    def require_space(self, more: int = 0) -> None:
        if shutil.disk_usage(self._path).free < _MIN_FREE_BYTES + more:
            raise StoreUnavailable(f"The disk of {self._path} is full; nothing was stored.")

    def require_space_to_delete(self) -> None:
        if shutil.disk_usage(self._path).free < _FREE_BYTES_TO_DELETE:
            raise StoreUnavailable(
                f"The disk of {self._path} is full to the last byte; nothing was deleted. Make "
                "some room first."
            )
