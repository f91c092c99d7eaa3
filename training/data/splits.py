"""Some persons to train on, others to be judged by."""

import numpy as np
import numpy.typing as npt

from training.errors import TooFewPersons

IntArray = npt.NDArray[np.int64]

# Genuine and impostor pairs need two persons on either side.
_LEAST = 2


def first_faces(labels: IntArray, most: int) -> IntArray:
    """Rising indices of the first `most` faces of each person.

    Args:
        labels: (n,) person of each face.
    """
    order = np.argsort(labels, kind="stable")
    persons = labels[order]
    nth = np.arange(len(order)) - np.searchsorted(persons, persons)
    return np.sort(order[nth < most])


def split_persons(labels: IntArray, held_out: float, seed: int) -> tuple[IntArray, IntArray]:
    """Hold back a share of the persons, with all of their faces.

    Args:
        labels: (n,) person of each face.
        held_out: share of the persons, above 0 and below 1; at least two stay on either side.

    Returns:
        Rising indices of the faces to train on, and of those held back. The same labels and
        seed give the same split.

    Raises:
        TooFewPersons: there are fewer than four.
    """
    persons = np.unique(labels)
    if len(persons) < 2 * _LEAST:
        raise TooFewPersons(
            f"The faces are of {len(persons)} person(s); to train on some people and validate on "
            f"others takes at least {2 * _LEAST}."
        )
    count = round(held_out * len(persons))
    count = min(max(count, _LEAST), len(persons) - _LEAST)
    chosen = np.random.default_rng(seed).choice(persons, count, replace=False)
    held = np.isin(labels, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)
