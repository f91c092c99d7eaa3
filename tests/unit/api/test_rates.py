"""The token bucket, on a clock that the test turns."""

import pytest

from app.api import rates
from app.api.rates import RateLimiter, address_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(rate=2, burst=3, clock=clock)
    assert [limiter.take("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.take("a") == pytest.approx(0.5)
    clock.now = 0.5
    assert limiter.take("a") == 0
    assert limiter.take("a") == pytest.approx(0.5)
    clock.now = 100
    assert limiter.standing("requests", "a") == '"requests";r=3;t=0'


def test_clients_do_not_share() -> None:
    limiter = RateLimiter(rate=1, burst=1, clock=Clock())
    assert limiter.take("a") == 0
    assert limiter.take("a") > 0
    assert limiter.take("b") == 0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_MAX_CLIENTS", 10)
    limiter = RateLimiter(rate=1, burst=1, clock=Clock())
    limiter.enter("busy")
    for number in range(1000):
        limiter.take(f"client {number}")
    assert len(limiter) == 10
    assert limiter.active("busy") == 1
    assert limiter.take("client 999") > 0, "the latest are remembered"
    assert limiter.take("client 1") == 0


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix socket", "unix socket"),
    ],
)
def test_an_ipv6_customer_is_one_client(host: str, client: str) -> None:
    assert address_of({"client": (host, 1)}) == client
