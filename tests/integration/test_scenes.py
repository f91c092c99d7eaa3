"""Real photos of real groups, over HTTP: who is named, and how many faces are counted."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service import running

# Who is in each photo, from left to right. The man at the left border of bbt2 is nobody of
# the cast, half hidden and cut off.
CAST = {
    "bbt1": ["raj", "leonard", "howard", "sheldon"],
    "bbt2": [None, "leonard", "sheldon"],
    "bbt3": ["sheldon", "howard", "penny", "raj", "leonard"],
    "bbt4": ["leonard", "amy", "raj", "penny", "sheldon", "bernadette"],
    "bbt5": ["raj", "penny", "sheldon", "leonard", "howard"],
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running(tmp_path_factory.mktemp("store")) as client:
        yield client


def test_a_cast_is_enrolled_and_named_in_every_group_photo(
    client: httpx.Client, scenes: Path
) -> None:
    crops = sorted(scenes.glob("bbt/*/*.png"))
    assert len(crops) == 40
    for crop in crops:
        answer = client.post(
            f"/persons/{crop.parent.name}/faces", files={"image": crop.read_bytes()}
        )
        assert answer.status_code == 201, f"{crop.name}: {answer.text}"
    persons = client.get("/persons").json()["persons"]
    assert {person["face_count"] for person in persons} == {5}
    assert len(persons) == 8

    named = {}
    for photo in CAST:
        data = (scenes / "bbt" / f"{photo}.jpg").read_bytes()
        faces = client.post("/identify", files={"image": data}).json()["faces"]
        faces.sort(key=lambda face: face["box"]["x"])
        named[photo] = [face["person_id"] for face in faces]
    assert named == CAST


def test_faces_are_counted(client: httpx.Client, scenes: Path) -> None:
    photos = sorted(scenes.glob("counted/*.jpg"))
    assert photos
    for photo in photos:
        count = photo.stem.split("_")[1]
        expected = int(count) if count.isdigit() else 1
        faces = client.post("/detect", files={"image": photo.read_bytes()}).json()["faces"]
        assert len(faces) == expected, photo.name
