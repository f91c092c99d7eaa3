"""Replacing the embedder of a running service."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Refused, Service
from app.cli.command import run
from app.cli.options import URL, Key, Url
from app.cli.output import complain, progress_bar, say, table

model = typer.Typer(help="Replace the embedder while the service runs.")

AcceptLoss = Annotated[
    bool,
    typer.Option("--accept-loss", help="Also where some persons would not be found any more."),
]

_POLL_S = 0.5
_MOST_SHOWN = 100


@model.command()
def status(url: Url = URL, key: Key = None) -> None:
    """Show which models there are, and how far faces are carried over."""

    async def ask(service: Service) -> None:
        _show(await service.call("GET", "/model"))

    run(ask, url, key, False, None)


@model.command()
def swap(
    file: Annotated[
        Path, typer.Argument(metavar="NEW.onnx", exists=True, dir_okay=False, help="The embedder.")
    ],
    accept_loss: AcceptLoss = False,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Add a model, wait until all faces are carried over to it, and switch to it.

    The service goes on meanwhile, with the former model; enrolments go to both. Stopped half way,
    here or there, run it again. Nothing is lost: the former model stays, `faceid model rollback`
    goes back to it, `faceid model remove` forgets it. Exits with 1 where persons would be lost.
    """
    data = file.read_bytes()

    async def work(service: Service) -> bool:
        answer = await service.call("GET", "/model")
        before = answer["active"]["weights_sha256"]
        answer = await service.call("PUT", "/model/other", body=data)
        wanted: str = answer["other"]["weights_sha256"]
        with progress_bar(None, "persons") as advance:
            done = 0
            while not _is_ready(answer):
                await asyncio.sleep(_POLL_S)
                answer = await service.call("GET", "/model")
                if answer["other"] is None or answer["other"]["weights_sha256"] != wanted:
                    if answer["active"]["weights_sha256"] == wanted != before:
                        break  # somebody else switched
                    raise Refused(
                        {"code": "model_conflict", "detail": "Somebody else removed the model."}
                    )
                carried = answer["carried"]
                advance(carried["persons"] - done, carried["total_persons"])
                done = carried["persons"]
        _show_carried(answer["carried"])
        if answer["carried"]["awaiting"]:
            await _show_awaiting(service)
        if answer["active"]["weights_sha256"] != wanted:
            if answer["carried"]["lost"] and not accept_loss:
                complain(
                    f"Not switched: {answer['carried']['lost']} persons would not be found any "
                    "more. Enrol new photos of them and run this again, or give --accept-loss."
                )
                return False
            answer = await service.call("POST", "/model/switch", _loss(accept_loss))
        say(f"{answer['active']['model']} is in use.")
        return True

    if not run(work, url, key, False, None):
        raise typer.Exit(1)


@model.command()
def switch(accept_loss: AcceptLoss = False, url: Url = URL, key: Key = None) -> None:
    """Have the two models change their roles."""

    async def ask(service: Service) -> None:
        answer = await service.call("POST", "/model/switch", _loss(accept_loss))
        say(f"{answer['active']['model']} is in use, {answer['other']['model']} can take over.")

    run(ask, url, key, False, None)


model.command("rollback", help="The same: go back to the former model.")(switch)


@model.command()
def remove(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = URL,
    key: Key = None,
) -> None:
    """Forget the model that is not in use, and all that was embedded by it."""

    async def ask(service: Service) -> None:
        other = (await service.call("GET", "/model"))["other"]
        if other is None:
            raise Refused({"code": "model_conflict", "detail": "There is no other model."})
        if not yes:
            typer.confirm(f"Forget {other['model']} and all that it embedded?", abort=True)
        await service.call("DELETE", "/model/other")
        say(f"{other['model']} is forgotten.")

    run(ask, url, key, False, None)


def _loss(accept: bool) -> dict[str, str | int | float | None]:
    return {"accept_loss": "true" if accept else None}


def _is_ready(answer: dict[str, Any]) -> bool:
    return bool(answer["carried"]["state"] == "complete" and answer["carried"]["is_exact"])


def _show(answer: dict[str, Any]) -> None:
    rows = [
        [role, its["model"], its["weights_sha256"][:12], its["calibration"] or "-"]
        for role in ("active", "other")
        if (its := answer[role]) is not None
    ]
    table(None, ["role", "model", "weights", "calibration"], rows)
    if answer["other"] is not None:
        _show_carried(answer["carried"])


def _show_carried(carried: dict[str, Any]) -> None:
    say(
        f"{carried['persons']} of {carried['total_persons']} persons carried over, with "
        f"{carried['faces']} of {carried['total_faces']} faces; {carried['awaiting']} faces need a "
        f"new photo, {carried['lost']} persons have no face without one"
    )


async def _show_awaiting(service: Service) -> None:
    galleries = (await service.call("GET", "/galleries"))["galleries"]
    rows: list[list[object]] = []
    for gallery in (its["gallery"] for its in galleries):
        cursor = None
        while len(rows) < _MOST_SHOWN:
            params = {"gallery": gallery, "cursor": cursor, "limit": 1000}
            page = await service.call("GET", "/model/awaiting", params)
            rows += [
                [gallery, its["person_id"], its["face_count"], len(its["awaiting"])]
                for its in page["persons"]
            ]
            cursor = page["cursor"]
            if cursor is None:
                break
    columns = ["gallery", "person", "faces carried over", "need a new photo"]
    table("need new photos", columns, rows[:_MOST_SHOWN])
    if len(rows) > _MOST_SHOWN:
        say("... and more: GET /model/awaiting tells of all.")
