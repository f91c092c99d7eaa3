import base64
import concurrent.futures

import httpx
import numpy as np
import pytest

from tests.service import JPEG


@pytest.fixture(scope="module", autouse=True)
def enrolled(client: httpx.Client, hopper: bytes, collins: bytes) -> None:
    client.post("/persons/grace/faces", content=hopper, headers=JPEG)
    client.post("/persons/eileen/faces", content=collins, headers={"Content-Type": "image/png"})


def test_everybody_in_a_group_photo_is_recognised(client: httpx.Client, group: bytes) -> None:
    answer = client.post("/identify", content=group, headers=JPEG).json()
    assert [(f["decision"], f["person_id"]) for f in answer["faces"]] == [
        ("match", "grace"),
        ("match", "eileen"),
    ]
    for face in answer["faces"]:
        assert face["similarity"] == face["candidates"][0]["similarity"] > face["threshold"]
        assert face["candidates"][1]["similarity"] < 0.3
    assert answer["gallery_size"] == 2
    assert answer["model"] == "sface-2021dec"
    assert answer["timings_ms"].keys() >= {"queue", "decode", "detect", "align", "embed", "search"}


def test_a_stranger_is_unknown_in_the_open_set_and_named_in_the_closed_set(
    client: httpx.Client, hopper: bytes, collins: bytes
) -> None:
    only_grace = {"gallery": "only-grace"}
    client.post("/persons/grace/faces", params=only_grace, content=hopper, headers=JPEG)
    for mode, decision, person in (("open", "unknown", None), ("closed", "match", "grace")):
        (face,) = client.post(
            "/identify",
            params=only_grace | {"mode": mode},
            content=collins,
            headers={"Content-Type": "image/png"},
        ).json()["faces"]
        assert (face["decision"], face["person_id"]) == (decision, person)


def test_the_threshold_and_the_number_of_candidates_are_the_callers(
    client: httpx.Client, hopper: bytes
) -> None:
    (face,) = client.post(
        "/identify", params={"threshold": 1.0, "limit": 1}, content=hopper[:], headers=JPEG
    ).json()["faces"]
    assert face["threshold"] == 1.0
    assert len(face["candidates"]) == 1


def test_galleries_do_not_see_each_other(client: httpx.Client, hopper: bytes) -> None:
    answer = client.post(
        "/identify", params={"gallery": "empty"}, content=hopper, headers=JPEG
    ).json()
    assert answer["gallery_size"] == 0
    assert answer["faces"][0]["candidates"] == []


def test_a_person_is_scored_on_all_of_their_faces(
    client: httpx.Client, hopper: bytes, collins: bytes
) -> None:
    """Somebody enrolled with two different faces is half of each, not whichever fits."""
    mixed = {"gallery": "mixed"}
    client.post(
        "/persons/both/faces",
        params=mixed | {"on_inconsistent": "allow"},
        files=[("image", hopper), ("image", collins)],
    )
    (face,) = client.post("/identify", params=mixed, content=hopper, headers=JPEG).json()["faces"]
    a, b = (
        np.array(client.post("/embed", files={"image": photo}).json()["faces"][0]["embedding"])
        for photo in (hopper, collins)
    )
    mean = (a + b) / np.linalg.norm(a + b)
    assert face["similarity"] == pytest.approx(float(a @ mean), abs=1e-4)
    assert face["similarity"] < 0.9


def test_a_photo_without_faces_has_no_faces(client: httpx.Client) -> None:
    import cv2

    blank = cv2.imencode(".jpg", np.full((300, 400, 3), 128, np.uint8))[1].tobytes()
    assert client.post("/identify", content=blank, headers=JPEG).json()["faces"] == []
    assert client.post("/detect", content=blank, headers=JPEG).json()["faces"] == []


def test_two_photos_are_verified(
    client: httpx.Client, hopper: bytes, collins: bytes, group: bytes
) -> None:
    same = client.post(
        "/verify", params={"face": "largest"}, files={"image_a": hopper, "image_b": group}
    ).json()
    other = client.post("/verify", files={"image_a": hopper, "image_b": collins}).json()
    assert same["verified"]
    assert not other["verified"]
    assert same["distance"] == pytest.approx(1 - same["similarity"])
    assert len(same["boxes"]) == 2


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_a_photo_is_verified_against_a_person(
    client: httpx.Client, hopper: bytes, collins: bytes, metric: str
) -> None:
    for photo, verified in ((hopper, True), (collins, False)):
        answer = client.post(
            "/verify",
            params={"metric": metric},
            files={"image": photo},
            data={"person_id": "grace"},
        ).json()
        assert answer["verified"] is verified
        assert (answer["distance"] <= answer["threshold"]) is verified
        assert answer["metric"] == metric


def test_verify_takes_json_too(client: httpx.Client, hopper: bytes) -> None:
    text = base64.b64encode(hopper).decode()
    assert client.post("/verify", json={"image_a": text, "image_b": text}).json()["verified"]
    assert client.post("/verify", json={"image": text, "person_id": "grace"}).json()["verified"]


def test_an_unknown_person_cannot_be_verified(client: httpx.Client, hopper: bytes) -> None:
    answer = client.post("/verify", files={"image": hopper}, data={"person_id": "nobody"})
    assert answer.status_code == 404
    assert answer.json()["code"] == "person_not_found"


def test_an_embedding_is_of_unit_length(client: httpx.Client, hopper: bytes) -> None:
    (face,) = client.post("/embed", content=hopper, headers=JPEG).json()["faces"]
    assert len(face["embedding"]) == 128
    assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-5)
    assert face["norm"] > 1


def test_detection_gives_boxes_points_and_quality(client: httpx.Client, group: bytes) -> None:
    faces = client.post("/detect", content=group, headers=JPEG).json()["faces"]
    assert len(faces) == 2
    areas = [face["box"]["width"] * face["box"]["height"] for face in faces]
    assert areas == sorted(areas, reverse=True)
    for face in faces:
        left_eye, right_eye, nose, left_mouth, right_mouth = face["landmarks"]
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1]


def test_concurrent_requests_get_their_own_answers(
    client: httpx.Client, hopper: bytes, collins: bytes
) -> None:
    photos = [(hopper, "grace"), (collins, "eileen")] * 8
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda item: (
                client.post("/identify", files={"image": item[0]}).json()["faces"][0]["person_id"],
                item[1],
            ),
            photos,
        )
    assert all(found == expected for found, expected in answers)
