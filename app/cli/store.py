"""Moving everybody: from store to store, into a file, out of it."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from app.cli.client import Refused, Unreachable, connect
from app.cli.options import URL, Key, Url
from app.cli.output import complain, progress_bar, say
from app.errors import FaceIdError, InvalidSettings, StoreLocked

if TYPE_CHECKING:
    from app.settings import StoreSettings
    from app.store import Embedder, Store

store = typer.Typer(help="Move everybody from store to store; back up and restore.")

# One page goes in one call.
_TIMEOUT_S = 60
_MEGABYTE = 1_000_000


@store.command()
def migrate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Where they are.")],
    destination: Annotated[
        str, typer.Argument(metavar="DESTINATION", help="Where they are to be; empty.")
    ],
) -> None:
    """Copy all galleries into another store, and check that they are the same there.

    SOURCE and DESTINATION are each a folder of the embedded store or the address of a Qdrant
    server, whose key is read from FACEID_STORE__API_KEY. Stop the service first. Run again, it
    goes on where it was stopped. The source stays as it is.
    """
    if _is_address(source) and _is_address(destination):
        raise typer.BadParameter(
            "one of them must be a folder. Between two servers use Qdrant's snapshots, or "
            "`faceid store backup` and `restore`."
        )

    if source == destination:
        raise typer.BadParameter("SOURCE and DESTINATION are the same.")

    async def move() -> None:
        from app.store.transfer import StoreSource, compare_searches, copy, verify

        configured, settings = _configured()
        if not _is_address(source) and not Path(source).is_dir():
            raise InvalidSettings(f"There is no folder {source}.")
        async with (
            _opened(_at(settings, source), configured) as (embedder, old),
            _opened(_at(settings, destination), embedder) as (its, new),
        ):
            _require_same(embedder, its)
            sizes = await old.galleries()
            faces = sum(size.faces for size in sizes.values())
            started = time.monotonic()
            with progress_bar(faces, "faces") as advance:
                copied = await copy(StoreSource(old), new, advance)
            seconds = time.monotonic() - started
            say(
                f"{copied.written} persons copied, {copied.present} already there; "
                f"{faces} faces in {seconds:.1f} s, {faces / seconds:.0f} faces/s"
            )
            contents = await verify(StoreSource(old), new)
            agreement = await compare_searches(old, new)
        say(
            f"verified: {sum(its.persons for its in contents.values())} persons with "
            f"{sum(its.faces for its in contents.values())} faces of {len(contents)} galleries are "
            f"the same bit for bit; of {agreement.neighbours} neighbours in {agreement.searches} "
            f"searches {agreement.neighbours - agreement.missed} are the same, similarities differ "
            f"by {agreement.largest_difference:.0e} at most"
        )

    _run(move())


@store.command()
def backup(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="To write; a folder: a new file in it; -: standard output."
        ),
    ],
    url: Url = URL,
    key: Key = None,
    local: Annotated[
        bool,
        typer.Option("--local", help="Without a service: open the store that is configured here."),
    ] = False,
) -> None:
    """Write everybody into one file, while the service runs.

    The file is readable by you only and not encrypted. It holds biometric data: pipe it through
    age or gpg where others may get hold of it.
    """

    async def write() -> None:
        from app.store.backup import Backup
        from app.store.files import sync

        if str(file) == "-":
            async for piece in _pieces(url, key, local):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        path = file / f"faceid-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl.gz"
        if not file.is_dir():
            path = file
        if path.exists():
            raise InvalidSettings(f"{path} exists; choose another name.")
        descriptor, partial = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
        try:
            with os.fdopen(descriptor, "w+b") as written:
                await _write(_pieces(url, key, local), written)
                saved = Backup(written)
                os.fsync(descriptor)
            Path(partial).rename(path)
        finally:
            Path(partial).unlink(missing_ok=True)
        sync(path.parent)
        say(f"{path}: {saved.faces} faces, as of {saved.taken_at.isoformat(timespec='seconds')}")

    _run(write())


async def _write(pieces: AsyncIterator[bytes], file: BinaryIO) -> None:
    written = 0
    with progress_bar(None, "MB") as advance:
        async for piece in pieces:
            before, written = written, written + file.write(piece)
            advance(written // _MEGABYTE - before // _MEGABYTE)


async def _pieces(url: str, key: str | None, local: bool) -> AsyncIterator[bytes]:
    if not local:
        async with connect(url, local, None, key) as service:
            async for piece in service.download("/backup"):
                yield piece
        return
    from app.store.backup import write_backup

    configured, settings = _configured()
    async with _opened(settings, configured) as (embedder, opened):
        async for piece in write_backup(opened, embedder):
            yield piece


@store.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup; -: standard input.")],
) -> None:
    """Put everybody of a backup into the store that is configured here, which is to be empty.

    FACEID_STORE__PATH or FACEID_STORE__URL name it, as for the service; stop that first. The file
    is checked before anything is written. Run again, it goes on where it was stopped. Whom the
    receipts of erasures in that store tell of is left out.
    """

    async def read() -> None:
        from app.errors import StoreMismatch
        from app.store.backup import Backup
        from app.store.receipts import erasures_since
        from app.store.transfer import WithoutErased, copy, verify

        configured, settings = _configured()
        with _seekable(file) as opened_file:
            saved = Backup(opened_file)
            async with _opened(settings, configured) as (embedder, empty):
                if problem := saved.mismatch(embedder):
                    raise StoreMismatch(problem)
                source = WithoutErased(saved, await erasures_since(empty.receipts))
                started = time.monotonic()
                with progress_bar(saved.faces, "faces") as advance:
                    copied = await copy(source, empty, advance)
                seconds = time.monotonic() - started
                contents = await verify(source, empty)
        faces = sum(its.faces for its in contents.values())
        say(
            f"{copied.written} persons restored, {copied.present} already there, with "
            f"{faces} faces of {len(contents)} galleries; {seconds:.1f} s, "
            f"{faces / seconds:.0f} faces/s. {source.left_out} left out, as receipts tell of their "
            f"erasure. All are as of {saved.taken_at.isoformat(timespec='seconds')}: who was "
            "deleted later, and has no receipt here, is back."
        )

    _run(read())


def _is_address(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _at(settings: "StoreSettings", location: str) -> "StoreSettings":
    place: dict[str, Any] = {"url": None, "path": Path(location)}
    if _is_address(location):
        place = {"url": location}
    return settings.model_copy(update=place)


def _configured() -> tuple["Embedder", "StoreSettings"]:
    """The embedder whose faces may be moved, and the store of the service."""
    from app.inference.session import open_session
    from app.models.spec import EmbedderSpec
    from app.settings import load_settings
    from app.store import Embedder

    settings = load_settings()
    model = settings.model
    _, spec = open_session(model.embedder, EmbedderSpec, "cpu", 1, model.embedder_sha256)
    embedder = Embedder(spec.name, spec.dimension, spec.weights_sha256)
    patient = {"timeout_s": max(settings.store.timeout_s, _TIMEOUT_S)}
    return embedder, settings.store.model_copy(update=patient)


def _require_same(embedder: "Embedder", other: "Embedder") -> None:
    from app.errors import StoreMismatch
    from app.store.records import other_model

    if embedder != other:
        raise StoreMismatch(other_model(other, embedder, "the destination"))


@asynccontextmanager
async def _opened(
    settings: "StoreSettings", configured: "Embedder"
) -> AsyncIterator[tuple["Embedder", "Store"]]:
    """The store of the model that is active there, and which one that is."""
    from app.main import stores_of

    stores = stores_of(settings)
    opened = None
    try:
        try:
            chosen = await stores.open(configured)
            opened = stores.store(chosen.active)
            await opened.open()
        except StoreLocked:
            raise StoreLocked(
                f"A service is using the store in {settings.path}. Stop it, run this again and "
                "start it afterwards. (`faceid store backup` without --local needs no stop.)"
            ) from None
        yield chosen.active, opened
    finally:
        if opened is not None:
            await opened.close()
        await stores.close()


@contextmanager
def _seekable(file: Path) -> Iterator[BinaryIO]:
    if str(file) != "-":
        with file.open("rb") as opened:
            yield opened
        return
    # It is read twice. The file has no name, and goes with the process.
    with tempfile.TemporaryFile() as copied:
        shutil.copyfileobj(sys.stdin.buffer, copied)
        yield cast("BinaryIO", copied)


def _run(work: Coroutine[Any, Any, None]) -> None:
    """What makes it impossible is one line and exit code 2."""
    try:
        asyncio.run(work)
    except OSError as error:
        complain(f"{error.filename or error}: {error.strerror}.")
        raise typer.Exit(2) from None
    except (FaceIdError, Refused, Unreachable) as error:
        complain(error)
        raise typer.Exit(2) from None
