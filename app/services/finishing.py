"""Work that is done to its end, also where the caller goes away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Finishing:
    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin it for a caller who does not wait; `all_done` does. What it raises is logged by
        asyncio."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def all_done(self) -> None:
        """Wait for what is being done."""
        await asyncio.gather(*self._running, return_exceptions=True)
