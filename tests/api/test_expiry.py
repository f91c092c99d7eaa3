"""Consent, and persons whose time is over."""

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.logs import JsonFormatter
from tests.api.conftest import enrol, named
from tests.service import running

SOON = timedelta(seconds=0.5)


def later(delta: timedelta = timedelta(days=1)) -> str:
    return (datetime.now(UTC) + delta).isoformat().replace("+00:00", "Z")


def test_consent_is_set_shown_changed_and_removed(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    here = {"gallery": gallery}
    end = "2100-06-01T14:30:00+02:00"
    assert enrol(client, "grace", hopper, gallery=gallery).status_code == 201
    shown = client.get("/persons/grace", params=here).json()
    assert (shown["consent_reference"], shown["expires_at"]) == (None, None)

    enrol(client, "grace", hopper, gallery=gallery, consent_reference="form № 3", expires_at=end)
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
    refused = enrol(client, "grace", hopper, gallery=gallery, **{field: value})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert field in refused.json()["detail"]
    here = {"gallery": gallery}
    assert client.get("/persons/grace", params=here).status_code == 404
    enrol(client, "grace", hopper, gallery=gallery)
    before = client.get("/persons/grace", params=here).json()
    patched = client.patch("/persons/grace", params=here, json={field: value})
    assert (patched.status_code, patched.json()["code"]) == (422, "invalid_request")
    assert field in patched.json()["detail"]
    assert client.get("/persons/grace", params=here).json() == before


def test_nobody_is_enrolled_whose_time_is_over(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    refused = enrol(client, "grace", hopper, gallery=gallery, expires_at="2001-01-01T00:00:00Z")
    assert (refused.status_code, refused.json()["code"]) == (409, "person_expired")
    assert client.get("/persons/grace", params={"gallery": gallery}).status_code == 404


def test_who_expires_is_named_no_more_from_that_moment_on(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes, group: bytes
) -> None:
    here = {"gallery": gallery}
    enrol(client, "eileen", collins, gallery=gallery)
    enrol(client, "grace", hopper, gallery=gallery)
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
    assert enrol(client, "newcomer", hopper, gallery=gallery).status_code == 201
    assert "grace" not in client.get(f"/galleries/{gallery}/duplicates").text
    client.delete("/persons/newcomer", params=here)

    # The operator still sees the record, until it is purged, and may give it more time.
    assert client.get("/persons/grace", params=here).status_code == 200
    assert enrol(client, "grace", hopper, gallery=gallery).json()["code"] == "person_expired"
    client.patch("/persons/grace", params=here, json={"expires_at": later()})
    assert "grace" in named(client, group, gallery)


def test_a_purge_erases_who_has_expired_and_nobody_else(
    tmp_path: Path, hopper: bytes, collins: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with running(tmp_path) as client:
        enrol(client, "grace", hopper)
        enrol(client, "grace", hopper, gallery="other")
        enrol(client, "eileen", collins, expires_at=later())
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
        enrol(client, "grace", hopper)
        client.patch("/persons/grace", json={"expires_at": later(SOON)})
        deadline = time.monotonic() + 20
        while client.get("/persons/grace").status_code == 200:
            assert time.monotonic() < deadline, "nobody was purged"
            time.sleep(0.1)
        (receipt,) = client.get("/erasures").json()["erasures"]
        assert receipt["reason"] == "expired"
