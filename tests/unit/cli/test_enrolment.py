"""What a folder is taken for, and what is reported of it."""

from pathlib import Path

import pytest

from app.cli.enrolment import Photo, scan


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_per_person(tmp_path: Path) -> None:
    make(tmp_path, "grace/b.JPG", "grace/a.png", "eileen@nasa.gov/portrait.webp")
    found = scan(tmp_path)
    assert found.photos == [
        Photo("eileen@nasa.gov", tmp_path / "eileen@nasa.gov/portrait.webp"),
        Photo("grace", tmp_path / "grace/a.png"),
        Photo("grace", tmp_path / "grace/b.JPG"),
    ]
    assert found.rejected == []
    assert found.ignored == []


def test_formats_the_service_does_not_read_are_sent_for_its_answer(tmp_path: Path) -> None:
    make(tmp_path, "grace/phone.heic", "grace/scan.tif")
    assert len(scan(tmp_path).photos) == 2


@pytest.mark.parametrize("name", ["Grace Hopper", "-grace", "élodie", "g" * 129, "a\nb", "grace\n"])
def test_an_illegal_name_is_reported_and_its_photos_are_not_sent(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/a.jpg", "grace/a.jpg")
    found = scan(tmp_path)
    assert found.photos == [Photo("grace", tmp_path / "grace/a.jpg")]
    assert [(r.path, r.code) for r in found.rejected] == [(tmp_path / name, "invalid_person_id")]


def test_photos_in_the_wrong_place_are_rejected(tmp_path: Path) -> None:
    make(tmp_path, "nobody.jpg", "grace/1906/a.jpg")
    found = scan(tmp_path)
    assert found.photos == []
    assert [(r.path, r.code) for r in found.rejected] == [
        (tmp_path / "grace/1906", "nested_folder"),
        (tmp_path / "nobody.jpg", "no_person"),
    ]


def test_other_files_are_named_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "README.txt", "grace/Thumbs.db", "grace/.DS_Store", ".git/HEAD.jpg")
    found = scan(tmp_path)
    assert found.photos == []
    assert found.rejected == []
    assert found.ignored == [tmp_path / "README.txt", tmp_path / "grace/Thumbs.db"]
