"""A Qdrant server that is not there: clear answers, and no face is lost track of."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.service import JPEG, running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        nobody = "http://{}:{}".format(*placeholder.getsockname())
        with running(
            tmp_path_factory.mktemp("unused"), store={"url": nobody, "timeout_s": 1}
        ) as client:
            yield client


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("POST", "/identify"),
        ("POST", "/persons/grace/faces"),
        ("POST", "/verify?person_id=grace"),
        ("GET", "/persons"),
        ("GET", "/backup"),
        ("GET", "/persons/grace"),
        ("DELETE", "/persons/grace"),
        ("GET", "/health/ready"),
    ],
)
def test_what_needs_the_store_is_unavailable(
    client: httpx.Client, hopper: bytes, method: str, call: str
) -> None:
    content = hopper if method == "POST" else None
    answer = client.request(method, call, content=content, headers=JPEG)
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "store_unavailable"
    assert int(answer.headers["Retry-After"]) >= 1


def test_what_does_not_need_it_goes_on(client: httpx.Client, hopper: bytes) -> None:
    assert client.get("/health/live").status_code == 200
    assert len(client.post("/detect", content=hopper, headers=JPEG).json()["faces"]) == 1
    pair = {"image_a": hopper, "image_b": hopper}
    assert client.post("/verify", files=pair).json()["verified"]
    assert "faceid_store_up 0.0" in client.get("/metrics").text
