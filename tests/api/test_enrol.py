import base64

import httpx
import pytest

from tests.service import JPEG


def test_three_ways_to_send_an_image_are_one(
    client: httpx.Client, gallery: str, hopper: bytes
) -> None:
    url, params = "/persons/grace/faces", {"gallery": gallery}
    bare = client.post(url, params=params, content=hopper, headers=JPEG)
    form = client.post(url, params=params, files={"image": hopper})
    text = client.post(url, params=params, json={"image": base64.b64encode(hopper).decode()})
    assert bare.status_code == form.status_code == text.status_code == 201
    assert bare.json() == form.json() == text.json()
    # The same photo is stored once, whatever it travelled in.
    assert text.json()["face_count"] == 1


def test_an_answer_holds_what_was_found(client: httpx.Client, gallery: str, hopper: bytes) -> None:
    answer = client.post(
        "/persons/grace/faces", params={"gallery": gallery}, content=hopper, headers=JPEG
    ).json()
    (face,) = answer["faces"]
    box = face["box"]
    assert 150 < box["x"] < 200
    assert 100 < box["y"] < 140
    assert 140 < box["width"] < 200
    assert face["detection_score"] > 0.9
    assert face["quality"]["eye_distance_px"] > 70
    assert abs(face["quality"]["yaw_degrees"]) < 10
    assert answer["rejected"] == []
    (embedded,) = client.post("/embed", content=hopper, headers=JPEG).json()["faces"]
    assert face["norm"] == pytest.approx(embedded["norm"], rel=1e-5)
    assert face["quality"] == embedded["quality"]
    (stored,) = client.get("/persons/grace/faces", params={"gallery": gallery}).json()["faces"]
    assert (stored["norm"], stored["quality"]) == (face["norm"], face["quality"])


def test_a_bad_photo_spoils_no_other(
    client: httpx.Client, gallery: str, hopper: bytes, group: bytes, collins: bytes
) -> None:
    answer = client.post(
        "/persons/grace/faces",
        params={"gallery": gallery},
        files=[("image", data) for data in (hopper, group, b"not an image", collins[:5000])],
    )
    assert answer.status_code == 201
    body = answer.json()
    assert body["face_count"] == 1
    assert [(r["index"], r["code"]) for r in body["rejected"]] == [
        (1, "multiple_faces"),
        (2, "unsupported_image"),
        (3, "unreadable_image"),
    ]


@pytest.mark.parametrize(("choice", "left"), [("largest", 198), ("central", 786)])
def test_of_a_group_the_face_asked_for_is_taken(
    client: httpx.Client, gallery: str, group: bytes, choice: str, left: int
) -> None:
    answer = client.post(
        "/persons/grace/faces",
        params={"gallery": gallery, "face": choice},
        content=group,
        headers=JPEG,
    )
    assert answer.json()["faces"][0]["box"]["x"] == pytest.approx(left, abs=5)


def test_when_no_image_is_usable_nothing_is_stored(
    client: httpx.Client, gallery: str, group: bytes
) -> None:
    answer = client.post(
        "/persons/grace/faces", params={"gallery": gallery}, content=group, headers=JPEG
    )
    assert answer.status_code == 422
    assert answer.json()["code"] == "no_face_enrolled"
    assert answer.json()["rejected"][0]["code"] == "multiple_faces"
    assert client.get("/persons/grace", params={"gallery": gallery}).status_code == 404
    assert client.get("/persons", params={"gallery": gallery}).json()["persons"] == []


def test_a_person_from_enrolment_to_erasure(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes
) -> None:
    here = {"gallery": gallery}
    client.post(
        "/persons/grace/faces",
        params=here | {"on_inconsistent": "allow"},
        files=[("image", hopper), ("image", collins)],
    )
    patched = client.patch(
        "/persons/grace", params=here, json={"metadata": {"rank": "commodore", "ships": ["Hopper"]}}
    )
    assert patched.json()["metadata"] == {"rank": "commodore", "ships": ["Hopper"]}
    again = client.patch("/persons/grace", params=here, json={"metadata": {"rank": None}})
    assert again.json()["metadata"] == {"ships": ["Hopper"]}

    person = client.get("/persons/grace", params=here).json()
    assert person["face_count"] == 2
    assert client.get("/persons", params=here).json()["persons"] == [person]

    faces = client.get("/persons/grace/faces", params=here).json()["faces"]
    gone = client.delete(f"/persons/grace/faces/{faces[1]['face_id']}", params=here)
    assert gone.status_code == 204
    assert client.get("/persons/grace/faces", params=here).json()["faces"] == faces[:1]

    deleted = client.delete("/persons/grace", params=here)
    assert deleted.json()["person_id"] == "grace"
    assert deleted.json()["faces_deleted"] == 1
    answer = client.post("/identify", params=here, content=hopper, headers=JPEG).json()
    assert answer["faces"][0]["decision"] == "unknown"
    assert answer["gallery_size"] == 0
    for call in ("GET", "DELETE"):
        assert client.request(call, "/persons/grace", params=here).status_code == 404


def test_pages_of_persons(client: httpx.Client, gallery: str, hopper: bytes) -> None:
    for i in range(5):
        client.post(
            f"/persons/p{i}/faces",
            params={"gallery": gallery, "on_duplicate": "allow"},
            content=hopper,
            headers=JPEG,
        )
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/persons", params={"gallery": gallery, "limit": "2"} | cursor).json()
        seen += [person["person_id"] for person in page["persons"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert sorted(seen) == [f"p{i}" for i in range(5)]
