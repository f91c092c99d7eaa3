"""Clients that ask for too much, or are too slow."""

import concurrent.futures
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app import auth
from app.cli import protocol
from tests.service import JPEG, running

HEAD = (
    b"POST /identify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    b"Content-Length: %d\r\n\r\n"
)


def connect(client: httpx.Client) -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port))
    connection.settimeout(10)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Until the other side hangs up."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_more_requests_than_the_rate(tmp_path: Path) -> None:
    limits = {"requests_per_second": 0.5, "request_burst": 3}
    with running(tmp_path, limits=limits) as client:
        answers = [client.get("/persons") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        refused = answers[-1]
        assert refused.json()["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["Retry-After"]) <= 2
        assert refused.headers["RateLimit-Policy"].startswith('"requests";q=3;w=6')
        assert refused.headers["RateLimit"].startswith('"requests";r=0;t=')
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers[:3]] == [
            "r=2",
            "r=1",
            "r=0",
        ]
        assert client.get("/health/live").status_code == 200, "probes are not counted"
        time.sleep(int(refused.headers["Retry-After"]))
        assert client.get("/persons").status_code == 200


def test_each_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    keys = [auth.create(tmp_path / "keys.json", "k", ["enrol"])[1] for _ in range(2)]
    limits = {"requests_per_second": 0.01, "request_burst": 2}
    with running(tmp_path, limits=limits, auth={"keys_file": tmp_path / "keys.json"}) as client:
        for key in keys:
            headers = {"X-API-Key": key}
            statuses = [client.get("/persons", headers=headers).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]
        assert [client.get("/persons").status_code for _ in range(3)] == [401, 401, 429]


def test_more_requests_at_once_than_allowed(tmp_path: Path, hopper: bytes) -> None:
    with running(tmp_path, limits={"max_concurrent_requests": 2}) as client:
        waiting = [connect(client) for _ in range(2)]
        for connection in waiting:
            connection.sendall(HEAD % len(hopper))
        time.sleep(0.2)
        refused = client.post("/identify", content=hopper, headers=JPEG)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert refused.headers["Retry-After"] == "1"
        for connection in waiting:
            connection.sendall(hopper)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            connection.close()
        assert client.post("/identify", content=hopper, headers=JPEG).status_code == 200


def test_a_byte_a_second_is_cut_off(tmp_path: Path, hopper: bytes) -> None:
    with running(tmp_path, limits={"body_timeout_s": 0.5}, model={"cores": 1}) as client:
        slow = connect(client)
        slow.sendall(HEAD % len(hopper))
        stop = threading.Event()

        def drip() -> None:
            for byte in hopper:
                if stop.wait(0.1):
                    return
                try:
                    slow.sendall(bytes([byte]))
                except OSError:
                    return

        started = time.monotonic()
        dripping = threading.Thread(target=drip)
        dripping.start()
        assert client.post("/identify", content=hopper, headers=JPEG).status_code == 200
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_too_slow" in answer
        assert time.monotonic() - started < 8
        stop.set()
        dripping.join()
        slow.close()


def test_an_early_answer_comes_at_once_and_ends_the_connection(tmp_path: Path) -> None:
    with running(tmp_path, auth={"keys_file": tmp_path / "keys.json"}) as client:
        with connect(client) as slow:
            slow.sendall(HEAD % 1000)
            started = time.monotonic()
            assert slow.recv(1000).startswith(b"HTTP/1.1 401")
            assert time.monotonic() - started < 1.5
            slow.sendall(bytes(999))  # not refused while the answer may be unread
            assert read_all(slow) == b""
        with connect(client) as asking:
            asking.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") % 1000)
            assert read_all(asking).startswith(b"HTTP/1.1 401"), "it was not asked to go on"
        with connect(client) as quick:
            for _ in range(2):
                quick.sendall(HEAD % 1000 + bytes(1000))
                answer = quick.recv(10_000)
                assert answer.startswith(b"HTTP/1.1 401")
                assert b"connection: close" not in answer


def test_all_bodies_together_are_bounded(tmp_path: Path) -> None:
    limits = {"max_body_bytes": 100_000, "max_body_bytes_in_flight": 250_000}
    with running(tmp_path, limits=limits) as client:
        holding = [connect(client) for _ in range(2)]
        for connection in holding:
            connection.sendall(HEAD % 100_000 + bytes(99_999))
        time.sleep(0.2)
        refused = client.post("/identify", content=bytes(80_000), headers=JPEG)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert "Retry-After" in refused.headers
        # The declared size alone takes nothing from others.
        declaring = connect(client)
        declaring.sendall(HEAD % 100_000)
        assert client.get("/persons").status_code == 200
        for connection in (*holding, declaring):
            connection.close()
        deadline = time.monotonic() + 5
        while client.post("/detect", content=bytes(80_000), headers=JPEG).status_code == 503:
            assert time.monotonic() < deadline, "bytes of clients that have gone are still held"


def test_bytes_that_were_held_are_let_go(tmp_path: Path) -> None:
    limits = {"max_body_bytes": 100_000, "max_body_bytes_in_flight": 100_000}
    with (
        running(tmp_path, limits=limits) as client,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        for size in (1000, 99_999, 100_000, 150_000):
            for path in ("/detect", "/persons/a/faces", "/nothing"):
                list(
                    threads.map(
                        lambda _, p=path, s=size: client.post(p, content=bytes(s), headers=JPEG),
                        range(8),
                    )
                )
        answer = client.post("/detect", content=bytes(100_000), headers=JPEG)
        assert answer.status_code == 415, "nothing is held any more"


@pytest.mark.parametrize(
    "sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"\r\n" * 3]
)
def test_a_head_that_never_ends_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with running(tmp_path, http=protocol.BoundedProtocol) as client:
        with connect(client) as slow:
            slow.sendall(sent)
            assert read_all(slow) == b""
        assert client.get("/health/live").status_code == 200
        time.sleep(0.5)
        assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nContent-Length: a\r\n",
    ],
    ids=["version", "TLS", "length"],
)
def test_what_is_no_http_is_answered_as_every_other_error(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path, http=protocol.BoundedProtocol) as client, connect(client) as other:
        expected = client.get("/nowhere").headers
        other.sendall(sent)
        head, body = read_all(other).split(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    problem = json.loads(body)
    assert status == "HTTP/1.1 400 Bad Request"
    not_counted = {"ratelimit", "ratelimit-policy", "server", "date"}
    assert headers.keys() >= expected.keys() - not_counted
    assert (problem["status"], problem["code"]) == (400, "malformed_request")
    assert problem["request_id"] == headers["x-request-id"]
    assert int(headers["content-length"]) == len(body)


def test_a_head_without_bounds_is_hung_up_on(tmp_path: Path) -> None:
    with running(tmp_path, http=protocol.BoundedProtocol) as client:
        sent = 0
        with connect(client) as endless, suppress(OSError):
            endless.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            while sent < 50 << 20:
                endless.sendall(b"x" * 65536)
                sent += 65536
        assert sent < 20 << 20
        assert client.get("/health/live").status_code == 200


ASK = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n%s\r\n"


def connect_narrowly(client: httpx.Client) -> socket.socket:
    """The kernel takes next to nothing for a reader who does not."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect((client.base_url.host, client.base_url.port))
    return connection


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_an_answer_that_nobody_reads_is_hung_up_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    last: bytes,
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.5)
    with running(tmp_path, http=protocol.BoundedProtocol) as client:
        size = len(client.get("/openapi.json").content)
        count = (20 << 20) // size
        with connect_narrowly(client) as connection:
            connection.sendall(ASK % b"" * (count - 1) + ASK % last)
            time.sleep(1.5)
            assert len(read_all(connection)) < count * size
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_answer_that_is_read_slowly_is_sent_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "SEND_BUFFER_BYTES", 16 << 10)
    with running(tmp_path, http=protocol.BoundedProtocol) as client:
        size = len(client.get("/openapi.json").content)
        with connect_narrowly(client) as connection:
            connection.sendall(ASK % b"" * 29 + ASK % b"Connection: close\r\n")
            received = 0
            started = time.monotonic()
            while chunk := connection.recv(65536):
                received += len(chunk)
                time.sleep(0.001)
        assert time.monotonic() - started > 1
        assert received > 30 * size


def test_more_galleries_than_allowed(tmp_path: Path, hopper: bytes) -> None:
    def enrol(client: httpx.Client, gallery: str) -> int:
        answer = client.post(
            f"/persons/grace/faces?gallery={gallery}", content=hopper, headers=JPEG
        )
        if answer.status_code != 201:
            assert answer.json()["code"] == "too_many_galleries"
        return answer.status_code

    with running(tmp_path, limits={"max_galleries": 2}) as client:
        targets = {"target_fpir": 0.02, "target_fmr": None}
        assert enrol(client, "a") == 201
        assert client.put("/galleries/b", json=targets).status_code == 200
        assert enrol(client, "c") == 422
        refused = client.put("/galleries/c", json=targets)
        assert (refused.status_code, refused.json()["code"]) == (422, "too_many_galleries")
        assert enrol(client, "b") == 201
        assert client.delete("/persons/grace?gallery=a").status_code == 200
        assert enrol(client, "c") == 422, "an emptied gallery still has its files"
        assert client.post("/purge").status_code == 200
        assert enrol(client, "c") == 201
        assert enrol(client, "a") == 422
        galleries = client.get("/galleries").json()["galleries"]
        assert {gallery["gallery"] for gallery in galleries} == {"b", "c"}


def test_a_full_gallery(tmp_path: Path, hopper: bytes, collins: bytes, group: bytes) -> None:
    limits = {"max_persons_per_gallery": 1, "max_faces_per_gallery": 2}

    def enrol(client: httpx.Client, person_id: str, image: bytes, gallery: str = "a") -> str:
        answer = client.post(
            f"/persons/{person_id}/faces",
            params={"gallery": gallery, "face": "largest"},
            content=image,
            headers=JPEG,
        )
        return "enrolled" if answer.status_code == 201 else answer.json()["code"]

    with running(tmp_path, limits=limits) as client:
        assert enrol(client, "grace", hopper) == "enrolled"
        assert enrol(client, "eileen", collins) == "gallery_full"
        assert enrol(client, "grace", group) == "enrolled"
        assert enrol(client, "grace", collins) == "gallery_full"
        assert enrol(client, "eileen", collins, "b") == "enrolled"
        (person,) = client.get("/persons?gallery=a").json()["persons"]
        assert (person["person_id"], person["face_count"]) == ("grace", 2)
