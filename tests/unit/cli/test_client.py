"""When a request is repeated, for how long, and what is said in the end."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.cli import client
from app.cli.client import Refused, Service, Unknown, Unreachable, pause

HASTY = httpx.Response(
    429, json={"code": "too_many_requests", "detail": "Slower."}, headers={"Retry-After": "1"}
)
BUSY = httpx.Response(503, json={"code": "queue_full", "detail": "Full."})
DONE = httpx.Response(200, json={"persons": []})
LOST = httpx.ReadError("connection reset")


@pytest.mark.parametrize(
    ("attempt", "retry_after", "seconds"),
    [
        (0, None, 0.25),
        (3, None, 2),
        (0, "5", 5),
        (6, "1", 16),
        (0, "86400", 30),
        (60, None, 30),
        (0, "Wed, 21 Oct 2026 07:28:00 GMT", 0.25),
        (0, "²", 0.25),
    ],
)
def test_pause(attempt: int, retry_after: str | None, seconds: float) -> None:
    assert pause(attempt, retry_after) == seconds


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Any], int]]:
    """Make one call against a network that behaves as scripted, then as in the last step."""
    monkeypatch.setattr(client, "pause", lambda *_: 0)

    def run(*script: httpx.Response | Exception, calls: int = 1) -> tuple[dict[str, Any], int]:
        steps = list(script)
        requests = 0

        def network(_: httpx.Request) -> httpx.Response:
            nonlocal requests
            requests += 1
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if isinstance(step, Exception):
                raise step
            return step

        async def main() -> dict[str, Any]:
            transport = httpx.MockTransport(network)
            async with httpx.AsyncClient(transport=transport, base_url="http://f") as http:
                service = Service(http)
                for _ in range(calls):
                    answer = await service.call("GET", "/persons")
            return answer

        return asyncio.run(main()), requests

    return run


def test_a_busy_service_is_asked_again(call: Callable[..., tuple[dict[str, Any], int]]) -> None:
    assert call(BUSY, HASTY, DONE) == ({"persons": []}, 3)


def test_a_service_that_stays_busy_is_given_up(
    call: Callable[..., tuple[dict[str, Any], int]],
) -> None:
    with pytest.raises(Unreachable, match=r"Given up after 8 tries: Full\."):
        call(BUSY)


def test_a_lost_connection_is_made_again(call: Callable[..., tuple[dict[str, Any], int]]) -> None:
    assert call(DONE, LOST, LOST, DONE, calls=2) == ({"persons": []}, 4)


def test_who_never_answered_is_named_at_once(
    call: Callable[..., tuple[dict[str, Any], int]],
) -> None:
    with pytest.raises(Unreachable, match=r"http://f.*faceid serve"):
        call(httpx.ConnectError("refused"), DONE)


def test_a_problem_is_not_repeated(call: Callable[..., tuple[dict[str, Any], int]]) -> None:
    problem = {"code": "person_not_found", "detail": "No such person."}
    with pytest.raises(Refused) as caught:
        call(httpx.Response(404, json=problem), DONE)
    assert caught.value.code == "person_not_found"


def test_without_a_key_nothing_is_tried_further(
    call: Callable[..., tuple[dict[str, Any], int]],
) -> None:
    problem = {"code": "unauthenticated", "detail": "A key."}
    with pytest.raises(Unknown, match="FACEID_API_KEY"):
        call(httpx.Response(401, json=problem), DONE)


@pytest.mark.parametrize("body", ["<h1>Bad gateway</h1>", "[]", '{"error": "?"}'])
def test_a_proxys_error_has_a_code_too(
    call: Callable[..., tuple[dict[str, Any], int]], body: str
) -> None:
    with pytest.raises(Refused) as caught:
        call(httpx.Response(502, text=body))
    assert caught.value.code == "http_502"


def test_another_service_is_recognised(call: Callable[..., tuple[dict[str, Any], int]]) -> None:
    with pytest.raises(Unreachable, match="not faceid"):
        call(httpx.Response(200, text="<h1>It works!</h1>"))
