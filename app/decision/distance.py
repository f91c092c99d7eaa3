"""Three ways to say how far apart two embeddings are, and one threshold for all of them."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Metric = Literal["cosine", "euclidean", "manhattan"]


def distance(a: FloatArray, b: FloatArray, metric: Metric) -> float:
    """How far two unit-length (d,) float32 embeddings are apart.

    Returns:
        cosine: 1 - a.b, 0 to 2; euclidean: 0 to 2; manhattan: 0 to 2 sqrt(d).
    """
    if metric == "cosine":
        return 1.0 - float(a @ b)
    difference = a.astype(np.float64) - b
    if metric == "euclidean":
        return float(np.linalg.norm(difference))
    return float(np.abs(difference).sum())


def distance_at(similarity: float, dimension: int, metric: Metric) -> float:
    """The distance that corresponds to a cosine similarity.

    Exact for cosine and euclidean. For manhattan it is the expected length: a difference of
    euclidean length e that points nowhere in particular has a manhattan length of
    e sqrt(2 d / pi), the mean absolute value of a Gaussian being sqrt(2 / pi) of its
    standard deviation.
    """
    if metric == "cosine":
        return 1.0 - similarity
    euclidean = math.sqrt(max(0.0, 2.0 - 2.0 * similarity))
    if metric == "euclidean":
        return euclidean
    return euclidean * math.sqrt(2.0 * dimension / math.pi)
