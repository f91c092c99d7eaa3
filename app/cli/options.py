"""Options that commands of several modules share."""

from typing import Annotated

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
