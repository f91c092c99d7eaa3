"""What is stored of a person is given out to who may ask, and nothing else is kept."""

import base64
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.inference.detector import Detector
from app.inference.session import open_session
from app.logs import JsonFormatter
from app.models.spec import SHIPPED_DETECTOR, DetectorSpec
from app.vision.geometry import align
from app.vision.image import Photo
from tests.api.conftest import enrol
from tests.service import running


def test_an_export_holds_everything_that_is_stored(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    here = {"gallery": gallery}
    enrol(
        client,
        "grace",
        hopper,
        gallery=gallery,
        consent_reference="form 3",
        expires_at="2100-06-01T12:00:00Z",
    )
    client.patch("/persons/grace", params=here, json={"metadata": {"rank": "admiral"}})
    answer = client.get("/persons/grace/export", params=here)
    assert answer.headers["content-disposition"] == 'attachment; filename="person.json"'
    assert answer.headers["cache-control"] == "no-store"
    export = answer.json()
    person = client.get("/persons/grace", params=here).json()
    assert {name: export[name] for name in person} == person
    (face,) = export["faces"]
    (embedded,) = client.post("/embed", files={"image": hopper}).json()["faces"]
    assert face.pop("embedding") == pytest.approx(embedded["embedding"], abs=1e-6)
    assert (export["crops_are_kept"], face.pop("crop")) == (False, None)
    assert client.get("/persons/grace/faces", params=here).json()["faces"] == [face]
    assert export["template"] == pytest.approx(embedded["embedding"], abs=1e-6)
    ready = client.get("/health/ready").json()
    assert (export["model"], export["gallery"]) == (ready["model"], gallery)
    # Who has expired is still stored, and still has the right to know it.
    client.patch("/persons/grace", params=here, json={"expires_at": "2001-01-01T00:00:00Z"})
    expired = client.get("/persons/grace/export", params=here).json()
    assert len(expired["faces"][0]["embedding"]) == len(export["template"])
    assert client.get("/persons/nobody/export", params=here).status_code == 404


def crops(photo: bytes) -> Iterator[np.ndarray]:
    detector = Detector(*open_session(SHIPPED_DETECTOR, DetectorSpec, "cpu", threads=1))
    opened = Photo(photo, 10**9)
    for detection in detector.detect(opened):
        yield align(opened, detection.landmarks)


def windows(data: bytes) -> list[bytes]:
    """Pieces of some bytes, as they are and in base64 at each of its three alignments."""
    pieces = [data[at : at + 48] for at in range(0, len(data) - 48, max(48, len(data) // 50))]
    pieces = [piece for piece in pieces if len(set(piece)) > 12]  # no black, no padding
    assert len(pieces) > 20
    coded = [base64.b64encode(piece[shift:])[:-4] for piece in pieces for shift in range(3)]
    return pieces + coded


def test_neither_photo_nor_crop_is_kept(tmp_path: Path, hopper: bytes, collins: bytes) -> None:
    with running(tmp_path / "store") as client:
        enrol(client, "grace", hopper)
        enrol(client, "eileen", collins)
        client.post("/identify", files={"image": hopper})
        (face,) = client.get("/persons/grace/export").json()["faces"]
        embedding = np.array(face["embedding"], np.float32).tobytes()
    # The engine lays out its files long before it fills them.
    stored = b"\n".join(
        re.sub(rb"\0{64,}", b"", entry.read_bytes())
        for entry in (tmp_path / "store").rglob("*")
        if entry.is_file()
    )
    # What is stored is found this way ...
    assert base64.b64encode(embedding)[:-4] in stored
    # ... and neither the photos are, nor the faces cut out of them, nor any image at all.
    for photo in (hopper, collins):
        assert not any(window in stored for window in windows(photo))
        for crop in crops(photo):
            assert not any(window in stored for window in windows(crop.tobytes()))
            assert not any(window in stored for window in windows(crop[..., ::-1].tobytes()))
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n", b"WEBPVP8"):
        assert magic not in stored


def test_no_log_line_holds_an_embedding_or_a_photo(
    tmp_path: Path, hopper: bytes, group: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with running(tmp_path) as client:
        enrol(client, "grace", hopper)
        enrol(client, "grace", hopper[:5000])
        client.post("/persons/grace/faces", json={"image": base64.b64encode(hopper).decode() + "!"})
        client.post("/identify", files={"image": group})
        client.post("/embed", files={"image": group})
        client.post("/verify", files={"image_a": hopper, "image_b": group})
        answer = client.get("/persons/grace/export").text
        client.delete("/persons/grace")
        client.post("/purge")
    logged = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    assert "/persons/{person_id}/export" in logged
    embedding = json.loads(answer)["faces"][0]["embedding"]
    digits = [str(abs(value))[:7] for value in embedding if abs(value) > 0.01]
    assert len(digits) > 50
    assert all(number in answer for number in digits)
    assert not any(number in logged for number in digits)
    packed = np.array(embedding, np.float32).tobytes()
    assert base64.b64encode(packed)[:40].decode() not in logged
    for window in windows(hopper):
        assert window.decode("latin-1") not in logged
        assert repr(window)[2:-1] not in logged
