"""The command line: `faceid serve` runs the service, every other command is a client of it."""

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

# What only some commands need (FastAPI, ONNX Runtime, the store) is imported by them.
from app.cli import enrolment
from app.cli.audit import audit
from app.cli.client import Service
from app.cli.command import run
from app.cli.erasure import erasures, purge
from app.cli.keys import keys
from app.cli.model import model
from app.cli.options import URL, Face, Gallery, Key, Local, Url
from app.cli.output import complain, progress_bar, say, table
from app.cli.persons import persons
from app.cli.recognition import duplicates, identify, verify
from app.cli.store import store
from app.errors import StartupError

app = typer.Typer(
    help="Photos in, persons out: enrol persons by their photos, find them in others.\n\n"
    "Start the service with `faceid serve`, then enrol a folder and ask who is in a photo. "
    "Without a service, add --local to those that have it.",
    epilog="Exit codes: 0 done; 1 the answer is no, or a part of it failed; 2 it could not run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(persons, name="persons")
app.add_typer(store, name="store")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
app.add_typer(model, name="model")
for command in (identify, verify, duplicates, purge, erasures):
    app.command()(command)

Concern = Literal["reject", "warn", "allow"]


def main() -> None:
    app(prog_name="faceid")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="0.0.0.0: every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    drain: Annotated[
        float,
        typer.Option(
            min=0,
            max=600,
            help="Seconds after SIGTERM in which it calls itself not ready and goes on serving.",
        ),
    ] = 1.0,
) -> None:
    """Run the service. Everything else is set by FACEID_ variables in the environment."""
    from app.cli import server

    try:
        server.serve(host, port, drain)
    except StartupError as error:
        complain(error)
        raise typer.Exit(1) from None


@app.command()
def enrol(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Holds a folder of photos for each person, named by the person's id.",
        ),
    ],
    face: Face = "only",
    gate: Annotated[
        Literal["off", "warn", "enforce"] | None,
        typer.Option(help="Poor photos: enrol, enrol and warn, or reject; unset: as set there."),
    ] = None,
    on_inconsistent: Annotated[
        Concern | None, typer.Option(help="Faces unlike the others of their person.")
    ] = None,
    on_duplicate: Annotated[
        Concern | None, typer.Option(help="New persons who look like somebody enrolled.")
    ] = None,
    consent_reference: Annotated[
        str | None, typer.Option(help="Your own reference to why they may be enrolled.")
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When to forget them, as in 2030-01-31T12:00:00Z."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Photos on their way at once; unset: two a core.")
    ] = None,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Enrol a folder of photos. Run again, it sends only what is new."""
    found = enrolment.scan(folder)
    if not found.photos and not found.rejected:
        complain(f"No photos in {folder}; it is to hold a folder of photos for each person.")
        raise typer.Exit(2)
    report = enrolment.Report(rejected=list(found.rejected))
    started = time.monotonic()

    async def send(service: Service) -> None:
        workers = jobs or 2 * (os.cpu_count() or 4)
        with progress_bar(len(found.photos), "photos") as advance:
            params = {
                "face": face,
                "gate": gate,
                "on_inconsistent": on_inconsistent,
                "on_duplicate": on_duplicate,
                "consent_reference": consent_reference,
                "expires_at": expires_at,
            }
            await enrolment.enrol(service, found.photos, params, workers, report, advance)

    try:
        if found.photos:
            run(send, url, key, local, gallery)
    finally:
        _show(found, report, time.monotonic() - started)
    if report.rejected:
        raise typer.Exit(1)


def _show(found: enrolment.Folder, report: enrolment.Report, seconds: float) -> None:
    if report.rejected:
        table("rejected", ["file", "code", "why"], sorted(report.rejected))
    if report.warnings:
        table("warning", ["file", "code", "why"], sorted(report.warnings))
    if found.ignored:
        table("ignored", ["file"], [[path] for path in found.ignored])
    say(
        f"{report.enrolled} enrolled, {report.present} already there, "
        f"{len(report.rejected)} rejected, {len(found.ignored)} ignored, "
        f"{len({warning.path for warning in report.warnings})} with warnings; {seconds:.1f} s"
    )
