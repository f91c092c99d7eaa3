"""Where the threads run that scan the segments of a shard.

The engine hands each segment to a thread of its own. The thread that asks still runs while it
wakes them, so on a machine of few cores the kernel often puts two of them on the same core,
and they take turns: 0.55 ms instead of 0.29 ms for 100,000 faces on 2 cores, call after call.
With cores of their own they run side by side. Where something else is at work, though, a thread
that may not move waits for it (4 ms and more, the interpreter lock held), so that they are only
kept apart while there is a free core for each.

Linux says which threads there are and how many tasks run; elsewhere nothing is done.
"""

import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

# More segments are not worth the wakening of more threads.
_MAX_THREADS = 4
_NAME = "edge-search"
_PATIENCE_MS = 50
# Looking costs 10 us.
_LOOK_EVERY_S = 0.01


def available_cores() -> list[int]:
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def scan_threads() -> int:
    """How many threads, and segments of a large gallery, are worth while here."""
    return min(len(available_cores()), _MAX_THREADS)


def engine_threads(others: Collection[int] = (), *, count: int = 0) -> set[int]:
    """The kernel's ids of the scanning threads of this process.

    Args:
        others: left out.
        count: how many have been started; a thread takes a moment to give itself its name.
    """
    for _ in range(_PATIENCE_MS):
        found = _named_threads().difference(others)
        if len(found) >= count:
            return found
        time.sleep(0.001)
    return set()


def _named_threads() -> set[int]:
    if sys.platform != "linux":
        return set()
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text()
        except OSError:  # it ended meanwhile
            continue
        if name.startswith(_NAME):
            found.add(int(task.name))
    return found


class ScanThreads:
    """The scanning threads of one shard.

    Args:
        threads: the kernel's ids.
    """

    def __init__(self, threads: set[int]) -> None:
        self._threads = sorted(threads)
        self._cores = available_cores()
        self._apart = False
        self._look_again = 0.0

    def place(self) -> None:
        """Keep the threads apart where nothing else runs, let them go where something does."""
        count = len(self._threads)
        if sys.platform != "linux" or not 1 < count <= len(self._cores):
            return
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + _LOOK_EVERY_S
        # Of all tasks that run, one is the caller, who sleeps during the scan.
        free = (os.cpu_count() or 1) - (_running_tasks() - 1)
        if free < count:
            # Those of the last scan may still be on their way to sleep.
            free += sum(map(_runs, self._threads))
        apart = free >= count
        if apart == self._apart:
            return
        self._apart = apart
        for number, thread in enumerate(self._threads):
            try:
                os.sched_setaffinity(thread, self._cores[number::count] if apart else self._cores)
            except OSError:  # forbidden here; the kernel's choice has to do
                self._threads = []
                return


def _running_tasks() -> int:
    """Tasks of the whole machine that run or wait for a core just now."""
    return int(_read("/proc/loadavg").split()[3].partition(b"/")[0])


def _runs(thread: int) -> bool:
    try:
        return _read(f"/proc/self/task/{thread}/stat").rpartition(b")")[2].split()[0] == b"R"
    except OSError:  # it ended
        return False


def _read(path: str) -> bytes:
    # Half the time of a file object, which counts before every search.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1024)
    finally:
        os.close(descriptor)
