"""From the error rate somebody can live with to the threshold that keeps it."""

import math
from collections.abc import Sequence

import numpy as np

from app.decision.distance import Metric
from app.errors import UnsupportedTarget

# The tail of the impostors' similarities falls faster than the straight line (in the
# logarithm of the rate) that continues the table, so a continued threshold errs towards
# "unknown". Two decades are as far as that argument is trusted.
_EXTRAPOLATED_DECADES = 2.0


class Thresholds:
    """Thresholds of one calibrated embedder, interpolated over the logarithm of the rate."""

    def __init__(
        self, fmr: Sequence[float], cosine: Sequence[float], manhattan: Sequence[float]
    ) -> None:
        """
        Args:
            fmr: false match rates, falling.
            cosine: least similarity accepted at each of them.
            manhattan: largest distance accepted at each of them.
        """
        self._decades = -np.log10(np.asarray(fmr, np.float64))
        self._cosine = np.asarray(cosine, np.float64)
        self._manhattan = np.asarray(manhattan, np.float64)

    def verification(self, target_fmr: float, metric: Metric) -> float:
        """The largest distance at which two faces are taken for one person.

        Args:
            target_fmr: share of pairs of strangers that may be verified.

        Raises:
            UnsupportedTarget: outside the rates that were measured.
        """
        decades = -math.log10(target_fmr)
        lowest, highest = self._decades[0], self._decades[-1]
        if not lowest - 1e-9 <= decades <= highest + 1e-9:
            raise UnsupportedTarget(
                f"The calibration of this embedder supports a target_fmr from {10**-highest:.0e} "
                f"to {10**-lowest:.0e}, not {target_fmr:g}."
            )
        if metric == "manhattan":
            return float(np.interp(decades, self._decades, self._manhattan))
        similarity = float(np.interp(decades, self._decades, self._cosine))
        return 1 - similarity if metric == "cosine" else math.sqrt(2 - 2 * similarity)

    def identification(self, target_fpir: float, persons: int) -> float:
        """The least similarity at which a face is called somebody.

        A stranger is compared with everybody enrolled, and with N independent comparisons
        FPIR = 1 - (1 - FMR)^N (Grother et al., NIST IR 8271), so the threshold rises with
        the gallery.

        Args:
            target_fpir: share of strangers that may be called somebody, above 0, below 1.
            persons: size of the gallery.

        Raises:
            UnsupportedTarget: the gallery is too large for the target.
        """
        fmr = -math.expm1(math.log1p(-target_fpir) / max(1, persons))
        # Where more errors are allowed than were ever measured, the promise is overfulfilled.
        decades = max(-math.log10(fmr), float(self._decades[0]))
        beyond = decades - float(self._decades[-1])
        if beyond <= 0:
            return float(np.interp(decades, self._decades, self._cosine))
        if beyond > _EXTRAPOLATED_DECADES:
            least = 1 - (1 - 10 ** -(self._decades[-1] + _EXTRAPOLATED_DECADES)) ** persons
            raise UnsupportedTarget(
                f"With {persons:,} persons the calibration of this embedder supports a "
                f"target_fpir of {least:.1g} or more, not {target_fpir:g}; "
                "raise it, or give a threshold."
            )
        slope = (self._cosine[-1] - self._cosine[-3]) / (self._decades[-1] - self._decades[-3])
        return float(min(1.0, self._cosine[-1] + slope * beyond))
