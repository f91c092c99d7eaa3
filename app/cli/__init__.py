"""The command line: `faceid serve` runs the service, every other command is a client of it."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

# What only some commands need (FastAPI, ONNX Runtime, the store) is imported by them.
from app.cli import enrolment
from app.cli.audit import audit
from app.cli.client import Refused, Service, Unreachable, connect, person_path
from app.cli.keys import keys
from app.cli.options import URL, Key, Url
from app.cli.output import complain, progress_bar, say, table
from app.cli.store import store
from app.errors import StartupError

Result = TypeVar("Result")

app = typer.Typer(
    help="Photos in, persons out: enrol persons by their photos, find them in others.\n\n"
    "Start the service with `faceid serve`, then enrol a folder and ask who is in a photo. "
    "Without a service, add --local to any other command.",
    epilog="Exit codes: 0 done; 1 the answer is no, or a part of it failed; 2 it could not run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
persons = typer.Typer()
app.add_typer(persons, name="persons")
app.add_typer(store, name="store")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")

Local = Annotated[
    bool,
    typer.Option(
        "--local", help="Without a service: open the embedded store (FACEID_STORE__PATH) here."
    ),
]
Gallery = Annotated[str, typer.Option(help="Persons of one gallery are never seen from another.")]
Threshold = Annotated[
    float | None,
    typer.Option(min=-1, max=1, help="Least cosine similarity; unset: the service's own."),
]
Face = Annotated[
    Literal["only", "largest", "central"],
    typer.Option(help="Reject a photo with several faces, or take the largest, or the central."),
]
Concern = Literal["reject", "warn", "allow"]
PersonId = Annotated[str, typer.Argument(metavar="ID", help="The person's id.")]


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
            _run(send, url, key, local, gallery)
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


@app.command()
def identify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Photos.")],
    mode: Annotated[
        Literal["open", "closed"],
        typer.Option(help="closed: everybody is known to be enrolled, always name the nearest."),
    ] = "open",
    unique: Annotated[bool, typer.Option("--unique", help="Nobody is in a photo twice.")] = False,
    target_fpir: Annotated[
        float | None,
        typer.Option(help="Share of strangers that may be called somebody; unset: as set there."),
    ] = None,
    threshold: Threshold = None,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Candidates for each face.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answers as they come, one a line.")
    ] = False,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Who is in these photos?"""
    params = {
        "mode": mode,
        "unique": "true" if unique else None,
        "target_fpir": target_fpir,
        "threshold": threshold,
        "limit": limit,
    }

    async def ask(service: Service) -> bool:
        failed = False
        for file in files:
            try:
                image = {"image": file.read_bytes()}
                answer = await service.call("POST", "/identify", params, image)
            except Refused as error:
                answer = dict(error.problem)
            except OSError as error:
                answer = {"code": "unreadable_file", "detail": f"{error.strerror}."}
            if "faces" not in answer:
                failed = True
                if not as_json:
                    complain(f"{file}: {answer['detail']}")
            elif not as_json:
                _show_faces(file, answer["faces"], limit)
            if as_json:
                say(json.dumps({"file": str(file), **answer}))
        return failed

    if _run(ask, url, key, local, gallery):
        raise typer.Exit(1)


def _show_faces(file: Path, faces: list[dict[str, Any]], limit: int) -> None:
    if not faces:
        say(f"{file}: no face")
        return
    columns = ["face", "decision", "person", "similarity", "threshold", "probability", "x y w h"]
    rows = [
        [
            number,
            face["decision"],
            face["person_id"] or "-",
            *(
                "-" if face[name] is None else f"{face[name]:.3f}"
                for name in ("similarity", "threshold", "probability")
            ),
            " ".join(f"{face['box'][side]:.0f}" for side in ("x", "y", "width", "height")),
        ]
        for number, face in enumerate(faces, 1)
    ]
    if limit > 1:
        columns.append("candidates")
        for row, face in zip(rows, faces, strict=True):
            nearest = (f"{c['person_id']} {c['similarity']:.3f}" for c in face["candidates"])
            row.append(", ".join(nearest))
    table(str(file), columns, rows)


@app.command()
def verify(
    a: Annotated[Path, typer.Argument(metavar="A", help="A photo.")],
    b: Annotated[Path | None, typer.Argument(metavar="B", help="Another.")] = None,
    person: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead of B: an enrolled person.")
    ] = None,
    metric: Annotated[
        Literal["cosine", "euclidean", "manhattan"], typer.Option(help="Of the distance.")
    ] = "cosine",
    threshold: Threshold = None,
    face: Face = "only",
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Do two photos show the same person? Exits with 0 for yes, 1 for no, 2 for neither."""
    if (b is None) == (person is None):
        raise typer.BadParameter("give a second photo, or --person.")
    params = {"person_id": person, "metric": metric, "threshold": threshold, "face": face}
    try:
        images = (
            {"image": a.read_bytes()}
            if b is None
            else {"image_a": a.read_bytes(), "image_b": b.read_bytes()}
        )
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}.")
        raise typer.Exit(2) from None

    async def ask(service: Service) -> dict[str, Any]:
        return await service.call("POST", "/verify", params, images)

    answer = _run(ask, url, key, local, gallery)
    rows = [("verified", "yes" if answer["verified"] else "no")]
    rows += [
        (key, f"{answer[key]:.4f}")
        for key in ("similarity", "distance", "threshold", "probability")
        if answer[key] is not None
    ]
    table(None, ["", ""], [*rows, ("metric", answer["metric"])])
    if not answer["verified"]:
        raise typer.Exit(1)


@app.command()
def duplicates(
    target_fpir: Annotated[
        float | None,
        typer.Option(help="Share of persons that may look like another by chance; unset: 0.001."),
    ] = None,
    gallery: Gallery = "default",
    url: Url = URL,
    key: Key = None,
    local: Local = False,
) -> None:
    """Look for one face under two names, and two under one. Exits with 1 if there are any."""
    pairs: list[Sequence[object]] = []
    odd: list[Sequence[object]] = []

    async def ask(service: Service) -> None:
        cursor = None
        with progress_bar(None, "persons") as advance:
            while True:
                params = {"cursor": cursor, "target_fpir": target_fpir}
                answer = await service.call("GET", f"/galleries/{gallery}/duplicates", params)
                advance(answer["scanned"], answer["gallery_size"])
                pairs.extend(
                    (*pair["person_ids"], f"{pair['similarity']:.3f}")
                    for pair in answer["duplicates"]
                )
                odd.extend(
                    (face["person_id"], face["face_id"], f"{face['similarity']:.3f}")
                    for face in answer["inconsistent"]
                )
                cursor = answer["cursor"]
                if cursor is None:
                    return

    _run(ask, url, key, local, gallery)
    if pairs:
        pairs.sort(key=lambda pair: str(pair[-1]), reverse=True)
        table("one face, two persons", ["person", "person", "similarity"], pairs)
    if odd:
        columns = ["person", "face", "similarity to the others"]
        table("unlike the others of their person", columns, odd)
    if pairs or odd:
        raise typer.Exit(1)
    say("Nobody looks like somebody else.")


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
        for p in _run(ask, url, key, local, gallery)
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
        for f in _run(ask, url, key, local, gallery)["faces"]
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

    deleted = _run(ask, url, key, local, gallery)
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

    say(json.dumps(_run(ask, url, key, local, gallery), ensure_ascii=False, indent=2))


@app.command()
def purge(url: Url = URL, key: Key = None, local: Local = False) -> None:
    """Erase who has expired, and rid the embedded store's files of what was deleted, now."""

    async def ask(service: Service) -> dict[str, Any]:
        return await service.call("POST", "/purge")

    done = _run(ask, url, key, local, "default")
    say(
        f"{done['persons']} persons erased, with {done['faces']} faces; "
        f"{done['galleries_rewritten']} galleries written anew."
    )


@app.command()
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

    receipts = _run(ask, url, key, local, "default")
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


def _run(
    work: Callable[[Service], Awaitable[Result]],
    url: str,
    key: str | None,
    local: bool,
    gallery: str,
) -> Result:
    """Do `work` on a service; what makes it impossible is one line and exit code 2."""

    async def connected() -> Result:
        async with connect(url, local, gallery, key) as service:
            return await work(service)

    try:
        return asyncio.run(connected())
    except (Refused, Unreachable, StartupError) as error:
        complain(error)
        raise typer.Exit(2) from None
