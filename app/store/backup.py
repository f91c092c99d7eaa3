"""Everybody in one file, written while the service runs.

Gzipped lines of JSON; `docs/operations.md` describes them. The last line is the SHA-256 of all
others, so a file that is cut short or altered is known before anything is done with it.

A backup looks at everybody twice. The first look writes them down; the second reads them again,
writes down whoever is new or has changed and withdraws what is no longer so. Between two writes
to a store there is no moment at which it could be copied as a whole, but what was acknowledged
before the second look began is in the file just as it was: newcomers, changes and deletions, of
faces too. What changes during the second look is in it or not, each person whole. The second
look writes next to nothing, so it lasts seconds, however slowly the file is taken away.
"""

import asyncio
import base64
import gzip
import hashlib
import json
import zlib
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, BinaryIO

import numpy as np

from app.errors import InvalidBackup
from app.store import records
from app.store.base import Embedder, Store, StoredPerson, Targets
from app.store.transfer import Contents, Positions, Stored, digest, key, pages_of

VERSION = 1
# Embeddings are noise to a compressor: more effort gains 1 %.
_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
_READ_PERSONS = 250


class _Writer:
    def __init__(self) -> None:
        self._gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._sha256 = hashlib.sha256()
        self.persons = 0

    def line(self, document: dict[str, Any]) -> bytes:
        text = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        self._sha256.update(text)
        return self._gzip.compress(text)

    def write(self, gallery: str, persons: list[StoredPerson]) -> bytes:
        self.persons += len(persons)
        return b"".join(
            self.line(
                {
                    "gallery": gallery,
                    "template": None
                    if person.template is None
                    else base64.b64encode(person.template.astype("<f4").tobytes()).decode(),
                    "payload": person.payload,
                }
            )
            for person in persons
        )

    def end(self) -> bytes:
        return self.line({"sha256": self._sha256.hexdigest()}) + self._gzip.flush()


async def write_backup(store: Store, embedder: Embedder) -> AsyncIterator[bytes]:
    """The file, piece by piece.

    Args:
        store: open; it may be read and written meanwhile, by other processes too.

    Raises:
        StoreUnavailable.
    """
    writer = _Writer()
    yield writer.line({"faceid_backup": VERSION, "store": records.meta_payload(embedder)})

    first: dict[str, array[int]] = {}
    numbers: dict[str, int] = {}
    for gallery in await store.galleries():
        keys = first.setdefault(gallery, array("Q"))
        numbers[gallery] = writer.persons
        async for _, persons in pages_of(store, gallery):
            keys.extend(key(its) for its in await _digests(persons))
            yield await asyncio.to_thread(writer.write, gallery, persons)

    taken_at = datetime.now(UTC)
    contents: dict[str, Contents] = {}
    withdrawn: list[int] = []
    for gallery in sorted(first.keys() | (await store.galleries()).keys()):
        places = Positions(first.get(gallery, array("Q")))
        unchanged = np.zeros(len(places), bool)
        now = Contents()
        async for _, persons in pages_of(store, gallery):
            digests = await _digests(persons)
            for person, its in zip(persons, digests, strict=True):
                now.add(person, its)
            at = places.find([key(its) for its in digests])
            unchanged[at[at >= 0]] = True
            changed = [p for p, place in zip(persons, at, strict=True) if place < 0]
            if changed:
                yield await asyncio.to_thread(writer.write, gallery, changed)
        withdrawn += (numbers.get(gallery, 0) + np.flatnonzero(~unchanged)).tolist()
        if now.persons:
            contents[gallery] = now

    yield writer.line(
        {
            "taken_at": taken_at.isoformat(),
            "persons": writer.persons,
            "withdrawn": withdrawn,
            "galleries": {
                gallery: {
                    "persons": its.persons,
                    "faces": its.faces,
                    "digest": f"{its.digest:064x}",
                }
                for gallery, its in contents.items()
            },
            "targets": {
                gallery: asdict(targets) for gallery, targets in (await store.all_targets()).items()
            },
        }
    )
    yield writer.end()


class Backup:
    """A backup as a source of `app.store.transfer.copy`.

    Args:
        file: seekable; read to its end at once.

    Raises:
        InvalidBackup: it is not one, not whole, or not as it was written.
        OSError.

    Attributes:
        taken_at: everything acknowledged before is in it.
        faces: of all galleries.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header, summary = self._check()
        try:
            if header["faceid_backup"] != VERSION:
                raise InvalidBackup(
                    f"The backup is of version {header['faceid_backup']}; this service reads "
                    f"version {VERSION}. Restore it with the version that wrote it."
                )
            self._meta: dict[str, Any] = header["store"]
            self.taken_at = datetime.fromisoformat(summary["taken_at"])
            self._withdrawn = frozenset(summary["withdrawn"])
            self._contents = {
                gallery: Contents(its["persons"], its["faces"], int(its["digest"], 16))
                for gallery, its in summary["galleries"].items()
            }
            self._targets = {
                gallery: records.to_targets(targets)
                for gallery, targets in summary["targets"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidBackup(f"The file is no backup of this service: {error!r}.") from None
        self.faces = sum(its.faces for its in self._contents.values())

    def mismatch(self, embedder: Embedder) -> str | None:
        """What to tell the operator where its faces are not this embedder's."""
        return records.mismatch(self._meta, embedder, "the backup")

    async def pages(self) -> AsyncIterator[Stored]:
        gallery, persons = "", list[StoredPerson]()
        for number, line in enumerate(self._persons()):
            if number in self._withdrawn:
                continue
            if persons and (line["gallery"] != gallery or len(persons) >= _READ_PERSONS):
                yield Stored(gallery, persons)
                persons = []
            gallery = line["gallery"]
            persons.append(_person(line))
        if persons:
            yield Stored(gallery, persons)

    async def targets(self) -> dict[str, Targets]:
        return self._targets

    async def contents(self) -> dict[str, Contents]:
        return self._contents

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        try:
            with gzip.GzipFile(fileobj=self._file) as lines:
                yield from lines
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidBackup(
                f"The file is damaged or not whole, or no backup at all ({error}). "
                "Nothing was restored; take another one."
            ) from None

    def _check(self) -> tuple[Any, Any]:
        """The first line and the last but one, once the last has shown that all are intact."""
        sha256 = hashlib.sha256()
        header = summary = last = b""
        for line in self._lines():
            if not header:
                header = line
            sha256.update(last)
            summary, last = last, line
        try:
            if json.loads(last) == {"sha256": sha256.hexdigest()}:
                return json.loads(header), json.loads(summary)
        except ValueError:
            pass
        raise InvalidBackup(
            "The file is no backup of this service, or it was altered: its digest is not that of "
            "its content. Nothing was restored; take another one."
        )

    def _persons(self) -> Iterator[dict[str, Any]]:
        lines = self._lines()
        next(lines)
        for line in lines:
            document = json.loads(line)
            if "gallery" not in document:
                return
            yield document


async def _digests(persons: list[StoredPerson]) -> list[bytes]:
    # Not in the event loop, which has others to serve.
    return await asyncio.to_thread(lambda: [digest(person) for person in persons])


def _person(line: dict[str, Any]) -> StoredPerson:
    packed = line["template"]
    if packed is None:
        return StoredPerson(line["payload"], None)
    return StoredPerson(
        line["payload"], np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float32)
    )
