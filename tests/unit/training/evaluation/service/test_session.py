import io

import PIL.Image
import pytest

from training.evaluation.service.session import central


def photo(width: int, height: int, orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def face(x: float, y: float) -> dict:
    return {"box": {"x": x - 10, "y": y - 10, "width": 20, "height": 20}}


@pytest.mark.parametrize(
    ("data", "centre"), [(photo(200, 100), (100, 50)), (photo(200, 100, 6), (50, 100))],
    ids=["upright", "turned"],
)  # fmt: skip
def test_the_face_nearest_the_centre_of_the_upright_photo_counts(
    data: bytes, centre: tuple[int, int]
) -> None:
    faces = [face(100, 50), face(50, 100), face(5, 5)]
    assert central(faces, data) == face(*centre)


def test_a_single_face_counts_wherever_it_is() -> None:
    assert central([face(5, 5)], b"not even opened") == face(5, 5)
