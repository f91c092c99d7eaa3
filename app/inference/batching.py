"""Requests that arrive together share one inference."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from app.errors import QueueFull

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items of concurrent callers into batches for a function that likes them.

    While one batch computes, the next one gathers, so under load nobody waits on purpose.
    A batch that fails is tried again item by item: what is wrong with one of them is
    answered to its caller alone. Items whose caller was cancelled are left out.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], list[Result]],
        *,
        max_batch: int,
        max_wait: float,
        max_queue: int,
        observe: Callable[[int], None],
    ) -> None:
        """
        Args:
            compute: runs in a thread of its own, one call at a time.
            max_wait: seconds an item may wait for company while nothing else computes.
            max_queue: items waiting; one more is refused.
            observe: told the size of every batch.
        """
        self._compute = compute
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._observe = observe
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue(max_queue)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._worker = asyncio.create_task(self._work())

    @property
    def alive(self) -> bool:
        return not self._worker.done()

    @property
    def waiting(self) -> int:
        """Items waiting."""
        return self._queue.qsize()

    async def submit(self, item: Item) -> Result:
        """
        Raises:
            QueueFull: `max_queue` items are waiting.
        """
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, answer))
        except asyncio.QueueFull:
            raise QueueFull(
                f"{self._queue.maxsize} faces are waiting for the embedder; try again shortly."
            ) from None
        return await answer

    async def close(self) -> None:
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown(cancel_futures=True)

    async def _work(self) -> None:
        while True:
            batch = [(i, a) for i, a in await self._gather() if not a.done()]
            if not batch:
                continue
            self._observe(len(batch))
            try:
                await self._run(batch)
            except Exception:
                for pair in batch:
                    try:
                        await self._run([pair])
                    except Exception as error:
                        if not pair[1].done():
                            pair[1].set_exception(error)

    async def _gather(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch = [await self._queue.get()]
        if self._queue.empty() and self._max_wait > 0:
            await asyncio.sleep(self._max_wait)
        while len(batch) < self._max_batch and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._compute, [item for item, _ in batch]
        )
        for (_, answer), result in zip(batch, results, strict=True):
            if not answer.done():
                answer.set_result(result)
