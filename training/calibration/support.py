"""Which rates the data speaks of."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FACTOR = 3.0
"""A rate is listed while its 95 % interval lies within this factor of it."""


def supported(rates: Array, low: Array, high: Array) -> int:
    """How many of the rates, from the first on, other people would not move beyond `FACTOR`."""
    held = (high <= FACTOR * rates) & (low * FACTOR >= rates)
    return len(rates) if held.all() else int(np.argmin(held))


def rounded(values: npt.ArrayLike, form: str) -> tuple[float, ...]:
    """As they are worth writing into a file."""
    return tuple(float(format(value, form)) for value in np.asarray(values).tolist())
