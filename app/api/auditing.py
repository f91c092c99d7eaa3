"""Writes into the audit log what requests did, before they are answered."""

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware import UNANSWERED, key_id_of
from app.api.problems import problem
from app.api.security import DEFAULT_GALLERY
from app.audit import AuditLog, Event
from app.errors import AuditUnavailable, FaceIdError, Unauthenticated
from app.logs import request_id

Answer = TypeVar("Answer")
Arguments = ParamSpec("Arguments")
Handler = Callable[Arguments, Awaitable[Answer]]


@dataclass(slots=True)
class _Request:
    log: AuditLog
    details: dict[str, Any] = field(default_factory=dict)


_request: ContextVar[_Request | None] = ContextVar("audited_request", default=None)


def audited(
    action: str, *, decision: bool = False
) -> Callable[[Handler[Arguments, Answer]], Handler[Arguments, Answer]]:
    """Marks the handler of a route, below the router's own decorator.

    A handler that changes something is not run while the log cannot be written.

    Args:
        action: what the log calls it, as in `person.delete`.
        decision: it changes nothing, and is written down only where the settings say so.
    """

    def mark(handler: Handler[Arguments, Answer]) -> Handler[Arguments, Answer]:
        @functools.wraps(handler)
        async def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
            request = _request.get()
            if request is not None and not decision:
                await request.log.check()
            return await handler(*args, **kwargs)

        checked.audited = (action, decision)  # type: ignore[attr-defined]
        return checked

    return mark


def audited_as(handler: object) -> tuple[str, bool] | None:
    """The action of a handler, and whether it is a decision; None where it is not marked."""
    found: tuple[str, bool] | None = getattr(handler, "audited", None)
    return found


def note(**details: str | int | list[str]) -> None:
    """Add to this request's line. No similarities, embeddings, metadata or names of files."""
    request = _request.get()
    if request is not None:
        request.details.update(details)


class AuditRequests:
    """
    Args:
        decisions: also write the lines of handlers marked as decisions.
    """

    def __init__(self, app: ASGIApp, log: AuditLog, *, decisions: bool) -> None:
        self._app = app
        self._log = log
        self._decisions = decisions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(self._log)
        token = _request.set(request)
        status = UNANSWERED
        written = refused = False

        async def write() -> None:
            nonlocal written
            written = True
            event = self._event(scope, status, request.details)
            if event is not None:
                decision = audited_as(scope.get("endpoint")) == (event.action, True)
                await self._log.record(event, durable=not decision)

        async def send_when_written(message: Message) -> None:
            nonlocal status, refused
            if message["type"] == "http.response.start" and not written:
                status = message["status"]
                try:
                    await write()
                except AuditUnavailable as error:
                    refused = True
                    await problem(error)(scope, receive, send)
            if not refused:
                await send(message)

        try:
            await self._app(scope, receive, send_when_written)
        except BaseException as error:
            if not written:
                if isinstance(error, Exception):
                    status = FaceIdError.status
                await write()
            raise
        else:
            if not written:  # the client has gone
                await write()
        finally:
            _request.reset(token)

    def _event(self, scope: Scope, status: int, details: dict[str, Any]) -> Event | None:
        marked = audited_as(scope.get("endpoint"))
        if marked is None or status == Unauthenticated.status:
            return None
        action, decision = marked
        if decision and not self._decisions:
            return None
        path = scope.get("path_params", {})
        # Made short: what was refused may be anything.
        person_id = path.get("person_id") or details.pop("person_id", None)
        face = {"face_id": path["face_id"][:64]} if "face_id" in path else {}
        return Event(
            action,
            _outcome(status),
            status=status,
            key=key_id_of(scope),
            gallery=(path.get("gallery") or _gallery(scope))[:64],
            person_id=person_id and person_id[:128],
            request_id=request_id.get(),
            details=details | face,
        )


def _gallery(scope: Scope) -> str:
    # The last one counts, as it does for the route.
    named = parse_qs(bytes(scope["query_string"]).decode("latin-1"), keep_blank_values=True)
    return named.get("gallery", [DEFAULT_GALLERY])[-1]


def _outcome(status: int) -> str:
    if status == UNANSWERED:
        return "abandoned"
    if status < 400:
        return "done"
    return "refused" if status < 500 else "failed"
