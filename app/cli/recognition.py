"""Who is it, is it the same person, and is anybody enrolled twice?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from app.cli.client import Refused, Service
from app.cli.command import run
from app.cli.options import URL, Face, Gallery, Key, Local, Url
from app.cli.output import complain, progress_bar, say, table


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
    threshold: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Least cosine similarity; unset: the service's own."),
    ] = None,
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

    if run(ask, url, key, local, gallery):
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


def verify(
    a: Annotated[Path, typer.Argument(metavar="A", help="A photo.")],
    b: Annotated[Path | None, typer.Argument(metavar="B", help="Another.")] = None,
    person: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead of B: an enrolled person.")
    ] = None,
    metric: Annotated[
        Literal["cosine", "euclidean", "manhattan"], typer.Option(help="Of the distance.")
    ] = "cosine",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, help="Largest distance, in the metric; unset: the service's own."),
    ] = None,
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

    answer = run(ask, url, key, local, gallery)
    rows = [("verified", "yes" if answer["verified"] else "no")]
    rows += [
        (key, f"{answer[key]:.4f}")
        for key in ("similarity", "distance", "threshold", "probability")
        if answer[key] is not None
    ]
    table(None, ["", ""], [*rows, ("metric", answer["metric"])])
    if not answer["verified"]:
        raise typer.Exit(1)


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

    run(ask, url, key, local, None)
    if pairs:
        pairs.sort(key=lambda pair: str(pair[-1]), reverse=True)
        table("one face, two persons", ["person", "person", "similarity"], pairs)
    if odd:
        columns = ["person", "face", "similarity to the others"]
        table("unlike the others of their person", columns, odd)
    if pairs or odd:
        raise typer.Exit(1)
    say("Nobody looks like somebody else.")
