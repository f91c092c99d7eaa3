"""One template per person, from all of their faces."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def template(embeddings: FloatArray) -> FloatArray:
    """The direction in which a person's faces agree: their normalised mean.

    Args:
        embeddings: (m, d) float32 of unit length, m >= 1.

    Returns:
        (d,) float32 of unit length.
    """
    total = embeddings.sum(axis=0)
    length = float(np.linalg.norm(total))
    # Faces that cancel out exactly have no common direction; one of them is as good as any.
    return np.asarray(total / length if length > 1e-6 else embeddings[0], np.float32)
