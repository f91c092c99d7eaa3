"""Run the service in this process until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from app.errors import StartupError
from app.logs import configure_logging
from app.main import create_app
from app.settings import load_settings

_log = logging.getLogger(__name__)

# Seconds a thread may hold the interpreter while another waits for it. Threads that compute
# need it for microseconds at a time, between two pieces of work that do without it; at the
# default of 5 ms they spend 5 % of their time waiting for the event loop to let go.
_SWITCH_INTERVAL = 1e-4

# Below the 30 s an orchestrator usually grants before it kills.
_GRACE_SECONDS = 20


def serve(host: str, port: int) -> None:
    """
    Raises:
        StartupError: the service cannot start, and why.
    """
    configure_logging()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    if hasattr(os, "SCHED_BATCH"):
        # The event loop wakes for every packet; as a batch task it waits for a free moment
        # instead of pushing a computing thread off its core and out of its cache each time.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    app = create_app(load_settings())
    # Before models and store are opened: a port in use shows at once.
    with bind(host, port) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        # uvicorn sends itself once more the signal that stopped it. This turns it into an
        # ordinary exit, through the end of the lifespan, where the store is closed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        runner.run(_serve(app, listener))


async def _serve(app: FastAPI, listener: socket.socket) -> None:
    # The lifespan is run here because uvicorn logs the traceback of an error in it and
    # swallows the error itself.
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    async with app.router.lifespan_context(app):
        # What start-up made stays; the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        address, port = listener.getsockname()[:2]
        _log.info("serving on http://%s:%d", f"[{address}]" if ":" in address else address, port)
        await uvicorn.Server(config).serve([listener])


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows, PyPy
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def bind(host: str, port: int) -> socket.socket:
    """A socket that is not listening yet: who comes too early is refused, not kept waiting.

    Raises:
        StartupError: names host and port.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if sys.platform != "win32":  # there it would let two services share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartupError(f"Cannot listen on {host}, port {port}: {error.strerror}.") from None
    return listener
