"""What every command does that asks a service."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from app.cli.client import Refused, Service, Unreachable, connect
from app.cli.output import complain
from app.errors import StartupError

Result = TypeVar("Result")


def run(
    work: Callable[[Service], Awaitable[Result]],
    url: str,
    key: str | None,
    local: bool,
    gallery: str | None,
) -> Result:
    """Do `work` on a service; what makes it impossible is one line and exit code 2.

    Args:
        gallery: a parameter of all its calls; None for those that take none.
    """

    async def connected() -> Result:
        async with connect(url, local, gallery, key) as service:
            return await work(service)

    try:
        return asyncio.run(connected())
    except (Refused, Unreachable, StartupError) as error:
        complain(error)
        raise typer.Exit(2) from None
