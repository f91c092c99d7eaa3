"""Rates so low that few or no scores are there to be counted.

Above a high threshold the excesses of nearly any distribution are near a generalised Pareto
distribution (Pickands, 1975), here fitted by L-moments (Hosking, JRSS B 52, 1990), which take
weights and do well with few excesses.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tail:
    """P(score > x) = share * (1 + shape * (x - start) / scale) ** (-1 / shape), x >= start."""

    start: float
    share: float
    scale: float
    shape: float

    def threshold(self, rate: Array) -> Array:
        """The score that a share `rate`, at most `share`, of all scores exceeds."""
        odds = np.asarray(self.share / rate)
        if abs(self.shape) < 1e-9:
            return self.start + self.scale * np.log(odds)
        return self.start + self.scale / self.shape * (odds**self.shape - 1)

    def rate(self, threshold: Array) -> Array:
        """The share of all scores beyond a threshold of at least `start`."""
        excess = np.asarray(threshold - self.start) / self.scale
        if abs(self.shape) < 1e-9:
            return self.share * np.exp(-excess)
        base = np.maximum(1 + self.shape * excess, 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(self.share * base ** (-1 / self.shape))


def fit(scores: Array, start: float, total: float, weights: Array | None = None) -> Tail:
    """
    Args:
        scores: (n,) all that exceed `start`, rising, not all alike; others are ignored.
        total: of all scores, weighted, those below `start` too.
        weights: (n,) how often each counts.
    """
    beyond = np.searchsorted(scores, start, side="right")
    excess = scores[beyond:] - start
    counts = np.ones(len(excess)) if weights is None else weights[beyond:]
    mass = counts.sum()
    # The mean, and the mean weighted by the share of excesses below: the first two
    # probability-weighted moments.
    below = (np.cumsum(counts) - (counts + 1) / 2) / max(mass - 1, 1)
    first = (counts * excess).sum() / mass
    second = 2 * (counts * below * excess).sum() / mass - first
    shape = 2 - first / second
    return Tail(start, float(mass / total), float(first * (1 - shape)), float(shape))
