"""Checksums of a gallery's files, taken when it is closed and compared before it is opened again.

The engine has no checksums: it loads what is damaged, and writes to it as it does. The seal is
broken before a gallery is opened, so one without a seal was in use when its process ended. What it
must hold at the least is written down while it is in use.
"""

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path

from app.errors import StoreUnavailable
from app.store.files import blocks, sync

_SEAL = ".seal"
_CHECKPOINT = ".checkpoint"
_WRITTEN = ".written"
# Who is in a segment. The engine only appends to it, and takes the end for what a crash cut off.
_LISTS = "segments/*/mutable_id_tracker.*"


def seal(folder: Path) -> None:
    """Wait until the files of a closed gallery are on disk, and write down what they are."""
    files = _files(folder)
    for file in files.values():
        sync(file)
    sums = json.dumps({name: _checksum(file) for name, file in files.items()})
    new = folder / f"{_SEAL}-new"
    new.write_text(json.dumps({"crc32": zlib.crc32(sums.encode()), "files": sums}))
    sync(new)
    new.replace(folder / _SEAL)
    sync(folder)


def is_sealed(folder: Path) -> bool:
    """Whether a gallery has a seal; if so, its files are what they were.

    Raises:
        StoreUnavailable: they are not.
        OSError.
    """
    path = folder / _SEAL
    if not path.exists():
        return False
    try:
        document = json.loads(path.read_bytes())
        sums = json.loads(document["files"])
        if zlib.crc32(document["files"].encode()) != document["crc32"]:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damaged(folder, f"{_SEAL}, the checksums of its files, cannot be read") from None
    files = _files(folder)
    for name in sorted(sums.keys() | files.keys()):
        if name not in files:
            raise damaged(folder, f"{name} is missing")
        if name not in sums:
            raise damaged(folder, f"{name} was not there when it was closed")
        if _checksum(files[name]) != sums[name]:
            raise damaged(folder, f"{name} is not what it was when it was closed")
    return True


def break_seal(folder: Path) -> None:
    """Before a gallery is opened."""
    if (folder / _SEAL).exists():
        (folder / _SEAL).unlink()
        sync(folder)


def note_checkpoint(folder: Path) -> None:
    """Of an open gallery whose files have just been flushed: what they cannot fall short of."""
    sizes = {
        file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.glob(_LISTS)
    }
    new = folder / f"{_CHECKPOINT}-new"
    new.write_text(json.dumps(sizes))
    new.replace(folder / _CHECKPOINT)


def check_checkpoint(folder: Path) -> None:
    """
    Raises:
        StoreUnavailable: a file is shorter than it was at the last checkpoint.
    """
    try:
        sizes = json.loads((folder / _CHECKPOINT).read_bytes())
    except (OSError, ValueError):  # a power cut can leave it empty
        return
    for name, size in sizes.items():
        file = folder / name
        if not file.exists() or file.stat().st_size < size:
            raise damaged(folder, f"{name} is shorter than it was")


def note_written(folder: Path, operation: int) -> None:
    """Of an open gallery: the number of its last write, which is in its log or its files for good.

    Not synced, as that would double what a write costs: after a power cut it may be an earlier one,
    or unreadable. Where it cannot be noted, the earlier one holds as well.
    """
    number = f"{operation:020d}".encode()
    with suppress(OSError):
        file = os.open(folder / _WRITTEN, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(file, b"%s %08x" % (number, zlib.crc32(number)), 0)
        finally:
            os.close(file)


def forget_written(folder: Path) -> None:
    """Before the segments' files are flushed: half flushed, they tell of fewer writes than were."""
    if (folder / _WRITTEN).exists():
        (folder / _WRITTEN).unlink()
        sync(folder)


def last_written(folder: Path) -> int:
    """The number that `note_written` noted last; 0 where there is none to be read."""
    try:
        number, checksum = (folder / _WRITTEN).read_bytes().split()
        return int(number) if zlib.crc32(number) == int(checksum, 16) else 0
    except (OSError, ValueError):
        return 0


def damaged(folder: Path, what: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The gallery in {folder} is damaged: {what}. Nothing in it was changed; keep a copy, and "
        "restore a backup."
    )


def _files(folder: Path) -> dict[str, Path]:
    return {
        entry.relative_to(folder).as_posix(): entry
        for entry in folder.rglob("*")
        if entry.is_file() and not entry.name.startswith(_SEAL)
    }


def _checksum(file: Path) -> list[int]:
    """Size and CRC-32, in which zeros do not count but where they are not."""
    checksum = 0
    for offset, block in blocks(file):
        checksum = zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "big"), checksum))
    return [file.stat().st_size, checksum]
