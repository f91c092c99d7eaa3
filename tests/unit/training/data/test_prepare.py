import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.inference.detector import Detection, Detector
from app.inference.session import open_session
from app.models.spec import SHIPPED_DETECTOR, DetectorSpec
from app.vision.geometry import align
from app.vision.image import Photo
from tests.conftest import PHOTOS
from training.data import centre_crop, open_faces
from training.data.alignment import Aligner, main_face
from training.data.ledger import Ledger
from training.data.prepare import LEDGER, prepare
from training.errors import ForeignFolder, NoFaces, NoSpace

HOPPER, COLLINS = "hopper/1984.png", "collins/portrait.png"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two people, a photo each."""
    folder = tmp_path / "photos"
    (folder / "hopper").mkdir(parents=True)
    (folder / "collins").mkdir()
    shutil.copy(PHOTOS / "grace_hopper.jpg", folder / "hopper" / "1984.jpg")
    shutil.copy(PHOTOS / "astronaut.png", folder / "collins" / "portrait.png")
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "faces"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The photos given to the detector."""
    seen: list[bytes] = []
    original = Aligner.__call__

    def call(self: Aligner, data: bytes) -> bytes:
        seen.append(data)
        return original(self, data)

    monkeypatch.setattr(Aligner, "__call__", call)
    return seen


@pytest.fixture
def detect() -> Callable[[Photo], list[Detection]]:
    return Detector(*open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", threads=1)).detect


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_centre_is_what_the_service_cuts_to_the_byte(
    photos: Path, output: Path, detect: Callable[[Photo], list[Detection]]
) -> None:
    report = prepare(photos, output, workers=2)
    assert (report.written, report.present, report.removed, report.left_out) == (2, 0, 0, [])
    assert files(output) == [COLLINS, HOPPER, LEDGER]
    faces = open_faces(output)
    assert faces.names == ("collins", "hopper")
    assert faces.margin == 8
    for index, file in enumerate(("astronaut.png", "grace_hopper.jpg")):
        photo = Photo((PHOTOS / file).read_bytes(), 10**8)
        [found] = detect(photo)
        expected = align(photo, found.landmarks)
        np.testing.assert_array_equal(centre_crop(faces.read(index), faces.margin), expected)


def test_the_margin_goes_on_where_the_crop_ends(photos: Path, output: Path) -> None:
    """No seam: the step across the border is like those on either side of it."""
    prepare(photos, output)
    for index in range(2):
        face = open_faces(output).read(index).astype(float)
        steps = np.abs(np.diff(face, axis=0)).mean(axis=(1, 2))
        for border in (7, 119):
            assert steps[border] < 1.5 * max(steps[border - 1], steps[border + 1]) + 1


def test_what_gives_no_face_is_reported_with_its_reason(
    photos: Path, output: Path, hopper: bytes
) -> None:
    collins = photos / "collins"
    (collins / "empty.jpg").write_bytes(b"")
    (collins / "cut off.jpg").write_bytes(hopper[: len(hopper) // 2])
    (collins / "text.jpg").write_text("no photo")
    (collins / "moving.gif").write_bytes(b"GIF89a")
    (collins / "portrait.jpg").write_bytes(hopper)
    (collins / "notes.txt").write_text("not meant to be a photo")
    (collins / "more").mkdir()
    cv2.imwrite(str(collins / "wall.png"), np.full((200, 300, 3), 128, np.uint8))
    (photos / "stray.jpg").write_bytes(hopper)
    report = prepare(photos, output)
    # Of two photos with one name the first is taken.
    assert {(left.path, left.code) for left in report.left_out} == {
        ("collins/empty.jpg", "empty_image"),
        ("collins/cut off.jpg", "unreadable_image"),
        ("collins/text.jpg", "unsupported_image"),
        ("collins/moving.gif", "unsupported_image"),
        ("collins/portrait.png", "same_name"),
        ("collins/wall.png", "no_face"),
        ("collins/more", "nested_folder"),
        ("stray.jpg", "no_person"),
    }
    assert all(left.detail for left in report.left_out)
    assert report.written == 2
    assert prepare(photos, output).left_out == report.left_out


def test_another_run_looks_only_at_what_has_changed(
    photos: Path, output: Path, hopper: bytes, looked_at: list[bytes]
) -> None:
    wall = photos / "collins" / "wall.png"
    cv2.imwrite(str(wall), np.full((200, 300, 3), 128, np.uint8))
    prepare(photos, output)
    before = {file: (output / file).read_bytes() for file in (HOPPER, COLLINS)}
    looked_at.clear()

    report = prepare(photos, output)
    assert (report.written, report.present, len(report.left_out)) == (0, 2, 1)
    assert looked_at == []

    wall.write_bytes(hopper)  # now there is a face
    (output / HOPPER).unlink()  # lost
    shutil.copy(PHOTOS / "group.jpg", photos / "collins" / "new.jpg")
    report = prepare(photos, output)
    assert (report.written, report.present, report.left_out) == (3, 1, [])
    assert len(looked_at) == 3
    assert {file: (output / file).read_bytes() for file in (HOPPER, COLLINS)} == before
    assert (output / "collins" / "wall.png").read_bytes() == before[HOPPER]


def test_a_face_goes_when_its_photo_does(photos: Path, output: Path) -> None:
    prepare(photos, output)
    (photos / "hopper" / "1984.jpg").unlink()
    cv2.imwrite(str(photos / "collins" / "portrait.png"), np.zeros((200, 300, 3), np.uint8))
    shutil.copy(PHOTOS / "group.jpg", photos / "collins" / "group.jpg")
    report = prepare(photos, output)
    assert (report.written, report.present, report.removed) == (1, 0, 1)
    assert [left.code for left in report.left_out] == ["no_face"]
    assert files(output) == ["collins/group.png", LEDGER]
    assert not (output / "hopper").exists()


def test_faces_of_another_detector_are_made_again(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(photos, output)
    original = Aligner.__init__

    def another(self: Aligner) -> None:
        original(self)
        self.version = "another"

    monkeypatch.setattr(Aligner, "__init__", another)
    assert prepare(photos, output).written == 2


def test_an_interrupted_run_leaves_whole_files_and_goes_on(
    photos: Path, output: Path, looked_at: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cv2.imencode

    def interrupted(*arguments: object) -> object:
        if len(looked_at) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imencode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(photos, output, workers=1)
    assert files(output) == [COLLINS, LEDGER]
    with (output / LEDGER).open("a") as ledger:
        ledger.write('["hopper/1984.jpg", "12')  # as a crash would leave it
    report = prepare(photos, output)
    assert (report.written, report.present) == (1, 1)
    assert len(looked_at) == 3
    for line in (output / LEDGER).read_text().splitlines():
        json.loads(line)


def full(path: Path, _: object) -> None:
    with path.open("ab") as file:
        file.write(b"half a li")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("where", "left"), [("write_bytes", [LEDGER]), ("write_text", [])], ids=["face", "ledger"]
)
def test_a_full_disk_is_said_and_leaves_no_half_file(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch, where: str, left: list[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, where, full)
        with pytest.raises(NoSpace, match="Make room and run the same command again"):
            prepare(photos, output)
    assert files(output) == left
    assert prepare(photos, output).written == 2


def test_a_disk_that_is_full_for_the_ledger_is_said_too(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", lambda ledger, _: full(ledger._path, ""))
        with pytest.raises(NoSpace):
            prepare(photos, output)
    assert prepare(photos, output).written == 2


def test_an_unreadable_file_is_tried_again(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.suffix == ".jpg":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        [left] = prepare(photos, output).left_out
    assert (left.path, left.code) == ("hopper/1984.jpg", "unreadable_file")
    assert prepare(photos, output).written == 1


def test_a_folder_of_somebody_else_is_not_touched(photos: Path, output: Path) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(ForeignFolder, match="new or empty"):
        prepare(photos, output)
    with pytest.raises(ForeignFolder, match="new or empty"):
        prepare(photos, output / "thesis.txt")
    for inside in (photos, photos / "faces", photos.parent):
        with pytest.raises(ForeignFolder):
            prepare(photos, inside)
    assert files(output) == ["thesis.txt"]


def test_without_photos_nothing_is_touched(photos: Path, output: Path) -> None:
    prepare(photos, output)
    before = files(output)
    shutil.rmtree(photos)
    with pytest.raises(NoFaces, match="is no folder"):
        prepare(photos, output)
    photos.mkdir()
    with pytest.raises(NoFaces, match="a folder per person"):
        prepare(photos, output)
    assert files(output) == before


def test_the_one_in_the_middle_is_taken() -> None:
    def detection(left: float, top: float, side: float) -> Detection:
        return Detection(np.array([left, top, side, side], np.float32), np.zeros((5, 2)), 0.9)

    middle, larger_at_the_edge = detection(90, 90, 60), detection(0, 80, 80)
    assert main_face([larger_at_the_edge, middle], (240, 240)) is middle
    beside, tiny_in_the_middle = detection(60, 80, 80), detection(115, 115, 10)
    assert main_face([beside, tiny_in_the_middle], (240, 240)) is beside
