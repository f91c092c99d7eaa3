"""Closed set with several faces of everybody: nearest neighbours and a linear classifier."""

import numpy as np
import numpy.typing as npt
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier

from training.errors import Unresolvable
from training.evaluation.bootstrap import Means
from training.evaluation.verification import FACES_PER_PERSON, at_most

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

LEAST_FACES = 4
"""Faces a person needs to take part: two to learn from, two to be asked about."""
PERSONS = 1_000
_NEIGHBOURS = 3


def classify(embeddings: FloatArray, labels: IntArray, seed: int) -> Means:
    """Learn who is who from half of everybody's faces and name the other half.

    `kNN` is the majority of the three nearest faces, of which everybody has at least two;
    `linear classifier` is Fisher's discriminant analysis with a covariance shrunk as Ledoit
    and Wolf propose. It tells whether persons can be separated by planes, even where the
    distance alone does not.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face; up to `PERSONS` with `LEAST_FACES` faces take part,
            with up to 25 faces each.

    Raises:
        Unresolvable: fewer than two persons have as many.
    """
    rng = np.random.default_rng(seed)
    persons, counts = np.unique(labels, return_counts=True)
    persons = persons[counts >= LEAST_FACES]
    if len(persons) < 2:
        raise Unresolvable(
            f"{len(persons)} persons with {LEAST_FACES} faces; a classifier needs at least two."
        )
    if len(persons) > PERSONS:
        persons = rng.choice(persons, PERSONS, replace=False)
    chosen = at_most(labels, FACES_PER_PERSON, rng)
    chosen = chosen[np.isin(labels[chosen], persons)]
    place = np.arange(len(chosen)) - np.searchsorted(labels[chosen], labels[chosen])
    known, asked = chosen[place % 2 == 0], chosen[place % 2 == 1]
    classifiers = {
        "kNN": KNeighborsClassifier(_NEIGHBOURS, algorithm="brute"),
        "linear classifier": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    }
    right = {
        name: classifier.fit(embeddings[known], labels[known]).predict(embeddings[asked])
        == labels[asked]
        for name, classifier in classifiers.items()
    }
    return Means(right, labels[asked])
