"""What can befall a file on a failing disk."""

import random
from collections.abc import Callable
from pathlib import Path

from app.store.files import blocks

_BLOCK = 4096

Damage = Callable[[Path, random.Random], None]
# Size, and what there is beside zeros: the engine's files are mostly holes.
Content = tuple[int, list[tuple[int, bytes]]]


def cut(file: Path, _: random.Random) -> None:
    """To half of its length."""
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def lose(file: Path, _: random.Random) -> None:
    file.unlink()


def zero(file: Path, chance: random.Random) -> None:
    """A block of a disk, one of those that hold anything."""
    at = _somewhere(file, chance)
    if at is not None:
        start = at // _BLOCK * _BLOCK
        _overwrite(file, start, bytes(min(_BLOCK, file.stat().st_size - start)))


def flip(file: Path, chance: random.Random) -> None:
    """A bit of a byte that is not zero."""
    at = _somewhere(file, chance)
    if at is not None:
        with file.open("rb") as opened:
            opened.seek(at)
            byte = opened.read(1)[0]
        _overwrite(file, at, bytes([byte ^ 1 << chance.randrange(8)]))


DAMAGES: tuple[Damage, ...] = (cut, zero, lose, flip)


def _overwrite(file: Path, at: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(data)


def _somewhere(file: Path, chance: random.Random) -> int | None:
    """Where there is a byte other than zero."""
    written = list(blocks(file))
    if not written:
        return None
    start, block = chance.choice(written)
    return start + chance.choice([at for at, byte in enumerate(block) if byte])


def files_of(folder: Path) -> list[Path]:
    """Relative to it, in order."""
    return sorted(entry.relative_to(folder) for entry in folder.rglob("*") if entry.is_file())


def content(file: Path) -> Content:
    return file.stat().st_size, list(blocks(file))


def put_back(file: Path, whole: Content) -> None:
    size, written = whole
    with file.open("wb") as opened:
        for at, block in written:
            opened.seek(at)
            opened.write(block)
        opened.truncate(size)


def contents(folder: Path) -> dict[Path, Content]:
    return {file: content(folder / file) for file in files_of(folder)}
