"""One job per core, in the order of arrival, and none for a client that has gone."""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def available_cores() -> int:
    """Cores this process may use, by its affinity and by its container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores or 1, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores or 1


def _own_cpus(cores: int) -> SimpleQueue[int]:
    """One CPU for each of as many threads, if this process has exactly as many CPUs.

    Left alone, the scheduler puts two computing threads on one CPU for several milliseconds
    now and then while another idles. A process that may use more CPUs than it has threads
    shares them with others and must not choose.
    """
    queue: SimpleQueue[int] = SimpleQueue()
    if hasattr(os, "sched_getaffinity") and len(cpus := os.sched_getaffinity(0)) == cores:
        for cpu in sorted(cpus):
            queue.put(cpu)
    return queue


def _pin(cpus: SimpleQueue[int]) -> None:
    with suppress(Empty):
        os.sched_setaffinity(0, {cpus.get_nowait()})


@contextmanager
def all_cpus() -> Iterator[None]:
    """Let the calling thread run anywhere, for work that it shares with other threads."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


class CorePool:
    """Threads for work that leaves the interpreter lock alone: decoding and inference."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._threads = ThreadPoolExecutor(
            cores, thread_name_prefix="core", initializer=_pin, initargs=(_own_cpus(cores),)
        )
        self._unfinished = 0

    @property
    def waiting(self) -> int:
        """Jobs waiting for a core."""
        return max(0, self._unfinished - self._cores)

    @property
    def is_alone(self) -> bool:
        """Whether the job that asks is the only one, running or waiting."""
        return self._unfinished == 1

    async def run(self, job: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run `job` on a core. A job whose caller is cancelled before it starts never runs."""
        self._unfinished += 1
        try:
            return await asyncio.wrap_future(self._threads.submit(job, *arguments))
        finally:
            self._unfinished -= 1

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
