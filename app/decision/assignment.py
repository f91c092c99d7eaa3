"""Several faces in one photo, of whom nobody can be there twice."""

import lap
import numpy as np
import numpy.typing as npt

# Above every difference of two cosines, so that costs are positive.
_OFFSET = 8.0


def assign(gains: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Give each face a person of its own, or none, so that the gains sum to the most.

    The linear assignment problem, by shortest augmenting paths (Jonker and Volgenant, 1987).

    Args:
        gains: (faces, persons), below 8 in size; a gain that is not above 0 is not taken, and
            -inf says that the person is no candidate.

    Returns:
        (faces,) column of the person, or -1.
    """
    if not gains.size:
        return np.full(len(gains), -1, np.int32)
    costs = np.where(gains > 0, _OFFSET - gains, 4 * _OFFSET)
    _, columns, _ = lap.lapjv(costs, extend_cost=True, cost_limit=_OFFSET)
    return np.asarray(columns, np.int32)
