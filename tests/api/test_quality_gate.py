"""Poor photos at enrolment, made of a good one and judged by the real detector."""

from collections.abc import Callable
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from app.decision import gate
from tests.service import running


def smaller(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, None, fx=0.13, fy=0.13, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(90, 90, 90))


def out_of_focus(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 8)


def moved(image: np.ndarray) -> np.ndarray:
    return cv2.filter2D(image, -1, np.full((1, 35), 1 / 35))


def underexposed(image: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=0.2)


def overexposed(image: np.ndarray) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=1, beta=95)


def pixelated(image: np.ndarray) -> np.ndarray:
    return np.kron(image[::16, ::16], np.ones((16, 16, 1), np.uint8))


Poor = Callable[[Callable[[np.ndarray], np.ndarray]], bytes]


@pytest.fixture(scope="module")
def poor(hopper: bytes) -> Poor:
    image = cv2.imdecode(np.frombuffer(hopper, np.uint8), cv2.IMREAD_COLOR)
    return lambda change: cv2.imencode(".png", change(image))[1].tobytes()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (smaller, "too_small"),
        (out_of_focus, "blurred"),
        (moved, "blurred"),
        (underexposed, "too_dark"),
        (overexposed, "too_bright"),
        (pixelated, "low_detection_score"),
    ],
)
def test_a_poor_photo_is_rejected_with_its_reason(
    client: httpx.Client,
    gallery: str,
    poor: Poor,
    change: Callable[[np.ndarray], np.ndarray],
    code: str,
) -> None:
    here = {"gallery": gallery}
    answer = client.post(
        "/persons/grace/faces", params=here | {"gate": "enforce"}, files={"image": poor(change)}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "no_face_enrolled")
    assert [rejected["code"] for rejected in answer.json()["rejected"]] == [code]
    # Nothing is stored: not the face, and not its person.
    assert client.get("/persons", params=here).json()["persons"] == []


def test_a_face_that_looks_elsewhere_is_rejected(
    client: httpx.Client, gallery: str, hopper: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAX_YAW_DEGREES", 1.0)
    answer = client.post(
        "/persons/grace/faces",
        params={"gallery": gallery, "gate": "enforce"},
        files={"image": hopper},
    )
    assert answer.json()["rejected"][0]["code"] == "extreme_pose"


def test_all_reasons_are_in_the_detail_and_a_poor_photo_spoils_no_good_one(
    client: httpx.Client, gallery: str, hopper: bytes, poor: Poor
) -> None:
    photo = poor(lambda image: underexposed(out_of_focus(image)))
    answer = client.post(
        "/persons/grace/faces",
        params={"gallery": gallery, "gate": "enforce"},
        files=[("image", photo), ("image", hopper)],
    )
    assert answer.status_code == 201
    assert answer.json()["face_count"] == 1
    assert answer.json()["faces"][0]["warnings"] == []
    (rejected,) = answer.json()["rejected"]
    assert (rejected["index"], rejected["code"]) == (0, "blurred")
    assert "sharpness" in rejected["detail"]
    assert "brightness" in rejected["detail"]


def test_with_warn_a_poor_photo_is_enrolled_and_its_face_says_why_it_is_poor(
    client: httpx.Client, gallery: str, poor: Poor
) -> None:
    photo = poor(lambda image: underexposed(out_of_focus(image)))
    answer = client.post(
        "/persons/grace/faces",
        params={"gallery": gallery, "gate": "warn"},
        files={"image": photo},
    )
    assert answer.status_code == 201
    assert answer.json()["rejected"] == []
    (face,) = answer.json()["faces"]
    assert [warning["code"] for warning in face["warnings"]] == ["blurred", "too_dark"]
    assert all(warning["detail"] for warning in face["warnings"])
    (stored,) = client.get("/persons/grace/faces", params={"gallery": gallery}).json()["faces"]
    assert stored["face_id"] == face["face_id"]


def test_without_a_gate_nothing_is_said(client: httpx.Client, gallery: str, poor: Poor) -> None:
    answer = client.post(
        "/persons/grace/faces",
        params={"gallery": gallery, "gate": "off"},
        files={"image": poor(out_of_focus)},
    )
    assert answer.json()["faces"][0]["warnings"] == []


def test_a_deployment_sets_its_own_gate(tmp_path: Path, hopper: bytes) -> None:
    strict = {"gate": "enforce", "min_eye_distance_px": 100}
    with running(tmp_path, enrolment=strict) as client:
        url, files = "/persons/grace/faces", {"image": hopper}
        assert client.post(url, files=files).json()["rejected"][0]["code"] == "too_small"
        assert client.post(url, params={"gate": "warn"}, files=files).status_code == 201
        metrics = client.get("/metrics").text
    assert 'faceid_failed_enrolments_total{code="too_small"} 1.0' in metrics
    assert 'faceid_enrolment_warnings_total{code="too_small"} 1.0' in metrics
