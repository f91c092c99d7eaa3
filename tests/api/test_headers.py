"""What browsers are told, and web pages that would like to use a service without keys."""

import base64
import hashlib
import logging
import re
import socket
from pathlib import Path

import httpx
import pytest

from app.logs import JsonFormatter
from tests.service import running


@pytest.mark.parametrize(
    "path", ["/persons", "/persons/nobody", "/nothing", "/health/live", "/metrics", "/docs"]
)
def test_every_answer_is_held_close(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_docs_run_what_their_policy_names_and_no_more(client: httpx.Client) -> None:
    answer = client.get("/docs")
    policy = answer.headers["Content-Security-Policy"]
    scripts = re.search(r"script-src ([^;]*)", policy)[1].split()
    (inline,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in scripts
    (source,) = re.findall(r'<script src="([^"]*)"', answer.text)
    assert any(source.startswith(allowed) for allowed in scripts)
    outside = re.findall(r"<(?:script src|link rel=\"stylesheet\")[^>]*>", answer.text)
    assert len(outside) == 2
    assert all('integrity="sha384-' in tag for tag in outside)
    assert client.get("/openapi.json").json()["info"]["title"] == "faceid"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "127.0.0.9"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "192.0.2.7"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 403),
    ],
)
def test_without_keys_no_web_page_is_served(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    assert client.get("/persons", headers=headers).status_code == status


def test_pages_of_configured_origins_may_call(tmp_path: Path) -> None:
    page, other = {"Origin": "https://desk.example"}, {"Origin": "https://evil.example"}
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "X-API-Key",
    }
    settings = {"disabled": True, "cors_origins": ["https://desk.example"]}
    with running(tmp_path, auth=settings) as client:
        answer = client.options("/identify", headers=page | asking)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://desk.example"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        answer = client.get("/persons", headers=page)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://desk.example"
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
        answer = client.get("/persons", headers=other)
        assert answer.status_code == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_invented_methods_make_no_series(client: httpx.Client) -> None:
    for method in ("PURGE", "MKCOL", "LOCK"):
        assert client.request(method, "/persons").status_code == 405
    series = client.get("/metrics").text
    assert 'method="other"' in series
    assert "PURGE" not in series


def test_invented_names_make_no_series(client: httpx.Client, hopper: bytes) -> None:
    paths = ["/made-up", "/persons/made-up", "/galleries/made-up", "/persons?gallery=made-up"]
    for path in (*paths, "/persons/made-up/faces/made-up", "/%0amade-up%22%7d%201"):
        client.get(path)
    client.post("/identify?gallery=made-up", files={"image": hopper})
    assert "made-up" not in client.get("/metrics").text


def test_nothing_that_is_sent_begins_a_line_of_the_log(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client.get("/persons/x%0a%7b%22forged%22:1%7d", headers={"X-Request-ID": "forged"})
    client.request("FORGED", "/%0d%0aforged?gallery=%0aforged")
    client.get("/persons", headers={"X-API-Key": "forged", "Host": "localhost"})
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\nb\r\n\r\n"
        )
        connection.recv(1000)
    # `configure_logging` silences these.
    silent = {"httpx", "uvicorn.access"}
    lines = [JsonFormatter().format(r) for r in caplog.records if r.name not in silent]
    assert len(lines) >= 3
    assert all("\n" not in line and "forged" not in line.lower() for line in lines)


def test_galleries_beyond_the_largest_share_a_series(
    client: httpx.Client, hopper: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.api import health

    monkeypatch.setattr(health, "_MOST_GALLERIES", 1)
    for gallery in ("one", "two", "three"):
        client.post(f"/persons/grace/faces?gallery={gallery}", files={"image": hopper})
    lines = client.get("/metrics").text.splitlines()
    sizes = [line for line in lines if line.startswith("faceid_gallery_persons{")]
    assert len(sizes) == 2
    assert 'faceid_gallery_persons{gallery="_others"} 2.0' in sizes
