"""The models of a store, and where each has its faces.

A model has a place of its own, so that embeddings of two never mix. At any time one model is
active, and there may be another; which they are changes in one step.
"""

import asyncio
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from app.errors import StoreMismatch, StoreUnavailable
from app.files import replace_private
from app.store import records
from app.store.base import Embedder, Fuse, Receipts, Store
from app.store.crops import CropFiles, SealedCrops
from app.store.embedded import EmbeddedStore
from app.store.files import lock_folder, readable_by_others, sync
from app.store.galleries import is_gallery
from app.store.receipts import FileReceipts

_log = logging.getLogger(__name__)

_CHOSEN = "models.json"
_FOLDER = "model."
_FOLDERS = _FOLDER + 12 * "[0-9a-f]"
_FILE = "embedder.onnx"


class Chosen(NamedTuple):
    """Which models a store belongs to."""

    active: Embedder
    other: Embedder | None = None


class ModelStores(Protocol):
    """What a store keeps of its models, and what of it belongs to none of them.

    Every method raises `StoreUnavailable` when the engine cannot answer.
    """

    @property
    def receipts(self) -> Receipts: ...

    @property
    def crops(self) -> SealedCrops: ...

    async def open(self, configured: Embedder) -> Chosen:
        """
        Args:
            configured: is active in a store that is empty, or new.

        Raises:
            StoreLocked, StoreMismatch: as in `Store.open`.
        """
        ...

    async def chosen(self) -> Chosen: ...

    async def choose(self, chosen: Chosen) -> None:
        """In one step, durable when it returns."""
        ...

    def store(self, model: Embedder) -> Store:
        """The faces of a model; to be opened."""
        ...

    async def keep(self, model: Embedder, data: bytes) -> None:
        """Keep a model's file, ONNX."""
        ...

    async def file(self, model: Embedder) -> Path | None:
        """Where the file lies that was kept; None where none was."""
        ...

    async def remove(self, model: Embedder, store: Store | None) -> None:
        """A model's file and all that is stored of its faces.

        Args:
            store: of this process, to be closed.
        """
        ...

    async def finish_removals(self) -> None:
        """Remove what was to be removed when something came between."""
        ...

    async def note_unequal(self) -> None:
        """Some replica's write may be missing in the other store."""
        ...

    async def unequal(self) -> frozenset[str]:
        """The notes that were made; none where there is only one replica, which knows."""
        ...

    async def clear(self, notes: frozenset[str]) -> None: ...

    async def close(self) -> None: ...


class ModelFolders:
    """`ModelStores` in a folder: a subfolder for each model, and a file that names them.

    Args:
        path: created where missing, for its owner alone.
        fuse, durable: as in `EmbeddedStore`.
    """

    def __init__(self, path: Path, fuse: Fuse, *, durable: bool = True) -> None:
        self._path = path
        self._fuse = fuse
        self._durable = durable
        self.receipts: Receipts = FileReceipts(path / "erasures.jsonl")
        self.crops: SealedCrops = CropFiles(path / "crops.enc")
        self._lock: IO[bytes] | None = None
        self._chosen: Chosen | None = None

    async def open(self, configured: Embedder) -> Chosen:
        if not (self._path / _CHOSEN).exists():
            await self._move_former_layout(configured)
        try:
            self._chosen = await asyncio.to_thread(self._open, configured)
        except OSError as error:
            raise StoreUnavailable(f"The embedded store failed: {error}") from error
        return self._chosen

    async def chosen(self) -> Chosen:
        assert self._chosen is not None, "not open"
        return self._chosen

    async def choose(self, chosen: Chosen) -> None:
        try:
            await asyncio.to_thread(self._write, chosen)
        except OSError as error:
            raise StoreUnavailable(f"The models cannot be noted: {error.strerror}.") from error
        self._chosen = chosen

    def store(self, model: Embedder) -> EmbeddedStore:
        return EmbeddedStore(
            self._folder(model),
            model,
            self._fuse,
            durable=self._durable,
            receipts=self.receipts,
        )

    async def keep(self, model: Embedder, data: bytes) -> None:
        def keep() -> None:
            folder = self._folder(model)
            folder.mkdir(mode=0o700, exist_ok=True)
            replace_private(folder / _FILE, data)
            sync(self._path)

        try:
            await asyncio.to_thread(keep)
        except OSError as error:
            raise StoreUnavailable(f"The model cannot be kept: {error.strerror}.") from error

    async def file(self, model: Embedder) -> Path | None:
        file = self._folder(model) / _FILE
        return file if file.exists() else None

    async def remove(self, model: Embedder, store: Store | None) -> None:
        if store is not None:
            await store.close()
        await asyncio.to_thread(self._remove, self._folder(model))

    async def finish_removals(self) -> None:
        await asyncio.to_thread(self._sweep, await self.chosen())

    async def note_unequal(self) -> None:
        """The one process that there is knows by itself."""

    async def unequal(self) -> frozenset[str]:
        return frozenset()

    async def clear(self, notes: frozenset[str]) -> None:
        """There are none."""

    async def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _move_former_layout(self, configured: Embedder) -> None:
        """Galleries used to lie in the folder itself. A crash in between leaves some of them there,
        and no file that names the models: then it is gone on with."""
        path = self._path
        if not path.is_dir() or not any(
            entry.is_dir() and is_gallery(entry.name) for entry in path.iterdir()
        ):
            return
        former = EmbeddedStore(path, configured, self._fuse, durable=self._durable)
        try:
            await former.open()  # whose they are, whether they are whole
        finally:
            await former.close()

        def move() -> None:
            with lock_folder(path):
                folder = self._folder(configured)
                folder.mkdir(mode=0o700, exist_ok=True)
                for entry in list(path.iterdir()):
                    if entry.is_dir() and is_gallery(entry.name):
                        entry.rename(folder / entry.name)
                sync(folder)
                sync(path)

        await asyncio.to_thread(move)

    def _open(self, configured: Embedder) -> Chosen:
        path = self._path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if readable_by_others(path):
            _log.warning("%s can be read by other users; chmod 700 it", path)
        self._lock = lock_folder(path)
        try:
            chosen = self._read()
            folders = {entry for entry in path.glob(_FOLDERS) if entry.is_dir()}
            if chosen is None:
                if folders - {self._folder(configured)}:
                    raise StoreMismatch(
                        f"{path / _CHOSEN} is missing, which says by which model the faces in "
                        f"{path} were embedded. Put it back, or configure that model and remove "
                        f"the {_FOLDER}* folders of others."
                    )
                chosen = Chosen(configured)
                self._write(chosen)
            elif configured not in chosen and not self._holds_faces(chosen.active):
                chosen = Chosen(configured)
                self._write(chosen)
            self._sweep(chosen)
            return chosen
        except BaseException:
            self._lock.close()
            raise

    def _holds_faces(self, model: Embedder) -> bool:
        folder = self._folder(model)
        return folder.is_dir() and any(
            entry.name == _FILE or (entry.is_dir() and is_gallery(entry.name))
            for entry in folder.iterdir()
        )

    def _folder(self, model: Embedder) -> Path:
        return self._path / f"{_FOLDER}{model.weights_sha256[:12]}"

    def _sweep(self, chosen: Chosen) -> None:
        """What is left of models that were removed, or were never quite added."""
        used = {self._folder(model) for model in chosen if model is not None}
        for folder in set(self._path.glob(_FOLDERS)) - used:
            if folder.is_dir():
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        sync(self._path)

    def _read(self) -> Chosen | None:
        file = self._path / _CHOSEN
        if not file.exists():
            return None
        try:
            document = json.loads(file.read_bytes())
            if document["format"] != records.FORMAT:
                raise StoreMismatch(records.other_format(str(self._path)))
            other = document["other"]
            return Chosen(
                Embedder(**document["active"]), None if other is None else Embedder(**other)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoreMismatch(
                f"{file} cannot be read ({error!r}); put a backup in its place."
            ) from None

    def _write(self, chosen: Chosen) -> None:
        document = {
            "format": records.FORMAT,
            "active": asdict(chosen.active),
            "other": None if chosen.other is None else asdict(chosen.other),
        }
        replace_private(self._path / _CHOSEN, json.dumps(document, indent=2).encode() + b"\n")
