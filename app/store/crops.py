"""The aligned crops of enrolled faces, from which another model can embed them anew.

They lie apart from the persons, so that no search reads past them, under ids that name nobody, and
encrypted: AES-256-GCM with a key that the store does not hold. A crop is bound to its gallery,
person and face; one that was put in the place of another does not open.
"""

import asyncio
import base64
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import UUID

import cv2
import numpy as np
import numpy.typing as npt

from app.errors import InvalidSettings, StoreUnavailable
from app.files import replace_private
from app.store import records
from app.store.files import sync

_log = logging.getLogger(__name__)

T = TypeVar("T")
Crop = npt.NDArray[np.uint8]

_NONCE_BYTES = 12
# Tells whether a key is the one that crops were encrypted with; nobody has this name.
_PROBE = ("", "", "00000000-0000-0000-0000-000000000000")


class SealedCrops(Protocol):
    """Where encrypted crops lie.

    Every method raises `StoreUnavailable` when the engine cannot answer. Persons are named by
    `records.point_id(gallery, person_id)`.
    """

    async def put(self, person: UUID, face_id: str, sealed: bytes) -> bool:
        """Durable when it returns; says whether there was none before."""
        ...

    async def get(self, person: UUID, face_ids: Collection[str]) -> dict[str, bytes]:
        """Those of them that are there."""
        ...

    async def delete(self, person: UUID, face_ids: Collection[str] | None = None) -> None:
        """None: all of the person's."""
        ...

    async def persons(self) -> set[UUID]:
        """Who has any."""
        ...


class Crops:
    """
    Args:
        sealed: where they lie.
        key: 32 bytes; None where no more are kept. Those there are can still be deleted.
    """

    def __init__(self, sealed: SealedCrops, key: bytes | None) -> None:
        self._sealed = sealed
        self._cipher = None
        self._is_checked = False
        if key is not None:
            # Imported here: most keep no crops.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(key)

    @property
    def are_kept(self) -> bool:
        return self._cipher is not None

    async def check(self) -> None:
        """
        Raises:
            InvalidSettings: the crops there are were encrypted with another key.
            StoreUnavailable.
        """
        if self._cipher is None or self._is_checked:
            return
        person = _person(*_PROBE[:2])
        found = await self._sealed.get(person, [_PROBE[2]])
        if not found:
            await self._sealed.put(person, _PROBE[2], self._seal(b"", *_PROBE))
        elif self._open(found[_PROBE[2]], *_PROBE) is None:
            raise InvalidSettings(
                "FACEID_STORE__CROPS_KEY is not the key that the kept crops were encrypted with. "
                "Set that one; if it is lost, delete the crops and they are kept anew."
            )
        self._is_checked = True

    async def put(self, gallery: str, person_id: str, face_id: str, crop: Crop) -> bool:
        """Keep a crop, (112, 112, 3) uint8, to the bit; says whether there was none before.

        Raises:
            StoreUnavailable, InvalidSettings.
        """
        await self.check()
        sealed = await asyncio.to_thread(
            lambda: self._seal(_encoded(crop), gallery, person_id, face_id)
        )
        return await self._sealed.put(_person(gallery, person_id), face_id, sealed)

    async def get(self, gallery: str, person_id: str, face_ids: Collection[str]) -> dict[str, Crop]:
        """Those of them that were kept.

        Raises:
            StoreUnavailable, InvalidSettings.
        """
        found = await self._opened(gallery, person_id, face_ids)
        return {face_id: _decoded(data) for face_id, data in found.items()}

    async def png(self, gallery: str, person_id: str, face_ids: Collection[str]) -> dict[str, str]:
        """The same as PNG in base64."""
        found = await self._opened(gallery, person_id, face_ids)
        return {face_id: base64.b64encode(data).decode() for face_id, data in found.items()}

    async def _opened(
        self, gallery: str, person_id: str, face_ids: Collection[str]
    ) -> dict[str, bytes]:
        if self._cipher is None or not face_ids:
            return {}
        await self.check()
        found = await self._sealed.get(_person(gallery, person_id), face_ids)
        opened = {}
        for face_id, sealed in found.items():
            data = self._open(sealed, gallery, person_id, face_id)
            if data is None:
                _log.error("a kept crop is damaged or not where it belongs; it is not used")
            else:
                opened[face_id] = data
        return opened

    async def delete(
        self, gallery: str, person_id: str, face_ids: Collection[str] | None = None
    ) -> None:
        """None: all of the person's.

        Raises:
            StoreUnavailable.
        """
        await self._sealed.delete(_person(gallery, person_id), face_ids)

    async def persons(self) -> set[UUID]:
        """Whoever has some, as `records.point_id(gallery, person_id)`.

        Raises:
            StoreUnavailable.
        """
        return await self._sealed.persons() - {_person(*_PROBE[:2])}

    async def delete_persons(self, persons: Iterable[UUID]) -> None:
        """All crops of these.

        Raises:
            StoreUnavailable.
        """
        for person in persons:
            await self._sealed.delete(person)

    def _seal(self, data: bytes, *face: str) -> bytes:
        assert self._cipher is not None
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, "\0".join(face).encode())

    def _open(self, sealed: bytes, *face: str) -> bytes | None:
        from cryptography.exceptions import InvalidTag

        assert self._cipher is not None
        nonce, data = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, data, "\0".join(face).encode())
        except (InvalidTag, ValueError):
            return None


def _person(gallery: str, person_id: str) -> UUID:
    return records.point_id(gallery, person_id)


def _encoded(crop: Crop) -> bytes:
    # PNG loses nothing.
    return cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[1].tobytes()


def _decoded(data: bytes) -> Crop:
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return np.asarray(read, np.uint8)


class CropFiles:
    """`SealedCrops` as files: `ab/abcd...-uuid-of-the-person/uuid-of-the-face`.

    Args:
        folder: made at the first use; of one process alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, person: UUID, face_id: str, sealed: bytes) -> bool:
        def put() -> bool:
            folder = self._of(person)
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync(folder.parent)
                sync(self._folder)
            is_new = not (folder / face_id).exists()
            replace_private(folder / face_id, sealed)
            return is_new

        return await _in_thread(put)

    async def get(self, person: UUID, face_ids: Collection[str]) -> dict[str, bytes]:
        def get() -> dict[str, bytes]:
            found = {}
            for face_id in face_ids:
                with suppress(FileNotFoundError):
                    found[face_id] = (self._of(person) / face_id).read_bytes()
            return found

        return await _in_thread(get)

    async def delete(self, person: UUID, face_ids: Collection[str] | None = None) -> None:
        def delete() -> None:
            folder = self._of(person)
            if not folder.is_dir():
                return
            if face_ids is None:
                shutil.rmtree(folder)
                sync(folder.parent)
                return
            for face_id in face_ids:
                (folder / face_id).unlink(missing_ok=True)
            sync(folder)

        if self._folder.is_dir():
            await _in_thread(delete)

    async def persons(self) -> set[UUID]:
        def persons() -> set[UUID]:
            return {UUID(folder.name) for folder in self._folder.glob("??/*")}

        return await _in_thread(persons)

    def _of(self, person: UUID) -> Path:
        return self._folder / str(person)[:2] / str(person)


async def _in_thread(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise StoreUnavailable(f"The kept crops cannot be used: {error.strerror}.") from error
