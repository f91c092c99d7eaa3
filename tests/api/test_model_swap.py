"""Another embedder takes over while the service runs: the two that are shipped, and real photos."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.models.spec import SHIPPED_EMBEDDER
from tests.service import JPEG, running

OLD = SHIPPED_EMBEDDER
OLD_NAME = "sface-2021dec"
NEW = SHIPPED_EMBEDDER.with_name("sface-arcface.onnx")
BINARY = {"Content-Type": "application/octet-stream"}
KEY = base64.b64encode(bytes(32)).decode()


def store(path: Path, *, crops: bool = True) -> dict[str, Any]:
    kept = {"keep_crops": True, "crops_key": KEY} if crops else {}
    return {"path": path} | kept


def enrol(client: httpx.Client, person_id: str, photo: bytes, **params: str) -> dict[str, Any]:
    answer = client.post(f"/persons/{person_id}/faces", content=photo, headers=JPEG, params=params)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def who(client: httpx.Client, photo: bytes) -> tuple[set[str], str]:
    """Who is recognised, and by which model."""
    answer = client.post("/identify", content=photo, headers=JPEG)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return {face["person_id"] for face in body["faces"]}, body["model"]


def add(client: httpx.Client, file: Path = NEW) -> httpx.Response:
    return client.put("/model/other", content=file.read_bytes(), headers=BINARY)


def carried(client: httpx.Client) -> dict[str, Any]:
    """What was carried over, once it is."""
    deadline = time.monotonic() + 30
    while True:
        answer = client.get("/model").json()["carried"]
        if answer["state"] == "complete" and answer["is_exact"]:
            return dict(answer)
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def switch(client: httpx.Client, **params: str) -> httpx.Response:
    return client.post("/model/switch", params=params)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    with running(tmp_path / "store", store=store(tmp_path / "store")) as client:
        yield client


def test_everybody_is_carried_over_and_found_by_the_new_model(
    client: httpx.Client, hopper: bytes, collins: bytes, group: bytes
) -> None:
    enrol(client, "grace", hopper)
    assert who(client, group) == ({"grace", None}, OLD_NAME)
    assert add(client).status_code == 200
    enrol(client, "eileen", collins)
    found = carried(client)
    assert (found["persons"], found["faces"], found["awaiting"], found["lost"]) == (2, 2, 0, 0)
    assert 'faceid_carried_faces{state="embedded"} 2.0' in client.get("/metrics").text
    assert who(client, group) == ({"grace", "eileen"}, OLD_NAME)

    assert switch(client).status_code == 200
    assert who(client, group) == ({"grace", "eileen"}, "sface-arcface")
    assert client.get("/health/ready").json()["other_model"] == OLD_NAME

    # A rollback is a second switch, and loses nobody who came in between.
    client.delete("/persons/eileen")
    enrol(client, "collins", collins)
    assert switch(client).status_code == 200
    assert who(client, group) == ({"grace", "collins"}, OLD_NAME)


def test_restarted_it_comes_up_with_the_new_model_and_nothing_else_configured(
    tmp_path: Path, hopper: bytes
) -> None:
    folder = tmp_path / "store"
    with running(folder, store=store(folder)) as client:
        enrol(client, "grace", hopper)
        add(client)
        carried(client)
        switch(client)
    with running(folder, store=store(folder)) as client:
        assert who(client, hopper) == ({"grace"}, "sface-arcface")
        carried(client)
        assert client.delete("/model/other").status_code == 200
        assert client.get("/model").json()["other"] is None
        assert who(client, hopper) == ({"grace"}, "sface-arcface")
    # The former model's embeddings have left the disk.
    assert len(list(folder.glob("model.*"))) == 1
    with running(folder, store=store(folder)) as client:
        assert who(client, hopper) == ({"grace"}, "sface-arcface")


def test_who_has_no_crop_is_named_and_not_lost_by_mistake(
    tmp_path: Path, hopper: bytes, collins: bytes, group: bytes
) -> None:
    folder = tmp_path / "store"
    with running(folder, store=store(folder, crops=False)) as client:
        enrol(client, "grace", hopper)
        add(client)
        enrol(client, "eileen", collins)  # both models see the photo itself
        found = carried(client)
        assert (found["persons"], found["faces"], found["awaiting"], found["lost"]) == (2, 1, 1, 1)
        refused = switch(client)
        assert refused.status_code == 409
        assert refused.json()["code"] == "persons_would_be_lost"
        assert refused.json()["persons"] == [{"gallery": "default", "person_id": "grace"}]
        (awaiting,) = client.get("/model/awaiting").json()["persons"]
        (face,) = client.get("/persons/grace/faces").json()["faces"]
        assert awaiting == {"person_id": "grace", "face_count": 0, "awaiting": [face["face_id"]]}

        assert switch(client, accept_loss="true").status_code == 200
        assert who(client, group) == ({"eileen", None}, "sface-arcface")
        # She is not forgotten: she waits for her photo, and the former model knows her still.
        known = client.get("/persons/grace/faces").json()
        assert ([], [face["face_id"]]) == (
            known["faces"],
            [one["face_id"] for one in known["awaiting"]],
        )
        assert switch(client).status_code == 200
        assert who(client, group)[0] == {"grace", "eileen"}

        # Her photo comes again.
        enrol(client, "grace", hopper)
        assert carried(client)["lost"] == 0
        assert switch(client).status_code == 200
        assert who(client, group) == ({"grace", "eileen"}, "sface-arcface")
        assert client.get("/persons/grace/faces").json()["awaiting"] == []


def test_who_is_deleted_is_gone_from_both_models_and_the_crops(
    client: httpx.Client, tmp_path: Path, hopper: bytes, collins: bytes
) -> None:
    enrol(client, "grace", hopper)
    enrol(client, "eileen", collins)
    add(client)
    carried(client)
    exported = client.get("/persons/grace/export").json()
    assert len(exported["other_model"]["embeddings"]) == 1
    assert base64.b64decode(exported["faces"][0]["crop"]).startswith(b"\x89PNG")

    receipt = client.delete("/persons/grace").json()
    assert (receipt["probes"], receipt["found"]) == (4, 0)
    (face,) = client.get("/persons/eileen/faces").json()["faces"]
    assert client.delete(f"/persons/eileen/faces/{face['face_id']}").status_code == 204
    left = [p for p in (tmp_path / "store" / "crops.enc").rglob("*") if p.is_file()]
    assert len(left) == 1, "of nobody: it tells whether the key is right"
    for _ in range(2):
        assert client.get("/persons/grace").status_code == 404
        assert client.get("/persons/eileen").json()["face_count"] == 0
        assert switch(client).status_code == 200


def test_metadata_consent_and_targets_go_along(client: httpx.Client, hopper: bytes) -> None:
    enrol(client, "grace", hopper, consent_reference="form 3")
    client.put("/galleries/default", json={"target_fpir": 0.05})
    add(client)
    client.patch("/persons/grace", json={"metadata": {"rank": 8}})
    carried(client)
    before = client.get("/persons/grace").json()
    switch(client)
    assert client.get("/persons/grace").json() == before
    assert client.get("/galleries/default").json()["target_fpir"] == 0.05


def test_only_another_embedder_is_taken(client: httpx.Client) -> None:
    refusals = {
        "unusable_model": [
            add(client, OLD),
            add(client, OLD.with_name("yunet.onnx")),
            client.put("/model/other", content=b"/etc/passwd", headers=BINARY),
        ],
        "unsupported_media_type": [client.put("/model/other", content=b"", headers=JPEG)],
        "model_conflict": [switch(client), client.delete("/model/other")],
    }
    for code, answers in refusals.items():
        assert [answer.json()["code"] for answer in answers] == [code] * len(answers)
    assert client.get("/model").json()["other"] is None
    add(client)
    assert add(client).status_code == 200, "again, as after a lost answer"


def test_a_model_that_cannot_decide_by_a_gallerys_rates_is_not_switched_to(
    client: httpx.Client,
) -> None:
    assert client.put("/galleries/strict", json={"target_fpir": 0.0002}).status_code == 200
    add(client)
    carried(client)
    refused = switch(client)
    assert (refused.status_code, refused.json()["code"]) == (409, "model_conflict")
    assert "the error rates of strict" in refused.json()["detail"]
    client.put("/galleries/strict", json={"target_fpir": None})
    assert switch(client).status_code == 200


def test_the_file_of_the_model_in_use_is_not_mistaken_for_another(tmp_path: Path) -> None:
    file = tmp_path / "own.onnx"
    file.write_bytes(OLD.read_bytes())
    with running(tmp_path / "store", model={"embedder": file}) as client:
        file.write_bytes(NEW.read_bytes())
        refused = add(client, file)
        assert (refused.status_code, refused.json()["code"]) == (409, "model_conflict")
        assert f"does not hold {OLD_NAME} any more" in refused.json()["detail"]
        file.write_bytes(OLD.read_bytes())
        assert add(client).status_code == 200
