"""What a comparison of losses found: as JSON, as a table on the terminal, and as plots."""

from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.ticker import NullLocator
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from training.evaluation.drawing import GENUINE, IMPOSTOR, MODELS
from training.evaluation.report import Curve, Difference, Figure, quantity
from training.files import replacing

TAIL = "tar@far=1e-03"
"""The figure that is drawn."""

_COLUMNS = {
    "tar@far=1e-03": "TAR at 10⁻³",
    "tar@far=1e-04": "at 10⁻⁴",
    "eer": "EER",
    "fnir@fpir=1e-02": "FNIR at 1 %",
    "MAP@R": "MAP@R",
    "intra-class mean": "intra",
    "inter-class mean": "inter",
    "d-prime": "d\N{PRIME}",
}
_CONTRASTED = {
    "tar@far=1e-03": "TAR at 10⁻³",
    "eer": "EER",
    "fnir@fpir=1e-02": "FNIR at 1 %",
    "intra-class mean": "intra",
    "intra / inter": "intra / inter",
}
_WITH_INTERVAL = ("tar@far=1e-03", "eer")
_ACROSS = 5
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#b9bec8",
    "text.color": "#3d4451",
    "axes.labelcolor": "#3d4451",
    "xtick.color": "#3d4451",
    "ytick.color": "#3d4451",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Part):
    """One head.

    Attributes:
        name: as table and plots call it.
        loss, parameters: None and empty for a head that was not trained here.
        rate: the peak rate it was trained with, out of those `tried`.
        tried: the figure rates are chosen by, for each, on persons the trial did not train on.
        seconds: of its training.
        figures: on the persons held out.
        genuine, impostor: densities of the cosine distances of pairs.
    """

    name: str
    loss: str | None = None
    parameters: dict[str, Any] = {}
    rate: float | None = None
    tried: dict[str, float] = {}
    seconds: float | None = None
    figures: dict[str, Figure]
    genuine: Curve
    impostor: Curve


class Contrast(_Part):
    """Two heads on the same draws of persons: the model minus the baseline."""

    model: str
    baseline: str
    differences: dict[str, Difference]


class Comparison(_Part):
    """
    Attributes:
        trained_on, judged_by: faces and persons.
        resamples: draws of persons behind each interval.
    """

    format: Literal[1] = 1
    trained_on: tuple[int, int]
    judged_by: tuple[int, int]
    steps: int
    batch_size: int
    resamples: int
    seed: int
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]


def figures_table(comparison: Comparison) -> Table:
    """A line for each head."""
    faces, persons = comparison.judged_by
    table = Table(
        title=f"{faces:,} faces of {persons:,} persons nobody trained on",
        caption="rates in per cent; below them the 95 % interval for other persons",
    )
    table.add_column("loss", no_wrap=True)
    columns = {
        name: label
        for name, label in _COLUMNS.items()
        if any(name in row.figures for row in comparison.rows)
    }
    for label in columns.values():
        table.add_column(label, justify="right")
    for row in comparison.rows:
        table.add_row(
            row.name,
            *(_cell(row.figures.get(name), name) for name in columns),
            style=None if row.loss else "dim",
        )
    return table


def contrasts_table(comparison: Comparison) -> Table:
    """A line for each pair of heads; a difference whose interval holds 0 is dim."""
    table = Table(
        title="Differences on the same draws of persons",
        caption="green: better, red: worse, dim: nothing shown, as 0 is in the interval",
    )
    table.add_column("loss", no_wrap=True)
    table.add_column("minus", no_wrap=True)
    columns = {
        name: label
        for name, label in _CONTRASTED.items()
        if all(name in contrast.differences for contrast in comparison.contrasts)
    }
    for label in columns.values():
        table.add_column(label, justify="right")
    for contrast in comparison.contrasts:
        cells = []
        for name in columns:
            difference = contrast.differences[name]
            colour = {None: "dim", True: "green", False: "red"}[difference.better]
            cells.append(f"[{colour}]{_signed(difference, name)}[/]")
        table.add_row(contrast.model, contrast.baseline, *cells)
    return table


def draw_losses(comparison: Comparison, path: Path) -> None:
    """Write the TAR at FAR 1e-3 of every head, with its interval, as PNG.

    Raises:
        NoSpace: the disk is full.
    """
    name = TAIL if all(TAIL in row.figures for row in comparison.rows) else "eer"
    rows = comparison.rows
    with matplotlib.rc_context(_STYLE):
        page = Page((6.4, 0.9 + 0.27 * len(rows)), layout="constrained")
        axes = page.subplots()
        for place, row in enumerate(rows):
            figure = row.figures[name]
            value, low, high = 100 * np.array([figure.value, figure.low, figure.high], float)
            colour = MODELS[0] if row.loss else "#8d94a1"
            axes.plot([low, high], [place, place], color=colour, linewidth=2.4)
            axes.plot(value, place, "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.invert_yaxis()
        axes.grid(axis="x", color="#e6e8ec")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"{quantity(name).label}, %, and 95 % interval for other persons")
        _save(page, path)


def draw_distances(comparison: Comparison, path: Path) -> None:
    """Write the distances of genuine and impostor pairs, a small plot for each head, as PNG.

    Raises:
        NoSpace: the disk is full.
    """
    rows = comparison.rows
    down = -(-len(rows) // _ACROSS)
    with matplotlib.rc_context(_STYLE):
        page = Page((9, 0.4 + 1.25 * down), layout="constrained")
        grid = page.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, row in zip(grid, rows, strict=False):
            _fill(axes, row.genuine, GENUINE, "one person")
            _fill(axes, row.impostor, IMPOSTOR, "two persons")
            axes.set_title(row.name, fontsize=9)
        for axes in grid:
            axes.set(xlim=(0, 1.6), ylim=(0, None))
            axes.yaxis.set_major_locator(NullLocator())
            axes.spines["left"].set_visible(False)
        for axes in grid[len(rows) :]:
            axes.set_visible(False)
        handles, labels = grid[0].get_legend_handles_labels()
        page.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
        page.supxlabel("cosine distance of two faces", fontsize=9)
        _save(page, path)


def _fill(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    axes.fill_between(curve.x, curve.y, color=colour, alpha=0.3, linewidth=0, label=label)
    axes.plot(curve.x, curve.y, color=colour, linewidth=1)


def _save(page: Page, path: Path) -> None:
    with replacing(path) as partial:
        page.savefig(partial, format="png", dpi=110)


def _cell(figure: Figure | None, name: str) -> str:
    if figure is None or figure.value is None:
        return "\N{EN DASH}"
    text = _number(figure.value, name)
    if name in _WITH_INTERVAL and figure.low is not None and figure.high is not None:
        text += f"\n{_number(figure.low, name)} to {_number(figure.high, name)}"
    return text


def _signed(difference: Difference, name: str) -> str:
    parts = (difference.value, difference.low, difference.high)
    value, low, high = ("" if part is None else _number(part, name, "+") for part in parts)
    return f"{value}\n{low} to {high}" if low else value


def _number(value: float, name: str, sign: str = "") -> str:
    """Rates in per cent."""
    text = f"{100 * value:{sign}.1f}" if quantity(name).rate else f"{value:{sign}.3f}"
    return text.replace("-", "\N{MINUS SIGN}")
