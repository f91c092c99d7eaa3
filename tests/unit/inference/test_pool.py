import asyncio
import threading
import time

import pytest

from app.inference.pool import CorePool

pytestmark = pytest.mark.anyio


async def test_jobs_run_on_as_many_cores_as_there_are() -> None:
    pool = CorePool(2)
    together = threading.Barrier(2, timeout=5)
    await asyncio.gather(pool.run(together.wait), pool.run(together.wait))
    pool.close()


async def test_a_job_nobody_waits_for_never_runs() -> None:
    pool = CorePool(1)
    release = threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(pool.run(release.wait, 5))
    abandoned = asyncio.create_task(pool.run(ran.append, 1))
    third = asyncio.create_task(pool.run(ran.append, 2))
    await asyncio.sleep(0.05)
    assert pool.waiting == 2
    abandoned.cancel()
    await asyncio.sleep(0.05)
    release.set()
    await asyncio.gather(first, third)
    pool.close()
    assert ran == [2]


async def test_a_job_knows_whether_it_is_alone() -> None:
    pool = CorePool(2)
    assert await pool.run(lambda: pool.is_alone)
    release = threading.Event()
    other = asyncio.create_task(pool.run(release.wait, 5))
    await asyncio.sleep(0)
    assert not await pool.run(lambda: pool.is_alone)
    release.set()
    await other
    pool.close()


async def test_what_a_job_would_wait_follows_from_how_long_the_last_ones_took() -> None:
    pool = CorePool(2)
    for _ in range(20):
        await pool.run(time.sleep, 0.02)
    assert pool.expected_wait_s == 0
    release = threading.Event()
    running = [asyncio.create_task(pool.run(release.wait, 5)) for _ in range(2)]
    await asyncio.sleep(0)
    assert pool.expected_wait_s == 0, "long as they take, nobody waits for them"
    running += [asyncio.create_task(pool.run(release.wait, 5)) for _ in range(8)]
    await asyncio.sleep(0)
    assert pool.expected_wait_s > 4 * 0.02
    release.set()
    await asyncio.gather(*running)
    assert pool.expected_wait_s == 0
    pool.close()


async def test_an_error_in_a_job_reaches_its_caller() -> None:
    pool = CorePool(1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)
    pool.close()
