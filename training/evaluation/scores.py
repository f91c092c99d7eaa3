"""Error rates of a threshold, from the scores of mated and non-mated comparisons.

Terms follow ISO/IEC 19795-1: a *genuine* (mated) comparison is of one person with themselves,
an *impostor* (non-mated) one of two people; FMR is the share of impostor comparisons that
match, FNMR the share of genuine ones that do not. Every photo here has a face already, so
that "TAR at FAR", as the literature on faces says it, is 1 - FNMR at FMR.

A score is a similarity, and a comparison matches when `score >= threshold`. Distances enter
as `-distance` and match when `distance <= -threshold`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.errors import Unresolvable

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

EXPECTED = 10.0
"""False matches to be expected at a rate before it is worth measuring.

With ten, the true rate lies between half and about twice of what was seen (95 %, Poisson);
with one, anywhere up to five times of it.
"""

# Rates are quotients of sums of weights; this is what their rounding may cost.
_ROUNDING = 1e-9

_POINTS = 121


@dataclass(frozen=True, slots=True)
class Curve:
    """ROC and DET in one: both error rates while the threshold falls.

    Attributes:
        threshold: (k,) float64, falling; the first is infinite, where nothing matches.
        fmr: (k,) rising from 0 to 1.
        fnmr: (k,) falling from 1 to 0.
        impostors: comparisons behind `fmr`.
    """

    threshold: Array
    fmr: Array
    fnmr: Array
    impostors: int

    def auc(self) -> float:
        """Chance that a genuine score exceeds an impostor one, ties counting half."""
        return float(np.trapezoid(1 - self.fnmr, self.fmr))

    def eer(self) -> float:
        """The rate at which FMR and FNMR are equal.

        Where no threshold makes them equal, the two operating points on either side are
        joined by a straight line, and it is crossed with FMR = FNMR.
        """
        gap = self.fnmr - self.fmr
        after = int(np.argmax(gap <= 0))
        before = after - 1
        share = gap[before] / (gap[before] - gap[after])
        return float(self.fmr[before] + share * (self.fmr[after] - self.fmr[before]))

    def at_fmr(self, fmr: float | Array) -> npt.NDArray[np.intp]:
        """Where on the curve the most matches, at an FMR of at most `fmr`; nothing in between
        two thresholds is assumed."""
        return np.searchsorted(self.fmr, np.asarray(fmr) * (1 + _ROUNDING), side="right") - 1

    def tar_at_far(self, far: float, expected: float = EXPECTED) -> float:
        """1 - FNMR at the lowest threshold whose FMR is at most `far`.

        Args:
            expected: false matches `far` has to allow among the impostors at hand.

        Raises:
            Unresolvable: it allows fewer.
        """
        self.check(far, expected)
        return float(1 - self.fnmr[self.at_fmr(far)])

    def threshold_at_far(self, far: float, expected: float = EXPECTED) -> float:
        """The lowest score that was seen whose FMR is at most `far`; infinite if none is.

        Raises:
            Unresolvable: as in `tar_at_far`.
        """
        self.check(far, expected)
        return float(self.threshold[self.at_fmr(far)])

    def check(self, far: float, expected: float = EXPECTED) -> None:
        """
        Raises:
            Unresolvable: as in `tar_at_far`.
        """
        if self.impostors * far < expected * (1 - _ROUNDING):
            raise Unresolvable(
                f"{self.impostors:,} impostor comparisons would give {self.impostors * far:.2g} "
                f"false matches at a rate of {far:g}; {expected:g} are needed."
            )

    def overlap(self) -> float:
        """Least FMR + FNMR of any threshold: what the two distributions have in common.

        0 when they are apart, 1 when they are alike (1 - Youden's J).
        """
        return float((self.fmr + self.fnmr).min())


def log_spaced(impostors: int, expected: float = EXPECTED, highest: float = 1.0) -> Array:
    """Rates from the lowest that is resolved up to `highest`, even in their logarithm."""
    return np.geomspace(min(expected / impostors, highest), highest, _POINTS)


class Scores:
    """Genuine and impostor scores, sorted once, for curves under many weights."""

    def __init__(self, scores: npt.ArrayLike, genuine: npt.ArrayLike) -> None:
        """
        Args:
            scores: (n,) of which none is NaN.
            genuine: (n,) bool.

        Raises:
            Unresolvable: all of one kind.
        """
        values = np.asarray(scores, np.float64)
        mated = np.asarray(genuine, bool)
        if not mated.any() or mated.all():
            raise Unresolvable(
                f"{int(mated.sum())} genuine and {int((~mated).sum())} impostor comparisons; "
                "error rates need both: two faces of somebody, and faces of two people."
            )
        self.order = np.argsort(-values, kind="stable")
        ranked = values[self.order]
        genuine_ranked = mated[self.order]
        self._impostors = int((~mated).sum())
        self._genuine_at = np.flatnonzero(genuine_ranked)
        # A threshold cannot tell equal scores apart.
        self._ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        self._hits = np.cumsum(genuine_ranked)[self._ends]
        self._threshold = ranked[self._ends]
        self._corners = self._find_corners()

    def _find_corners(self) -> npt.NDArray[np.intp]:
        """The thresholds between which the curve is straight, whatever the weights: those
        where it turns from genuine to impostor scores or back."""
        size, mated = np.diff(self._ends, prepend=-1), np.diff(self._hits, prepend=0)
        pure = np.where(mated == 0, 1, np.where(mated == size, 2, 0))
        turns = (pure[1:] != pure[:-1]) | (pure[1:] == 0)
        return np.append(np.flatnonzero(turns), len(pure) - 1)

    def curve(self, weights: Array | None = None) -> Curve:
        """
        Args:
            weights: (n,) how often each comparison counts, **in the order of `order`**;
                all once if None. With weights only the corners of the curve are returned.
        """
        if weights is None:
            threshold, hits = self._threshold, self._hits.astype(np.float64)
            false = self._ends + 1 - hits
        else:
            threshold = self._threshold[self._corners]
            hits_up_to = np.append(0.0, np.cumsum(weights[self._genuine_at]))
            hits = hits_up_to[self._hits[self._corners]]
            false = np.cumsum(weights)[self._ends[self._corners]] - hits
        fmr, fnmr = np.zeros(len(hits) + 1), np.ones(len(hits) + 1)
        if hits[-1] > 0 and false[-1] > 0:
            fmr[1:], fnmr[1:] = false / false[-1], 1 - hits / hits[-1]
        else:
            # A resample without genuine or without impostor comparisons has no rates.
            fmr[:] = fnmr[:] = np.nan
        return Curve(np.append(np.inf, threshold), fmr, fnmr, self._impostors)
