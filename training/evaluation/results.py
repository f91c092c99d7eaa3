"""From experiments to the figures and curves of a report."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from training.evaluation.bootstrap import Experiment, interval
from training.evaluation.report import Curve, Figure, Result
from training.evaluation.scores import Array

_BINS = 120


def result(experiment: Experiment, samples: Mapping[str, Array]) -> Result:
    """
    Args:
        samples: of the same experiment, as `bootstrap.resample` returns them; empty for no
            intervals.
    """
    figures: dict[str, Figure] = {}
    curves: dict[str, Curve] = {}
    for name, value in experiment.figures().items():
        low, high = interval(samples[name]) if samples else (None, None)
        if isinstance(value, float):
            figures[name] = Figure(
                value=number(value) if np.isfinite(value) else None,
                reason=None if np.isfinite(value) else "All distances are alike.",
                low=number(low),
                high=number(high),
                threshold=number(experiment.thresholds.get(name)),
            )
        else:
            curves[name] = Curve(
                x=row(experiment.axes[name]),
                y=row(value),
                low=() if low is None else row(low),
                high=() if high is None else row(high),
            )
    for name, reason in experiment.unresolved.items():
        figures[name] = Figure(value=None, reason=reason)
    return Result(figures=figures, curves=curves)


def density(values: npt.ArrayLike, low: float, high: float) -> Curve:
    """How values are distributed between two ends, as a histogram of unit area."""
    edges = np.linspace(low, high, _BINS + 1)
    heights, _ = np.histogram(np.asarray(values, np.float64), edges, density=True)
    return Curve(x=row((edges[1:] + edges[:-1]) / 2), y=row(heights))


def number(value: Array | float | None) -> float | None:
    """Short enough for a report; None for what is no number."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")


def row(values: Array) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
