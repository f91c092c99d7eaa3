"""Wrong labels among faces collected from the web, found by an embedder that knows faces."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Two persons whose mean faces are this similar are taken for one; a face less similar than
# that to its own person's mean shows somebody else, or nobody.
SAME_PERSON = 0.55
STRAY_FACE = 0.40


def inspect_labels(embeddings: FloatArray, labels: IntArray) -> tuple[BoolArray, BoolArray]:
    """Which labels to believe.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face, 0 to p - 1, all of which occur.

    Returns:
        (n,) bool, the faces that look like their own person, and more like them than like
        another; (p, p) bool, persons who are probably the same (everybody with themselves).
    """
    means = np.zeros((labels.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(means, labels, embeddings)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    same = means @ means.T > SAME_PERSON
    np.fill_diagonal(same, True)

    similarity = embeddings @ means.T
    own = similarity[np.arange(len(labels)), labels]
    similarity[same[labels]] = -1.0
    return (own > STRAY_FACE) & (own > similarity.max(axis=1)), same


def believable(embeddings: FloatArray, labels: IntArray, least: int) -> BoolArray:
    """The faces to train on or to judge by: those whose labels look right, of persons with
    `least` such faces. Of two persons who look like one only those of the one with more faces:
    a person judged under two names would decide every low FAR.

    Args:
        embeddings, labels: as in `inspect_labels`.

    Returns:
        (n,) bool.
    """
    good, same = inspect_labels(embeddings, labels)
    counts = np.bincount(labels)
    doubles = [
        one if counts[one] < counts[other] else other
        for one, other in np.argwhere(np.triu(same, 1)).tolist()
    ]
    good &= ~np.isin(labels, doubles)
    return good & (np.bincount(labels, good)[labels] >= least)
