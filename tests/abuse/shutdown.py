"""SIGTERM under load.

    python -m tests.abuse.shutdown [--rounds 10]

Readiness turns red first, every request that was taken in is answered, and the process ends, with
0, within its grace period. One client has sent half of a photo by then and takes its time.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import httpx
import uvloop

from app.cli.server import GRACE_SECONDS
from tests.abuse import calls
from tests.abuse.load import NO_ANSWER, Load, Sample
from tests.abuse.report import Row, finish
from tests.abuse.service import Service, serving

CLIENTS = 16
_BEFORE_S = 1.0
_SLOW_S = 2.0


class Stopped(NamedTuple):
    """
    Attributes:
        samples: of the clients that sent one request after another until they were refused;
            times count from the start of the load, `_BEFORE_S` before the signal.
        slow: status of the answer to the slow upload.
        red: seconds from the signal until readiness was red.
        refused: until nobody could connect any more.
        ended: until the process was gone.
        status: of the process.
    """

    samples: list[Sample]
    slow: int
    red: float
    refused: float
    ended: float
    status: int


async def stop_under_load(service: Service) -> Stopped:
    load = Load(
        service.address,
        [calls.identify_bytes(photo, service.authorization) for photo in calls.faces(20)],
    )
    working = asyncio.create_task(load.closed(CLIENTS, 60))
    await asyncio.sleep(_BEFORE_S / 2)
    uploading = asyncio.create_task(_upload_slowly(service))
    await asyncio.sleep(_BEFORE_S / 2)
    service.terminate()
    signalled = time.perf_counter()
    red, refused = await _watch(service, signalled)
    samples = await working
    slow = await uploading
    status = await asyncio.to_thread(service.process.wait, 60)
    ended = time.perf_counter() - signalled
    load.close()
    return Stopped(samples, slow, red, refused, ended, status)


async def _watch(service: Service, signalled: float) -> tuple[float, float]:
    red = float("nan")
    while True:
        try:
            async with httpx.AsyncClient(base_url=service.url) as client:
                answer = await client.get("/health/ready")
        except httpx.ConnectError:
            return red, time.perf_counter() - signalled
        except httpx.TransportError:
            continue
        if answer.status_code == 503 and red != red:
            red = time.perf_counter() - signalled
        await asyncio.sleep(0.02)


async def _upload_slowly(service: Service) -> int:
    request = calls.identify_bytes(calls.faces(1)[0], service.authorization)
    reader, writer = await asyncio.open_connection(*service.address)
    writer.write(request[: len(request) // 2])
    await asyncio.sleep(_SLOW_S)
    writer.write(request[len(request) // 2 :])
    line = await reader.readline()
    writer.close()
    return int(line.split()[1]) if line else NO_ANSWER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    found = []
    for _ in range(options.rounds):
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(Path(folder)) as service,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found.append(runner.run(stop_under_load(service)))
    statuses = Counter(sample.status for one in found for sample in one.samples)
    after = sum(
        sample.status == 200 and sample.at > _BEFORE_S for one in found for sample in one.samples
    )
    slow = Counter(one.slow for one in found)
    codes = {one.status for one in found}
    red = max(one.red for one in found)
    first = all(one.red < one.refused for one in found)
    ended = max(one.ended for one in found)
    finish(
        f"SIGTERM under load, {options.rounds} times",
        [
            Row("requests answered", f"{statuses[200]:,}, {after:,} of them sent after the signal"),
            Row("taken in, not answered", f"{statuses[NO_ANSWER]}", "0", not statuses[NO_ANSWER]),
            Row("slow upload", f"{slow[200]} of {len(found)} answered", "all", set(slow) == {200}),
            Row("readiness red", f"{red:.2f} s after it at the latest", "before refusing", first),
            Row(
                "connections refused", f"{min(one.refused for one in found):.2f} s at the earliest"
            ),
            Row("ended after", f"{ended:.1f} s", f"<= {GRACE_SECONDS} s", ended <= GRACE_SECONDS),
            Row("exit status", str(codes), "0", codes == {0}),
        ],
    )


if __name__ == "__main__":
    main()
