"""How the plots of every report are drawn: style, axes, lines, and what two reports share."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import NormalDist
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter

from training.evaluation.report import Curve

Array = npt.NDArray[np.float64]
Dash = str | tuple[int, tuple[int, ...]]

MODELS = ("#1d5fd1", "#d9730d")
GENUINE, IMPOSTOR = "#12936f", "#c73e5c"
FADED = "#8d94a1"
_INK, _PALE = "#3d4451", "#e6e8ec"
DASHES: tuple[Dash, ...] = ("solid", (0, (4, 2)))
HALF, WIDE = (5.4, 3.8), 11.0

_STYLE: dict[Any, Any] = {
    # Text stays text: a tenth of the size, and the browser's search finds it.
    "svg.fonttype": "none",
    # The same report gives the same page.
    "svg.hashsalt": "faceid",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#b9bec8",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _PALE,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


class Line(NamedTuple):
    name: str
    colour: str
    dash: Dash
    curve: Curve


class Canvas:
    """A figure, and once it is closed its SVG, to stand in a page."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.svg = ""


@contextmanager
def canvas(size: tuple[float, float] = HALF) -> Iterator[Canvas]:
    """A figure of this size in inches; `svg` is there when the block has ended."""
    with matplotlib.rc_context(_STYLE):
        drawn = Canvas(Figure(size, layout=ConstrainedLayoutEngine(wspace=0.05)))
        yield drawn
        text = io.StringIO()
        drawn.figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
        # In a page there is no place for the document's own head.
        drawn.svg = text.getvalue()[text.getvalue().index("<svg") :]


def same(values: Array) -> Array:
    return values


def draw(
    axes: Axes,
    line: Line,
    x: Callable[[Array], Array] = same,
    y: Callable[[Array], Array] = same,
) -> None:
    """A curve over its band, both through the axes' own scales `x` and `y`."""
    curve = line.curve
    at = x(np.array(curve.x))
    if curve.low:
        low, high = y(np.array(curve.low)), y(np.array(curve.high))
        axes.fill_between(at, low, high, color=line.colour, alpha=0.13, linewidth=0)
    axes.plot(at, y(np.array(curve.y)), color=line.colour, linestyle=line.dash, label=line.name)


def cmc(lines: Sequence[Line]) -> str:
    """Identification rate over rank."""
    with canvas() as drawn:
        axes = drawn.figure.subplots()
        for line in lines:
            draw(axes, line)
        last = max(line.curve.x[-1] for line in lines)
        depth = max(0.01, 1.2 * (1 - min(min(line.curve.low or line.curve.y) for line in lines)))
        axes.set_ylim(1 - depth, 1 + depth / 20)
        axes.xaxis.set_major_locator(FixedLocator([1, 5, 10, 15, 20]))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel="Rank", ylabel="Probes found", xlim=(0.6, last + 0.4))
        axes.legend(loc="lower right")
    return drawn.svg


def fnir(lines: Sequence[Line], marked: Sequence[tuple[float, float]] = ()) -> str:
    """FNIR over FPIR, both logarithmic.

    Args:
        marked: FPIR and FNIR of operating points, by line.
    """
    with canvas() as drawn:
        axes = drawn.figure.subplots()
        for line in lines:
            draw(axes, line, y=lambda fnir: np.maximum(fnir, 1e-6))
        for line, (x, y) in zip(lines, marked, strict=False):
            axes.plot(x, max(y, 1e-6), "o", color=line.colour, markersize=7, zorder=3)
        # No miss at all has no place on this axis: the curve leaves it downwards.
        least = min((y for line in lines for y in line.curve.y if y > 0), default=1e-3)
        axes.set(xscale="log", yscale="log")
        axes.set_ylim(bottom=least / 2)
        axes.set(xlabel="FPIR (strangers called somebody)", ylabel="FNIR (persons missed)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(percent))
            axis.set_minor_formatter(FuncFormatter(_one_two_five))
        axes.legend(loc="upper right")
    return drawn.svg


def probit(rates: Array) -> Array:
    """The normal deviate below which a share of each size lies."""
    clipped = np.clip(rates, 1e-6, 1 - 1e-6)
    return np.array([NormalDist().inv_cdf(rate) for rate in clipped.tolist()])


def percent(value: float, _: object) -> str:
    return f"{100 * value:.6g} %"


def percent_of_probit(deviate: float, _: object) -> str:
    return percent(float(f"{NormalDist().cdf(deviate):.2g}"), None)


def _one_two_five(value: float, _: object) -> str:
    return percent(value, None) if f"{value:e}"[0] in "25" else ""
