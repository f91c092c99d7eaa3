"""Records are written here by the format's description, not by the code that reads them."""

import pickle
import struct
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data import open_faces
from training.errors import DataError, InvalidFaces, InvalidRecords, NoFaces

MAGIC = struct.pack("<I", 0xCED7230A)


def png(face: np.ndarray) -> bytes:
    return cv2.imencode(".png", face[..., ::-1])[1].tobytes()


def payload(image: bytes, *labels: float) -> bytes:
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], 7, 0) + image
    return struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0, 7, 0, *labels) + image


def framed(data: bytes) -> bytes:
    cuts = [i for i in range(0, len(data) - len(data) % 4, 4) if data[i : i + 4] == MAGIC]
    starts, ends = [0] + [i + 4 for i in cuts], [*cuts, len(data)]
    written = b""
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        kind = 0 if not cuts else 1 if number == 0 else 3 if number == len(cuts) else 2
        part = data[start:end]
        written += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part
        written += b"\0" * (-len(part) % 4)
    return written


def write(path: Path, records: Iterable[tuple[int, bytes]]) -> Path:
    data, lines = b"", []
    for key, record in records:
        lines.append(f"{key}\t{len(data)}\n")
        data += framed(record)
    path.write_bytes(data)
    path.with_suffix(".idx").write_text("".join(lines))
    return path


@pytest.fixture
def insightface(tmp_path: Path, face) -> Path:
    """Person 0 with keys 1 and 2, person 1 with key 3; then a record for each person."""
    images = [png(face(number, 112)) for number in range(3)]
    records = [
        (0, payload(b"", 4, 6)),
        (1, payload(images[0], 0)),
        (2, payload(images[1], 0, 17.5)),
        (3, payload(images[2], 1)),
        (4, payload(b"", 1, 3)),
        (5, payload(b"", 3, 4)),
    ]
    return write(tmp_path / "train.rec", records)


def test_the_layout_of_insightface_is_read(insightface: Path, face) -> None:
    faces = open_faces(insightface.parent)
    assert len(faces) == 3
    assert faces.names == ("0", "1")
    assert faces.labels.tolist() == [0, 0, 1]
    assert faces.margin == 0
    assert faces.source(2) == f"{insightface}, record 3"
    for index in range(3):
        np.testing.assert_array_equal(faces.read(index), face(index, 112))


def test_without_a_header_all_records_are_images(tmp_path: Path, face) -> None:
    """In the order of their keys, whatever that of the lines."""
    records = [(9, payload(png(face(9)), 5, 0)), (2, payload(png(face(2)), 40))]
    faces = open_faces(write(tmp_path / "some.rec", records))
    assert faces.names == ("5", "40")
    assert faces.labels.tolist() == [1, 0]
    assert faces.margin == 8
    np.testing.assert_array_equal(faces.read(1), face(9))


def test_an_image_that_holds_the_magic_number_is_put_together(tmp_path: Path, face) -> None:
    image = bytearray(cv2.imencode(".bmp", face(0, 112))[1].tobytes())
    first = 24 - (24 + 54) % 4 + 54 + 400
    first -= (24 + first) % 4
    for place in (first, first + 4, first + 1000):
        image[place : place + 4] = MAGIC
    record = payload(bytes(image), 3)
    assert framed(record).count(MAGIC) == 4
    faces = open_faces(write(tmp_path / "train.rec", [(1, record)]))
    expected = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(faces.read(0), expected[..., ::-1])


def test_faces_can_be_sent_to_another_process(insightface: Path) -> None:
    faces = open_faces(insightface)
    sent = pickle.dumps(faces)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).read(1), faces.read(1))


def test_a_file_cut_off_is_refused(insightface: Path) -> None:
    insightface.write_bytes(insightface.read_bytes()[:-400])
    with pytest.raises(InvalidRecords, match=r"beyond the .rec file"):
        open_faces(insightface)


def test_a_last_record_cut_off_is_refused_when_it_is_read(tmp_path: Path, face) -> None:
    records = [(key, payload(png(face(key)), key)) for key in (1, 2)]
    path = write(tmp_path / "train.rec", records)
    path.write_bytes(path.read_bytes()[:-400])
    faces = open_faces(path)
    with pytest.raises(InvalidRecords, match="record 2 is cut off"):
        faces.read(1)


def test_a_part_cut_off_is_refused(tmp_path: Path, face) -> None:
    image = cv2.imencode(".bmp", face(0, 112))[1].tobytes()
    record = payload(image, 3)[:400] + MAGIC + payload(image, 3)[404:]
    path = write(tmp_path / "train.rec", [(1, record)])
    path.write_bytes(path.read_bytes()[:408])
    with pytest.raises(InvalidRecords, match="record 1 is cut off"):
        open_faces(path)


def test_an_index_of_another_file_is_refused(insightface: Path) -> None:
    index = insightface.with_suffix(".idx")
    lines = [line.split() for line in index.read_text().splitlines()]
    lines[2][1] = str(int(lines[2][1]) + 4)
    index.write_text("\n".join("\t".join(line) for line in lines))
    with pytest.raises(InvalidRecords, match="record 2 does not begin where"):
        open_faces(insightface)


@pytest.mark.parametrize("text", ["1 2 3", "one two", "1\t-4", "1\t99999999"])
def test_an_index_of_something_else_is_refused(insightface: Path, text: str) -> None:
    insightface.with_suffix(".idx").write_text(text)
    with pytest.raises(InvalidRecords):
        open_faces(insightface)


@pytest.mark.parametrize("label", [0.5, float("nan"), float("inf")])
def test_a_label_that_is_no_number_of_a_person_is_refused(
    tmp_path: Path, face, label: float
) -> None:
    path = write(tmp_path / "train.rec", [(1, payload(png(face(0)), label))])
    with pytest.raises(InvalidRecords, match="not with a person's number"):
        open_faces(path)


def test_more_labels_than_the_record_is_long_are_refused(tmp_path: Path, face) -> None:
    record = struct.pack("<IfQQf", 1 << 31, 0, 0, 0, 5) + png(face(0))
    with pytest.raises(InvalidRecords, match="too short for its"):
        open_faces(write(tmp_path / "train.rec", [(1, record)]))


def test_a_record_without_an_image_is_refused(tmp_path: Path, face) -> None:
    records = [(1, payload(png(face(0)), 0)), (2, payload(b"no image", 1))]
    faces = open_faces(write(tmp_path / "train.rec", records))
    with pytest.raises(InvalidFaces, match="record 2 is corrupt"):
        faces.read(1)


def test_nothing_to_open(tmp_path: Path) -> None:
    path = write(tmp_path / "train.rec", [])
    with pytest.raises(NoFaces, match="holds no image"):
        open_faces(path)
    path.with_suffix(".idx").unlink()
    with pytest.raises(NoFaces, match="belong together"):
        open_faces(path)


def test_damaged_bytes_are_refused_or_read_and_nothing_else(insightface: Path) -> None:
    whole = insightface.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100):
        data = bytearray(whole)
        # Frames and headers rather than pixels.
        start = int(rng.choice([0, 40, 76, whole.index(MAGIC, 80)]))
        data[start + int(rng.integers(0, 36))] = int(rng.integers(0, 256))
        insightface.write_bytes(data)
        try:
            faces = open_faces(insightface)
            for index in range(len(faces)):
                faces.read(index)
        except DataError:
            refused += 1
    assert refused > 15
