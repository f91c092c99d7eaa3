"""How requests to a Qdrant server are sent: within a deadline, again where the server is in
trouble for a moment, and not at all for a while where that lasts.

Every request that this service sends may be repeated. Reads change nothing; upserts and deletions
name what they write by id, or are conditional on a version that the first of two has changed.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

import httpx
from qdrant_client.http.exceptions import ResponseHandlingException

_log = logging.getLogger(__name__)

_ATTEMPTS = 3
# The pause before an attempt is random, up to this, then up to twice as long.
_PAUSE_S = 0.1
# Of a server, or of a proxy before it, that may be well again at once.
_TRANSIENT = frozenset((500, 502, 503, 504))

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]


class CircuitBreaker:
    """Stops requests to a server that has failed so many times in a row, but for a trial now and
    then, until one is answered.

    Args:
        failures: after which it opens.
        pause_s: from a failure, or the beginning of a trial, to the next trial.
        observe: told whether it is open whenever that changes.
    """

    def __init__(self, failures: int, pause_s: float, observe: Callable[[bool], object]) -> None:
        self._limit = failures
        self._pause_s = pause_s
        self._observe = observe
        self._failures = 0
        self._trial_at = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._limit

    def admits(self) -> bool:
        """Whether a request may be sent; where it is a trial, no other one may for a while."""
        if not self.is_open:
            return True
        now = time.monotonic()
        if now < self._trial_at:
            return False
        self._trial_at = now + self._pause_s
        return True

    def note_failure(self) -> None:
        self._failures += 1
        self._trial_at = time.monotonic() + self._pause_s
        if self._failures == self._limit:
            self._observe(True)

    def note_success(self) -> None:
        was_open = self.is_open
        self._failures = 0
        if was_open:
            self._observe(False)


class Resilience:
    """Middleware of a client of Qdrant.

    Args:
        deadline_s: of one call, all attempts and pauses included.
        breaker: of the server.
    """

    def __init__(self, deadline_s: float, breaker: CircuitBreaker) -> None:
        self._deadline_s = deadline_s
        self._breaker = breaker

    async def __call__(self, request: httpx.Request, send: Send) -> httpx.Response:
        """
        Raises:
            ResponseHandlingException: no answer came.
        """
        if not self._breaker.admits():
            raise ResponseHandlingException(
                ConnectionError("it has failed again and again, and is left alone for a moment")
            )
        try:
            async with asyncio.timeout(self._deadline_s):
                response = await _sent(request, send)
        except TimeoutError:
            self._breaker.note_failure()
            error = TimeoutError(f"no answer within {self._deadline_s} s")
            raise ResponseHandlingException(error) from None
        except ResponseHandlingException as failure:
            self._breaker.note_failure()
            reason = str(failure) or repr(failure.source)  # a connection that was cut says nothing
            raise ResponseHandlingException(ConnectionError(reason)) from failure
        if response.status_code in _TRANSIENT:
            self._breaker.note_failure()
        else:
            self._breaker.note_success()
        return response


async def _sent(request: httpx.Request, send: Send) -> httpx.Response:
    for attempt in range(_ATTEMPTS - 1):
        try:
            response = await send(request)
        except ResponseHandlingException as error:
            _log.debug("%s, trying again", error)
        else:
            if response.status_code not in _TRANSIENT:
                return response
        await asyncio.sleep(random.uniform(0, _PAUSE_S * 2**attempt))
    return await send(request)
