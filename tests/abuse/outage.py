"""A Qdrant server that is away, slow or broken, and back again.

    python -m tests.abuse.outage [--requests 60]

The server is its client's twin in memory behind HTTP, and what fails is the way to it. Every
answer meanwhile has to be a 503 with `Retry-After` within the deadline; nothing may grow; and the
service has to work again, without a restart, when the server does. Two replicas then enrol the
same persons through a way that breaks again and again, and lose nothing.
"""

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from app.store.server import _BREAK_S
from tests.abuse import calls
from tests.abuse.ledger import Broken
from tests.abuse.report import Row, finish
from tests.abuse.service import Service, Usage
from tests.faults import FAULTS, Fault, Proxy, proxied
from tests.qdrant import serving_twin

TIMEOUT_S = 1
# Beyond the deadline: a photo is decoded and embedded, on cores that others may want too.
_GRACE_S = 1.5
CLIENTS = 4


class Outage(NamedTuple):
    """
    Attributes:
        answers: by status and, where it is one, code of the problem.
        seconds: of each request.
        sent: requests that got as far as the server.
        back_s: from the end of the fault to the first answer as always.
    """

    fault: Fault
    answers: Counter[str]
    seconds: list[float]
    sent: int
    back_s: float


def outage(service: Service, proxy: Proxy, fault: Fault, requests: int) -> Outage:
    """
    Raises:
        Broken: an answer that is no 503, or has no `Retry-After`; a service that calls itself
            ready meanwhile, or is not ready again soon.
    """
    photo = calls.faces(1)[0]
    kinds: list[Callable[[httpx.Client], httpx.Response]] = [
        lambda client: calls.identify(client, photo),
        lambda client: client.get("/persons/ada"),
        lambda client: calls.enrol(client, "bob", [photo]),
        lambda client: client.patch("/persons/ada", json={"metadata": {"seen": True}}),
        calls.ready,
    ]
    answers: Counter[str] = Counter()
    with service.client() as client:

        def ask(number: int) -> float:
            started = time.monotonic()
            answer = kinds[number % len(kinds)](client)
            taken = time.monotonic() - started
            kind = answer.headers["content-type"]
            if kind != "application/problem+json" or int(answer.headers["retry-after"]) < 1:
                raise Broken(f"{fault}: {answer.status_code} {answer.headers}")
            answers[f"{answer.status_code} {answer.json()['code']}"] += 1
            return taken

        proxy.fail(fault)
        with ThreadPoolExecutor(CLIENTS) as pool:
            seconds = list(pool.map(ask, range(requests)))
        sent = proxy.requests
        proxy.fail("none")
        back_s = seconds_until_ready(client)
        if (found := calls.identify(client, photo)).json()["faces"][0]["person_id"] != "ada":
            raise Broken(f"{fault}: {found.text}")
    return Outage(fault, answers, seconds, sent, back_s)


def seconds_until_ready(client: httpx.Client) -> float:
    """
    Raises:
        Broken: half a minute and more.
    """
    started = time.monotonic()
    while calls.ready(client).status_code != 200:
        if time.monotonic() - started > 30:
            raise Broken("not ready again")
        time.sleep(0.02)
    return time.monotonic() - started


def two_replicas(one: Service, other: Service, proxy: Proxy, persons: int) -> Counter[int]:
    """Each enrols a photo of its own for everybody, at the same time, on a way that breaks.

    Returns:
        The answers of all tries by status; whoever is not answered 201 is tried again.

    Raises:
        Broken: a face that is not there, or one too many.
    """
    photos = calls.faces(2)
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def enrol(service: Service, photo: bytes) -> None:
        with service.client() as client:
            for number in range(persons):
                status = 0
                while status != 201:
                    answer = calls.enrol(client, f"pair-{number}", [photo])
                    status = answer.status_code
                    statuses[status] += 1
                    if status not in (201, 503):
                        raise Broken(answer.text)
                    if status == 503:
                        time.sleep(0.3)

    def trouble() -> None:
        while not over.wait(0.4):
            proxy.fail("reset")
            if over.wait(0.1):
                break
            proxy.fail("none")
        proxy.fail("none")

    with ThreadPoolExecutor(3) as pool:
        troubled = pool.submit(trouble)
        try:
            pair = zip((one, other), photos, strict=True)
            for enrolling in [pool.submit(enrol, *each) for each in pair]:
                enrolling.result()
        finally:
            over.set()
            troubled.result()
    with one.client() as client:
        for number in range(persons):
            for _ in range(50):  # the circuit breaker may still be open
                answer = client.get(f"/persons/pair-{number}/faces")
                if answer.status_code == 200:
                    break
                time.sleep(0.1)
            if len(answer.json()["faces"]) != 2:
                raise Broken(answer.text)
    return statuses


def replica(folder: Path, proxy: Proxy) -> Service:
    return Service(
        folder,
        FACEID_STORE__URL=proxy.url,
        FACEID_STORE__TIMEOUT_S=str(TIMEOUT_S),
        # Two photos of different people are one person here, and the same ones are everybody.
        FACEID_ENROLMENT__ON_INCONSISTENT="allow",
        FACEID_ENROLMENT__ON_DUPLICATE="allow",
    )


def rows_of(outages: list[Outage], before: Usage, after: Usage) -> list[Row]:
    rows = []
    for its in outages:
        slowest = max(its.seconds)
        mark = TIMEOUT_S + _GRACE_S
        rows += [
            Row(
                f"{its.fault}: answers",
                ", ".join(f"{n} x {what}" for what, n in its.answers.items()),
                "503 store_unavailable",
                set(its.answers) == {"503 store_unavailable"},
            ),
            Row(f"{its.fault}: slowest", f"{slowest:.2f} s", f"<= {mark} s", slowest <= mark),
            Row(f"{its.fault}: median", f"{1e3 * np.median(its.seconds):.0f} ms"),
            Row(f"{its.fault}: requests sent to the server", str(its.sent)),
            Row(
                f"{its.fault}: ready again after",
                f"{its.back_s:.2f} s",
                f"<= {_BREAK_S + 0.5} s",
                its.back_s <= _BREAK_S + 0.5,
            ),
        ]
    rows += [
        Row(
            "private memory",
            f"{before.private:.0f}, then {after.private:.0f} MB",
            "x 1.05",
            after.private <= 1.05 * before.private,
        ),
        Row(
            "threads; descriptors",
            f"{before.threads}, then {after.threads}; "
            f"{before.descriptors}, then {after.descriptors}",
            "no growth but connections",
            after.threads <= before.threads and after.descriptors <= before.descriptors + CLIENTS,
        ),
    ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=60, help="during each fault")
    parser.add_argument("--persons", type=int, default=40)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving_twin() as upstream,
        proxied(upstream) as proxy,
    ):
        services = []
        for name in ("one", "other"):
            (Path(folder) / name).mkdir()
            services.append(replica(Path(folder) / name, proxy))
        # At once, so that both make the collection.
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Service.start, services))
        try:
            one, other = services
            with one.client() as client:
                calls.enrol(client, "ada", [calls.faces(1)[0]]).raise_for_status()
            # Until nothing is used for the first time.
            for fault in FAULTS:
                outage(one, proxy, fault, options.requests)
            before = one.usage()
            outages = [outage(one, proxy, fault, options.requests) for fault in FAULTS]
            rows = rows_of(outages, before, one.usage())
            statuses = two_replicas(one, other, proxy, options.persons)
            rows.append(
                Row(
                    f"two replicas enrol {options.persons} persons together while it breaks",
                    ", ".join(f"{n} x {status}" for status, n in statuses.items()),
                    "nothing lost",
                    True,
                )
            )
        finally:
            for service in services:
                service.stop()
    finish("a server in trouble", rows)


if __name__ == "__main__":
    main()
