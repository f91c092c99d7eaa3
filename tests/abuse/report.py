"""How a run says what it did and whether its marks were met."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """
    Attributes:
        holds: whether the mark is met; None where there is none.
    """

    what: str
    measured: str
    mark: str = ""
    holds: bool | None = None


def finish(title: str, rows: Sequence[Row]) -> None:
    """Print the table, and end the process: with 1 where a mark is missed."""
    table = Table("what", "measured", "mark", title=title)
    for row in rows:
        missed = " [bold red]missed[/]" if row.holds is False else ""
        table.add_row(row.what, row.measured, row.mark + missed)
    Console().print(table)
    sys.exit(any(row.holds is False for row in rows))


def slope(values: Sequence[float], over: Sequence[float]) -> float:
    """Least-squares rise of `values` for each unit of `over`."""
    return float(np.polyfit(over, values, 1)[0])
