"""Open and closed sets, unique persons, targets of galleries, an embedder without calibration."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import onnx
import pytest

from app.models.spec import METADATA_KEY, SHIPPED_EMBEDDER
from tests.service import JPEG, running


@pytest.fixture(scope="module", autouse=True)
def enrolled(client: httpx.Client, hopper: bytes, collins: bytes) -> None:
    client.post("/persons/grace/faces", content=hopper, headers=JPEG)
    client.post("/persons/eileen/faces", content=collins, headers={"Content-Type": "image/png"})


@pytest.fixture(scope="module")
def twice(hopper: bytes) -> bytes:
    """A photo that shows one face twice, once smaller."""
    pixels = cv2.imdecode(np.frombuffer(hopper, np.uint8), cv2.IMREAD_COLOR)
    small = cv2.resize(pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    missing = pixels.shape[0] - small.shape[0]
    padded = cv2.copyMakeBorder(small, 0, missing, 0, 0, cv2.BORDER_REPLICATE)
    return cv2.imencode(".jpg", np.hstack([pixels, padded]))[1].tobytes()


def identify(client: httpx.Client, photo: bytes, **params: object) -> dict:
    answer = client.post("/identify", params=params, content=photo, headers=JPEG)
    return answer.raise_for_status().json()


def test_a_threshold_says_which_calibration_it_comes_from(
    client: httpx.Client, hopper: bytes
) -> None:
    answer = identify(client, hopper)
    (face,) = answer["faces"]
    assert answer["target_fpir"] == 0.01
    assert answer["calibration"] == client.get("/health/ready").json()["calibration"]
    assert len(answer["calibration"]) == 12
    # The other person, who is not alike, hardly moves the threshold of a gallery of two.
    assert face["threshold"] == pytest.approx(0.31, abs=0.03)


def test_a_stricter_target_raises_the_threshold(client: httpx.Client, hopper: bytes) -> None:
    found = [
        identify(client, hopper, target_fpir=target)["faces"][0]["threshold"]
        for target in (0.1, 0.01, 0.001)
    ]
    assert found == sorted(found)
    assert found[0] < found[-1] - 0.1


def test_a_target_nobody_measured_is_refused_with_those_that_are(
    client: httpx.Client, hopper: bytes
) -> None:
    answer = client.post("/identify", params={"target_fpir": 1e-9}, content=hopper, headers=JPEG)
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_target")
    assert "from 0.0001 to 0.5" in answer.json()["detail"]


def test_in_a_closed_set_everybody_is_somebody_with_a_probability(
    client: httpx.Client, hopper: bytes
) -> None:
    answer = identify(client, hopper, mode="closed")
    (face,) = answer["faces"]
    assert (face["decision"], face["person_id"]) == ("match", "grace")
    assert (answer["target_fpir"], face["threshold"]) == (None, None)
    shares = [candidate["probability"] for candidate in face["candidates"]]
    assert sum(shares) == pytest.approx(1)
    assert face["probability"] == shares[0] > 0.999


def test_one_person_cannot_be_twice_in_a_photo(client: httpx.Client, twice: bytes) -> None:
    plain = identify(client, twice)["faces"]
    assert [face["person_id"] for face in plain] == ["grace", "grace"]
    unique = identify(client, twice, unique=True)["faces"]
    assert sorted(str(face["person_id"]) for face in unique) == ["None", "grace"]
    # Who is left over is told the truth: nearest is still the same person.
    left = next(face for face in unique if face["person_id"] is None)
    assert left["candidates"][0]["person_id"] == "grace"


def test_in_a_closed_set_the_left_over_face_is_the_next_person(
    client: httpx.Client, twice: bytes
) -> None:
    faces = identify(client, twice, unique=True, mode="closed")["faces"]
    assert {face["person_id"] for face in faces} == {"grace", "eileen"}


def test_a_gallery_has_targets_of_its_own(client: httpx.Client, hopper: bytes) -> None:
    careful = {"gallery": "careful"}
    targets = {"target_fpir": 0.001, "target_fmr": 1e-5}
    client.post("/persons/grace/faces", params=careful, content=hopper, headers=JPEG)
    client.put("/galleries/careful", json=targets).raise_for_status()
    assert client.get("/galleries/careful").json() == targets | {
        "gallery": "careful", "persons": 1, "faces": 1
    }  # fmt: skip
    assert identify(client, hopper, **careful)["target_fpir"] == 0.001
    assert identify(client, hopper, target_fpir=0.1, **careful)["target_fpir"] == 0.1
    assert identify(client, hopper)["target_fpir"] == 0.01
    verified = client.post(
        "/verify", params=careful | {"person_id": "grace"}, content=hopper, headers=JPEG
    )
    assert verified.json()["fmr"] == 1e-5
    client.put("/galleries/careful", json={}).raise_for_status()
    assert identify(client, hopper, **careful)["target_fpir"] == 0.01


def test_a_gallery_cannot_promise_what_the_calibration_does_not_support(
    client: httpx.Client,
) -> None:
    for wrong in ({"target_fpir": 1e-9}, {"target_fmr": 1e-12}):
        answer = client.put("/galleries/default", json=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_target")
    assert client.get("/galleries/default").json()["target_fpir"] is None


def test_galleries_are_listed_with_their_sizes(client: httpx.Client) -> None:
    listed = {entry["gallery"]: entry for entry in client.get("/galleries").json()["galleries"]}
    assert (listed["default"]["persons"], listed["default"]["faces"]) == (2, 2)


def test_the_prior_moves_the_probability_of_a_verification(
    client: httpx.Client, hopper: bytes
) -> None:
    found = [
        client.post(
            "/verify", params={"person_id": "grace", "prior": prior}, content=hopper, headers=JPEG
        ).json()
        for prior in (0.5, 1e-9)
    ]
    assert [answer["prior"] for answer in found] == [0.5, 1e-9]
    assert found[0]["probability"] > found[1]["probability"] > 0.5
    assert found[0]["verified"]


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory: pytest.TempPathFactory, hopper: bytes) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("uncalibrated")
    model = onnx.load(SHIPPED_EMBEDDER)
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"calibration": None})
    path = folder / "uncalibrated.onnx"
    path.write_bytes(model.SerializeToString())
    with running(folder / "store", model={"embedder": Path(path)}) as client:
        client.post("/persons/grace/faces", content=hopper, headers=JPEG).raise_for_status()
        yield client


@pytest.mark.parametrize("call", ["/identify", "/verify?person_id=grace"])
def test_an_embedder_without_calibration_asks_for_a_threshold(
    uncalibrated: httpx.Client, hopper: bytes, call: str
) -> None:
    assert uncalibrated.get("/health/ready").json()["calibration"] is None
    answer = uncalibrated.post(call, content=hopper, headers=JPEG)
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_target")
    assert "give a threshold" in answer.json()["detail"]
    joined = "&" if "?" in call else "?"
    given = uncalibrated.post(f"{call}{joined}threshold=0.5", content=hopper, headers=JPEG)
    assert given.status_code == 200
    assert given.json()["calibration"] is None


def test_it_answers_closed_sets_without_probabilities(
    uncalibrated: httpx.Client, hopper: bytes
) -> None:
    (face,) = identify(uncalibrated, hopper, mode="closed")["faces"]
    assert (face["person_id"], face["probability"]) == ("grace", None)
