"""`faceid keys`: the service's API keys, changed in their file; a running service takes notice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.output import complain, say, table
from app.errors import FaceIdError

if TYPE_CHECKING:
    from app.audit import AuditLog
    from app.auth import Key
    from app.settings import Settings

Result = TypeVar("Result")

keys = typer.Typer(
    help="Make, list, rotate and revoke API keys. A running service needs no restart.",
    no_args_is_help=True,
)

KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `faceid keys list` names it.")]


@keys.command()
def create(
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="What it may do: identify, enrol, embed, metrics, or admin for everything; "
            "repeat for more.",
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Who will have it, for `list`: letters, digits, ._@:+=-")
    ] = "unnamed",
    gallery: Annotated[
        list[str] | None,
        typer.Option("--gallery", help="Bind it to a gallery; repeat for more. Unset: all."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="Days after which it ends; unset: never.")
    ] = None,
) -> None:
    """Make a key and print it, this once."""
    expires_at = None if days is None else _now() + timedelta(days=days)

    def work(settings: Settings) -> tuple[Key, str]:
        from app import auth
        from app.audit import Event

        log = open_log(settings)
        made = auth.create(settings.keys_file, name, scope, gallery or [], expires_at)
        log.write(Event("key.create", "done", details=key_details(made[0])))
        return made

    _show(*_with_settings(work))


@keys.command("list")
def list_keys() -> None:
    """List the keys; they themselves are not kept, only their hashes."""

    def work(settings: Settings) -> tuple[Key, ...]:
        from app import auth

        return auth.read(settings.keys_file)

    now = datetime.now(UTC)
    table(
        None,
        ["id", "name", "scopes", "galleries", "created", "ends"],
        [
            (
                key.id,
                key.name,
                ",".join(key.scopes),
                ",".join(key.galleries) or "all",
                key.created_at.isoformat(),
                "never"
                if key.expires_at is None
                else f"{key.expires_at.isoformat()}{' (ended)' if key.is_expired(now) else ''}",
            )
            for key in _with_settings(work)
        ],
    )


@keys.command()
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[
        float,
        typer.Option(min=0, help="How long the old key still works. 0 where it has leaked."),
    ] = 24,
) -> None:
    """Make a key that may do the same, and let the old one end."""

    def work(settings: Settings) -> tuple[Key, str]:
        from app import auth
        from app.audit import Event

        log = open_log(settings)
        made = auth.rotate(settings.keys_file, key_id, timedelta(hours=overlap_hours))
        details = key_details(made[0]) | {"replaces": key_id}
        log.write(Event("key.rotate", "done", details=details))
        return made

    _show(*_with_settings(work))
    typer.echo(f"The old key {key_id} works for {overlap_hours:g} more hours.", err=True)


@keys.command()
def revoke(key_id: KeyId) -> None:
    """Remove a key; the next request with it is refused."""

    def work(settings: Settings) -> Key:
        from app import auth
        from app.audit import Event

        log = open_log(settings)
        key = auth.revoke(settings.keys_file, key_id)
        log.write(Event("key.revoke", "done", details=key_details(key)))
        return key

    say(f"{_with_settings(work).id} is revoked.")


def key_details(key: Key) -> dict[str, Any]:
    """What the audit log says of a key."""
    return {
        "key": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "galleries": list(key.galleries),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }


def open_log(settings: Settings) -> AuditLog:
    """First of all: a key must not change if that cannot be written down.

    Raises:
        AuditUnusable.
    """
    from app.audit import AuditLog

    log = AuditLog(settings.audit_path, settings.audit.max_file_bytes)
    log.open()
    return log


def _show(key: Key, text: str) -> None:
    # Alone on standard output, so that a script can take it from there.
    say(text)
    typer.echo(f"This is key {key.id}; it is not shown again.", err=True)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _with_settings(work: Callable[[Settings], Result]) -> Result:
    from pydantic import ValidationError

    from app.settings import load_settings

    try:
        return work(load_settings())
    except ValidationError as error:
        found = error.errors()[0]
        complain(f"{found['loc'][0]}: {found['msg']}")
    except FaceIdError as error:
        complain(error)
    raise typer.Exit(2)
