"""Who calls, and may they? Keys, scopes, and the headers every answer carries."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import auth
from app.api.parameters import only_known_parameters
from app.api.problems import problem
from app.api.rates import Guesses
from app.auth import Key, KeyRing, Unproven
from app.errors import FaceIdError, Forbidden, TooManyRequests, Unauthenticated

About = Literal["gallery", "all", "none"]

DEFAULT_GALLERY = "default"

_MISSING = (
    "This needs a valid API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`; "
    "`faceid keys create` makes one."
)

HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# A page's own values win over these.
DEFAULT_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Attributes:
        key: None where none was presented, or not a valid one.
        is_trusted: keys are switched off, and everybody may do everything.
    """

    key: Key | None = None
    is_trusted: bool = False


class _Scheme(SecurityBase):
    """Declares in the OpenAPI document what `Authenticate` does; checks nothing itself."""

    def __init__(self, name: str, model: HTTPBearer | APIKey) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        return None


_BEARER = _Scheme("bearer", HTTPBearer(description="An API key."))
_API_KEY = _Scheme(
    "apiKey", APIKey(**{"in": APIKeyIn.header, "name": "X-API-Key", "description": "The same."})
)


class Requires:
    """Dependency of every route that is not open: the caller's key has to have a scope.

    It looks at the request's head alone, before a body is read or the store is asked, so that
    what it answers says nothing about who is enrolled.

    Args:
        scope: None: any valid key.
        about: `gallery`, the one in the path or the query; `all`, so that the key must not be
            bound to some; or `none`.
    """

    def __init__(self, scope: auth.Scope | None, about: About = "gallery") -> None:
        self.scope = scope
        self.about = about

    async def __call__(
        self,
        request: Request,
        _bearer: Annotated[None, Depends(_BEARER)],
        _header: Annotated[None, Depends(_API_KEY)],
    ) -> None:
        """
        Raises:
            Unauthenticated: no valid key.
            Forbidden: it lacks the scope, or is bound to other galleries.
        """
        caller: Caller = request.state.caller
        if caller.is_trusted:
            return
        key = caller.key
        if key is None:
            raise Unauthenticated(_MISSING)
        if self.scope is not None and not key.may(self.scope):
            raise Forbidden(f"This key lacks the scope {self.scope!r}.")
        if key.galleries and not all(key.is_for(name) for name in self._galleries(request)):
            raise Forbidden("This key is bound to other galleries.")

    def _galleries(self, request: Request) -> Iterable[str]:
        if self.about == "none":
            return []
        if self.about == "all":
            return [""]  # no key is bound to it
        if "gallery" in request.path_params:
            return [request.path_params["gallery"]]
        # All of them: it must not matter which one the route would take.
        return request.query_params.getlist("gallery") or [DEFAULT_GALLERY]


def requires(scope: auth.Scope | None, about: About = "gallery") -> list[Any]:
    """The `dependencies` of a router or a route."""
    # In this order: what is wrong with a request is told to those who may make it.
    return [Depends(Requires(scope, about)), Depends(only_known_parameters)]


class Authenticate:
    """Puts the `Caller` into the request's state.

    Args:
        ring: None: keys are switched off. Then only this machine is served, and no web page that
            happens to be open on it.
        guesses: whether a client may have a key proved that nobody has proved yet.
        origins: whose pages may call, beside the service's own.
    """

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing | None,
        guesses: Guesses,
        origins: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._ring = ring
        self._guesses = guesses
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = await self._authenticate(scope)
            if error is not None:
                is_limit = isinstance(error, TooManyRequests)
                headers = self._guesses.headers(scope) if is_limit else None
                await problem(error, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> FaceIdError | None:
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        if self._ring is None:
            state["caller"] = Caller(is_trusted=True)
            return self._refuse_web_pages(headers)
        state["caller"] = Caller()
        presented = _presented(headers)
        if presented is None:
            return None
        found = self._ring.find(presented)
        if isinstance(found, Unproven):
            is_guess = not self._ring.is_proving(found)
            if is_guess and (error := self._guesses.begin(scope)):
                return error
            found = await self._ring.prove(found)
            if is_guess and found is not None:
                self._guesses.was_right(scope)
        state["caller"] = Caller(found)
        return None

    def _refuse_web_pages(self, headers: Headers) -> Forbidden | None:
        host = headers.get("host", "")
        origin = headers.get("origin")
        if not _is_loopback(host):
            return Forbidden("Without keys (FACEID_AUTH__DISABLED) only this machine is served.")
        if origin is None or origin in {f"http://{host}", f"https://{host}", *self._origins}:
            return None
        return Forbidden("Pages of other origins may not call this service.")


def _presented(headers: Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key")


@lru_cache
def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine; a name that only resolves to it does not count."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


class SecurityHeaders:
    """Nothing is guessed, framed, cached or passed on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = message.get("headers", [])
                names = {name for name, _ in sent}
                defaults = [header for header in DEFAULT_HEADERS if header[0] not in names]
                message["headers"] = [*sent, *HEADERS, *defaults]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def allow_pages(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins call from a browser; without it none may."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "X-API-Key", "X-Request-ID"],
        expose_headers=["RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"],
    )
