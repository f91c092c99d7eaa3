from pathlib import Path

import numpy as np
import pytest

from training.data import open_pairs
from training.errors import InvalidPairs


@pytest.fixture
def root(folder: Path) -> Path:
    """The faces named as in LFW, Bob with a space in his name."""
    (folder / "bob").rename(folder / "Bob B")
    for person in folder.iterdir():
        for file in sorted(person.iterdir()):
            file.rename(person / f"{person.name}_{int(file.stem) + 1:04d}.png")
    return folder


def listed(root: Path, text: str) -> Path:
    path = root.parent / "pairs.txt"
    path.write_text(text)
    return path


def test_a_list_in_the_format_of_lfw(root: Path, face) -> None:
    text = "2\t1\nada\t1\t3\nada\t2\tBob B\t1\ncleo\t1\t2\nBob B\t1\tcleo\t2\n"
    pairs = open_pairs(listed(root, text), root)
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert len(pairs.faces) == 6
    assert pairs.faces.margin == 8
    numbers = [(0, 2), (1, 3), (4, 5), (3, 5)]
    for first, second, (one, other) in zip(pairs.first, pairs.second, numbers, strict=True):
        np.testing.assert_array_equal(pairs.faces.read(first), face(one))
        np.testing.assert_array_equal(pairs.faces.read(second), face(other))
    assert pairs.persons is not None
    assert pairs.persons[pairs.second].tolist() == [1, 0, 2, 2]  # Bob comes first


def test_faces_that_occur_in_no_pair_are_left_out(root: Path) -> None:
    pairs = open_pairs(listed(root, "1\nada 3 1\nada 3 cleo 1\n"), root)
    assert [Path(pairs.faces.source(i)).stem for i in range(3)] == [
        "ada_0001",
        "ada_0003",
        "cleo_0001",
    ]
    assert pairs.first.tolist() == [1, 1]
    assert pairs.second.tolist() == [0, 2]
    assert pairs.fold.tolist() == [0, 0]


def test_files_of_any_name_can_be_listed(root: Path) -> None:
    (root / "ada" / "ada_0002.png").rename(root / "ada" / "on the beach.png")
    (root / "cleo" / "cleo_0002.png").rename(root / "cleo" / "17.png")
    text = "1\nada\t1\ton the beach\nada\ton the beach\tcleo\t17\n"
    pairs = open_pairs(listed(root, text), root)
    assert pairs.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin"),
        ("ada\t1\t2\n", "does not begin"),
        ("1\t1\nada\t1\t2\n", "holds 1; is it whole"),
        ("0\n", "is it whole"),
        ("1\nada\t1\t2\nada\t1\n", "Line 3 of .* is no pair"),
        ("1\nada\t1\t9\neve\t1\tcleo\t1\n", r"2 faces .* the first is ada/9"),
    ],
)
def test_what_is_no_list_of_these_faces_is_refused(root: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidPairs, match=message):
        open_pairs(listed(root, text), root)


def test_a_list_that_cannot_be_read_is_refused(root: Path) -> None:
    with pytest.raises(InvalidPairs, match="cannot be read"):
        open_pairs(root / "nothing.txt", root)
    (root / "pairs.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidPairs, match="cannot be read"):
        open_pairs(root / "pairs.bin", root)
