"""Everybody of a gallery, a part at a time."""

import asyncio
from collections.abc import AsyncIterator

from app.store.base import Person, Store

_PAGE = 500


async def persons_of(store: Store, gallery: str) -> AsyncIterator[list[Person]]:
    """All persons, those who have expired too; requests are let in between two pages.

    Raises:
        StoreUnavailable.
    """
    cursor = None
    while True:
        page = await store.persons(gallery, _PAGE, cursor)
        yield page.persons
        cursor = page.cursor
        if cursor is None:
            return
        await asyncio.sleep(0)  # a page may be there without waiting
