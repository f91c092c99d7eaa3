"""Which faces meet in a step: a pure function of seed and epoch.

Nothing is kept between two epochs, so that a run goes on from (epoch, number of the batch).
"""

from collections import deque
from itertools import islice

import numpy as np
import numpy.typing as npt

from training.errors import TooFewPersons

IntArray = npt.NDArray[np.int64]


class ShuffledBatches:
    """All faces in random order, cut into batches.

    Those left over when no batch can be filled any more wait for the next epoch; fewer faces
    than a batch make one.

    Args:
        labels: (n,) person of each face.

    Raises:
        TooFewPersons: all faces are of one.
    """

    def __init__(self, labels: IntArray, batch_size: int, seed: int) -> None:
        persons = len(np.unique(labels))
        if persons < 2:
            raise TooFewPersons(
                f"The faces are of {persons} person(s); a loss needs at least two to tell apart."
            )
        self._count = len(labels)
        self._batch_size = min(batch_size, self._count)
        self._seed = seed

    def batches(self, epoch: int) -> list[IntArray]:
        """Indices of the faces of each batch."""
        order = _generator(self._seed, epoch).permutation(self._count)
        whole = self._count // self._batch_size * self._batch_size
        return list(order[:whole].reshape(-1, self._batch_size))


class PersonBatches:
    """P persons with K faces each, for losses that compare faces with each other.

    (Hermans, Beyer and Leibe, "In Defense of the Triplet Loss", 2017.) Every person's faces
    are dealt out in groups of K, so that an epoch shows each face about once and persons as
    often as they have faces. Persons with fewer than K show some twice; those with one are
    left out: they have no second face to compare it with.

    Args:
        labels: (n,) person of each face.
        persons: P, at least 2.
        faces: K, at least 2.

    Attributes:
        left_out: persons with a single face.

    Raises:
        TooFewPersons: fewer than P have two faces.
    """

    def __init__(self, labels: IntArray, persons: int, faces: int, seed: int) -> None:
        names, counts = np.unique(labels, return_counts=True)
        by_person = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        self._faces_of = [own for own in by_person if len(own) > 1]
        self.left_out = names[counts == 1]
        if len(self._faces_of) < persons:
            raise TooFewPersons(
                f"Batches of {persons} persons need as many with at least two faces; there are "
                f"{len(self._faces_of)} (and {len(self.left_out)} with one). Add faces, or make "
                "the batches smaller."
            )
        self._persons, self._faces = persons, faces
        self._seed = seed

    def batches(self, epoch: int) -> list[IntArray]:
        """Indices of the faces of each batch, P * K of them, a person's side by side."""
        rng = _generator(self._seed, epoch)
        groups, persons, turns = [], [], []
        for person, own in enumerate(self._faces_of):
            count = max(1, len(own) // self._faces)
            # Cut to, or repeated until, a whole number of groups.
            groups.append(np.resize(rng.permutation(own), (count, self._faces)))
            persons.append(np.full(count, person))
            # Evenly over the epoch: at random, those with many faces would pile up at its end.
            turns.append((np.arange(count) + rng.random()) / count)
        order = np.argsort(np.concatenate(turns), kind="stable")
        dealt = self._deal(np.concatenate(persons)[order].tolist())
        return list(np.concatenate(groups)[order][dealt].reshape(len(dealt), -1))

    def _deal(self, persons: list[int]) -> IntArray:
        """Positions (b, P) of the groups of each batch, no person twice in one.

        Args:
            persons: whose group comes when; one that comes too early waits for the next batch.
        """
        dealt: list[list[int]] = []
        waiting: dict[int, deque[int]] = {}
        coming = enumerate(persons)
        while True:
            batch = []
            present = set(islice(waiting, self._persons))
            for person in present:
                batch.append(waiting[person].popleft())
                if not waiting[person]:
                    del waiting[person]
            while len(batch) < self._persons:
                position, person = next(coming, (-1, -1))
                if position < 0:
                    return np.array(dealt, np.int64)
                if person in present:
                    waiting.setdefault(person, deque()).append(position)
                else:
                    present.add(person)
                    batch.append(position)
            dealt.append(batch)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])
