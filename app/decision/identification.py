"""One against many: is the nearest person the one, or merely the nearest of many?

The more persons a gallery holds, and the more photos of each, the more similar the nearest
of them is to a stranger. The ones that follow are strangers to everybody, so they tell how
similar strangers look in this gallery to this face, and the threshold rises with them: cohort
normalisation (Aggarwal et al., "On the use of cohort normalization in biometrics", 2006; in
speaker recognition, Colibro et al., 2006). With it the threshold for one false positive
identification rate is nearly the same at a hundred persons and at a million: the gap between
the highest of many values and those that follow hardly grows with their number.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from app.errors import UnsupportedTarget

_Similarity = TypeVar("_Similarity", float, npt.NDArray[np.float64])

COHORT = 10
"""Persons after the candidate who raise their threshold."""
_WEIGHT = 0.75


def cohort_raise(following: Sequence[_Similarity]) -> _Similarity | float:
    """By how much the persons who come after a candidate raise the candidate's threshold.

    Where fewer than `COHORT` follow, as in a small gallery, the missing ones count as 0.

    Args:
        following: cosines to the persons after the candidate, best first: k numbers for one
            probe, or k arrays (n,) float64 for n of them.

    Returns:
        Cosine, for one probe; (n,) for n.
    """
    return _WEIGHT / COHORT * sum(following[:COHORT])


class IdentificationThresholds:
    """Thresholds of one calibrated embedder, before the cohort raises them.

    They were measured for galleries of some sizes, interpolated between over logarithms, and
    beyond the largest held constant.
    """

    def __init__(
        self,
        fpir: Sequence[float],
        photos: Sequence[int],
        persons: Sequence[int],
        similarity: npt.ArrayLike,
    ) -> None:
        """
        Args:
            fpir: false positive identification rates, falling.
            photos: of each person, rising from 1.
            persons: of the gallery, rising from 1.
            similarity: (photos, persons, rates) least similarity above the cohort's raise.
        """
        self._decades = -np.log10(np.asarray(fpir, np.float64))
        self._photos = np.log(np.asarray(photos, np.float64))
        self._persons = np.log(np.asarray(persons, np.float64))
        self._similarity = np.asarray(similarity, np.float64)
        # Forty interpolations, 0.1 ms, and the same ones for every request to a gallery.
        self._cached = lru_cache(maxsize=1024)(self._interpolate)

    @property
    def lowest_fpir(self) -> float:
        return float(10.0 ** -self._decades[-1])

    def similarity(self, target_fpir: float, persons: int, photos: float) -> float:
        """What a candidate's similarity, less `cohort_raise`, must reach.

        Args:
            target_fpir: share of strangers that may be called somebody.
            persons: enrolled in the gallery.
            photos: of each person, on average.

        Raises:
            UnsupportedTarget: outside the rates that the calibration supports.
        """
        return self._cached(target_fpir, persons, photos)

    def _interpolate(self, target_fpir: float, persons: int, photos: float) -> float:
        decades = -math.log10(target_fpir)
        lowest, highest = self._decades[0], self._decades[-1]
        if not lowest - 1e-9 <= decades <= highest + 1e-9:
            raise UnsupportedTarget(
                "The calibration of this embedder supports a target_fpir from "
                f"{10**-highest:.1g} to {10**-lowest:.1g}, not {target_fpir:g}; "
                "choose another, or give a threshold."
            )
        size, mean = math.log(max(persons, 1)), math.log(max(photos, 1.0))
        by_photos = [
            np.interp(
                size, self._persons, [np.interp(decades, self._decades, rates) for rates in sizes]
            )
            for sizes in self._similarity
        ]
        return float(np.interp(mean, self._photos, by_photos))
