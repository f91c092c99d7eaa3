"""How far persons lie apart in the space, face by face.

(How the distances of pairs are distributed stands in `Verification`.)
"""

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable
from training.evaluation.bootstrap import Means

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_AT_ONCE = 1024


def silhouettes(embeddings: FloatArray, labels: IntArray) -> Means:
    """Simplified silhouette: own centre against the nearest other one.

    (b - a) / max(a, b), with a the cosine distance of a face to the mean of the *other* faces
    of its person and b to the nearest mean of another person: 1 where persons are points, 0
    where they touch, negative where a face lies nearer to somebody else. Unlike the mean
    distances of pairs it looks at the neighbour who can be confused with. (Rousseeuw, 1987;
    with centres, Hruschka et al., 2004.)

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face; those with a single face are neighbours only.

    Raises:
        Unresolvable: nobody has two faces, or there is one person only.
    """
    persons, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(persons) < 2 or counts.max() < 2:
        raise Unresolvable("The silhouette needs two persons, one of them with two faces.")
    totals = np.zeros((len(persons), embeddings.shape[1]), np.float32)
    np.add.at(totals, inverse, embeddings)
    centres = _unit(totals)
    several = np.flatnonzero(counts[inverse] > 1)
    values = np.empty(len(several))
    for start in range(0, len(several), _AT_ONCE):
        faces = several[start : start + _AT_ONCE]
        own = inverse[faces]
        rest = _unit(totals[own] - embeddings[faces])
        a = 1 - np.einsum("nd,nd->n", embeddings[faces], rest)
        similarity = embeddings[faces] @ centres.T
        similarity[np.arange(len(faces)), own] = -1
        b = 1 - similarity.max(axis=1)
        values[start : start + _AT_ONCE] = (b - a) / np.maximum(np.maximum(a, b), 1e-9)
    return Means({"silhouette": values}, labels[several])


def _unit(vectors: FloatArray) -> FloatArray:
    # Faces that cancel out have no common direction; 1e-6 leaves them near zero.
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return np.asarray(vectors / lengths, np.float32)
