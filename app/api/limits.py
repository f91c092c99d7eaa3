"""How much one client may ask for: requests a second, and requests at the same time."""

import math

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem
from app.api.rates import RateLimiter, address_of
from app.api.security import Caller
from app.errors import TooManyRequests
from app.settings import LimitSettings


class LimitClients:
    """Answers 429 to a key, or where there is none to an address, that asks for too much.

    The answers carry `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    """

    def __init__(self, app: ASGIApp, limits: LimitSettings) -> None:
        self._app = app
        self._limiter = RateLimiter(limits.requests_per_second, limits.request_burst)
        self._max_active = limits.max_concurrent_requests
        self._policy = (
            f"{self._limiter.policy('requests')}, "
            f'"concurrent";q={self._max_active};qu="concurrent-requests"'
        ).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/health/"):
            await self._app(scope, receive, send)
            return
        caller: Caller = scope["state"]["caller"]
        client = f"key {caller.key.id}" if caller.key else f"address {address_of(scope)}"
        limiter = self._limiter
        limiter.enter(client)
        try:
            headers = self._headers(client)

            async def send_with_limits(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message.get("headers", []), *headers]
                await send(message)

            error = self._refusal(client)
            if error is not None:
                await problem(error)(scope, receive, send_with_limits)
            else:
                headers = self._headers(client)
                await self._app(scope, receive, send_with_limits)
        finally:
            limiter.leave(client)

    def _refusal(self, client: str) -> TooManyRequests | None:
        if self._limiter.active(client) > self._max_active:
            return TooManyRequests(
                f"{self._max_active} requests of yours are running; wait for one of them.", 1
            )
        if wait := self._limiter.take(client):
            return TooManyRequests(
                f"More than {self._limiter.rate:g} requests a second; send them more slowly.",
                math.ceil(wait),
            )
        return None

    def _headers(self, client: str) -> list[tuple[bytes, bytes]]:
        return [
            (b"ratelimit", self._limiter.standing("requests", client).encode()),
            (b"ratelimit-policy", self._policy),
        ]
