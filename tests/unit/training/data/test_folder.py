from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import SHARED
from training.data import centre_crop, open_faces, subset
from training.errors import InvalidFaces, NoFaces


def test_a_folder_per_person_is_a_set_of_faces(folder: Path, face) -> None:
    (folder / "notes.txt").write_text("not a person")
    (folder / "ada" / "Thumbs.db").write_text("not a face")
    (folder / "ada" / ".hidden.png").write_text("not a face")
    (folder / ".cache").mkdir()
    (folder / "nobody").mkdir()
    faces = open_faces(folder)
    assert len(faces) == 6
    assert faces.names == ("ada", "bob", "cleo")
    assert faces.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert faces.labels.dtype == np.int64
    assert faces.margin == 8
    assert faces.source(3) == str(folder / "bob" / "0000.png")
    for index in range(6):
        np.testing.assert_array_equal(faces.read(index), face(index))


def test_the_crop_is_the_centre(face) -> None:
    np.testing.assert_array_equal(centre_crop(face(0), 8), face(0)[8:120, 8:120])
    np.testing.assert_array_equal(centre_crop(face(0, 112), 0), face(0, 112))


def test_a_subset_numbers_its_persons_anew(folder: Path, face) -> None:
    some = subset(open_faces(folder), [5, 0, 4])
    assert some.names == ("ada", "cleo")
    assert some.labels.tolist() == [1, 0, 1]
    assert (len(some), some.margin) == (3, 8)
    assert some.source(0) == str(folder / "cleo" / "0001.png")
    np.testing.assert_array_equal(some.read(2), face(4))
    assert subset(some, [0]).names == ("cleo",)


def test_several_sizes_are_refused_with_an_example_of_each(folder: Path, face) -> None:
    cv2.imwrite(str(folder / "bob" / "0001.png"), face(9, 112))
    with pytest.raises(InvalidFaces, match=r"128 x 128 \(6, .*112 x 112 \(1, .*bob/0001.png"):
        open_faces(folder)


@pytest.mark.parametrize("shape", [(250, 250), (112, 113), (113, 113), (96, 96)])
def test_photos_are_not_taken_for_aligned_faces(tmp_path: Path, shape: tuple[int, int]) -> None:
    (tmp_path / "ada").mkdir()
    cv2.imwrite(str(tmp_path / "ada" / "a.png"), np.zeros((*shape, 3), np.uint8))
    with pytest.raises(InvalidFaces, match="prepare"):
        open_faces(tmp_path)


def test_all_broken_files_are_found_when_the_folder_is_opened(folder: Path) -> None:
    (folder / "ada" / "0001.png").write_bytes(b"")
    (folder / "cleo" / "0000.png").write_text("no image")
    with pytest.raises(InvalidFaces, match=r"2 of 6 .*ada/0001.png .*cleo/0000.png"):
        open_faces(folder)


def test_a_file_cut_off_is_named_when_it_is_read(folder: Path) -> None:
    file = folder / "bob" / "0000.png"
    file.write_bytes(file.read_bytes()[:-200])
    faces = open_faces(folder)
    with pytest.raises(InvalidFaces, match=r"bob/0000.png is corrupt or cut off"):
        faces.read(3)


def test_a_face_that_has_changed_its_size_meanwhile_is_refused(folder: Path, face) -> None:
    faces = open_faces(folder)
    cv2.imwrite(str(folder / "bob" / "0000.png"), face(3, 112))
    with pytest.raises(InvalidFaces, match=r"bob/0000.png has 112 x 112"):
        faces.read(3)


def test_nothing_to_open(tmp_path: Path, face) -> None:
    with pytest.raises(NoFaces, match="neither a folder"):
        open_faces(tmp_path / "nowhere")
    with pytest.raises(NoFaces, match="no folder in it"):
        open_faces(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), face(0))
    with pytest.raises(NoFaces, match="belong into one folder per person"):
        open_faces(tmp_path)


def test_the_shared_faces_open() -> None:
    if not (SHARED / "faces").is_dir():
        pytest.skip(f"no test data at {SHARED}; set FACEID_TEST_DATA")
    faces = open_faces(SHARED / "faces")
    assert (len(faces), len(faces.names), faces.margin) == (21_250, 389, 8)
    assert faces.read(0).shape == (128, 128, 3)
