"""The curves of a report as SVG, to stand in a page."""

import io
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from training.evaluation.report import Curve, Report, quantity
from training.evaluation.verification import METRICS

Array = npt.NDArray[np.float64]
Dash = str | tuple[int, tuple[int, ...]]

MODELS = ("#1d5fd1", "#d9730d")
GENUINE, IMPOSTOR = "#12936f", "#c73e5c"
_INK, _FADED, _PALE = "#3d4451", "#8d94a1", "#e6e8ec"

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
_HALF, _WIDE = (5.4, 3.8), 11.0
_DASHES: tuple[Dash, ...] = ("solid", (0, (4, 2)))
_PROBITS = (1e-4, 1e-3, 1e-2, 5e-2, 2e-1, 5e-1)


class _Line(NamedTuple):
    name: str
    colour: str
    dash: Dash
    curve: Curve


def roc(report: Report) -> str:
    """TAR over the logarithm of FAR."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(_HALF, layout="constrained")
        axes = figure.subplots()
        lines = _verification(report)
        for line in lines:
            _draw(axes, line)
        # The band may reach far down at the left end, where a few pairs decide.
        depth = max(1e-3, 1.5 * (1 - min(min(line.curve.y) for line in lines)))
        axes.set(xscale="log", ylim=(1 - depth, 1 + depth / 20))
        axes.set(xlabel="FAR (false match rate)", ylabel="TAR (1 \N{MINUS SIGN} FNMR)")
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.legend(loc="lower right")
        return _svg(figure)


def det(report: Report) -> str:
    """FNMR over FMR on normal deviates, where two normal distributions give a straight line."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(_HALF, layout="constrained")
        axes = figure.subplots()
        lines = _verification(report)
        for line in lines:
            _draw(axes, line, x=_probit, y=lambda tar: _probit(1 - tar))
        most = max(0.02, min(0.5, 1.5 * (1 - min(min(line.curve.y) for line in lines))))
        axes.set_xlim(*_probit(np.array([min(line.curve.x[0] for line in lines), 0.5])))
        axes.set_ylim(*_probit(np.array([1e-4, most])))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(_probit(np.array(_PROBITS)).tolist()))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(_percent_of_probit))
        diagonal = _probit(np.array([1e-6, 0.5]))
        axes.plot(diagonal, diagonal, color=_FADED, linewidth=0.8, linestyle="dotted")
        axes.set(xlabel="False match rate", ylabel="False non-match rate")
        axes.legend(loc="upper right")
        return _svg(figure)


def distances(report: Report) -> str:
    """Densities of the distances of genuine and impostor pairs, for each metric."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDE, 2.9), layout=ConstrainedLayoutEngine(wspace=0.05))
        for axes, metric in zip(figure.subplots(1, 3), METRICS, strict=True):
            results = report.section(f"{kind_of_pairs(report)}/{metric}").results
            for name, colour in (("intra-class", GENUINE), ("inter-class", IMPOSTOR)):
                curve = results[0].curves[name]
                axes.fill_between(curve.x, curve.y, color=colour, alpha=0.25, linewidth=0)
                axes.plot(curve.x, curve.y, color=colour, linewidth=1.2)
                if len(results) > 1:
                    curve = results[1].curves[name]
                    axes.plot(curve.x, curve.y, color=colour, linewidth=1.2, linestyle=_DASHES[1])
            axes.set(xlabel=f"{metric} distance", ylim=(0, None))
            axes.yaxis.set_major_locator(NullLocator())
            axes.spines["left"].set_visible(False)
        return _svg(figure)


def cmc(report: Report) -> str:
    """Identification rate over rank."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(_HALF, layout="constrained")
        axes = figure.subplots()
        for line in _identification(report, "cmc"):
            _draw(axes, line)
        axes.xaxis.set_major_locator(FixedLocator([1, 5, 10, 15, 20]))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set(xlabel="Rank", ylabel="Probes found", xlim=(0.6, 20.4))
        axes.legend(loc="lower right")
        return _svg(figure)


def fnir(report: Report) -> str:
    """FNIR over FPIR, both logarithmic."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(_HALF, layout="constrained")
        axes = figure.subplots()
        lines = _identification(report, "fnir")
        for line in lines:
            _draw(axes, line, y=lambda fnir: np.maximum(fnir, 1e-6))
        # No miss at all has no place on this axis: the curve leaves it downwards.
        least = min((y for line in lines for y in line.curve.y if y > 0), default=1e-3)
        axes.set(xscale="log", yscale="log")
        axes.set_ylim(bottom=least / 2)
        axes.set(xlabel="FPIR (strangers called somebody)", ylabel="FNIR (persons missed)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_percent))
            axis.set_minor_formatter(FuncFormatter(_one_two_five))
        axes.legend(loc="upper right")
        return _svg(figure)


def differences(report: Report) -> str:
    """Model minus baseline with its interval, for every rate; to the right is better."""
    rows = [
        (section.title.rpartition(", ")[2] if "/" in section.key else "", name, difference)
        for section in report.sections
        if not section.key.endswith(("/euclidean", "/manhattan"))
        for name, difference in section.differences.items()
        if quantity(name).rate and quantity(name).higher is not None
    ]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((_WIDE, 0.9 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_FADED, linewidth=1)
        for place, (_, name, difference) in enumerate(rows):
            sign = 100 if quantity(name).higher else -100
            colour = {None: _FADED, True: GENUINE, False: IMPOSTOR}[difference.better]
            if difference.low is not None and difference.high is not None:
                ends = sorted((sign * difference.low, sign * difference.high))
                axes.plot(ends, [place, place], color=colour, linewidth=2.4)
            axes.plot(sign * difference.value, place, "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [_row_name(kind, name) for kind, name, _ in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("percentage points, to the right is better")
        return _svg(figure)


def kind_of_pairs(report: Report) -> str:
    """Whose pairs are drawn: `pairs` if all of the set were compared, otherwise `list`."""
    return "pairs" if any(section.key == "pairs/cosine" for section in report.sections) else "list"


def _row_name(kind: str, name: str) -> str:
    return quantity(name).label + (f", {kind}" if kind.endswith("enrolled") else "")


def _verification(report: Report) -> list[_Line]:
    # The euclidean distance has the ROC of the cosine. Two models are compared by the cosine.
    metrics = ("cosine", "manhattan") if len(report.models) == 1 else ("cosine",)
    sections = {m: report.section(f"{kind_of_pairs(report)}/{m}") for m in metrics}
    return [
        _Line(
            report.models[model].name if len(metrics) == 1 else metric,
            MODELS[model],
            dash,
            result.curves["tar"],
        )
        for dash, (metric, section) in zip(_DASHES, sections.items(), strict=False)
        for model, result in enumerate(section.results)
    ]


def _identification(report: Report, name: str) -> list[_Line]:
    lines = []
    for dash, photos in zip(_DASHES, (1, 3), strict=True):
        for model, result in enumerate(report.section(f"identification/{photos}").results):
            label = f"{photos} photo{'s' * (photos > 1)}"
            if len(report.models) > 1:
                label = f"{report.models[model].name}, {label}"
            lines.append(_Line(label, MODELS[model], dash, result.curves[name]))
    return lines


def _same(values: Array) -> Array:
    return values


def _draw(
    axes: Axes,
    line: _Line,
    x: Callable[[Array], Array] = _same,
    y: Callable[[Array], Array] = _same,
) -> None:
    """A curve over its band, both through the axes' own scales `x` and `y`."""
    curve = line.curve
    at = x(np.array(curve.x))
    if curve.low:
        low, high = y(np.array(curve.low)), y(np.array(curve.high))
        axes.fill_between(at, low, high, color=line.colour, alpha=0.13, linewidth=0)
    axes.plot(at, y(np.array(curve.y)), color=line.colour, linestyle=line.dash, label=line.name)


def _probit(rates: Array) -> Array:
    clipped = np.clip(rates, 1e-6, 1 - 1e-6)
    return np.array([NormalDist().inv_cdf(rate) for rate in clipped.tolist()])


def _percent_of_probit(deviate: float, _: object) -> str:
    return _percent(float(f"{NormalDist().cdf(deviate):.2g}"), None)


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.6g} %"


def _one_two_five(value: float, _: object) -> str:
    return _percent(value, None) if f"{value:e}"[0] in "25" else ""


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    drawing = text.getvalue()
    # In a page there is no place for the document's own head.
    return drawing[drawing.index("<svg") :]
