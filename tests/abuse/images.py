"""Mutated image files through a running service.

    python -m tests.abuse.images [--files 5000] [--seed 0]

No crash, no 500, every answer a documented one within the deadline, and memory back where it was.
"""

import argparse
import concurrent.futures
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.abuse import calls
from tests.abuse.mutants import black, mutant, originals
from tests.abuse.report import Row, finish, slope
from tests.abuse.service import PATIENT, Service, serving

ALLOWED = {200, 413, 415, 422}
DEADLINE_S = 10.0
_CLIENTS = 4
_BATCH = 250
# Files before those that count: buffers find their size, a decoder is loaded when first used.
_WARMING = 500
# Of the memory it had then.
_GROWTH = 1.10


@dataclass
class Found:
    """
    Attributes:
        answers: by mutation, how often each status, or `no answer`.
        wrong: what must not be, with the number that makes the file again.
        seconds: of every answer.
        memory: private MB after each batch.
    """

    answers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def warm_up(service: Service) -> None:
    """Let it see every format and the largest photo, so that what it keeps for good is there."""
    with service.client() as client, concurrent.futures.ThreadPoolExecutor(_CLIENTS) as threads:
        photos = 3 * ([original.data for original in originals()] + 4 * [black(7000)])
        answers = threads.map(lambda photo: calls.identify(client, photo).status_code, photos)
        assert set(answers) == {200}


def fuzz(service: Service, numbers: range) -> Found:
    """Send the mutants of these numbers."""
    found = Found()
    with (
        service.client(DEADLINE_S) as client,
        concurrent.futures.ThreadPoolExecutor(_CLIENTS) as threads,
    ):

        def send(number: int) -> None:
            made = mutant(number)
            started = time.perf_counter()
            try:
                answer = calls.identify(client, made.data)
            except httpx.TransportError as error:
                found.answers[made.mutation]["no answer"] += 1
                found.wrong.append(f"{number} ({made.kind}, {made.mutation}): {error!r}")
                return
            found.seconds.append(time.perf_counter() - started)
            found.answers[made.mutation][str(answer.status_code)] += 1
            if answer.status_code not in ALLOWED:
                found.wrong.append(
                    f"{number} ({made.kind}, {made.mutation}): {answer.status_code} {answer.text}"
                )

        for first in range(numbers.start, numbers.stop, _BATCH):
            list(threads.map(send, range(first, min(first + _BATCH, numbers.stop))))
            found.memory.append(service.usage().private)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first = options.seed * 1_000_000
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), **PATIENT) as service:
        warm_up(service)
        fuzz(service, range(-_WARMING, 0))
        before = service.usage()
        found = fuzz(service, range(first, first + options.files))
        warm_up(service)
        after = service.usage()
        alive = service.process.poll() is None
        errors = service.log.read_text().count("unexpected error")
    rows = [
        Row(f"{mutation}", ", ".join(f"{n} x {status}" for status, n in sorted(answers.items())))
        for mutation, answers in sorted(found.answers.items())
    ]
    rise = slope(found.memory, [_BATCH * (i + 1) / 1000 for i in range(len(found.memory))])
    ratio = after.private / before.private
    rows += [
        Row("files", f"{options.files:,}", ">= 5,000", options.files >= 5000),
        Row("wrong answers, or none", str(len(found.wrong)), "0", not found.wrong),
        Row("tracebacks in the log", str(errors), "0", errors == 0),
        Row("alive at the end", "yes" if alive else "no", "yes", alive),
        Row(
            "seconds to answer, median / slowest",
            f"{statistics.median(found.seconds):.3f} / {max(found.seconds):.2f}",
            f"<= {DEADLINE_S:g}",
            max(found.seconds) <= DEADLINE_S,
        ),
        Row(
            "private memory before / after",
            f"{before.private:.0f} / {after.private:.0f} MB",
            f"<= x {_GROWTH}",
            ratio <= _GROWTH,
        ),
        Row("its slope", f"{rise:+.2f} MB for 1,000 files"),
        Row(
            "descriptors, threads, before / after",
            f"{before.descriptors}, {before.threads} / {after.descriptors}, {after.threads}",
        ),
    ]
    for wrong in found.wrong[:20]:
        print(wrong)
    finish("mutated images", rows)


if __name__ == "__main__":
    main()
