"""`faceid persons`: who is enrolled."""

import json
from typing import Annotated, Any

import typer

from app.cli.client import Service, person_path
from app.cli.command import run
from app.cli.options import URL, Gallery, Key, Local, Url
from app.cli.output import say, table

persons = typer.Typer()

PersonId = Annotated[str, typer.Argument(metavar="ID", help="The person's id.")]


@persons.callback(invoke_without_command=True)
def list_persons(
    ctx: typer.Context,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """List the enrolled persons, show or delete one."""
    if ctx.invoked_subcommand is not None:
        # Here they would be taken and have no effect: a person of another gallery would go.
        if {"COMMANDLINE"} & {getattr(ctx.get_parameter_source(p), "name", "") for p in ctx.params}:
            raise typer.BadParameter(f"options go behind `{ctx.invoked_subcommand}`.")
        return

    async def ask(service: Service) -> list[dict[str, Any]]:
        page = await service.call("GET", "/persons", {"limit": 1000})
        found: list[dict[str, Any]] = page["persons"]
        while page["cursor"]:
            page = await service.call("GET", "/persons", {"limit": 1000, "cursor": page["cursor"]})
            found += page["persons"]
        return found

    rows = [
        (p["person_id"], p["face_count"], json.dumps(p["metadata"], ensure_ascii=False))
        for p in run(ask, url, key, local, gallery)
    ]
    table(None, ["person", "faces", "metadata"], rows)


@persons.command("show")
def show_person(
    person_id: PersonId,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Show the enrolled faces of one person."""

    async def ask(service: Service) -> dict[str, Any]:
        return await service.call("GET", f"{person_path(person_id)}/faces")

    rows = [
        (
            f["face_id"],
            f["enrolled_at"],
            f"{f['quality']['eye_distance_px']:.0f}",
            f["image_sha256"],
        )
        for f in run(ask, url, key, local, gallery)["faces"]
    ]
    table(None, ["face", "enrolled at", "pixels between the eyes", "SHA-256 of the photo"], rows)


@persons.command("delete")
def delete_person(
    person_id: PersonId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Forget a person and all of their faces."""
    if not yes:
        typer.confirm(f"Forget {person_id} of gallery {gallery} and all faces?", abort=True)

    async def ask(service: Service) -> dict[str, Any]:
        return await service.call("DELETE", person_path(person_id))

    deleted = run(ask, url, key, local, gallery)
    count = deleted["faces_deleted"]
    say(
        f"{person_id} is forgotten, with {count} face{'' if count == 1 else 's'}; "
        f"{deleted['found']} of {deleted['probes']} exact searches still find them. "
        f"Receipt {deleted['receipt_id']}."
    )
    if deleted["found"]:
        raise typer.Exit(1)


@persons.command("export")
def export_person(
    person_id: PersonId,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Print all that is stored of one person, embeddings included, as JSON."""

    async def ask(service: Service) -> dict[str, Any]:
        return await service.call("GET", f"{person_path(person_id)}/export")

    say(json.dumps(run(ask, url, key, local, gallery), ensure_ascii=False, indent=2))
