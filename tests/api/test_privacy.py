"""Consent, expiry, erasure and access over HTTP, and what is never kept."""

import base64
import json
import logging
import re
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.inference.detector import Detector
from app.inference.session import open_session
from app.logs import JsonFormatter
from app.models.spec import SHIPPED_DETECTOR, DetectorSpec
from app.vision.geometry import align
from app.vision.image import Photo
from tests.service import running

SOON = timedelta(seconds=0.5)


def later(delta: timedelta = timedelta(days=1)) -> str:
    return (datetime.now(UTC) + delta).isoformat().replace("+00:00", "Z")


def enrol(
    client: httpx.Client, person_id: str, photo: bytes, gallery: str, **params: str
) -> httpx.Response:
    return client.post(
        f"/persons/{person_id}/faces",
        params={"gallery": gallery} | params,
        files={"image": photo},
    )


def named(client: httpx.Client, photo: bytes, gallery: str) -> list[str | None]:
    answer = client.post("/identify", params={"gallery": gallery}, files={"image": photo})
    return [
        name
        for face in answer.json()["faces"]
        for name in (face["person_id"], *(c["person_id"] for c in face["candidates"]))
    ]


def test_consent_is_set_shown_changed_and_removed(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    here = {"gallery": gallery}
    end = "2100-06-01T14:30:00+02:00"
    assert enrol(client, "grace", hopper, gallery).status_code == 201
    shown = client.get("/persons/grace", params=here).json()
    assert (shown["consent_reference"], shown["expires_at"]) == (None, None)

    enrol(client, "grace", hopper, gallery, consent_reference="form № 3", expires_at=end)
    shown = client.get("/persons/grace", params=here).json()
    assert shown["consent_reference"] == "form № 3"
    assert shown["expires_at"] == "2100-06-01T12:30:00Z"
    assert client.get("/persons", params=here).json()["persons"] == [shown]

    changed = client.patch(
        "/persons/grace", params=here, json={"consent_reference": "form 4"}
    ).json()
    assert (changed["consent_reference"], changed["expires_at"]) == ("form 4", shown["expires_at"])
    removed = client.patch(
        "/persons/grace", params=here, json={"consent_reference": None, "expires_at": None}
    ).json()
    assert (removed["consent_reference"], removed["expires_at"]) == (None, None)
    assert client.get("/persons/grace", params=here).json() == removed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expires_at", "2100-06-01T12:00:00"),
        ("expires_at", "2100-06-01"),
        ("expires_at", "4115707200"),
        ("expires_at", "2100-13-01T12:00:00Z"),
        ("expires_at", "9999-12-31T23:59:59-23:00"),
        ("expires_at", "soon"),
        ("consent_reference", ""),
        ("consent_reference", "x" * 257),
        ("consent_reference", "two\nlines"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_leaves_no_trace(
    client: httpx.Client, gallery: str, hopper: bytes, field: str, value: str
) -> None:
    refused = enrol(client, "grace", hopper, gallery, **{field: value})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert field in refused.json()["detail"]
    here = {"gallery": gallery}
    assert client.get("/persons/grace", params=here).status_code == 404
    enrol(client, "grace", hopper, gallery)
    before = client.get("/persons/grace", params=here).json()
    patched = client.patch("/persons/grace", params=here, json={field: value})
    assert (patched.status_code, patched.json()["code"]) == (422, "invalid_request")
    assert field in patched.json()["detail"]
    assert client.get("/persons/grace", params=here).json() == before


def test_nobody_is_enrolled_whose_time_is_over(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    refused = enrol(client, "grace", hopper, gallery, expires_at="2001-01-01T00:00:00Z")
    assert (refused.status_code, refused.json()["code"]) == (409, "person_expired")
    assert client.get("/persons/grace", params={"gallery": gallery}).status_code == 404


def test_who_expires_is_named_no_more_from_that_moment_on(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes, group: bytes
) -> None:
    here = {"gallery": gallery}
    enrol(client, "eileen", collins, gallery)
    enrol(client, "grace", hopper, gallery)
    assert {"grace", "eileen"} == set(named(client, group, gallery))
    client.patch("/persons/grace", params=here, json={"expires_at": later()})
    assert "grace" in named(client, group, gallery)
    client.patch("/persons/grace", params=here, json={"expires_at": later(timedelta(0))})
    for params in ({}, {"mode": "closed"}, {"unique": "true"}):
        answer = client.post("/identify", params=here | params, files={"image": group})
        assert answer.status_code == 200
        assert "grace" not in answer.text
    verify = client.post("/verify", params=here | {"person_id": "grace"}, files={"image": hopper})
    assert (verify.status_code, verify.json()["code"]) == (404, "person_not_found")
    # Nor as the one whom a newcomer looks like.
    assert enrol(client, "newcomer", hopper, gallery).status_code == 201
    assert "grace" not in client.get(f"/galleries/{gallery}/duplicates").text
    client.delete("/persons/newcomer", params=here)

    # The operator still sees the record, until it is purged, and may give it more time.
    assert client.get("/persons/grace", params=here).status_code == 200
    assert enrol(client, "grace", hopper, gallery).json()["code"] == "person_expired"
    client.patch("/persons/grace", params=here, json={"expires_at": later()})
    assert "grace" in named(client, group, gallery)


def test_a_purge_erases_who_has_expired_and_nobody_else(
    tmp_path: Path, hopper: bytes, collins: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with running(tmp_path) as client:
        enrol(client, "grace", hopper, "default")
        enrol(client, "grace", hopper, "other")
        enrol(client, "eileen", collins, "default", expires_at=later())
        for gallery in ("default", "other"):
            client.patch(
                "/persons/grace",
                params={"gallery": gallery},
                json={"expires_at": "2001-01-01T00:00:00Z"},
            )
        done = client.post("/purge").json()
        assert done == {"persons": 2, "faces": 2, "galleries_rewritten": 2}
        assert client.post("/purge").json() == {
            "persons": 0,
            "faces": 0,
            "galleries_rewritten": 0,
        }
        (left,) = client.get("/persons").json()["persons"]
        assert left["person_id"] == "eileen"
        receipts = client.get("/erasures").json()["erasures"]
        assert [(r["reason"], r["state"], r["faces_deleted"], r["found"]) for r in receipts] == [
            ("expired", "erased", 1, 0)
        ] * 2
        metrics = client.get("/metrics").text
    assert 'faceid_erased_persons_total{reason="expired"} 2.0' in metrics
    assert 'faceid_erased_faces_total{reason="expired"} 2.0' in metrics
    assert "faceid_vacuumed_galleries_total 2.0" in metrics
    (line,) = [record for record in caplog.records if record.getMessage() == "purged"]
    logged = json.loads(JsonFormatter().format(line))
    assert (logged["persons"], logged["faces"], logged["galleries_rewritten"]) == (2, 2, 2)
    assert "grace" not in JsonFormatter().format(line)


def test_the_service_purges_by_itself(tmp_path: Path, hopper: bytes) -> None:
    with running(tmp_path, privacy={"purge_interval_s": 1}) as client:
        enrol(client, "grace", hopper, "default")
        client.patch("/persons/grace", json={"expires_at": later(SOON)})
        deadline = time.monotonic() + 20
        while client.get("/persons/grace").status_code == 200:
            assert time.monotonic() < deadline, "nobody was purged"
            time.sleep(0.1)
        (receipt,) = client.get("/erasures").json()["erasures"]
        assert receipt["reason"] == "expired"


def test_an_erasure_is_answered_with_its_receipt(
    tmp_path: Path, hopper: bytes, collins: bytes, group: bytes
) -> None:
    with running(tmp_path) as client:
        enrol(client, "grace-hopper", hopper, "default")
        enrol(client, "eileen", collins, "default")
        before = datetime.now(UTC)
        receipt = client.delete("/persons/grace-hopper").json()
        assert receipt["person_id"] == "grace-hopper"
        counts = [receipt[name] for name in ("faces_deleted", "probes", "found")]
        assert counts == [1, 2, 0]
        assert (receipt["reason"], receipt["state"]) == ("request", "erased")
        times = [datetime.fromisoformat(receipt[name]) for name in ("begun_at", "erased_at")]
        assert before <= times[0] <= times[1] <= datetime.now(UTC)
        assert "grace-hopper" not in named(client, group, "default")
        for path in ("", "/faces", "/export"):
            assert client.get(f"/persons/grace-hopper{path}").status_code == 404
        again = client.delete("/persons/grace-hopper")
        assert (again.status_code, again.json()["code"]) == (404, "person_not_found")

        # What is kept of it names nobody, and whoever was not there has none.
        kept = client.get("/erasures")
        assert kept.json() == {
            "erasures": [{name: value for name, value in receipt.items() if name != "person_id"}],
            "cursor": None,
        }
        assert "grace" not in kept.text
        file = tmp_path / "erasures.jsonl"
        assert "grace" not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_receipts_come_page_by_page(tmp_path: Path, hopper: bytes) -> None:
    with running(tmp_path) as client:
        for number in range(5):
            enrol(client, f"p{number}", hopper, "default", on_duplicate="allow")
        ids = [client.delete(f"/persons/p{number}").json()["receipt_id"] for number in range(5)]
        found = []
        params: dict[str, Any] = {"limit": 2}
        while True:
            page = client.get("/erasures", params=params).json()
            found.append([receipt["receipt_id"] for receipt in page["erasures"]])
            if page["cursor"] is None:
                break
            params["cursor"] = page["cursor"]
        assert found == [ids[:2], ids[2:4], ids[4:]]
        third = client.get("/erasures").json()["erasures"][2]
        rest = client.get("/erasures", params={"since": third["begun_at"]}).json()["erasures"]
        assert [receipt["receipt_id"] for receipt in rest] == ids[2:]
        unknown = client.get("/erasures", params={"cursor": "nothing"})
        assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")


def test_an_export_holds_everything_that_is_stored(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    here = {"gallery": gallery}
    enrol(client, "grace", hopper, gallery, consent_reference="form 3", expires_at=later())
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
        enrol(client, "grace", hopper, "default")
        enrol(client, "eileen", collins, "default")
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
        enrol(client, "grace", hopper, "default")
        enrol(client, "grace", hopper[:5000], "default")
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
