"""What all tests share: photos that come with the repository, and the larger data beside it."""

import os
from pathlib import Path

import pytest

# Before torch is imported: the tests run in several processes, whose threads would wait for each
# other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PHOTOS = Path(__file__).parent / "photos"
SHARED = Path(os.environ.get("FACEID_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def hopper() -> bytes:
    """One face, JPEG."""
    return (PHOTOS / "grace_hopper.jpg").read_bytes()


@pytest.fixture(scope="session")
def collins() -> bytes:
    """One face, PNG."""
    return (PHOTOS / "astronaut.png").read_bytes()


@pytest.fixture(scope="session")
def group() -> bytes:
    """Both of them in one JPEG, changed."""
    return (PHOTOS / "group.jpg").read_bytes()


@pytest.fixture(scope="session")
def scenes() -> Path:
    folder = SHARED / "scenes"
    if not folder.is_dir():
        pytest.skip(f"no test data at {SHARED}; set FACEID_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
