"""The lines of the audit log, and the chain of hashes that runs through them.

A line is a JSON object. Its last member, `hash`, is the SHA-256 of the object without it; its
member `previous` is the hash of the line before. `seq` counts the lines across all files.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_GENESIS = "0" * 64
_SEALED = re.compile(rb'(\{.+),"hash":"([0-9a-f]{64})"\}', re.DOTALL)
_HEAD = re.compile(r"([0-9]{1,15}):([0-9a-f]{64})\n?")


class Head(NamedTuple):
    """The end of a chain: how many lines there are, and the hash of the last one."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """
        Raises:
            ValueError: not what `str` makes of a head.
        """
        match = _HEAD.fullmatch(text)
        if match is None:
            raise ValueError("a head is the number of a line, a colon and 64 hex digits")
        return cls(int(match[1]), match[2])


EMPTY = Head(0, _GENESIS)


class Line(NamedTuple):
    seq: int
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        return Head(self.seq, self.hash)


def seal(record: Mapping[str, Any], after: Head) -> tuple[bytes, Head]:
    """The line for a record that follows `after`, with its newline, and the new head."""
    numbered = {"seq": after.seq + 1, **record, "previous": after.hash}
    body = json.dumps(numbered, separators=(",", ":"))[:-1]
    digest = _digest(body.encode())
    return f'{body},"hash":"{digest}"}}\n'.encode(), Head(after.seq + 1, digest)


def unseal(line: bytes) -> Line:
    """
    Args:
        line: without its newline.

    Raises:
        ValueError: changed since it was sealed, or never sealed.
    """
    match = _SEALED.fullmatch(line)
    if match is None:
        raise ValueError("is not a line of this log")
    if _digest(match[1]) != match[2].decode():
        raise ValueError("was changed")
    record = json.loads(match[1] + b"}")
    return Line(record["seq"], record["previous"], match[2].decode())


def _digest(body: bytes) -> str:
    return hashlib.sha256(body + b"}").hexdigest()


def head_file(path: Path) -> Path:
    """Beside the log: the last head that is known to be on disk."""
    return path.with_name(f"{path.name}.head")


def closed_file(path: Path, first_seq: int) -> Path:
    """What a full file is renamed to, so that names sort as lines do."""
    return path.with_name(f"{path.stem}.{first_seq:012d}{path.suffix}")


def closed_files(path: Path) -> list[Path]:
    """In the order of their lines."""
    name = re.compile(rf"{re.escape(path.stem)}\.[0-9]{{12}}{re.escape(path.suffix)}")
    if not path.parent.is_dir():
        return []
    return sorted(file for file in path.parent.iterdir() if name.fullmatch(file.name))
