import asyncio
import threading

import pytest

from app.errors import QueueFull
from app.inference.batching import Batcher

pytestmark = pytest.mark.anyio


def batcher(compute, **options) -> Batcher[int, int]:
    settings = {"max_batch": 8, "max_wait": 0.0, "max_queue": 100, "observe": lambda _: None}
    return Batcher(compute, **(settings | options))


async def test_requests_that_arrive_together_share_a_batch() -> None:
    sizes: list[int] = []
    doubling = batcher(lambda items: [2 * i for i in items], max_wait=0.02, observe=sizes.append)
    answers = await asyncio.gather(*(doubling.submit(i) for i in range(20)))
    await doubling.close()
    assert answers == [2 * i for i in range(20)]
    assert sizes == [8, 8, 4]


async def test_a_poisoned_item_fails_alone() -> None:
    def compute(items: list[int]) -> list[int]:
        if 3 in items:
            raise ValueError("three")
        return items

    batches = batcher(compute, max_wait=0.02)
    answers = await asyncio.gather(*(batches.submit(i) for i in range(6)), return_exceptions=True)
    assert [a for a in answers if not isinstance(a, Exception)] == [0, 1, 2, 4, 5]
    assert isinstance(answers[3], ValueError)
    assert batches.alive
    assert await batches.submit(7) == 7
    await batches.close()


async def test_an_abandoned_item_is_never_computed() -> None:
    release = threading.Event()
    computed: list[int] = []

    def compute(items: list[int]) -> list[int]:
        release.wait(5)
        computed.extend(items)
        return items

    batches = batcher(compute)
    first = asyncio.create_task(batches.submit(1))
    await asyncio.sleep(0.05)
    abandoned = asyncio.create_task(batches.submit(2))
    third = asyncio.create_task(batches.submit(3))
    await asyncio.sleep(0.05)
    abandoned.cancel()
    await asyncio.sleep(0.05)
    release.set()
    assert (await first, await third) == (1, 3)
    await batches.close()
    assert computed == [1, 3]


async def test_a_full_queue_refuses_at_once() -> None:
    release = threading.Event()

    def compute(items: list[int]) -> list[int]:
        release.wait(5)
        return items

    batches = batcher(compute, max_batch=1, max_queue=2)
    running = asyncio.create_task(batches.submit(0))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(batches.submit(i)) for i in (1, 2)]
    await asyncio.sleep(0)
    assert batches.waiting == 2
    with pytest.raises(QueueFull):
        await batches.submit(3)
    release.set()
    assert [await running, *[await task for task in waiting]] == [0, 1, 2]
    await batches.close()
    assert not batches.alive
