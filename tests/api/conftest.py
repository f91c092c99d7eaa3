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


def enrol(
    client: httpx.Client, person_id: str, *photos: bytes, gallery: str = "default", **params: str
) -> httpx.Response:
    return client.post(
        f"/persons/{person_id}/faces",
        params=params | {"gallery": gallery},
        files=[("image", photo) for photo in photos],
    )


def named(client: httpx.Client, photo: bytes, gallery: str = "default") -> list[str | None]:
    """Everybody whom an identification names, as a match or as a candidate."""
    answer = client.post("/identify", params={"gallery": gallery}, files={"image": photo})
    return [
        name
        for face in answer.json()["faces"]
        for name in (face["person_id"], *(c["person_id"] for c in face["candidates"]))
    ]
