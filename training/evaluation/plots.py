"""The curves of an embedder's report as SVG, to stand in a page."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from training.evaluation import drawing
from training.evaluation.drawing import (
    DASHES,
    FADED,
    GENUINE,
    IMPOSTOR,
    MODELS,
    WIDE,
    Line,
    canvas,
    draw,
    percent,
    percent_of_probit,
    probit,
)
from training.evaluation.report import Report, quantity
from training.evaluation.verification import METRICS

_PROBITS = (1e-4, 1e-3, 1e-2, 5e-2, 2e-1, 5e-1)


def roc(report: Report) -> str:
    """TAR over the logarithm of FAR."""
    with canvas() as drawn:
        axes = drawn.figure.subplots()
        lines = _verification(report)
        for line in lines:
            draw(axes, line)
        # The band may reach far down at the left end, where a few pairs decide.
        depth = max(1e-3, 1.5 * (1 - min(min(line.curve.y) for line in lines)))
        axes.set(xscale="log", ylim=(1 - depth, 1 + depth / 20))
        axes.set(xlabel="FAR (false match rate)", ylabel="TAR (1 \N{MINUS SIGN} FNMR)")
        axes.xaxis.set_major_formatter(FuncFormatter(percent))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.legend(loc="lower right")
    return drawn.svg


def det(report: Report) -> str:
    """FNMR over FMR on normal deviates, where two normal distributions give a straight line."""
    with canvas() as drawn:
        axes = drawn.figure.subplots()
        lines = _verification(report)
        for line in lines:
            draw(axes, line, x=probit, y=lambda tar: probit(1 - tar))
        most = max(0.02, min(0.5, 1.5 * (1 - min(min(line.curve.y) for line in lines))))
        axes.set_xlim(*probit(np.array([min(line.curve.x[0] for line in lines), 0.5])))
        axes.set_ylim(*probit(np.array([1e-4, most])))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(probit(np.array(_PROBITS)).tolist()))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(percent_of_probit))
        diagonal = probit(np.array([1e-6, 0.5]))
        axes.plot(diagonal, diagonal, color=FADED, linewidth=0.8, linestyle="dotted")
        axes.set(xlabel="False match rate", ylabel="False non-match rate")
        axes.legend(loc="upper right")
    return drawn.svg


def distances(report: Report) -> str:
    """Densities of the distances of genuine and impostor pairs, for each metric."""
    with canvas((WIDE, 2.9)) as drawn:
        for axes, metric in zip(drawn.figure.subplots(1, 3), METRICS, strict=True):
            results = report.section(f"{kind_of_pairs(report)}/{metric}").results
            for name, colour in (("intra-class", GENUINE), ("inter-class", IMPOSTOR)):
                curve = results[0].curves[name]
                axes.fill_between(curve.x, curve.y, color=colour, alpha=0.25, linewidth=0)
                axes.plot(curve.x, curve.y, color=colour, linewidth=1.2)
                if len(results) > 1:
                    curve = results[1].curves[name]
                    axes.plot(curve.x, curve.y, color=colour, linewidth=1.2, linestyle=DASHES[1])
            axes.set(xlabel=f"{metric} distance", ylim=(0, None))
            axes.yaxis.set_major_locator(NullLocator())
            axes.spines["left"].set_visible(False)
    return drawn.svg


def cmc(report: Report) -> str:
    """Identification rate over rank."""
    return drawing.cmc(_identification(report, "cmc"))


def fnir(report: Report) -> str:
    """FNIR over FPIR, both logarithmic."""
    return drawing.fnir(_identification(report, "fnir"))


def differences(report: Report) -> str:
    """Model minus baseline with its interval, for every rate; to the right is better."""
    rows = [
        (section.title.rpartition(", ")[2] if "/" in section.key else "", name, difference)
        for section in report.sections
        if not section.key.endswith(("/euclidean", "/manhattan"))
        for name, difference in section.differences.items()
        if quantity(name).rate and quantity(name).higher is not None
    ]
    with canvas((WIDE, 0.9 + 0.27 * len(rows))) as drawn:
        axes = drawn.figure.subplots()
        axes.axvline(0, color=FADED, linewidth=1)
        for place, (_, name, difference) in enumerate(rows):
            sign = 100 if quantity(name).higher else -100
            colour = {None: FADED, True: GENUINE, False: IMPOSTOR}[difference.better]
            if difference.low is not None and difference.high is not None:
                ends = sorted((sign * difference.low, sign * difference.high))
                axes.plot(ends, [place, place], color=colour, linewidth=2.4)
            axes.plot(sign * difference.value, place, "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [_row_name(kind, name) for kind, name, _ in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("percentage points, to the right is better")
    return drawn.svg


def kind_of_pairs(report: Report) -> str:
    """Whose pairs are drawn: `pairs` if all of the set were compared, otherwise `list`."""
    return "pairs" if any(section.key == "pairs/cosine" for section in report.sections) else "list"


def _row_name(kind: str, name: str) -> str:
    return quantity(name).label + (f", {kind}" if kind.endswith("enrolled") else "")


def _verification(report: Report) -> list[Line]:
    # The euclidean distance has the ROC of the cosine. Two models are compared by the cosine.
    metrics = ("cosine", "manhattan") if len(report.models) == 1 else ("cosine",)
    sections = {m: report.section(f"{kind_of_pairs(report)}/{m}") for m in metrics}
    return [
        Line(
            report.models[model].name if len(metrics) == 1 else metric,
            MODELS[model],
            dash,
            result.curves["tar"],
        )
        for dash, (metric, section) in zip(DASHES, sections.items(), strict=False)
        for model, result in enumerate(section.results)
    ]


def _identification(report: Report, name: str) -> list[Line]:
    lines = []
    for dash, photos in zip(DASHES, (1, 3), strict=True):
        for model, result in enumerate(report.section(f"identification/{photos}").results):
            label = f"{photos} photo{'s' * (photos > 1)}"
            if len(report.models) > 1:
                label = f"{report.models[model].name}, {label}"
            lines.append(Line(label, MODELS[model], dash, result.curves[name]))
    return lines
