"""`faceid audit`: what the audit log is worth."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import complain, say
from app.errors import StartupError

audit = typer.Typer(help="Check the audit log.", no_args_is_help=True)


@audit.callback()
def _only_subcommands() -> None: ...


@audit.command()
def verify(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The log; unset: the service's (FACEID_AUDIT__PATH)."),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="N:HASH",
            help="What an earlier run printed, kept elsewhere: has the log still that line?",
        ),
    ] = None,
    first: Annotated[
        int,
        typer.Option(min=1, help="The line it begins with, where older files are archived."),
    ] = 1,
) -> None:
    """Find lines that were changed, removed or moved. Exits with 0 for none, 1 for some."""
    from app.audit import Head
    from app.audit import verify as follow
    from app.settings import load_settings

    try:
        witnesses = [Head.parse(text) for text in head or []]
        path = path or load_settings().audit_path
        if not path.parent.is_dir():
            raise FileNotFoundError(2, "No such folder", str(path.parent))
        report = follow(path, witnesses, first)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except StartupError as error:
        complain(error)
        raise typer.Exit(2) from None
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}.")
        raise typer.Exit(2) from None
    for problem in report.problems:
        complain(problem)
    if report.incomplete:
        say("the last line was cut short by a crash; nobody was told that it was written")
    say(f"{report.lines} lines in {report.files} files, head {report.head}")
    if report.problems:
        raise typer.Exit(1)
