"""Figures against what they must be."""

import sys

from rich.console import Console
from rich.table import Table

_Row = tuple[str, float, str, float]


def finish(title: str, rows: list[_Row], console: Console) -> None:
    """Print what was measured and end the program, with 1 where a mark was missed.

    Args:
        rows: what; its share, 0 to 1; `<=` or `>=`; the mark.
    """
    table = Table(title=title, title_justify="left")
    for column in ("what", "measured", "must be", ""):
        table.add_column(column, justify="left" if column in ("what", "") else "right")
    kept = [value <= mark if sign == "<=" else value >= mark for _, value, sign, mark in rows]
    for (what, value, sign, mark), is_kept in zip(rows, kept, strict=True):
        table.add_row(what, f"{value:.2%}", f"{sign} {mark:.2%}", "" if is_kept else "missed")
    console.print(table)
    sys.exit(not all(kept))
