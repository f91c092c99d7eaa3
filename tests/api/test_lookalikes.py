"""Two faces under one name, one face under two."""

import cv2
import httpx
import numpy as np
import pytest

from tests.api.conftest import enrol


def mirror(photo: bytes) -> bytes:
    """Another photo of the same person, as far as a face is concerned."""
    pixels = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", pixels[:, ::-1])[1].tobytes()


@pytest.fixture(scope="module")
def mirrored(hopper: bytes) -> bytes:
    return mirror(hopper)


def persons(client: httpx.Client, gallery: str) -> dict[str, int]:
    listed = client.get("/persons", params={"gallery": gallery}).json()["persons"]
    return {person["person_id"]: person["face_count"] for person in listed}


def test_a_newcomer_who_is_enrolled_already_is_refused_with_who_it_is(
    client: httpx.Client, gallery: str, hopper: bytes, mirrored: bytes
) -> None:
    enrol(client, "grace", hopper, gallery=gallery)
    answer = enrol(client, "amazing-grace", mirrored, gallery=gallery)
    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate_person")
    (candidate,) = answer.json()["candidates"]
    assert candidate["person_id"] == "grace"
    assert candidate["similarity"] > candidate["threshold"]
    assert persons(client, gallery) == {"grace": 1}


def test_or_enrolled_with_a_warning_or_without_a_word(
    client: httpx.Client, gallery: str, hopper: bytes, mirrored: bytes
) -> None:
    enrol(client, "grace", hopper, gallery=gallery)
    warned = enrol(client, "amazing-grace", mirrored, on_duplicate="warn", gallery=gallery)
    assert [found["person_id"] for found in warned.json()["duplicates"]] == ["grace"]
    allowed = enrol(client, "admiral", mirrored, on_duplicate="allow", gallery=gallery)
    assert allowed.json()["duplicates"] == []
    assert persons(client, gallery) == {"grace": 1, "amazing-grace": 1, "admiral": 1}


def test_somebody_else_is_no_duplicate(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes
) -> None:
    for person_id, photo in (("grace", hopper), ("eileen", collins)):
        assert enrol(client, person_id, photo, gallery=gallery).status_code == 201


def test_a_further_photo_of_a_person_is_no_duplicate_of_them(
    client: httpx.Client, gallery: str, hopper: bytes, mirrored: bytes
) -> None:
    for photo in (hopper, mirrored, hopper):
        assert enrol(client, "grace", photo, gallery=gallery).status_code == 201
    assert persons(client, gallery) == {"grace": 2}


def test_a_photo_of_somebody_else_is_refused(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes, mirrored: bytes
) -> None:
    enrol(client, "grace", hopper, gallery=gallery)
    answer = enrol(client, "grace", collins, gallery=gallery)
    assert (answer.status_code, answer.json()["code"]) == (422, "no_face_enrolled")
    assert answer.json()["rejected"][0]["code"] == "inconsistent_person"
    # It spoils no other photo of the request.
    answer = enrol(client, "grace", collins, mirrored, gallery=gallery).json()
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(0, "inconsistent_person")]
    assert persons(client, gallery) == {"grace": 2}


def test_or_enrolled_all_the_same(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes
) -> None:
    enrol(client, "grace", hopper, gallery=gallery)
    warned = enrol(client, "grace", collins, on_inconsistent="warn", gallery=gallery)
    (face,) = warned.json()["faces"]
    assert [warning["code"] for warning in face["warnings"]] == ["inconsistent_person"]
    enrol(client, "eileen", collins, on_duplicate="allow", gallery=gallery)
    answer = enrol(client, "eileen", hopper, on_inconsistent="allow", gallery=gallery).json()
    assert answer["faces"][0]["warnings"] == []


def test_a_newcomers_photos_are_compared_with_each_other(
    client: httpx.Client, gallery: str, hopper: bytes, collins: bytes, mirrored: bytes
) -> None:
    both = enrol(client, "grace", hopper, collins, gallery=gallery)
    assert both.status_code == 422  # nobody can say which of the two is the person
    answer = enrol(client, "grace", hopper, collins, mirrored, gallery=gallery).json()
    assert [(r["index"], r["code"]) for r in answer["rejected"]] == [(1, "inconsistent_person")]
    assert answer["face_count"] == 2


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_scan_tells_each_pair_once_and_every_odd_face(
    client: httpx.Client,
    gallery: str,
    hopper: bytes,
    collins: bytes,
    mirrored: bytes,
    limit: int,
) -> None:
    enrol(client, "grace", hopper, gallery=gallery)
    enrol(client, "amazing-grace", mirrored, on_duplicate="allow", gallery=gallery)
    enrol(client, "eileen", collins, gallery=gallery)
    allowed = enrol(client, "eileen", hopper, on_inconsistent="allow", gallery=gallery)
    (odd,) = allowed.json()["faces"]
    enrol(client, "eileen", mirror(collins), on_inconsistent="allow", gallery=gallery)
    pairs, faces, scanned, cursor = [], [], 0, None
    while True:
        params = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        answer = client.get(f"/galleries/{gallery}/duplicates", params=params).json()
        pairs += [sorted(pair["person_ids"]) for pair in answer["duplicates"]]
        faces += [(face["person_id"], face["face_id"]) for face in answer["inconsistent"]]
        scanned += answer["scanned"]
        cursor = answer["cursor"]
        if cursor is None:
            break
    assert scanned == answer["gallery_size"] == 3
    assert pairs.count(["amazing-grace", "grace"]) == 1
    assert len(pairs) == len({tuple(pair) for pair in pairs})
    assert faces == [("eileen", odd["face_id"])]


def test_an_empty_gallery_has_no_duplicates(client: httpx.Client, gallery: str) -> None:
    answer = client.get(f"/galleries/{gallery}/duplicates").json()
    assert answer == {
        "duplicates": [], "inconsistent": [], "scanned": 0, "gallery_size": 0, "cursor": None
    }  # fmt: skip
