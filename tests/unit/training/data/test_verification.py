import os
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data import read_bin
from training.errors import InvalidFaces, InvalidPairs


@pytest.fixture
def images(face) -> list[bytes]:
    return [cv2.imencode(".png", face(n, 112)[..., ::-1])[1].tobytes() for n in range(44)]


SAME = [n % 3 == 0 for n in range(22)]


def written_by_python_2(images: list[bytes], same: list[bool]) -> bytes:
    """Opcodes of protocol 2; its strings are bytes."""
    strings = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    truths = b"".join(b"\x88" if value else b"\x89" for value in same)
    return b"\x80\x02](" + strings + b"e](" + truths + b"e\x86."


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("truth", [bool, np.bool_])
def test_sets_written_by_python_3_are_read(
    tmp_path: Path, images: list[bytes], face, protocol: int, truth: type
) -> None:
    file = tmp_path / "lfw.bin"
    file.write_bytes(pickle.dumps((images, [truth(value) for value in SAME]), protocol))
    pairs = read_bin(file)
    assert pairs.same.dtype == np.bool_
    assert pairs.same.tolist() == SAME
    assert len(pairs.faces) == 44
    assert pairs.persons is None
    np.testing.assert_array_equal(pairs.faces.read(pairs.second[4]), face(9, 112))


def test_sets_written_by_python_2_are_read(tmp_path: Path, images: list[bytes], face) -> None:
    file = tmp_path / "lfw.bin"
    file.write_bytes(written_by_python_2(images, SAME))
    pairs = read_bin(file)
    assert pairs.same.tolist() == SAME
    np.testing.assert_array_equal(pairs.faces.read(pairs.first[1]), face(2, 112))


def test_folds_are_those_of_scikit_learn(tmp_path: Path, images: list[bytes]) -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    file = tmp_path / "lfw.bin"
    file.write_bytes(pickle.dumps((images, SAME)))
    pairs = read_bin(file)
    for fold, (_, test) in enumerate(model_selection.KFold(10).split(pairs.same)):
        assert np.flatnonzero(pairs.fold == fold).tolist() == test.tolist()


class Attack:
    """Writes itself as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_file_is_executed(tmp_path: Path, images: list[bytes], protocol: int) -> None:
    proof = tmp_path / "executed"
    file = tmp_path / "evil.bin"
    for attack in (
        Attack(os.system, f"touch {proof}"),
        Attack(eval, f"open({str(proof)!r}, 'w')"),
        Attack(getattr, b"", "join"),
        Attack(bytearray, 1 << 40),
        Attack(np.ndarray, (1 << 20, 1 << 20)),
    ):
        file.write_bytes(pickle.dumps((images, [*SAME[:-1], attack]), protocol))
        with pytest.raises(InvalidPairs, match=r"it asks for [a-z_.]+, which no image needs"):
            read_bin(file)
    assert not proof.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG no pickle",
        pickle.dumps({"images": []}),
        pickle.dumps(([], [])),
        pickle.dumps(([b"one image"], [True])),
        pickle.dumps((["text", "text"], [True])),
        pickle.dumps(([b"", b""], [1])),
        pickle.dumps(([b"", b""], [np.float64(1)])),
        pickle.dumps(([b"", b""], [np.bool_])),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.bin"
    file.write_bytes(content)
    with pytest.raises(InvalidPairs, match="not a verification set"):
        read_bin(file)


def test_a_broken_image_is_named(tmp_path: Path, images: list[bytes]) -> None:
    file = tmp_path / "lfw.bin"
    images[3] = images[3][:-50]
    file.write_bytes(pickle.dumps((images, SAME)))
    with pytest.raises(InvalidFaces, match=r"lfw.bin, image 3 is corrupt"):
        read_bin(file).faces.read(3)
