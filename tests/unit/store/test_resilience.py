"""Repeating requests to a server, and leaving it alone."""

import asyncio

import httpx
import pytest
from qdrant_client.http.exceptions import ResponseHandlingException

from app.store import resilience
from app.store.resilience import CircuitBreaker, Resilience

pytestmark = pytest.mark.anyio

REQUEST = httpx.Request("PUT", "http://server/collections")


class Server:
    """Answers by a list of statuses, None for a connection that breaks; then always 200."""

    def __init__(self, *answers: int | None) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        status = self._answers.pop(0) if self._answers else 200
        if status is None:
            raise ResponseHandlingException(httpx.ReadError(""))
        return httpx.Response(status)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(resilience, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilience, "_PAUSE_S", 0.0)


@pytest.fixture
def told() -> list[bool]:
    """What was observed."""
    return []


@pytest.fixture
def breaker(told: list[bool]) -> CircuitBreaker:
    return CircuitBreaker(3, 2.0, told.append)


@pytest.fixture
def send(breaker: CircuitBreaker) -> Resilience:
    return Resilience(5, breaker)


@pytest.mark.parametrize("trouble", [None, 500, 502, 503, 504])
async def test_a_moment_of_trouble_is_not_noticed(
    send: Resilience, trouble: int | None, told: list[bool]
) -> None:
    server = Server(trouble, trouble)
    assert (await send(REQUEST, server)).status_code == 200
    assert server.asked == 3
    assert told == []


@pytest.mark.parametrize("status", [400, 404, 409, 429])
async def test_an_answer_about_the_request_is_final(send: Resilience, status: int) -> None:
    server = Server(status)
    assert (await send(REQUEST, server)).status_code == status
    assert server.asked == 1


async def test_attempts_are_bounded(send: Resilience) -> None:
    server = Server(*[503] * 9)
    assert (await send(REQUEST, server)).status_code == 503
    assert server.asked == 3
    with pytest.raises(ResponseHandlingException, match="ReadError"):
        await send(REQUEST, Server(*[None] * 9))


async def test_attempts_share_one_deadline(breaker: CircuitBreaker) -> None:
    asked = 0

    async def slow(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.06)
        return httpx.Response(503)

    with pytest.raises(ResponseHandlingException, match=r"no answer within 0\.1 s"):
        await Resilience(0.1, breaker)(REQUEST, slow)
    assert asked == 2


async def test_a_server_that_fails_is_left_alone_but_for_a_trial_now_and_then(
    send: Resilience, clock: Clock, told: list[bool]
) -> None:
    for _ in range(3):
        await send(REQUEST, Server(*[503] * 3))
    assert told == [True]
    server = Server(*[503] * 3)
    for now in (100.0, 101.9):
        clock.now = now
        with pytest.raises(ResponseHandlingException, match="left alone"):
            await send(REQUEST, server)
    assert server.asked == 0
    clock.now = 102.1
    await send(REQUEST, server)  # the trial, which fails
    with pytest.raises(ResponseHandlingException, match="left alone"):
        await send(REQUEST, server)
    assert server.asked == 3
    clock.now = 104.2
    for _ in range(5):
        assert (await send(REQUEST, server)).status_code == 200
    assert told == [True, False]


async def test_there_is_one_trial_at_a_time_and_one_given_up_is_no_obstacle(
    send: Resilience, clock: Clock, told: list[bool]
) -> None:
    for _ in range(3):
        await send(REQUEST, Server(*[503] * 3))
    clock.now = 103.0

    async def silent(_: httpx.Request) -> httpx.Response:
        return await asyncio.Future()

    trial = asyncio.create_task(send(REQUEST, silent))
    await asyncio.sleep(0)
    with pytest.raises(ResponseHandlingException, match="left alone"):
        await send(REQUEST, Server())
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    clock.now = 105.1
    assert (await send(REQUEST, Server())).status_code == 200
    assert told == [True, False]


async def test_only_failures_in_a_row_count(send: Resilience, told: list[bool]) -> None:
    for _ in range(5):
        await send(REQUEST, Server(*[503] * 3))
        await send(REQUEST, Server(*[503] * 3))
        await send(REQUEST, Server(404))  # an answer, whatever it says
    assert told == []
