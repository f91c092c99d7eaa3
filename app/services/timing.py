"""Seconds per stage, for the metrics and for the answer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.metrics import Metrics


class Timings:
    """Adds up what each stage of a request took; safe to fill from several threads in turn."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def observe(self, metrics: Metrics) -> None:
        for name, seconds in self.seconds.items():
            metrics.stage_seconds.labels(name).observe(seconds)

    def milliseconds(self) -> dict[str, float]:
        return {name: round(seconds * 1e3, 3) for name, seconds in self.seconds.items()}
