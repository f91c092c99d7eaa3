"""From photos and a running service to a report on disk: `faceid-train evaluate-service`."""

import asyncio
import contextlib
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx

from training.errors import Interrupted, UnusableService
from training.evaluation.evaluate import RESAMPLES
from training.evaluation.service.figures import compile_report
from training.evaluation.service.observe import Observed, observe, requests
from training.evaluation.service.page import render
from training.evaluation.service.plan import Plan, plan
from training.evaluation.service.progress import Bars
from training.evaluation.service.report import ServiceFacts, ServiceReport
from training.evaluation.service.session import Session, connect
from training.files import replacing


def run(
    photos: Path,
    output: Path,
    *,
    url: str,
    key: str | None = None,
    at_once: int = 4,
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ServiceReport:
    """Evaluate a running service and write `report.json` and `report.html`.

    It enrols into galleries of its own, and deletes everybody in them at the end: also after an
    error, SIGINT or SIGTERM.

    Args:
        photos: holds a folder of photos for each person.
        output: folder; made if it is not there.
        key: the API key to present.
        at_once: requests under way at a time.
        transport: how requests travel; None: over the network.

    Raises:
        NoFaces: there are no photos.
        Unresolvable: too few persons have two photos, or none of them can be used.
        UnusableService: the service is not there, refuses to work, or has no calibration.
        Interrupted: SIGINT or SIGTERM came.
        NoSpace: the disk is full.
    """
    planned = plan(photos, seed)
    unfinished: set[str] = set()
    with Bars(requests(planned), disable=not progress) as bars:
        try:
            facts, seen = asyncio.run(
                _observe(planned, connect(url, key, transport), at_once, bars, unfinished)
            )
        except (KeyboardInterrupt, asyncio.CancelledError):
            left = _left_behind(unfinished) or " Everybody enrolled has been deleted again."
            raise Interrupted(f"Interrupted; there is no report.{left}") from None
        except UnusableService as error:
            raise UnusableService(f"{error}{_left_behind(unfinished)}") from None
    report = compile_report(facts, photos.resolve().name, planned, seen, at_once, seed, resamples)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("report.json", report.model_dump_json(indent=1) + "\n"),
        ("report.html", render(report)),
    ):
        with replacing(output / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return report


async def _observe(
    planned: Plan,
    connection: AbstractAsyncContextManager[Session],
    at_once: int,
    bars: Bars,
    unfinished: set[str],
) -> tuple[ServiceFacts, list[Observed]]:
    task = asyncio.current_task()
    assert task is not None
    # Windows has no such handlers, and interrupts by itself.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with connection as session:
        facts = await session.facts()
        return facts, await observe(session, planned, at_once, bars, unfinished)


def _left_behind(galleries: set[str]) -> str:
    return "".join(
        f" Persons are left in the gallery {name}: `faceid persons --gallery {name}` lists them, "
        "`faceid persons delete` forgets them."
        for name in sorted(galleries)
    )
