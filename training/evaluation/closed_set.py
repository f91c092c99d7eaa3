"""Everybody is enrolled: is the person named the right one, and is that as probable as said?"""

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable
from training.evaluation.bootstrap import Array, IntArray

BINS = 15


class ClosedSet:
    """Right and wrong names, and the probabilities they were given: an `Experiment`.

    The expected calibration error is the mean distance of probability and share of right names
    over bins of equal width, weighted by the probes in them (Naeini et al., "Obtaining well
    calibrated probabilities using Bayesian binning", 2015; Guo et al., 2017).

    Attributes:
        axes: mean probability in the bins of the curves `reliability`, the share of right
            names, and `share`, that of the probes.
    """

    def __init__(self, right: npt.ArrayLike, probability: Array, person: IntArray) -> None:
        """
        Args:
            right: (p,) bool, whether the probe got the name of its person.
            probability: (p,) of the name it got, 0 to 1; NaN where it got none.
            person: (p,) whose probe it is.

        Raises:
            Unresolvable: no probe got a name.
        """
        self._named = np.isfinite(probability)
        if not self._named.any():
            raise Unresolvable("No probe was given a name; the closed set needs one.")
        self._right = np.asarray(right, np.float64)
        self._person = person
        self._probability = probability[self._named]
        bins = np.minimum((self._probability * BINS).astype(np.int64), BINS - 1)
        # Empty bins have no place on a curve.
        self._bins = np.unique(bins, return_inverse=True)[1]
        means = self._sums(self._probability) / self._sums()
        self.axes = {"reliability": means, "share": means}
        self.unresolved: dict[str, str] = {}
        self.thresholds: dict[str, float] = {}

    def _sums(self, values: npt.ArrayLike | None = None) -> Array:
        return np.asarray(np.bincount(self._bins, values), np.float64)

    def figures(self, weights: Array | None = None) -> dict[str, float | Array]:
        counts = np.ones(len(self._right)) if weights is None else weights[self._person]
        named = counts[self._named]
        # A resample may hold none of these persons, or none of a bin.
        with np.errstate(invalid="ignore"):
            total = self._sums(named)
            right = self._sums(named * self._right[self._named])
            gap = np.abs(right - self._sums(named * self._probability))
            return {
                "rank-1": float(counts @ self._right / np.float64(counts.sum())),
                "calibration error": float(gap.sum() / total.sum()),
                "reliability": right / total,
                "share": total / total.sum(),
            }
