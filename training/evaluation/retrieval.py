"""Retrieval: every face asks for the other faces of its person.

Precision@1, R-precision and MAP@R as defined by Musgrave, Belongie and Lim, "A Metric Learning
Reality Check", ECCV 2020: with R other faces of the person, only the R nearest of all faces
count. MAP@R rewards those that come early and does not saturate as precision@1 does.
"""

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable
from training.evaluation.bootstrap import Means

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_AT_ONCE = 512


def retrieve(embeddings: FloatArray, labels: IntArray) -> Means:
    """Precision@1, R-precision and MAP@R by the cosine.

    Args:
        embeddings: (n, d) float32 of unit length.
        labels: (n,) person of each face; those with a single face are found by nobody and ask
            for nobody, but may come between.

    Raises:
        Unresolvable: nobody has two faces.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.max(initial=0) < 2:
        raise Unresolvable("Nobody has two faces; retrieval needs somebody to find.")
    # Persons with equally many faces share R: they are asked for together.
    queries, precision, r_precision, average = [], [], [], []
    for count in np.unique(counts[counts > 1]):
        asking = np.flatnonzero(counts[inverse] == count)
        r = int(count) - 1
        for start in range(0, len(asking), _AT_ONCE):
            faces = asking[start : start + _AT_ONCE]
            similarity = embeddings[faces] @ embeddings.T
            similarity[np.arange(len(faces)), faces] = -np.inf
            nearest = np.argpartition(-similarity, r - 1, axis=1)[:, :r]
            order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1)
            nearest = np.take_along_axis(nearest, order, axis=1)
            right = inverse[nearest] == inverse[faces][:, None]
            so_far = np.cumsum(right, axis=1) / np.arange(1, r + 1)
            queries.append(faces)
            precision.append(right[:, 0])
            r_precision.append(right.mean(axis=1))
            average.append((so_far * right).mean(axis=1))
    return Means(
        {
            "precision@1": np.concatenate(precision),
            "R-precision": np.concatenate(r_precision),
            "MAP@R": np.concatenate(average),
        },
        labels[np.concatenate(queries)],
    )
