"""Where the threads run that scan a large gallery."""

import os
import sys
from pathlib import Path

import pytest

from app.store import EmbeddedStore, scan
from app.store import shard as shards
from tests.stores import enrol, reopened, unit

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says where threads run")
@pytest.mark.skipif(len(scan.available_cores()) < 2, reason="one core")
async def test_scanning_threads_have_cores_of_their_own_while_nothing_else_runs(
    store: EmbeddedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "scan_threads", lambda: 2)
    monkeypatch.setattr(shards, "_LARGE", 3)
    for number in range(3):
        await enrol(store, "default", f"person-{number}", number)
    store = await reopened(store, path)
    await store.search("default", unit(1), 1)
    threads = store._galleries.open["default"]._threads
    first, second = threads._threads
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(scan, "_LOOK_EVERY_S", 0.0)
    threads._look_again = 0.0
    monkeypatch.setattr(scan, "_running_tasks", lambda: 1)
    await store.search("default", unit(1), 1)
    assert not os.sched_getaffinity(first) & os.sched_getaffinity(second)
    assert os.sched_getaffinity(first) | os.sched_getaffinity(second) == cores
    monkeypatch.setattr(scan, "_running_tasks", lambda: 10**6)
    await store.search("default", unit(1), 1)
    assert os.sched_getaffinity(first) == os.sched_getaffinity(second) == cores
    await store.close()
