"""One job per core, in the order of arrival, and none for a client that has gone."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
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


class CorePool:
    """Threads for work that leaves the interpreter lock alone: decoding and inference.

    Where this process has exactly as many CPUs as threads, each of several busy threads keeps
    to a CPU of its own. Left to itself, Linux now and then puts two of them on one CPU for
    several milliseconds while another idles.
    """

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._threads = ThreadPoolExecutor(cores, thread_name_prefix="core")
        self._unfinished = 0
        self._submitted: dict[object, float] = {}
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        self._all_cpus = cpus if len(cpus) == cores else None
        self._free_cpus = iter(sorted(cpus))
        self._own = threading.local()

    @property
    def waiting(self) -> int:
        """Jobs that no core has begun."""
        return len(self._submitted)

    @property
    def longest_wait_s(self) -> float:
        """Seconds for which the next job to begin has been waiting; none waits: 0."""
        since = list(self._submitted.values())  # a copy: the threads take from it
        return time.perf_counter() - since[0] if since else 0.0

    @property
    def is_alone(self) -> bool:
        """Whether the job that asks is the only one, running or waiting."""
        return self._unfinished == 1

    async def run(self, job: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run `job` on a core. A job whose caller is cancelled before it starts never runs."""
        self._unfinished += 1
        ticket = object()
        self._submitted[ticket] = time.perf_counter()
        try:
            return await asyncio.wrap_future(
                self._threads.submit(self._run, ticket, partial(job, *arguments))
            )
        finally:
            self._unfinished -= 1
            self._submitted.pop(ticket, None)

    def _run(self, ticket: object, job: Callable[[], Result]) -> Result:
        self._submitted.pop(ticket, None)
        if self._all_cpus:
            if not hasattr(self._own, "cpu"):
                self._own.cpu = next(self._free_cpus)
            # Alone it may call upon all CPUs, and must not stand in the way on one of them.
            try:
                os.sched_setaffinity(0, self._all_cpus if self.is_alone else {self._own.cpu})
            except OSError:  # this process has other CPUs by now
                self._all_cpus = None
        return job()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
