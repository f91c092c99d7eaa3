"""What a terminal shows while a service is evaluated."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bars:
    """How far all of it is, and how far the present part, on a terminal only."""

    def __init__(self, requests: int, disable: bool) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description:32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=disable or not console.is_terminal,
        )
        self._all = self._bars.add_task("all", total=requests)
        self._part = self._bars.add_task("", total=0)

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, what: str, steps: int) -> Callable[[int], None]:
        """What to call with the number of steps done, in the next part."""
        self._bars.reset(self._part, total=steps, description=what)

        def advance(done: int) -> None:
            self._bars.advance(self._all, done)
            self._bars.advance(self._part, done)

        return advance
