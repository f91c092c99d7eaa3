"""Three ways to say how far apart two embeddings are."""

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
