"""Around every body: a deadline, a bound on all bodies together, and a polite end if unread."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, BodyTooSlow, QueueFull
from app.settings import LimitSettings

# How many bodies of the largest size are read at the most, kept or not.
_MOST_BODIES = 2
# How long a client that is answered early may go on sending: before the answer, so that a body
# which is all but there spares the connection, and after it. Hung up on at once, the client
# would see a broken connection instead of the answer.
_SECONDS_BEFORE, _SECONDS_AFTER = 0.05, 2.0


class BoundUploads:
    """
    Raises (out of `receive`, where the body is read):
        BodyTooSlow: it was not there in time.
        BodyTooLarge: it goes on and on.
        QueueFull: with it, more bytes would be held than all bodies together may have.
    """

    def __init__(self, app: ASGIApp, limits: LimitSettings) -> None:
        self._app = app
        self._limits = limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", []))
        if scope["type"] != "http" or not _has_body(headers):
            await self._app(scope, receive, send)
            return
        asks_first = b"expect" in headers
        upload = _Upload(receive, send, self, self._limits, asks_first)
        try:
            await self._app(scope, upload.receive, upload.send)
        finally:
            self._held -= upload.held

    def hold(self, size: int) -> None:
        if self._held + size > self._limits.max_body_bytes_in_flight:
            raise QueueFull("The bodies of too many requests are being held; try again shortly.")
        self._held += size


class _Upload:
    """The body of one request."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        uploads: BoundUploads,
        limits: LimitSettings,
        asks_first: bool,
    ) -> None:
        self._receive = receive
        self._send = send
        self._uploads = uploads
        self._limits = limits
        self._deadline = asyncio.get_running_loop().time() + limits.body_timeout_s
        self._complete = False
        self._received = 0
        self._asks_first = asks_first
        self.held = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()  # nothing but the client's end comes now
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(
                f"The body did not arrive within {self._limits.body_timeout_s:g} seconds; "
                "send less at once; FACEID_LIMITS__BODY_TIMEOUT_S sets how long it may take."
            ) from None
        self._note(message)
        if self._received > _MOST_BODIES * self._limits.max_body_bytes:
            raise BodyTooLarge(f"The body is larger than {self._limits.max_body_bytes:,} bytes.")
        # What is over the limit for one body is dropped by whoever reads it.
        size = min(self._received, self._limits.max_body_bytes) - self.held
        self._uploads.hold(size)
        self.held += size
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._drop_the_rest(_SECONDS_BEFORE)
            if not self._complete:
                message["headers"] = [
                    *(h for h in message.get("headers", []) if h[0] != b"connection"),
                    (b"connection", b"close"),
                ]
        elif not self._complete and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop_the_rest(_SECONDS_AFTER)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drop_the_rest(self, seconds: float) -> None:
        if self._asks_first and not self._received:
            return  # it waits for a word from us before it sends anything
        try:
            async with asyncio.timeout(seconds):
                while not self._complete and self._received <= (
                    _MOST_BODIES * self._limits.max_body_bytes
                ):
                    self._note(await self._receive())
        except TimeoutError:
            pass

    def _note(self, message: Message) -> None:
        self._received += len(message.get("body", b""))
        ended = message["type"] == "http.request" and not message.get("more_body", False)
        self._complete = ended or message["type"] == "http.disconnect"


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
