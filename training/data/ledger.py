"""What has become of each photo, so that none is looked at twice."""

import json
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from training.files import replacing


class Entry(NamedTuple):
    """
    Attributes:
        photo: `person/file`.
        fingerprint: another one means that the photo, or what is made of it, has changed.
        code, detail: why it gave no face, or empty.
    """

    photo: str
    fingerprint: str
    code: str = ""
    detail: str = ""


class Ledger:
    """A file with an entry in each line, the last one of a photo being valid.

    A line that a crash cut off counts for nothing: its photo is looked at again.

    Attributes:
        entries: by photo.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, Entry] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                entry = Entry(*json.loads(line))
            except (ValueError, TypeError):
                continue
            self.entries[entry.photo] = entry

    def __enter__(self) -> Self:
        """Write the file anew, without what is no longer valid, and keep it open."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as path:
            path.write_text("".join(_line(entry) for entry in self.entries.values()))
        self._file = self._path.open("a", buffering=1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        self.entries[entry.photo] = entry
        self._file.write(_line(entry))


def _line(entry: Entry) -> str:
    return json.dumps(entry) + "\n"
