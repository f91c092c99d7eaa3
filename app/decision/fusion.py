"""One score per person, from all of their faces."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def mean_templates(persons: Mapping[str, FloatArray]) -> tuple[list[str], FloatArray]:
    """The direction in which each person's faces agree.

    Args:
        persons: person to (m, d) float32 embeddings of unit length, m >= 1; not empty.

    Returns:
        The n persons, and their templates as (n, d) float32 of unit length.
    """
    ids = list(persons)
    faces = np.concatenate([persons[person_id] for person_id in ids])
    starts = np.cumsum([0] + [len(persons[person_id]) for person_id in ids[:-1]])
    totals = np.add.reduceat(faces, starts, axis=0)
    lengths = np.linalg.norm(totals, axis=1, keepdims=True)
    # Faces that cancel out exactly have no common direction; one of them is as good as any.
    templates = np.where(lengths > 1e-6, totals / np.maximum(lengths, 1e-6), faces[starts])
    return ids, templates.astype(np.float32, copy=False)
