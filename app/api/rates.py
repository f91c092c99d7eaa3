"""Token buckets: how often a client has asked, in a bounded memory."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from starlette.types import Scope

from app.errors import TooManyRequests

# Clients remembered at once. One that is forgotten starts again with a full bucket.
_MAX_CLIENTS = 10_000

_GUESSES_PER_SECOND = 1
_GUESSES_AT_ONCE = 20


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    active: int = 0


class RateLimiter:
    """A token bucket for each client, and how many of its requests are running.

    Args:
        rate: tokens that a bucket gains each second.
        burst: tokens it holds at the most.
        clock: seconds that never go backwards.
    """

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token.

        Returns:
            0, or the seconds after which there will be one.
        """
        bucket = self._bucket(client)
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / self.rate
        bucket.tokens -= 1
        return 0

    def give_back(self, client: str) -> None:
        bucket = self._bucket(client)
        bucket.tokens = min(float(self.burst), bucket.tokens + 1)

    def standing(self, name: str, client: str) -> str:
        """Value of `RateLimit`: tokens that are left, and seconds until the bucket is full."""
        tokens = self._bucket(client).tokens
        return f'"{name}";r={int(tokens)};t={math.ceil((self.burst - tokens) / self.rate)}'

    def policy(self, name: str) -> str:
        """Value of `RateLimit-Policy`: tokens of a full bucket, and seconds to fill it."""
        return f'"{name}";q={self.burst};w={max(1, math.ceil(self.burst / self.rate))}'

    def active(self, client: str) -> int:
        return self._bucket(client).active

    def enter(self, client: str) -> None:
        self._bucket(client).active += 1

    def leave(self, client: str) -> None:
        self._bucket(client).active -= 1

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, client: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = _Bucket(self.burst, now)
            self._forget()
        else:
            gained = (now - bucket.filled_at) * self.rate
            bucket.tokens = min(float(self.burst), bucket.tokens + gained)
            bucket.filled_at = now
            self._buckets.move_to_end(client)
        return bucket

    def _forget(self) -> None:
        # Who has requests running is kept; there are never more of those than connections.
        surplus = len(self._buckets) - _MAX_CLIENTS
        if surplus > 0:
            idle = [client for client, bucket in self._buckets.items() if not bucket.active]
            for client in idle[:-1][:surplus]:
                del self._buckets[client]


class Guesses:
    """How often an address may present a wrong key that costs time to be found wrong."""

    def __init__(self) -> None:
        self._limiter = RateLimiter(_GUESSES_PER_SECOND, _GUESSES_AT_ONCE)

    def begin(self, scope: Scope) -> TooManyRequests | None:
        if wait := self._limiter.take(address_of(scope)):
            return TooManyRequests(
                "Too many wrong keys came from here; check the key before you try again.",
                math.ceil(wait),
            )
        return None

    def headers(self, scope: Scope) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` of this limit."""
        return {
            "RateLimit": self._limiter.standing("guesses", address_of(scope)),
            "RateLimit-Policy": self._limiter.policy("guesses"),
        }

    def was_right(self, scope: Scope) -> None:
        self._limiter.give_back(address_of(scope))


def address_of(scope: Scope) -> str:
    """Whom a request without a key is counted to; of IPv6 the /64, which is one customer's."""
    return _counted_as((scope.get("client") or ("unknown", 0))[0])


@lru_cache(maxsize=_MAX_CLIENTS)
def _counted_as(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)
