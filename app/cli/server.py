"""Run the service in this process until it is told to stop."""

import asyncio
import ctypes
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Literal

import uvicorn
from fastapi import FastAPI

from app import auth
from app.audit import Event
from app.cli.keys import key_details, open_log
from app.errors import InvalidSettings, StartupError
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings, load_settings

_log = logging.getLogger(__name__)

# Seconds a thread may hold the interpreter while another waits for it. Threads that compute
# need it for microseconds at a time, between two pieces of work that do without it; at the
# default of 5 ms they spend 5 % of their time waiting for the event loop to let go.
_SWITCH_INTERVAL = 1e-4

# Of a block that is mapped for itself and given back when freed; see `_map_large_blocks`. Photos of
# some 10 megapixels, decoded at the size that detection needs, stay below it.
_LARGE_BLOCK_BYTES = 4 << 20
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# Below the 30 s an orchestrator usually grants before it kills.
GRACE_SECONDS = 20

# For requests of connections that are taken in last to arrive.
_LAST_REQUESTS_SECONDS = 0.2


class _DrainingServer(uvicorn.Server):
    """On SIGTERM it first calls itself not ready and goes on serving, for whoever shares out the
    requests to notice. A second signal, or Ctrl-C, ends that. Who has connected by then is served.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._state = app.state
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._state.draining:
            super().handle_exit(sig, frame)
            return
        self._state.draining = True
        _log.info("draining for %g s", self._drain_s)
        stop = super().handle_exit
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, stop, sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            _log.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What the kernel has queued would be reset with the listener, and so would requests that
        # have been sent and not been read yet.
        for listener in sockets or []:
            with listener.dup() as queue:
                queue.setblocking(False)
                for server in self.servers:
                    server.close()
                with suppress(BlockingIOError):
                    while True:
                        connection, _ = queue.accept()
                        await self._loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(_LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def serve(host: str, port: int, drain_s: float) -> None:
    """
    Args:
        drain_s: seconds between SIGTERM and the end of listening.

    Raises:
        StartupError: the service cannot start, and why.
    """
    configure_logging()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    _map_large_blocks()
    _allow_many_connections()
    if hasattr(os, "SCHED_BATCH"):
        # The event loop wakes for every packet; as a batch task it waits for a free moment
        # instead of pushing a computing thread off its core and out of its cache each time.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    settings = load_settings()
    app = create_app(settings)
    # Before models and store are opened: a port in use shows at once.
    with bind(host, port) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        if settings.auth.disabled:
            check_loopback(listener)
        else:
            show_first_key(settings)
        # uvicorn sends itself once more the signal that stopped it. This turns it into an
        # ordinary exit, through the end of the lifespan, where the store is closed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        runner.run(_serve(app, listener, drain_s))


def _map_large_blocks() -> None:
    """Keep large photos from leaving holes in the heaps of all threads.

    After the first large block that is freed, glibc takes blocks of up to 32 MiB from its heaps,
    where what is freed below something that stays is not given back.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):  # musl has no such call, and maps from 128 KiB on
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BLOCK_BYTES)


def _allow_many_connections() -> None:
    """As many as the system permits: shells and systemd hand on 1,024 descriptors, which one
    client that says nothing could hold."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS permits fewer than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(app: FastAPI, listener: socket.socket, drain_s: float) -> None:
    # The lifespan is run here because uvicorn logs the traceback of an error in it and
    # swallows the error itself.
    config = uvicorn.Config(
        app,
        http=_http_protocol(),
        lifespan="off",
        log_config=None,
        access_log=False,
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    async with app.router.lifespan_context(app):
        # What start-up made stays; the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        await _DrainingServer(config, app, drain_s).serve([listener])


def check_loopback(listener: socket.socket) -> None:
    """
    Raises:
        InvalidSettings: other machines could reach a service that asks nobody for a key.
    """
    address = listener.getsockname()[0]
    if not ipaddress.ip_address(address).is_loopback:
        raise InvalidSettings(
            f"FACEID_AUTH__DISABLED is for this machine alone, but {address} is open to others. "
            "Listen on 127.0.0.1, or unset it and make keys with `faceid keys create`."
        )


def show_first_key(settings: Settings) -> None:
    """Where there are no keys yet, make one and show it, this once and not as a line of the log.

    Raises:
        StartupError: it cannot be kept, or not be written down in the audit log.
    """
    if settings.keys_file.exists():
        return
    log = open_log(settings)
    made = auth.first(settings.keys_file)
    if made is None:  # another replica was faster
        return
    key, text = made
    log.write(Event("key.create", "done", details=key_details(key)))
    print(
        f"\nNo API keys yet, so here is one that may do everything. It is not shown again:\n\n"
        f"    export FACEID_API_KEY={text}\n\n"
        f"Make others with `faceid keys create`; they are kept, hashed, in {settings.keys_file}.\n",
        file=sys.stderr,
        flush=True,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows, PyPy
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _http_protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    try:
        from app.cli.protocol import BoundedProtocol
    except ImportError:  # PyPy has no httptools; h11 bounds the size of a head
        return "h11"
    return BoundedProtocol


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
