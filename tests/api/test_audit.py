"""What the audit log says of requests."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import httpx
import pytest
from fastapi import APIRouter

from app import api, auth
from app.api.auditing import audited_as
from app.audit import log, verify
from app.main import create_app
from app.settings import Settings
from tests.service import JPEG, running


class Audited:
    """A service, the key it is called with, and its audit log."""

    def __init__(self, client: httpx.Client, path: Path, key_id: str) -> None:
        self.client = client
        self.path = path
        self.key_id = key_id

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def of(self, answer: httpx.Response) -> list[dict]:
        wanted = answer.headers["X-Request-ID"]
        return [line for line in self.lines() if line["request_id"] == wanted]


@pytest.fixture(params=[False], ids=["changes"])
def audited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Audited]:
    path = tmp_path / "audit.jsonl"
    key, text = auth.create(tmp_path / "keys.json", "test", ["identify", "enrol"], ["staff"])
    with running(
        tmp_path / "store",
        auth={"keys_file": tmp_path / "keys.json"},
        audit={"path": path, "decisions": request.param},
    ) as client:
        client.headers["X-API-Key"] = text
        client.params = {"gallery": "staff"}
        yield Audited(client, path, key.id)
    assert verify(path).problems == []


def test_every_change_is_written_down(audited: Audited, hopper: bytes) -> None:
    client = audited.client
    enrolled = client.post(
        "/persons/grace/faces", files=[("image", hopper), ("image", b"no image")]
    )
    face = enrolled.json()["faces"][0]["face_id"]
    answers = {
        "person.enrol": enrolled,
        "person.patch": client.patch("/persons/grace", json={"metadata": {"secret": "x"}}),
        "face.delete": client.delete(f"/persons/grace/faces/{face}"),
        "person.delete": client.delete("/persons/grace"),
    }
    details = {
        "person.enrol": {"faces_enrolled": 1, "images_rejected": 1},
        "person.patch": {},
        "face.delete": {"face_id": face},
        "person.delete": {
            "faces_deleted": 0,
            "receipt": answers["person.delete"].json()["receipt_id"],
        },
    }
    for action, answer in answers.items():
        (line,) = audited.of(answer)
        assert (line["action"], line["outcome"]) == (action, "done")
        assert line["status"] == answer.status_code
        assert (line["key"], line["gallery"], line["person_id"]) == (
            audited.key_id,
            "staff",
            "grace",
        )
        assert line["details"] == details[action]
    assert "secret" not in audited.path.read_text(), "metadata has no place in it"


def test_what_was_refused_is_written_down_too(audited: Audited, hopper: bytes) -> None:
    client = audited.client
    for answer, status in (
        (client.delete("/persons/nobody"), 404),
        (client.get("/persons/nobody/export"), 403),
        (client.delete("/persons/nobody", params={"gallery": "vault"}), 403),
        (client.post("/persons/x/faces", content=b"", headers=JPEG), 422),
    ):
        assert answer.status_code == status
        (line,) = audited.of(answer)
        assert (line["outcome"], line["status"]) == ("refused", status)
        assert line["key"] == audited.key_id
    assert audited.lines()[2]["gallery"] == "vault"
    strange = client.delete("/persons/nobody", params={"gallery": "a\nb" * 100})
    assert len(audited.of(strange)[0]["gallery"]) == 64
    count = len(audited.lines())
    assert client.delete("/persons/nobody", headers={"X-API-Key": "none"}).status_code == 401
    client.get("/persons/nobody")
    client.post("/identify", content=hopper, headers=JPEG)
    assert len(audited.lines()) == count, "strangers, reads and decisions are not"


@pytest.mark.parametrize("audited", [True], ids=["decisions"], indirect=True)
def test_decisions_are_written_down_where_that_is_wanted(
    audited: Audited, hopper: bytes, collins: bytes, group: bytes
) -> None:
    client = audited.client
    client.post("/persons/grace/faces", content=hopper, headers=JPEG)
    (line,) = audited.of(client.post("/identify", content=group, headers=JPEG))
    assert (line["action"], line["outcome"], line["person_id"]) == ("identify", "done", None)
    assert line["details"] == {"matches": ["grace"], "faces": 2}
    answer = client.post("/verify", files={"image": collins}, data={"person_id": "grace"})
    (line,) = audited.of(answer)
    assert (line["action"], line["person_id"]) == ("verify", "grace")
    assert line["details"] == {"verified": False}
    text = audited.path.read_text()
    assert "similarity" not in text
    assert str(answer.json()["similarity"])[:6] not in text


def test_nothing_is_changed_while_it_cannot_be_written_down(
    audited: Audited, hopper: bytes, collins: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = audited.client
    for person, image in (("grace", hopper), ("eileen", collins)):
        client.post(f"/persons/{person}/faces", content=image, headers=JPEG)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(log, "_write_all", full)
        # The first is found out about when it is done; its caller is not told that it was.
        first = client.delete("/persons/grace")
        second = client.delete("/persons/eileen")
        for answer in (first, second):
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        assert client.get("/persons/eileen").status_code == 200
        assert client.post("/identify", content=hopper, headers=JPEG).status_code == 200
    assert client.delete("/persons/eileen").status_code == 200
    assert [line["action"] for line in audited.lines()][-2:] == ["audit.resume", "person.delete"]


def test_no_change_is_forgotten() -> None:
    """Whatever may change something has a name in the log, and so has what hands out everything."""
    modules = [import_module(f"app.api.{module.name}") for module in iter_modules(api.__path__)]
    named = [value for module in modules for value in vars(module).values()]
    marks = {
        (method, route.path): audited_as(route.endpoint)
        for router in named
        if isinstance(router, APIRouter)
        for route in router.routes
        for method in route.methods
    }
    # Everything that is served, but for the documentation.
    served = create_app(Settings(auth={"disabled": True})).openapi()["paths"]
    assert marks.keys() - {("GET", "/metrics")} == {
        (method.upper(), path) for path, methods in served.items() for method in methods
    }
    for path in ("/identify", "/verify"):
        assert marks.pop(("POST", path)) == (path[1:], True)
    for path in ("/detect", "/embed"):
        assert marks.pop(("POST", path)) is None, "it only reads"
    unmarked = {(method, path) for (method, path), mark in marks.items() if mark is None}
    assert {method for method, _ in unmarked} == {"GET"}, unmarked
    audited_reads = {path for (method, path) in marks.keys() - unmarked if method == "GET"}
    assert audited_reads == {"/backup", "/persons/{person_id}/export"}
    assert not any(is_decision for _, is_decision in filter(None, marks.values()))
