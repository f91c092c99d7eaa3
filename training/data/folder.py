"""A folder per person with aligned faces in it."""

from collections import Counter
from pathlib import Path

import numpy as np

from app.errors import ImageError
from app.vision.image import Image, read_header
from training.data.face import decode_aligned, margin_of
from training.errors import InvalidFaces, NoFaces

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))

_MAX_PIXELS = 100_000_000
_SHOWN = 3


class FolderFaces:
    """The faces of `folder`/<person>/, a person's in the order of their files' names.

    All headers are read at once (0.03 ms each), so that a wrong file is found now and not
    after an hour of training. Hidden files and what has no suffix of an image is passed over.

    Raises:
        NoFaces, InvalidFaces: as in `open_faces`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names: list[str] = []
        labels: list[int] = []
        self.files: list[Path] = []
        for person in sorted(path for path in folder.iterdir() if path.is_dir()):
            files = _images(person)
            if files and not person.name.startswith("."):
                labels += [len(names)] * len(files)
                names.append(person.name)
                self.files += files
        if not self.files:
            hint = "; the images in it belong into one folder per person" if _images(folder) else ""
            raise NoFaces(f"No faces in {folder}: there is no folder in it with images{hint}.")
        self.names = tuple(names)
        self.labels = np.array(labels, np.int64)
        self.margin = self._check()

    def _check(self) -> int:
        broken = []
        sizes: Counter[tuple[int, int]] = Counter()
        example: dict[tuple[int, int], str] = {}
        for index, file in enumerate(self.files):
            try:
                header = read_header(file.read_bytes(), _MAX_PIXELS)
            except (ImageError, OSError) as error:
                broken.append(f"{self.source(index)} ({error})")
                continue
            size = header.width, header.height
            sizes[size] += 1
            example.setdefault(size, self.source(index))
        if broken:
            raise InvalidFaces(
                f"{len(broken):,} of {len(self.files):,} faces in {self.folder} cannot be read; "
                f"replace or delete them: {_some(broken)}."
            )
        if len(sizes) > 1:
            counted = [
                f"{width} x {height} ({count:,}, such as {example[width, height]})"
                for (width, height), count in sizes.most_common()
            ]
            raise InvalidFaces(
                f"The faces in {self.folder} are of several sizes: {_some(counted)}. Aligned "
                "faces are all of one; run `faceid-train prepare` on the photos."
            )
        [(width, height)] = sizes
        return margin_of(width, height, example[width, height])

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Image:
        return decode_aligned(self.files[index].read_bytes(), self.margin, self.source(index))

    def source(self, index: int) -> str:
        return str(self.files[index])


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _some(what: list[str]) -> str:
    more = len(what) - _SHOWN
    return "; ".join(what[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
