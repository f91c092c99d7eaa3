"""Everybody in one file."""

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from app.api.auditing import audited, note
from app.api.deps import Injected
from app.api.problems import responses
from app.api.security import requires
from app.store.backup import write_backup

router = APIRouter(prefix="/backup", tags=["backup"])


@router.get(
    "",
    response_class=StreamingResponse,
    dependencies=requires("admin", about="all"),
    responses=responses(503)
    | {200: {"content": {"application/gzip": {}}, "description": "Gzipped lines of JSON"}},
    summary="Back up all galleries",
)
@audited("backup")
async def backup(services: Injected) -> StreamingResponse:
    """Everybody with their faces, embeddings and metadata, and the targets of all galleries, while
    the service goes on. The file is biometric data: keep it as you keep the store.

    `faceid store backup` fetches it and `faceid store restore` reads it. An answer that breaks off
    is no backup; the last line tells, which is the digest of all others."""
    await services.store.check()
    note(galleries="all")
    name = f"faceid-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl.gz"
    return StreamingResponse(
        write_backup(services.store, services.model.identity),
        media_type="application/gzip",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        },
    )
