"""A gallery that was in use when its process ended, tried out on a copy.

Opening it replays its log, which writes to its files, damaged or not. So that is done to a copy
first, and what comes of it is looked through.
"""

import shutil
import zlib
from base64 import b64decode
from pathlib import Path
from uuid import UUID

import qdrant_edge as edge

from app.errors import StoreMismatch
from app.store import records
from app.store.base import Embedder, Fuse
from app.store.files import blocks
from app.store.seal import check_checkpoint, damaged, last_written
from app.store.shard import Shard

_PAGE = 1000
# A template made anew by another version of numpy differs by rounding.
_TOLERANCE = 1e-5


def try_out(folder: Path, scratch: Path, embedder: Embedder, fuse: Fuse) -> None:
    """
    Args:
        folder: of a gallery that nobody has open; it is only read.
        scratch: a folder name on a disk with room for a copy, used and removed.

    Raises:
        StoreUnavailable: it is damaged.
        StoreMismatch: as of `Shard`.
        OSError.
    """
    check_checkpoint(folder)
    try:
        _copy(folder, scratch)
        problem = _tried(scratch, embedder, fuse)
    except StoreMismatch as error:
        raise StoreMismatch(error.detail.replace(str(scratch), str(folder))) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if problem is not None:
        raise damaged(folder, problem.replace(str(scratch), str(folder)))


def _tried(copy: Path, embedder: Embedder, fuse: Fuse) -> str | None:
    """What is wrong with a copy, if anything is."""
    try:
        shard = Shard(copy, embedder, fuse, copy.with_name(f"{copy.name}-segment"))
        try:
            if shard.operation < last_written(copy):
                return "its log ends before the last write that was acknowledged"
            if not shard.takes_writes():
                return "its log does not go on from what its files hold"
            return _problem(shard, fuse)
        finally:
            shard.close()
    except (StoreMismatch, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the engine's panics are no `Exception`
        return f"{error!r}"


def _copy(folder: Path, to: Path) -> None:
    for entry in [folder, *sorted(folder.rglob("*"))]:
        twin = to / entry.relative_to(folder)
        if entry.is_dir():
            twin.mkdir()
            continue
        with twin.open("wb") as file:
            for offset, block in blocks(entry):
                file.seek(offset)
                file.write(block)
            file.truncate(entry.stat().st_size)


def _problem(shard: Shard, fuse: Fuse) -> str | None:
    """What is wrong with somebody in a shard, or with their number."""
    persons = faces = 0
    offset = None
    while True:
        found, offset = shard.parts(_PAGE, offset)
        for record in found:
            if not isinstance(record.id, UUID):  # what the shard is
                if record.vector:
                    return "what says who has a template cannot be read"
                continue
            try:
                faces += _face_count(record, fuse)
            except (KeyError, TypeError, ValueError, zlib.error) as error:
                return f"the person with the id {record.id} cannot be read ({error!r})"
            persons += 1
        if offset is None:
            break
    if (persons, faces) != shard.size:
        counted = shard.size
        return (
            f"{counted.persons} persons with {counted.faces} faces were counted, but {persons} "
            f"with {faces} are there"
        )
    return None


def _face_count(record: edge.Record, fuse: Fuse) -> int:
    """
    Raises:
        KeyError, TypeError, ValueError, zlib.error: the person is not whole.
    """
    payload = record.payload or {}
    if records.point_id(payload["person_id"]) != record.id:
        raise ValueError("the id is that of another person")
    # Compressed data has a checksum of its own.
    zlib.decompress(b64decode(payload["faces"]))
    embeddings = records.to_embeddings(payload)
    template = records.to_stored(payload, record.vector).template
    if len(embeddings) == 0:
        if template is not None:
            raise ValueError("a template without faces")
    elif template is None or not abs(template - fuse(embeddings)).max() < _TOLERANCE:
        raise ValueError("the template is not that of the faces")
    return len(embeddings)
