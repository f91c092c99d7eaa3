"""A load generator that costs little and does not wait: identifications on a fixed timetable.

A client that waits for one answer before it sends the next request slows down with the service
and never overloads it; one that sends at fixed times does not care. On two cores it must also be
light: requests are ready-made bytes, answers are only looked at for their status and length.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
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
    """One request at a time; `idle` is told whenever it is ready for the next one."""

    def __init__(self, idle: Callable[["_Connection"], object]) -> None:
        self._idle = idle
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._sample: asyncio.Future[Sample] | None = None
        self._at = self._started = 0.0
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
        self._received.clear()
        self.reusable = self.reusable and not _CLOSE.search(head)
        self._settle(int(head[9:12]))
        if self.reusable:
            self._idle(self)
        else:
            self.close()

    def send(self, request: bytes, at: float, started: float) -> asyncio.Future[Sample]:
        assert self._transport is not None
        self._at, self._started = at, started
        self._sample = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._sample

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _settle(self, status: int) -> None:
        sample, self._sample = self._sample, None
        if sample is not None and not sample.done():
            seconds = time.perf_counter() - self._started - self._at
            sample.set_result(Sample(self._at, seconds, status))


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
        samples = []
        for number in range(int(rate * seconds)):
            at = number / rate
            delay = started + at - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            samples.append(await self._send(at, started))
        await asyncio.wait(samples, timeout=_PATIENCE_S)
        return [
            sample.result() if sample.done() else Sample(number / rate, _PATIENCE_S, NO_ANSWER)
            for number, sample in enumerate(samples)
        ]

    async def once(self) -> Sample:
        return await self._one(0.0, time.perf_counter())

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _one(self, at: float, started: float) -> Sample:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await (await self._send(at, started))
        except TimeoutError:
            return Sample(at, _PATIENCE_S, NO_ANSWER)

    async def _send(self, at: float, started: float) -> asyncio.Future[Sample]:
        """Send the next request; what comes of it. No task, so that it costs little."""
        self._sent += 1
        request = self._requests[self._sent % len(self._requests)]
        loop = asyncio.get_running_loop()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection.send(request, at, started)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._idle.append), *self._address
                )
        except (OSError, TimeoutError):
            refused: asyncio.Future[Sample] = loop.create_future()
            refused.set_result(Sample(at, time.perf_counter() - started - at, REFUSED))
            return refused
        return connection.send(request, at, started)


def rate(samples: Sequence[Sample]) -> float:
    """Requests answered with 200 a second."""
    answered = [sample for sample in samples if sample.status == 200]
    last = max(sample.at + sample.seconds for sample in samples)
    return len(answered) / last


def percentile(samples: Sequence[Sample], percent: float, *statuses: int) -> float:
    """Seconds; nan where there is none of these statuses."""
    times = [sample.seconds for sample in samples if sample.status in statuses]
    return float(np.percentile(times, percent)) if times else float("nan")
