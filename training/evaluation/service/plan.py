"""Whose photos are enrolled, and which are looked for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.photos import LeftOut, Photo, scan
from training.errors import Unresolvable
from training.evaluation.evaluate import LEAST_KNOWN
from training.evaluation.identification import IntArray, Split, draw_strangers, split


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Attributes:
        photos: (n,) of persons.
        labels: (n,) whose photo each is, as an index into `people`.
        people: their names.
        strangers: who is not enrolled; None: those with a single photo.
        left_out: files and folders that cannot be used.
    """

    photos: list[Photo]
    labels: IntArray
    people: list[str]
    strangers: IntArray | None
    left_out: list[LeftOut]

    def split(self, photos: int) -> Split:
        """Everybody else with up to `photos` photos, but for one to be looked for."""
        return split(self.labels, photos, self.strangers)

    def person_id(self, label: int) -> str:
        """In the service, where a name need not be a valid one."""
        return f"person-{label}"

    def label(self, person_id: str) -> int:
        return int(person_id.removeprefix("person-"))


def with_photos(most: int) -> str:
    """What persons are enrolled with, in words."""
    return "1 photo" if most == 1 else f"up to {most} photos"


def plan(folder: Path, seed: int) -> Plan:
    """
    Args:
        folder: holds a folder of photos for each person.
        seed: of the draw of strangers, where too few persons have a single photo.

    Raises:
        NoFaces: there are no photos.
        Unresolvable: too few persons have two photos.
    """
    found = scan(folder)
    people, labels, counts = np.unique(
        [photo.person for photo in found.photos], return_inverse=True, return_counts=True
    )
    known = int((counts > 1).sum())
    if known < LEAST_KNOWN:
        raise Unresolvable(
            f"{known} of the {len(people)} persons in {folder} have two photos; at least "
            f"{LEAST_KNOWN} have to: some to enrol and look for, some to be strangers. Add photos."
        )
    return Plan(found.photos, labels, people.tolist(), draw_strangers(labels, seed), found.left_out)
