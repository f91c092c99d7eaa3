"""How far a figure would move with other people: intervals by resampling persons.

Comparisons that share a person are not independent: some faces are hard, some are everybody's
double. Resampling comparisons ignores that and gives intervals that are too narrow, so
*persons* are drawn with replacement (the subsets bootstrap of Bolle, Ratha and Pankanti,
"Error analysis of pattern recognition systems", CVIU 93, 2004; Poh and Bengio, PAMI 29, 2007).
If person p was drawn w_p times, their genuine comparisons count w_p times and a comparison
with person q counts w_p w_q times: a person drawn twice is never compared with their copy,
and ratios of such sums need no recentring (what goes wrong otherwise: Conti and Clemencon,
"Assessing uncertainty in similarity scoring", ICLR 2024). Where pairs hardly share persons,
as in a short pair list, the product makes intervals wider than they need be (Owen, "The
pigeonhole bootstrap", 2007). In simulations 95 % intervals held the truth in 92 to 99 % of all
cases, but in 83 % for a rate that rested on a single false match: no draw holds an extreme that
was not seen, which is one more reason to refuse such rates.

Two models are compared on the same draws, so that what is common to both cancels out.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
LEVEL = 0.95
LEAST_PERSONS = 10
"""With fewer, the draws of persons say little about other persons."""


class Experiment(Protocol):
    """Figures that can be worked out again for another selection of the persons.

    Attributes:
        axes: where the curves among the figures are given, by name.
        unresolved: figures that the data is too small for, and why.
        thresholds: score or distance at which a figure is taken, by name.
    """

    @property
    def axes(self) -> Mapping[str, Array]: ...

    @property
    def unresolved(self) -> Mapping[str, str]: ...

    @property
    def thresholds(self) -> Mapping[str, float]: ...

    def figures(self, weights: Array | None = None) -> Mapping[str, float | Array]:
        """Numbers, and curves over `axes`, by name.

        Args:
            weights: (persons,) how often each person counts; all once if None.
        """
        ...


def draws(persons: int, resamples: int, seed: int) -> Array:
    """How often each person is drawn: (resamples, persons), rows summing to `persons`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(persons, np.full(persons, 1 / persons), resamples).astype(np.float64)


def resample(experiment: Experiment, weights: Array) -> dict[str, Array]:
    """The figures under each row of `weights`, (resamples, ...) by name; empty for no rows."""
    rows = [experiment.figures(row) for row in weights]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


class Means:
    """Figures that are the mean of one value for each face: an `Experiment`."""

    def __init__(self, values: Mapping[str, npt.ArrayLike], persons: IntArray) -> None:
        """
        Args:
            values: (n,) numbers by name of the figure.
            persons: (n,) whose face each is.
        """
        self._values = {name: np.asarray(value, np.float64) for name, value in values.items()}
        self._persons = persons
        self.axes: dict[str, Array] = {}
        self.unresolved: dict[str, str] = {}
        self.thresholds: dict[str, float] = {}

    def figures(self, weights: Array | None = None) -> dict[str, float | Array]:
        if weights is None:
            return {name: float(value.mean()) for name, value in self._values.items()}
        counts = weights[self._persons]
        # A resample may hold none of these faces.
        total = counts.sum() or np.nan
        return {name: float(counts @ value / total) for name, value in self._values.items()}


def interval(samples: Array) -> tuple[Array, Array]:
    """Percentile interval over the first axis; resamples without a value are passed over."""
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail], axis=0)
    return low, high
