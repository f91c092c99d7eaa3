import asyncio
import threading

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


async def test_the_wait_is_that_of_the_next_job_to_begin() -> None:
    pool = CorePool(1)
    release = threading.Event()
    first = asyncio.create_task(pool.run(release.wait, 5))
    await asyncio.sleep(0.05)
    assert pool.longest_wait_s == 0, "it runs"
    abandoned = asyncio.create_task(pool.run(len, ""))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(pool.run(len, ""))
    await asyncio.sleep(0.01)
    assert pool.longest_wait_s > 0.05
    abandoned.cancel()
    await asyncio.sleep(0)
    assert 0 < pool.longest_wait_s < 0.05
    release.set()
    await asyncio.gather(first, second)
    assert pool.longest_wait_s == 0
    pool.close()


async def test_an_error_in_a_job_reaches_its_caller() -> None:
    pool = CorePool(1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)
    pool.close()
