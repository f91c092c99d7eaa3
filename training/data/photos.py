"""A folder per person of photos, as people keep them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from training.data.folder import SUFFIXES
from training.errors import NoFaces

# Also formats that cannot be read: the report is to say so, photo by photo.
_PHOTO_SUFFIXES = SUFFIXES | {".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}


class Photo(NamedTuple):
    path: Path
    person: str

    @property
    def name(self) -> str:
        return f"{self.person}/{self.path.name}"


class LeftOut(NamedTuple):
    """A photo or folder without a face, and why.

    Attributes:
        path: below the folder of the photos.
        code: never changes; one of the service's (`no_face`, `unreadable_image`,
            `unsupported_image`, `animated_image`, `empty_image`, `too_many_pixels`), or
            `no_person`, `nested_folder`, `same_name`, `unreadable_file`.
        detail: what was wrong and what to do.
    """

    path: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Found:
    photos: list[Photo] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def scan(folder: Path) -> Found:
    """Find the photos in `folder`/<person>/. What is hidden or no photo is passed over.

    Raises:
        NoFaces: no such folder, or no photo in its folders.
    """
    if not folder.is_dir():
        raise NoFaces(f"{folder} is no folder.")
    found = Found()
    for entry in _entries(folder):
        if entry.is_dir():
            _scan_person(entry, found)
        elif _is_photo(entry):
            detail = "A photo belongs into a folder that is named after its person."
            found.left_out.append(LeftOut(entry.name, "no_person", detail))
    if not found.photos:
        raise NoFaces(
            f"No photos in {folder}: it has to hold a folder per person, with their photos in it."
        )
    return found


def _scan_person(folder: Path, found: Found) -> None:
    taken: dict[str, Path] = {}
    for path in _entries(folder):
        name = f"{folder.name}/{path.name}"
        if path.is_dir():
            detail = "A folder within a person's; its photos belong one level higher."
            found.left_out.append(LeftOut(name, "nested_folder", detail))
        elif not _is_photo(path):
            continue
        elif path.stem in taken:
            detail = f"Its face would be named like that of {taken[path.stem].name}; rename one."
            found.left_out.append(LeftOut(name, "same_name", detail))
        else:
            taken[path.stem] = path
            found.photos.append(Photo(path, folder.name))


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in _PHOTO_SUFFIXES
