"""Tables for people, tab-separated lines for programs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text


def say(line: str) -> None:
    typer.echo(_printable(line))


def complain(error: object) -> None:
    typer.secho(_printable(f"faceid: {error}"), fg="red", err=True)


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: a table on a terminal, lines that begin with the title where piped."""
    # File names and metadata are not markup.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        for row in rows:
            say("\t".join(str(cell) for cell in ([title] if title else []) + list(row)))
        return
    drawn = Table(title=title and _printable(title), title_justify="left", show_header=any(columns))
    for column in columns:
        drawn.add_column(column, overflow="fold")  # an id that is cut off is of no use
    for row in rows:
        drawn.add_row(*(_printable(str(cell)) for cell in row))
    console.print(drawn)


@contextmanager
def progress_bar(total: int | None, what: str) -> Iterator[Callable[..., None]]:
    """A bar on standard error, on a terminal only; what it yields is called after each of `what`,
    or with how many are done and of how many."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(what),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def advance(count: int = 1, total: int | None = total) -> None:
            progress.update(task, advance=count, total=total)

        yield advance


class _Rate(ProgressColumn):
    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._what}/s" if speed else "")


def _printable(text: str) -> str:
    # A file's name need not be UTF-8.
    return text.encode(errors="replace").decode()
