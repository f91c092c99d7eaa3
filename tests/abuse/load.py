"""A load generator that costs little and does not wait: identifications on a fixed timetable.

A client that waits for one answer before it sends the next request slows down with the service
and never overloads it; one that sends at fixed times does not care. On two cores it must also be
light: requests are ready-made bytes, answers are only looked at for their status and length.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, cast

import numpy as np

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_CLOSE = re.compile(rb"(?i)\r\nconnection: close")
_PATIENCE_S = 30.0

NO_ANSWER = 0
REFUSED = -1


class Sample(NamedTuple):
    """
    Attributes:
        at: seconds since the start of the load at which the request was due.
        seconds: from then until its answer was complete.
        status: of the answer; `NO_ANSWER` where the connection ended without one, `REFUSED`
            where there was none.
    """

    at: float
    seconds: float
    status: int


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.reusable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def connection_lost(self, _: Exception | None) -> None:
        self.reusable = False
        self._settle(NO_ANSWER)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end])
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(self._received) < end + 4 + length:
            return
        self.reusable = self.reusable and not _CLOSE.search(head)
        self._received.clear()
        self._settle(int(head[9:12]))

    async def send(self, request: bytes) -> int:
        assert self._transport is not None
        if not self.reusable:
            return NO_ANSWER
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _settle(self, status: int) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(status)


class Load:
    """
    Args:
        address: host and port.
        requests: sent in turn.
    """

    def __init__(self, address: tuple[str, int], requests: Sequence[bytes]) -> None:
        self._address = address
        self._requests = requests
        self._idle: list[_Connection] = []
        self._sent = 0

    async def closed(self, clients: int, seconds: float) -> list[Sample]:
        """So many clients, each with one request at a time, until they are refused."""
        samples: list[Sample] = []
        started = time.perf_counter()

        async def client() -> None:
            while (at := time.perf_counter() - started) < seconds:
                samples.append(await self._one(at, started))
                if samples[-1].status == REFUSED:
                    break

        await asyncio.gather(*(client() for _ in range(clients)))
        return samples

    async def open(self, rate: float, seconds: float) -> list[Sample]:
        """So many requests a second, whatever becomes of those before."""
        started = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            at = number / rate
            delay = started + at - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(self._one(at, started)))
        return await asyncio.gather(*tasks)

    async def once(self) -> Sample:
        return await self._one(0.0, time.perf_counter())

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _one(self, at: float, started: float) -> Sample:
        self._sent += 1
        request = self._requests[self._sent % len(self._requests)]
        status = REFUSED
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(_PATIENCE_S):
                connection = await self._connection()
                status = NO_ANSWER
                status = await connection.send(request)
            if connection.reusable:
                self._idle.append(connection)
            else:
                connection.close()
        return Sample(at, time.perf_counter() - started - at, status)

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, *self._address)
        return connection


def rate(samples: Sequence[Sample]) -> float:
    """Requests answered with 200 a second."""
    answered = [sample for sample in samples if sample.status == 200]
    last = max(sample.at + sample.seconds for sample in samples)
    return len(answered) / last


def percentile(samples: Sequence[Sample], percent: float, *statuses: int) -> float:
    """Seconds; nan where there is none of these statuses."""
    times = [sample.seconds for sample in samples if sample.status in statuses]
    return float(np.percentile(times, percent)) if times else float("nan")
