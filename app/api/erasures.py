"""Who was erased, told without names; and erasing who has expired."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from app.api.auditing import audited, note
from app.api.deps import Injected
from app.api.problems import responses
from app.api.security import requires
from app.errors import InvalidRequest
from app.schemas import erasures, times

router = APIRouter(tags=["erasure"], dependencies=requires("admin", about="all"))


@router.get("/erasures", responses=responses(503), summary="Receipts of erasures")
async def list_erasures(
    services: Injected,
    since: Annotated[
        times.Moment | None, Query(description="Leave out those begun before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        str | None, Query(max_length=200, description="From the page before; opaque.")
    ] = None,
) -> erasures.ErasureList:
    """Of all galleries. None is ever removed."""
    receipts = [
        receipt
        for receipt in await services.store.receipts.all()
        if since is None or receipt.begun_at >= since
    ]
    start = 0
    if cursor is not None:
        ids = [receipt.receipt_id for receipt in receipts]
        if cursor not in ids:
            raise InvalidRequest(f"Unknown cursor {cursor[:64]!r}; start again without one.")
        start = ids.index(cursor) + 1
    page = receipts[start : start + limit]
    more = start + limit < len(receipts)
    return erasures.ErasureList(
        erasures=[erasures.ErasureReceipt(**asdict(receipt)) for receipt in page],
        cursor=page[-1].receipt_id if more else None,
    )


@router.post("/purge", responses=responses(503), summary="Erase who has expired, now")
@audited("purge")
async def purge(services: Injected) -> erasures.PurgeAnswer:
    """What the service does by itself every `FACEID_PRIVACY__PURGE_INTERVAL_S` seconds: persons
    who have expired are erased in all galleries, each with a receipt, and the files of the embedded
    store are rid of whatever was deleted."""
    done = await services.eraser.purge()
    note(persons=done.persons, faces=done.faces, galleries_rewritten=done.galleries)
    return erasures.PurgeAnswer(
        persons=done.persons, faces=done.faces, galleries_rewritten=done.galleries
    )
