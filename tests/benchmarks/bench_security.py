"""What keys, limits and the audit log cost a request.

    python -m tests.benchmarks.bench_security [--requests 5000]

Requests go straight into the application, without a network, so that microseconds show.
"""

import argparse
import asyncio
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from app import auth
from app.audit import AuditLog, Event
from app.auth import KeyRing, Unproven
from app.main import create_app
from app.settings import Settings

EVENT = Event("person.enrol", "done", status=201, key="0" * 12, gallery="default", person_id="p")


async def request(app: FastAPI, headers: list[tuple[bytes, bytes]]) -> int:
    """A list of nobody: all that every request passes through, and next to no work."""
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/persons",
        "raw_path": b"/persons",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    return status


async def microseconds(app: FastAPI, headers: list[tuple[bytes, bytes]], requests: int) -> float:
    """Median of one request."""
    times = []
    for _ in range(requests):
        started = time.perf_counter()
        status = await request(app, headers)
        times.append(time.perf_counter() - started)
        assert status == 200, status
    return float(np.median(times[requests // 10 :]) * 1e6)


async def requests_with_and_without(folder: Path, count: int) -> tuple[float, float]:
    _, text = auth.create(folder / "keys.json", "bench", ["enrol"])
    limits = {"requests_per_second": 1e6, "request_burst": 1_000_000}
    apps = [
        create_app(Settings(store={"path": folder / name}, auth=settings, limits=limits))
        for name, settings in (
            ("off", {"disabled": True}),
            ("on", {"keys_file": folder / "keys.json"}),
        )
    ]
    headers = [[], [(b"authorization", f"Bearer {text}".encode())]]
    results: list[list[float]] = [[], []]
    async with apps[0].router.lifespan_context(apps[0]), apps[1].router.lifespan_context(apps[1]):
        for _ in range(5):
            for app, sent, result in zip(apps, headers, results, strict=True):
                result.append(await microseconds(app, sent, count))
    return float(np.median(results[0])), float(np.median(results[1]))


async def lines(log: AuditLog, count: int, together: int, *, durable: bool) -> float:
    """Median milliseconds until one of `together` lines is written."""
    times = []
    for _ in range(count // together):
        started = time.perf_counter()
        await asyncio.gather(*(log.record(EVENT, durable=durable) for _ in range(together)))
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1e3)


async def proof(path: Path) -> tuple[float, float]:
    """Milliseconds to prove a key, and microseconds to know it again."""
    _, text = auth.create(path, "bench", ["enrol"])
    ring = KeyRing(path)
    found = ring.find(text)
    assert isinstance(found, Unproven)
    started = time.perf_counter()
    assert await ring.prove(found)
    proved = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(10_000):
        ring.find(text)
    return proved * 1e3, (time.perf_counter() - started) / 10_000 * 1e6


async def measure(folder: Path, count: int) -> None:
    off, on = await requests_with_and_without(folder, count)
    proved, known = await proof(folder / "proof.json")
    log = AuditLog(folder / "audit.jsonl", 1 << 30)
    log.open()
    table = Table(title="what a request pays")
    table.add_column("what")
    table.add_column("measured", justify="right")
    rows = [
        ("a list of nobody, keys off", f"{off:.0f} µs"),
        ("the same, with a key", f"{on:.0f} µs"),
        ("a key known again", f"{known:.1f} µs"),
        ("a key proved, once a process", f"{proved:.0f} ms"),
        ("a line of a change, on disk", f"{await lines(log, 500, 1, durable=True):.2f} ms"),
        ("64 of them together", f"{await lines(log, 3200, 64, durable=True):.2f} ms"),
        ("a line of a decision", f"{await lines(log, 2000, 1, durable=False):.2f} ms"),
    ]
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000)
    options = parser.parse_args()
    logging.getLogger("faceid.access").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.requests))


if __name__ == "__main__":
    main()
