"""Erasing who has expired, and what was erased."""

import json
from typing import Annotated, Any

import typer

from app.cli.client import Service
from app.cli.command import run
from app.cli.options import URL, Key, Local, Url
from app.cli.output import say, table


def purge(url: Url = URL, key: Key = None, local: Local = False) -> None:
    """Erase who has expired, and rid the embedded store's files of what was deleted, now."""

    async def ask(service: Service) -> dict[str, Any]:
        return await service.call("POST", "/purge")

    done = run(ask, url, key, local, None)
    say(
        f"{done['persons']} persons erased, with {done['faces']} faces; "
        f"{done['galleries_rewritten']} galleries written anew."
    )


def erasures(
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="As in 2030-01-31T12:00:00Z.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One receipt a line.")] = False,
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """List the receipts of erasures."""

    async def ask(service: Service) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"since": since, "limit": 1000}
        while True:
            page = await service.call("GET", "/erasures", params)
            found += page["erasures"]
            if page["cursor"] is None:
                return found
            params["cursor"] = page["cursor"]

    receipts = run(ask, url, key, local, None)
    if as_json:
        for receipt in receipts:
            say(json.dumps(receipt))
        return
    columns = {
        "receipt_id": "receipt",
        "begun_at": "begun at",
        "gallery": "gallery",
        "person_digest": "digest of the person",
        "reason": "reason",
        "state": "state",
        "faces_deleted": "faces",
        "found": "found afterwards",
    }
    rows = [[receipt[name] for name in columns] for receipt in receipts]
    table(None, list(columns.values()), rows)
