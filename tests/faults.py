"""A way to a server that fails in the ways networks and servers do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Fault = Literal["none", "refused", "silent", "slow", "reset", "500", "503"]
FAULTS: tuple[Fault, ...] = ("refused", "silent", "slow", "reset", "500", "503")

# Longer than any deadline of a test.
_SLOW_S = 60
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Passes TCP connections on to a server, or does not; in a thread of its own.

    Attributes:
        url: where it listens.
        requests: how many were sent while there was a fault, connections refused left out.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self._upstream = upstream
        self._fault: Fault = "none"
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.requests = 0
        self.fail("none")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def fail(self, fault: Fault) -> None:
        """From now on; connections there are get lost."""
        asyncio.run_coroutine_threadsafe(self._become(fault), self._loop).result()

    def close(self) -> None:
        self.fail("refused")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _become(self, fault: Fault) -> None:
        self._fault, self.requests = fault, 0
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)
        if fault == "refused" and self._listener is not None:
            self._listener.close()
            self._listener = None
        elif fault != "refused" and self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            # A connection that breaks, or is cancelled when the test ends.
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._pass_on(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self._fault
        if fault == "none":
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
            self._writers.add(up_writer)
            try:
                await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
            finally:
                self._writers.discard(up_writer)
                up_writer.close()
            return
        while await reader.read(65536):
            self.requests += 1
            if fault == "slow":  # a byte now and then, so that no read ever times out
                for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Padding: " + b"x" * _SLOW_S * 10:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.1)
            elif fault == "reset":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                await writer.drain()
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return
            elif fault in ("500", "503"):
                body = b'{"status":{"error":"out of order"}}'
                head = f"HTTP/1.1 {fault} Trouble\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextmanager
def proxied(upstream: tuple[str, int]) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
