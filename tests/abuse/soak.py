"""Thousands of mixed requests, with an eye on what the service keeps.

    python -m tests.abuse.soak [--requests 20000] [--minutes 15]

Enrolling, identifying, verifying, listing, changing and deleting, by clients that check every
answer and at the end everything that is stored.
"""

import argparse
import concurrent.futures
import statistics
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.abuse.ledger import Ledger
from tests.abuse.report import Row, finish, slope
from tests.abuse.service import Service, Usage, serving

CLIENTS = 4
_EVERY = 500
# Of the memory after the first fifth, in which caches and the heap find their size.
_GROWTH = 1.05


@dataclass
class Soaked:
    """
    Attributes:
        usage: after each so many requests (`at`).
        answers: how often each kind of request was answered as it must be.
    """

    at: list[int] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def soak(service: Service, requests: int, minutes: float, every: int = _EVERY) -> Soaked:
    """
    Raises:
        Broken: a wrong answer, or something else is stored than was acknowledged.
    """
    found = Soaked()
    ledgers = [Ledger(f"soak{i}", seed=i) for i in range(CLIENTS)]
    done = 0
    lock = threading.Lock()
    started = time.monotonic()
    deadline = started + minutes * 60

    def work(ledger: Ledger) -> None:
        nonlocal done
        with service.client() as client:
            while time.monotonic() < deadline:
                with lock:
                    if done >= requests:
                        break
                    done += 1
                    if done % every == 0:
                        found.at.append(done)
                        found.usage.append(service.usage())
                ledger.request(client)
            ledger.check(client)

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(work, ledgers))
    found.answers = sum((ledger.answers for ledger in ledgers), Counter())
    found.seconds = time.monotonic() - started
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as service:
        found = soak(service, options.requests, options.minutes)
        tracebacks = service.log.read_text().count("unexpected error")
    warm = len(found.at) // 5
    first, last = found.usage[warm], found.usage[-1]
    thousands = [at / 1000 for at in found.at[warm:]]
    rows = [Row(kind, f"{count:,}") for kind, count in found.answers.most_common()]
    total = found.answers.total()
    rows += [
        Row(
            "requests, all answered as they must be",
            f"{total:,} in {found.seconds:.0f} s",
            "20,000",
            total >= 20_000,
        ),
        Row("tracebacks in the log", str(tracebacks), "0", tracebacks == 0),
        Row(
            f"resident memory after {found.at[warm]:,} / {found.at[-1]:,}",
            f"{first.memory:.0f} / {last.memory:.0f} MB",
            f"<= x {_GROWTH}",
            last.memory <= _GROWTH * first.memory,
        ),
    ]
    for name in ("memory", "private"):
        values = [getattr(usage, name) for usage in found.usage[warm:]]
        rows.append(Row(f"slope, {name}", f"{slope(values, thousands):+.2f} MB for 1,000 requests"))
    quarter = max(1, len(thousands) // 4)
    for name in ("descriptors", "threads"):
        values = [getattr(usage, name) for usage in found.usage[warm:]]
        early, late = (statistics.median(part) for part in (values[:quarter], values[-quarter:]))
        rows.append(
            Row(
                f"{name}, median of the first / last quarter",
                f"{early:g} / {late:g}, at most {max(values)}",
                "no growth",
                late <= early + 1,
            )
        )
    finish("mixed requests", rows)


if __name__ == "__main__":
    main()
