"""The curves of a service's report as SVG, to stand in a page."""

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

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
)
from training.evaluation.report import Section
from training.evaluation.service.figures import at_target
from training.evaluation.service.report import ServiceReport


def fnir(report: ServiceReport) -> str:
    """FNIR over FPIR while the margin is swept, with the service's own operating points."""
    names = [at_target(rate, report.target_fpir) for rate in ("fpir", "fnir")]
    marked = [
        [section.results[0].figures[name].value for name in names]
        for section in opened(report)
        if "fnir" in section.results[0].curves
    ]
    return drawing.fnir(
        _lines(report, "fnir"), [(x, y) for x, y in marked if x is not None and y is not None]
    )


def cmc(report: ServiceReport) -> str:
    """Identification rate over rank."""
    return drawing.cmc(_lines(report, "cmc"))


def margins(report: ServiceReport) -> str:
    """Densities of similarity less threshold, of persons and of strangers, by gallery."""
    sections = [s for s in opened(report) if "margin of persons" in s.results[0].curves]
    with canvas((WIDE, 2.9)) as drawn:
        grid = drawn.figure.subplots(1, len(sections), sharex=True, squeeze=False)
        for axes, section in zip(grid[0], sections, strict=True):
            for name, colour in (("persons", GENUINE), ("strangers", IMPOSTOR)):
                curve = section.results[0].curves[f"margin of {name}"]
                axes.fill_between(curve.x, curve.y, color=colour, alpha=0.25, linewidth=0)
                axes.plot(curve.x, curve.y, color=colour, linewidth=1.2)
            axes.axvline(0, color=FADED, linewidth=1)
            axes.set(
                xlabel=f"similarity \N{MINUS SIGN} threshold, {_name(section)}", ylim=(0, None)
            )
            axes.yaxis.set_major_locator(NullLocator())
            axes.spines["left"].set_visible(False)
    return drawn.svg


def growth(report: ServiceReport) -> str:
    """Threshold of strangers, and similarity of the person nearest to them, over the gallery."""
    with canvas() as drawn:
        axes = drawn.figure.subplots()
        for colour, section in zip(MODELS, opened(report), strict=True):
            for name, dash in zip(("threshold", "similarity"), DASHES, strict=True):
                curve = section.results[0].curves.get(f"{name} by size")
                if curve is not None:
                    draw(axes, Line(f"{name}, {_name(section)}", colour, dash, curve))
        axes.set(xscale="log", xlabel="Persons in the gallery", ylabel="Cosine similarity")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
        axes.legend(loc="lower right")
    return drawn.svg


def reliability(section: Section) -> str:
    """Share of right names over the probability that was given; dots by how many there are."""
    curves = section.results[0].curves
    curve, share = curves["reliability"], curves["share"]
    with canvas() as drawn:
        axes = drawn.figure.subplots()
        axes.plot([0, 1], [0, 1], color=FADED, linewidth=0.8, linestyle="dotted")
        if curve.low:
            low, high = (
                np.abs(np.array(end) - np.array(curve.y)) for end in (curve.low, curve.high)
            )
            axes.errorbar(
                curve.x,
                curve.y,
                np.nan_to_num([low, high]),
                fmt="none",
                ecolor=MODELS[0],
                alpha=0.5,
            )
        axes.scatter(curve.x, curve.y, 12 + 240 * np.sqrt(share.y), color=MODELS[0], alpha=0.6)
        axes.set(
            xlabel="Probability given", ylabel="Right names", xlim=(0, 1.03), ylim=(-0.03, 1.03)
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(percent))
    return drawn.svg


def opened(report: ServiceReport) -> list[Section]:
    """The sections about the open set."""
    return [section for section in report.sections if section.key.startswith("identification/")]


def _lines(report: ServiceReport, curve: str) -> list[Line]:
    return [
        Line(_name(section), colour, DASHES[0], curves[curve])
        for colour, section in zip(MODELS, opened(report), strict=True)
        for curves in [section.results[0].curves]
        if curve in curves
    ]


def _name(section: Section) -> str:
    return section.title.partition(", ")[2]
