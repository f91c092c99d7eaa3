"""Around every request: its id, its log line, its metrics, and its end when nobody listens."""

import asyncio
import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem
from app.errors import ClientDisconnected, FaceIdError
from app.logs import request_id
from app.metrics import Metrics

_log = logging.getLogger("faceid.access")
UNANSWERED = ClientDisconnected.status
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives each request an id (the client's own `X-Request-ID` where it sends a sane one)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"")
        identifier = sent.decode() if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        token = request_id.set(identifier)
        started = time.perf_counter()
        status = UNANSWERED

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", identifier.encode()),
                ]
                if scope["app"].state.draining:
                    # The client's next request should find its way to another service.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            # Nothing further out knows the request's id.
            _log.error("unexpected error", exc_info=error)
            if status == UNANSWERED:
                answer = problem(
                    FaceIdError("Something unexpected went wrong; the log has the details.")
                )
                await answer(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unknown")
            # A client may invent methods; each would be a series of its own.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.request_seconds.labels(method, route).observe(seconds)
            _log.info(
                "%s %s %s",
                method,
                route,
                status,
                extra={"milliseconds": round(seconds * 1e3, 2), "key": key_id_of(scope)},
            )
            request_id.reset(token)


def key_id_of(scope: Scope) -> str | None:
    """The id of the API key that a request came with; None without a valid one."""
    caller = scope.get("state", {}).get("caller")
    return caller.key.id if caller is not None and caller.key is not None else None


class CancelAbandoned:
    """Cancels a request whose client has hung up, so that no inference runs for nobody.

    Once the body is read, the only thing a client can still send is its disappearance.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in {"POST", "PATCH"}:
            await self._app(scope, receive, send)
            return
        handler = asyncio.current_task()
        watcher: asyncio.Task[None] | None = None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            if handler is not None:
                handler.cancel()

        async def receive_then_watch() -> Message:
            nonlocal watcher
            if watcher is not None:
                # Frameworks poll for a disconnect; the watcher knows first.
                await watcher
                return {"type": "http.disconnect"}
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watcher = asyncio.create_task(watch())
            return message

        try:
            await self._app(scope, receive_then_watch, send)
        except asyncio.CancelledError:
            if not gone or handler is None:
                raise
            handler.uncancel()
        finally:
            if watcher is not None:
                watcher.cancel()
