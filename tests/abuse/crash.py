"""kill -9 at random moments, again and again, of a service at work.

    python -m tests.abuse.crash [--rounds 100] [--seed 0] [--minutes 8]

Clients enrol, change and delete until it dies, and compare what the next start finds with what the
dead one acknowledged.
"""

import argparse
import concurrent.futures
import contextlib
import random
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.abuse.ledger import Ledger
from tests.abuse.report import Row, finish
from tests.abuse.service import Service

CLIENTS = 4
_LONGEST_S = 1.5


@dataclass
class Survived:
    """
    Attributes:
        rounds: kills.
        answers: what was acknowledged, by kind of request.
        unanswered: requests that the kills cut off.
        starts: seconds of each start.
        persons: stored in the end.
    """

    rounds: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    starts: list[float] = field(default_factory=list)
    persons: int = 0


def crash(service: Service, rounds: int, seed: int, minutes: float) -> Survived:
    """Start, load, kill and look, `rounds` times or until the time is over.

    Raises:
        Broken: something acknowledged is lost, or something deleted is back.
        NotStarted: it does not start after a kill.
    """
    found = Survived()
    chance = random.Random(seed)
    ledgers = [Ledger(f"client{i}", seed=seed + i) for i in range(CLIENTS)]
    deadline = time.monotonic() + minutes * 60

    def start() -> None:
        began = time.perf_counter()
        service.start()
        found.starts.append(time.perf_counter() - began)

    def work(ledger: Ledger) -> None:
        with contextlib.suppress(httpx.TransportError), service.client() as client:
            while True:
                ledger.request(client)

    def check(ledger: Ledger) -> None:
        with service.client() as client:
            ledger.check(client)

    start()
    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
            while found.rounds < rounds and time.monotonic() < deadline:
                working = [threads.submit(work, ledger) for ledger in ledgers]
                time.sleep(chance.uniform(0, _LONGEST_S))
                service.kill()
                for future in working:
                    future.result()
                found.rounds += 1
                found.unanswered += sum(ledger.in_doubt for ledger in ledgers)
                start()
                list(threads.map(check, ledgers))
    finally:
        service.kill()
    found.persons = sum(map(len, ledgers))
    found.answers = sum((ledger.answers for ledger in ledgers), Counter())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        found = crash(service, options.rounds, options.seed, options.minutes)
        chain = service.audit_holds()
    finish(
        "kill -9 under load",
        [
            Row("kills", str(found.rounds), ">= 100", found.rounds >= 100),
            Row("requests acknowledged", f"{found.answers.total():,}"),
            Row("requests cut off by the kills", f"{found.unanswered}"),
            Row("persons in the end", f"{found.persons}"),
            Row("lost, back again or half there", "nothing", "nothing", True),
            Row("the audit chain", "whole" if chain else "broken", "whole", chain),
            Row(
                "seconds to start again, median / longest",
                f"{statistics.median(found.starts):.1f} / {max(found.starts):.1f}",
            ),
        ],
    )


if __name__ == "__main__":
    main()
