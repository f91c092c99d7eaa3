from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.store import EmbeddedStore
from tests.stores import embedded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[EmbeddedStore]:
    store = embedded(path)
    await store.open()
    yield store
    await store.close()
