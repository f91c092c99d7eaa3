"""Four times as many identifications as the service can do.

    python -m tests.abuse.overload [--seconds 60] [--times 4]

Its capacity and its latency without load are measured in the same run, its capacity before and
after, as the pace of a machine changes. Overloaded, it must go on doing nearly as much, answer what
it takes in hardly later than it may have to wait, refuse the rest at once, and be as before right
after.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import uvloop

from app.settings import LimitSettings
from tests.abuse import calls
from tests.abuse.load import Load, Sample, percentile, rate
from tests.abuse.report import Row, finish
from tests.abuse.service import Service, serving

PERSONS = 100
REFUSED = (429, 503)
_PROBE_EVERY_S = 0.05
_RECOVERY_S = 10.0


class Measured(NamedTuple):
    """
    Attributes:
        alone, overloaded: samples of one client, and of the timetable.
        full, full_after: of sixteen clients, before the overload and after it.
        recovery: seconds after the overload until a request was as fast as alone (99 %).
        share: of one core that the load generator used meanwhile.
    """

    alone: list[Sample]
    full: list[Sample]
    full_after: list[Sample]
    overloaded: list[Sample]
    recovery: float
    share: float


def enrol(service: Service) -> None:
    with service.client() as client:
        for i, photo in enumerate(calls.faces(PERSONS)):
            calls.enrol(client, f"person-{i}", [photo]).raise_for_status()


async def measure(service: Service, times: float, seconds: float, warm_s: float) -> Measured:
    """
    Args:
        warm_s: seconds for each of the three measurements without overload.
    """
    load = Load(
        service.address,
        [calls.identify_bytes(photo, service.authorization) for photo in calls.faces(PERSONS)],
    )
    try:
        await load.closed(4, warm_s / 4)
        alone = await load.closed(1, warm_s)
        full = await load.closed(16, warm_s)
        before, began = _cpu_seconds(), time.perf_counter()
        overloaded = await load.open(times * rate(full), seconds)
        # The last of them are answered by now; the load itself ended earlier.
        ended = began + seconds
        share = (_cpu_seconds() - before) / (time.perf_counter() - began)
        limit = percentile(alone, 99, 200)
        while time.perf_counter() < ended + _RECOVERY_S:
            sample = await load.once()
            if sample.status == 200 and sample.seconds <= limit:
                break
            await asyncio.sleep(_PROBE_EVERY_S)
        recovery = time.perf_counter() - ended
        full_after = await load.closed(16, warm_s)
        return Measured(alone, full, full_after, overloaded, recovery, share)
    finally:
        load.close()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as service:
        enrol(service)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(service, options.times, options.seconds, 15))
    before, after = rate(found.full), rate(found.full_after)
    capacity = (before + after) / 2
    accepted = rate(found.overloaded)
    alone = percentile(found.alone, 99, 200)
    late = 2 * alone + LimitSettings().max_queue_s
    p99 = percentile(found.overloaded, 99, 200)
    refused = percentile(found.overloaded, 99, *REFUSED)
    statuses = Counter(sample.status for sample in found.overloaded)
    others = {status for status in statuses if status not in (200, *REFUSED)}
    finish(
        f"overload: {options.times:g} times the capacity for {options.seconds:g} s",
        [
            Row("capacity, 16 clients, before and after", f"{before:.1f}, {after:.1f} /s"),
            Row("p50, p99 of one client", f"{_ms(percentile(found.alone, 50, 200))}, {_ms(alone)}"),
            Row("offered", f"{len(found.overloaded) / options.seconds:.1f} /s"),
            Row("answers", ", ".join(f"{n:,} x {status}" for status, n in statuses.items())),
            Row("other answers, or none", str(others or "no"), "no", not others),
            Row(
                "accepted, share of the capacity",
                f"{accepted:.1f} /s, {accepted / capacity:.2f}",
                ">= 0.90",
                accepted >= 0.9 * capacity,
            ),
            Row(
                "p50, p99 of the accepted",
                f"{_ms(percentile(found.overloaded, 50, 200))}, {_ms(p99)}",
                f"<= 2 x {_ms(alone)} + the queue's limit = {_ms(late)}",
                p99 <= late,
            ),
            Row(
                "p50, p99 of the refused",
                f"{_ms(percentile(found.overloaded, 50, *REFUSED))}, {_ms(refused)}",
                "<= 100 ms",
                refused <= 0.1,
            ),
            Row(
                "as fast as alone again after",
                f"{found.recovery:.2f} s",
                "<= 2 s",
                found.recovery <= 2,
            ),
            Row("the load generator's share", f"{found.share:.1%} of one core"),
        ],
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


if __name__ == "__main__":
    main()
