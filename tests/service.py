"""A real server on a real port, for tests that speak HTTP."""

import ctypes
import gc
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from app.main import create_app
from app.settings import Settings

JPEG = {"Content-Type": "image/jpeg"}


@contextmanager
def running(
    path: Path, *, http: Any = "auto", **sections: dict[str, Any]
) -> Iterator[httpx.Client]:
    """Serve an embedded store, without keys unless the sections say otherwise; yields a client.

    Args:
        http: uvicorn's protocol.
    """
    defaults = {
        "store": {"path": path},
        "auth": {"disabled": True},
        "audit": {"path": path / "audit.jsonl"},
    }
    # Other tests have the cores as well.
    sections["limits"] = {"max_queue_s": 30} | sections.get("limits", {})
    settings = Settings(**(defaults | sections))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_app(settings), http=http, log_config=None, access_log=False)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the service did not start"
                time.sleep(0.01)
            url = "http://{}:{}".format(*listener.getsockname())
            with httpx.Client(base_url=url, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
            _give_memory_back()


def _give_memory_back() -> None:
    """What a service has freed; of a hundred in one process glibc would keep gigabytes."""
    gc.collect()
    with suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
