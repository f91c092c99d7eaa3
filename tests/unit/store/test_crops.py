"""Kept crops: to the bit, sealed, bound to their face, gone with their person."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.errors import InvalidSettings
from app.inference.embedder import embed_batch
from app.inference.session import open_session
from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec
from app.settings import StoreSettings
from app.store import records
from app.store.crops import CropFiles, Crops

pytestmark = pytest.mark.anyio

KEY = bytes(range(32))
FACES = [f"00000000-0000-0000-0000-00000000000{i}" for i in range(1, 4)]


def crop(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (112, 112, 3), np.uint8)


@pytest.fixture
def crops(path: Path) -> Crops:
    return Crops(CropFiles(path), KEY)


async def test_a_crop_comes_back_to_the_bit_and_so_does_its_embedding(crops: Crops) -> None:
    kept = crop()
    assert await crops.put("default", "ada", FACES[0], kept)
    assert not await crops.put("default", "ada", FACES[0], kept), "there already"
    found = (await crops.get("default", "ada", FACES))[FACES[0]]
    np.testing.assert_array_equal(found, kept)
    session, _ = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", threads=1)
    (one,), (other,) = embed_batch(session, [kept]), embed_batch(session, [found])
    np.testing.assert_array_equal(one.vector, other.vector)


async def test_neither_names_nor_pixels_are_on_the_disk(crops: Crops, path: Path) -> None:
    await crops.put("staff", "grace-hopper", FACES[0], crop())
    for file in path.rglob("*"):
        assert "grace" not in str(file)
        if file.is_file():
            assert b"PNG" not in file.read_bytes()
            assert file.stat().st_mode & 0o077 == 0


async def test_a_crop_in_the_place_of_another_is_not_used(crops: Crops, path: Path) -> None:
    await crops.put("default", "ada", FACES[0], crop(1))
    await crops.put("default", "bob", FACES[1], crop(2))
    (ada,) = path.rglob(FACES[0])
    (bob,) = path.rglob(FACES[1])
    shutil.copy(bob, ada)
    assert await crops.get("default", "ada", FACES) == {}
    ada.write_bytes(os.urandom(5))
    assert await crops.get("default", "ada", FACES) == {}


async def test_another_key_is_noticed_before_anything_is_kept(crops: Crops, path: Path) -> None:
    await crops.put("default", "ada", FACES[0], crop())
    other = Crops(CropFiles(path), bytes(32))
    with pytest.raises(InvalidSettings, match="CROPS_KEY"):
        await other.put("default", "ada", FACES[1], crop())


async def test_they_are_deleted_also_without_the_key(crops: Crops, path: Path) -> None:
    for face_id in FACES:
        await crops.put("default", "ada", face_id, crop())
    without = Crops(CropFiles(path), None)
    await without.delete("default", "ada", [FACES[0]])
    assert set(await crops.get("default", "ada", FACES)) == set(FACES[1:])
    await without.delete("default", "ada")
    assert await crops.get("default", "ada", FACES) == {}
    await without.delete("default", "nobody")


async def test_whole_persons_are_deleted_by_their_ids(crops: Crops) -> None:
    await crops.put("default", "ada", FACES[0], crop())
    await crops.put("default", "bob", FACES[1], crop())
    ada, bob = (records.point_id("default", name) for name in ("ada", "bob"))
    assert await crops.persons() == {ada, bob}
    await crops.delete_persons([bob])
    assert await crops.persons() == {ada}


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"keep_crops": True}, "openssl rand -base64 32"),
        ({"crops_key": "A" * 43 + "="}, "of no use without"),
        ({"keep_crops": True, "crops_key": "secret"}, "must be 32 bytes"),
        ({"keep_crops": True, "crops_key": "c2hvcnQ="}, "must be 32 bytes"),
    ],
)
def test_crops_and_key_go_together(settings: dict, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        StoreSettings(**settings)
