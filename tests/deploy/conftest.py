"""What the service really exports, and where the files for its operation lie."""

import re
from pathlib import Path

import pytest

from tests.service import running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def deploy() -> Path:
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, hopper: bytes, group: bytes) -> set[str]:
    """Names of the series at `/metrics`."""
    with running(tmp_path_factory.mktemp("store")) as client:
        client.post("/persons/grace/faces", files={"image": hopper})
        client.post("/persons/grace/faces", files={"image": group})
        client.post("/identify", files={"image": group})
        lines = client.get("/metrics").text.splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    return names | {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
