"""Two faces each: of one person, or of two."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.faces import Faces, IntArray, subset
from training.data.folder import FolderFaces
from training.errors import InvalidPairs


@dataclass(frozen=True, slots=True)
class Pairs:
    """
    Attributes:
        faces: every face that occurs, once.
        first, second: (n,) int64 indices into `faces`.
        same: (n,) bool, whether the two are of one person.
        fold: (n,) int64, counted from 0; a threshold is chosen on all folds but one.
        persons: (len(faces),) int64, who is on each face; None where that is not said.
    """

    faces: Faces
    first: IntArray
    second: IntArray
    same: npt.NDArray[np.bool_]
    fold: IntArray
    persons: IntArray | None


def open_pairs(file: Path, root: Path) -> Pairs:
    """Read a list of pairs in LFW's format.

    The first line holds the number of folds (one, if left out) and that of the pairs of either
    kind in each. A fold's lines follow: `person  number  number` for two faces of one person,
    `person  number  person  number` for two persons'. Face 7 of Ann is `Ann/Ann_0007` with any
    suffix; instead of the number there may be the name of a file in `Ann/`, without its suffix.
    (Huang et al., "Labeled Faces in the Wild", 2007.)

    Args:
        root: a folder per person of aligned faces.

    Raises:
        InvalidPairs: the list is not in this format, or a face is not in `root`.
        NoFaces, InvalidFaces: as in `open_faces`.
    """
    first_line, *lines = _read_text(file).splitlines() or [""]
    header = first_line.split()
    if not 1 <= len(header) <= 2 or not all(field.isdecimal() for field in header):
        raise InvalidPairs(
            f"{file} does not begin with the number of folds and of pairs of either kind in one."
        )
    folds, count = ([1] + [int(field) for field in header])[-2:]
    lines = [line for line in lines if line.strip()]
    if not lines or len(lines) != 2 * folds * count:
        raise InvalidPairs(
            f"{file} announces {folds} x 2 x {count} pairs and holds {len(lines):,}; is it whole?"
        )
    faces = FolderFaces(root)
    places = {(path.parent.name, path.stem): index for index, path in enumerate(faces.files)}
    found: list[tuple[int, int]] = []
    missing = []
    for number, line in enumerate(lines, 2):
        match line.split("\t") if "\t" in line else line.split():
            case [person, one, another]:
                ends = (person, one), (person, another)
            case [person, one, other, another]:
                ends = (person, one), (other, another)
            case _:
                raise InvalidPairs(f"Line {number} of {file} is no pair: {line!r}.")
        indices = [_find(places, *end) for end in ends]
        missing += ["/".join(end) for end, index in zip(ends, indices, strict=True) if index < 0]
        found.append((indices[0], indices[1]))
    if missing:
        raise InvalidPairs(
            f"{len(set(missing)):,} faces of {file} are not in {root}, the first is {missing[0]}."
        )
    used, places_of_used = np.unique(np.array(found), return_inverse=True)
    listed = subset(faces, used)
    first, second = places_of_used.reshape(-1, 2).T
    return Pairs(
        faces=listed,
        first=first,
        second=second,
        same=listed.labels[first] == listed.labels[second],
        fold=np.arange(len(lines)) // (2 * count),
        persons=listed.labels,
    )


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPairs(f"{file} cannot be read as a list of pairs: {error}.") from None


def _find(places: dict[tuple[str, str], int], person: str, face: str) -> int:
    """Index of a face, -1 if there is none."""
    if face.isdecimal() and (person, f"{person}_{int(face):04d}") in places:
        return places[person, f"{person}_{int(face):04d}"]
    return places.get((person, face), -1)
