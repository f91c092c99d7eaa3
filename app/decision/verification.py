"""One against one: from the false match rate somebody can live with to a distance."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.decision.distance import Metric
from app.errors import UnsupportedTarget


class VerificationThresholds:
    """Thresholds of one calibrated embedder, interpolated over the logarithm of the rate."""

    def __init__(
        self,
        fmr: Sequence[float],
        photos: Sequence[int],
        cosine: npt.ArrayLike,
        manhattan: npt.ArrayLike,
    ) -> None:
        """
        Args:
            fmr: false match rates, falling.
            photos: behind the template that a face is compared with, rising from 1.
            cosine: (photos, rates) least similarity accepted.
            manhattan: (photos, rates) largest distance accepted.
        """
        self._decades = -np.log10(np.asarray(fmr, np.float64))
        self._photos = np.log(np.asarray(photos, np.float64))
        self._cosine = np.asarray(cosine, np.float64)
        self._manhattan = np.asarray(manhattan, np.float64)

    @property
    def lowest_fmr(self) -> float:
        return float(10.0 ** -self._decades[-1])

    def distance(self, target_fmr: float, metric: Metric, photos: int = 1) -> float:
        """The largest distance at which a face is taken for the template's person.

        Args:
            target_fmr: share of pairs of strangers that may be verified.
            photos: behind the template; a mean of several is nearer to strangers too.

        Raises:
            UnsupportedTarget: outside the rates that the calibration supports.
        """
        decades = -math.log10(target_fmr)
        lowest, highest = self._decades[0], self._decades[-1]
        if not lowest - 1e-9 <= decades <= highest + 1e-9:
            raise UnsupportedTarget(
                f"The calibration of this embedder supports a target_fmr from {10**-highest:.0e} "
                f"to {10**-lowest:.0e}, not {target_fmr:g}; choose another, or give a threshold."
            )
        table = self._manhattan if metric == "manhattan" else self._cosine
        by_photos = [np.interp(decades, self._decades, row) for row in table]
        threshold = float(np.interp(math.log(photos), self._photos, by_photos))
        if metric == "manhattan":
            return threshold
        return 1 - threshold if metric == "cosine" else math.sqrt(2 - 2 * threshold)


class SamePerson:
    """How probable it is that two faces show one person, by their similarity.

    Platt's sigmoid ("Probabilistic Outputs for Support Vector Machines", 1999), fitted where
    half of the pairs showed one person; Bayes' rule moves it to another prior.
    """

    def __init__(self, slope: float, intercept: float) -> None:
        self._slope, self._intercept = slope, intercept

    def probability(self, similarity: float, prior: float) -> float:
        """
        Args:
            similarity: cosine, -1 to 1.
            prior: share of comparisons, before anything is seen, that show one person; above 0,
                below 1.
        """
        odds = self._slope * similarity + self._intercept + math.log(prior / (1 - prior))
        return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
