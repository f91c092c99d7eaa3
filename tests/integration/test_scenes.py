"""Real photos of real groups, over HTTP: who is named, and how many faces are counted."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service import running

# Who is in each photo, from left to right. The face at the left border of bbt2 is cut off.
CAST = {
    "bbt1": ["leonard", "raj", "sheldon", "howard"],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running(tmp_path_factory.mktemp("store")) as client:
        yield client


def test_show(client: httpx.Client, scenes: Path) -> None:
    for crop in sorted(scenes.glob("bbt/*/*.png")):
        answer = client.post(
            f"/persons/{crop.parent.name}/faces",
            content=crop.read_bytes(),
            headers={"Content-Type": "image/png"},
        )
        assert answer.status_code == 201, crop
    for photo in sorted(scenes.glob("bbt/*.jpg")):
        answer = client.post(
            "/identify", content=photo.read_bytes(), headers={"Content-Type": "image/jpeg"}
        ).json()
        faces = sorted(answer["faces"], key=lambda f: f["box"]["x"])
        print(
            photo.name,
            [
                (
                    f["person_id"],
                    round(f["similarity"], 2),
                    f["candidates"][0]["person_id"],
                    round(f["candidates"][1]["similarity"], 2),
                )
                for f in faces
            ],
        )
