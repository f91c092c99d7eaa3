"""Everybody is known to be enrolled: how probable is each person?"""

import numpy as np
import numpy.typing as npt


def probabilities(
    similarities: npt.NDArray[np.floating], temperature: float
) -> npt.NDArray[np.float64]:
    """A softmax over persons (Guo et al., "On Calibration of Modern Neural Networks", 2017).

    Args:
        similarities: (k,) cosines to the persons' templates.
        temperature: fitted by the calibration, above 0.

    Returns:
        (k,) summing to one.
    """
    exponents = np.asarray(similarities, np.float64) / temperature
    powers = np.exp(exponents - exponents.max(initial=-np.inf))
    return np.asarray(powers / powers.sum())
