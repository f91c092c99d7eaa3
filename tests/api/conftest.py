from collections.abc import Iterator

import httpx
import pytest

from tests.service import running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One service for all tests of a module; they keep apart by gallery."""
    with running(tmp_path_factory.mktemp("store")) as client:
        yield client


@pytest.fixture
def gallery(request: pytest.FixtureRequest) -> str:
    """A gallery of the test's own."""
    return f"g{abs(hash(request.node.nodeid)):x}"
