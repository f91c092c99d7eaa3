"""Options that commands of several modules share."""

from typing import Annotated, Literal

import typer

URL = "http://127.0.0.1:8000"

Url = Annotated[str, typer.Option("--url", envvar="FACEID_URL", help="Address of the service.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="FACEID_API_KEY",
        show_envvar=True,
        help="API key. Better in the environment: everybody on this machine sees arguments.",
    ),
]
Local = Annotated[
    bool,
    typer.Option(
        "--local", help="Without a service: open the embedded store (FACEID_STORE__PATH) here."
    ),
]
Gallery = Annotated[str, typer.Option(help="Persons of one gallery are never seen from another.")]
Face = Annotated[
    Literal["only", "largest", "central"],
    typer.Option(help="Reject a photo with several faces, or take the largest, or the central."),
]
