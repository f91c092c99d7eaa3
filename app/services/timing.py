"""Seconds per stage, for the metrics, the traces and the answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from app import tracing
from app.metrics import Metrics


class Timings:
    """Adds up what each stage of a request took; safe to fill from several threads in turn."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stages: list[tracing.Stage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """A stage that has just ended."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        end = time.time_ns()
        self._stages.append(tracing.Stage(name, end - round(seconds * 1e9), end))

    def observe(self, metrics: Metrics) -> None:
        # A copy: of a request that was cancelled, a core may still be adding to them.
        for name, seconds in list(self.seconds.items()):
            metrics.stage_seconds.labels(name).observe(seconds)
        tracing.record(self._stages)

    def milliseconds(self) -> dict[str, float]:
        return {name: round(seconds * 1e3, 3) for name, seconds in self.seconds.items()}
