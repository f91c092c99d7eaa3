"""What a terminal shows while heads and embedders are trained."""

import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingBar:
    """Epoch, loss, faces a second and time left: a bar on a terminal, elsewhere a line a minute."""

    def __init__(self, epochs: int, batch_size: int, disable: bool) -> None:
        self._epochs, self._batch_size = epochs, batch_size
        self._console = Console(stderr=True)
        self._disable = disable
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}, {task.fields[speed]:.0f} faces/s,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=disable or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=epochs, epoch=1, loss=math.nan, speed=0.0)
        self._speed, self._loss = 0.0, math.nan
        self._then = self._said = time.monotonic()

    def __enter__(self) -> "TrainingBar":
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def advance(self, epoch: int, done: int, batches: int, loss: float) -> None:
        now = time.monotonic()
        speed = self._batch_size / max(now - self._then, 1e-9)
        self._then = now
        self._speed = speed if not self._speed else 0.95 * self._speed + 0.05 * speed
        self._loss = loss if math.isnan(self._loss) else 0.95 * self._loss + 0.05 * loss
        at = epoch + done / batches
        self._bar.update(
            self._task, completed=at, epoch=epoch + 1, loss=self._loss, speed=self._speed
        )
        if not self._console.is_terminal and not self._disable and now - self._said > 60:
            self._said = now
            self._console.print(
                f"epoch {at:.2f} of {self._epochs}: loss {self._loss:.3f}, "
                f"{self._speed:.0f} faces/s"
            )


class ComparisonBars:
    """How far the comparison is, and how far one training, on a terminal."""

    def __init__(self, steps: int, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:34}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("all", total=steps, loss=" steps")
        self._one = self._bars.add_task("", total=0, loss="")

    def __enter__(self) -> "ComparisonBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, what: str, steps: int) -> Callable[[float], None]:
        """What to call with the loss after each step of the next training."""
        self._bars.reset(self._one, total=steps, description=what, loss="")

        def told(loss: float) -> None:
            self._bars.advance(self._all)
            self._bars.update(self._one, advance=1, loss=f", loss {loss:.3f}")

        return told
