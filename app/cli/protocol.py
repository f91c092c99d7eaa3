"""uvicorn's HTTP protocol, with the bounds on slow clients that it lacks."""

import asyncio
import socket
from typing import Any
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.problems import problem
from app.api.security import DEFAULT_HEADERS, HEADERS
from app.errors import MalformedRequest
from app.logs import request_id

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 64 << 10
UNREAD_SECONDS = 30.0
SEND_BUFFER_BYTES = 256 << 10


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on a client whose request line and headers take too long, or are too large, and on
    one that does not read its answers: nothing that waits to be sent has left in `UNREAD_SECONDS`.

    Bodies have bounds of their own (`app.api.uploads`), and idle connections are uvicorn's.
    """

    _timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _unread_bytes = 0
    _answering: RequestResponseCycle | None = None
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # The kernel takes more only when a third of its own buffer is free, so this says how much
        # a client has to read in that time; left to itself, the buffer grows to megabytes.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES
        )
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._hang_up()
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self._start_timer()

    def send_400_response(self, msg: str) -> None:
        # uvicorn's own is plain text, without what every other answer has.
        identifier = uuid4().hex
        token = request_id.set(identifier)
        answer = problem(MalformedRequest(f"{msg} Send HTTP/1.1, and https:// to a proxy."))
        request_id.reset(token)
        headers = [
            *answer.raw_headers,
            *HEADERS,
            *DEFAULT_HEADERS,
            (b"x-request-id", identifier.encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + bytes(answer.body))
        self.transport.close()
        self._watch_the_end()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_unread_timer()
        self._stop_answering()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()
        self._watch_the_end()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_the_end()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_the_end()

    def eof_received(self) -> None:
        super().eof_received()
        self._start_unread_timer()  # its return closes the connection

    def _watch_the_end(self) -> None:
        # Until everything is sent, a transport that is told to close does not.
        if self.transport.is_closing():
            self._start_unread_timer()

    def _start_unread_timer(self) -> None:
        if self._unread_timer is None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._check_unread)

    def _check_unread(self) -> None:
        self._unread_timer = None
        unread = self.transport.get_write_buffer_size()
        # Nothing is added meanwhile: the buffer is full, or it holds the last there will be.
        if unread == self._unread_bytes > 0:
            self._hang_up()
        elif unread:
            self._start_unread_timer()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _start_timer(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._stop_timer()
        self._stop_answering()
        self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _stop_answering(self) -> None:
        # uvicorn tells the request that came last that the client has gone, but it is the first of
        # those that have come which is being answered.
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
