"""The requests that are sent, and the photos in them. Only this module knows the API's shape."""

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import httpx
import numpy as np

from tests.conftest import PHOTOS

# The photos show two people, enrolled under many names.
_ANYBODY = {"face": "largest", "gate": "off", "on_inconsistent": "allow", "on_duplicate": "allow"}
_JPEG = {"Content-Type": "image/jpeg"}
_SIZE = 160


@functools.cache
def faces(count: int) -> list[bytes]:
    """Different small JPEGs, each of one face."""
    hopper = cv2.imread(str(PHOTOS / "grace_hopper.jpg"))[60:500, 60:500]
    collins = cv2.imread(str(PHOTOS / "astronaut.png"))[0:300, 80:380]
    small = [
        cv2.resize(image, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
        for image in (hopper, collins)
    ]
    return [
        cv2.imencode(".jpg", np.roll(small[i % 2], i // 2 % 7, axis=1), [1, 70 + i // 14 % 30])[
            1
        ].tobytes()
        + i.to_bytes(4, "big")  # after the end of the image: another file, the same picture
        for i in range(count)
    ]


def enrol(client: httpx.Client, person_id: str, images: Sequence[bytes]) -> httpx.Response:
    return client.post(
        f"/persons/{person_id}/faces",
        params=_ANYBODY,
        files=[("image", ("photo.jpg", image, "image/jpeg")) for image in images],
    )


def identify(client: httpx.Client, image: bytes) -> httpx.Response:
    return client.post("/identify", content=image, headers=_JPEG)


def verify(client: httpx.Client, person_id: str, image: bytes) -> httpx.Response:
    return client.post("/verify", files={"image": image}, data={"person_id": person_id})


def patch(client: httpx.Client, person_id: str, metadata: dict[str, Any]) -> httpx.Response:
    return client.patch(f"/persons/{person_id}", json={"metadata": metadata})


def person(client: httpx.Client, person_id: str) -> httpx.Response:
    return client.get(f"/persons/{person_id}")


def person_faces(client: httpx.Client, person_id: str) -> httpx.Response:
    return client.get(f"/persons/{person_id}/faces")


def delete(client: httpx.Client, person_id: str) -> httpx.Response:
    return client.delete(f"/persons/{person_id}")


def delete_face(client: httpx.Client, person_id: str, face_id: str) -> httpx.Response:
    return client.delete(f"/persons/{person_id}/faces/{face_id}")


def ready(client: httpx.Client) -> httpx.Response:
    return client.get("/health/ready")


def persons(client: httpx.Client) -> list[dict[str, Any]]:
    """All of them, page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get(
            "/persons", params={"limit": 200} | ({"cursor": cursor} if cursor else {})
        )
        page.raise_for_status()
        found += page.json()["persons"]
        cursor = page.json()["cursor"]
        if cursor is None:
            return found


def identify_bytes(image: bytes, authorization: str) -> bytes:
    """The request as it goes over the wire."""
    head = (
        f"POST /identify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        f"Authorization: {authorization}\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    return head.encode() + image
