"""Whatever comes in: a clear problem, a service that goes on, a store that has not changed."""

import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import PIL.Image
import pytest

from tests.service import JPEG, running

MAX_BODY = 2_000_000


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, hopper: bytes) -> Iterator[httpx.Client]:
    limits = {"max_body_bytes": MAX_BODY, "max_metadata_bytes": 1000, "max_faces_per_person": 2}
    with running(tmp_path_factory.mktemp("store"), limits=limits) as client:
        client.post("/persons/grace/faces", content=hopper, headers=JPEG)
        yield client


@pytest.fixture(autouse=True)
def unharmed(client: httpx.Client) -> Iterator[None]:
    def stored() -> list[dict]:
        persons = client.get("/persons").json()["persons"]
        return [{k: v for k, v in person.items() if k != "updated_at"} for person in persons]

    before = stored()
    yield
    assert stored() == before
    assert client.get("/health/ready").status_code == 200


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert problem["title"]
    assert len(problem["detail"]) > 20
    return problem


def encoded(kind: str, size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size).save(buffer, kind, **options)
    return buffer.getvalue()


def png_that_declares(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


IMAGES = {
    "empty body": (b"", 422, "empty_image"),
    "not an image": (b"hello, world", 415, "unsupported_image"),
    "a GIF": (encoded("GIF"), 415, "unsupported_image"),
    "an animation": (
        encoded("WEBP", save_all=True, append_images=[PIL.Image.new("RGB", (64, 64), "red")]),
        415,
        "animated_image",
    ),
    "a decompression bomb": (png_that_declares(50_000, 50_000), 413, "too_many_pixels"),
    "a truncated PNG": (encoded("PNG", (640, 640))[:-40], 422, "unreadable_image"),
}


@pytest.mark.parametrize("call", ["/identify", "/detect", "/embed"])
@pytest.mark.parametrize("name", IMAGES)
def test_bad_images(client: httpx.Client, call: str, name: str) -> None:
    data, status, code = IMAGES[name]
    assert_problem(client.post(call, content=data, headers=JPEG), status, code)


@pytest.mark.parametrize("name", IMAGES)
def test_bad_images_are_not_enrolled(client: httpx.Client, name: str) -> None:
    data, _, code = IMAGES[name]
    answer = client.post("/persons/new/faces", content=data, headers=JPEG)
    problem = assert_problem(answer, 422, "no_face_enrolled")
    assert [rejected["code"] for rejected in problem["rejected"]] == [code]


@pytest.mark.parametrize("name", ["corrupted.png", "empty.png", "truncated.jpg"])
def test_broken_files(client: httpx.Client, scenes: Path, name: str) -> None:
    data = (scenes / "broken" / name).read_bytes()
    answer = client.post("/identify", content=data, headers=JPEG)
    assert answer.status_code in {415, 422}
    assert_problem(answer, answer.status_code, answer.json()["code"])


def test_no_face_to_enrol(client: httpx.Client) -> None:
    problem = client.post("/persons/new/faces", content=encoded("PNG"), headers=JPEG).json()
    assert problem["rejected"][0]["code"] == "no_face"


def test_a_face_too_small_to_align(client: httpx.Client, hopper: bytes) -> None:
    image = cv2.imdecode(np.frombuffer(hopper, np.uint8), cv2.IMREAD_COLOR)
    small = cv2.resize(image, None, fx=0.09, fy=0.09, interpolation=cv2.INTER_AREA)
    canvas = np.full((200, 200, 3), 90, np.uint8)
    canvas[50 : 50 + small.shape[0], 50 : 50 + small.shape[1]] = small
    data = cv2.imencode(".png", canvas)[1].tobytes()
    problem = client.post("/persons/new/faces", content=data, headers=JPEG).json()
    assert problem["rejected"][0]["code"] == "face_too_small"
    (face,) = client.post("/identify", content=data, headers=JPEG).json()["faces"]
    assert (face["decision"], face["candidates"]) == ("unknown", [])
    (face,) = client.post("/embed", content=data, headers=JPEG).json()["faces"]
    assert face["embedding"] is None


@pytest.mark.parametrize("call", ["/identify", "/verify", "/persons/new/faces"])
@pytest.mark.parametrize("media_type", ["", "text/plain", "application/octet-stream"])
def test_wrong_content_type(client: httpx.Client, call: str, media_type: str) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = client.post(call, content=b"x", headers=headers)
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b'{"image": 3}',
        b'{"image": "not base64!"}',
        b'{"image": "data:image/png;base64,AAAA"}',
        b'{"image": {"a": 1}}',
        b'{"image": ["AAAA", "AAAA"]}',
        b'{"person_id": "grace"}',
        b'{"image": NaN}',
        b"\xff\xfe",
        b'{"a":' * 5000,
    ],
)
def test_bad_json(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/identify", content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--c\r\n\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="x"; filename="a"\r\n\r\nx\r\n--b--\r\n',
        ),
    ],
)
def test_bad_multipart(client: httpx.Client, media_type: str, body: bytes) -> None:
    answer = client.post("/identify", content=body, headers={"Content-Type": media_type})
    assert_problem(answer, 422, "invalid_request")


def test_more_images_than_allowed(client: httpx.Client) -> None:
    answer = client.post("/persons/new/faces", files=[("image", b"x")] * 17)
    assert_problem(answer, 422, "invalid_request")


def test_a_declared_body_over_the_limit(client: httpx.Client) -> None:
    answer = client.post("/identify", content=bytes(MAX_BODY + 1), headers=JPEG)
    assert_problem(answer, 413, "body_too_large")


def test_an_undeclared_body_is_cut_off_while_it_is_read(client: httpx.Client) -> None:
    sent = 0

    def forever() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50 * MAX_BODY:
            sent += 100_000
            yield bytes(100_000)

    try:
        answer = client.post("/identify", content=forever(), headers=JPEG)
    except httpx.TransportError:
        pass  # The service may hang up on who does not stop talking.
    else:
        assert_problem(answer, 413, "body_too_large")
    assert sent < 20 * MAX_BODY


@pytest.mark.parametrize("person_id", ["a b", "%2e%2e", "-x", "a" * 129, "ä", "a%00b", "a%0ab"])
def test_illegal_person_ids(client: httpx.Client, hopper: bytes, person_id: str) -> None:
    for answer in (
        client.get(f"/persons/{person_id}"),
        client.post(f"/persons/{person_id}/faces", content=hopper, headers=JPEG),
    ):
        assert answer.status_code in {404, 422}
        assert_problem(answer, answer.status_code, answer.json()["code"])


def test_an_illegal_person_id_in_a_form(client: httpx.Client, hopper: bytes) -> None:
    answer = client.post("/verify", files={"image": hopper}, data={"person_id": "../x"})
    assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("gallery", ["A", "a b", "../x", "", "a" * 64, "a/b", "ä"])
def test_illegal_galleries(client: httpx.Client, hopper: bytes, gallery: str) -> None:
    for call in ("/identify", "/persons/new/faces"):
        answer = client.post(call, params={"gallery": gallery}, content=hopper, headers=JPEG)
        assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/persons?limit=0"),
        ("GET", "/persons?limit=1001"),
        ("GET", "/persons?limit=x"),
        ("GET", "/persons?cursor=%00"),
        ("GET", "/persons?cursor=bm90IG91cnM"),
        ("POST", "/identify?limit=0"),
        ("POST", "/identify?limit=51"),
        ("POST", "/identify?threshold=1.5"),
        ("POST", "/identify?threshold=nan"),
        ("POST", "/identify?mode=ajar"),
        ("POST", "/verify?metric=hamming"),
        ("POST", "/persons/new/faces?face=left"),
        ("POST", "/persons/new/faces?gate=ajar"),
    ],
)
def test_parameters_out_of_range(
    client: httpx.Client, hopper: bytes, method: str, url: str
) -> None:
    answer = client.request(method, url, content=hopper if method == "POST" else None, headers=JPEG)
    assert_problem(answer, 422, "invalid_request")


def test_verify_needs_two_of_something(client: httpx.Client, hopper: bytes) -> None:
    for files in ({"image": hopper}, {"image_a": hopper}, {"image": hopper, "image_b": hopper}):
        assert_problem(client.post("/verify", files=files), 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{}",
        '{"metadata": 1}',
        '{"metadata": {}, "x": 1}',
        '{"metadata": {"a": NaN}}',
        "{",
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_bad_metadata(client: httpx.Client, body: str | bytes) -> None:
    answer = client.patch(
        "/persons/grace", content=body, headers={"Content-Type": "application/json"}
    )
    assert_problem(answer, 422, "invalid_request")


def test_metadata_too_large(client: httpx.Client) -> None:
    answer = client.patch("/persons/grace", json={"metadata": {"a": "x" * 1000}})
    assert_problem(answer, 422, "metadata_too_large")


def test_metadata_of_any_json_survives(client: httpx.Client) -> None:
    odd = {"n": 10**18, "f": 0.1, "s": "ü\u0000\U0001f600", "l": [None, {"": []}], "b": True}
    assert (
        client.patch("/persons/grace", json={"metadata": odd}).json()["metadata"]["l"] == odd["l"]
    )
    stored = client.get("/persons/grace").json()["metadata"]
    assert stored == odd
    reset = dict.fromkeys(odd)
    client.patch("/persons/grace", json={"metadata": reset})


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/persons/ada/faces"), ("GET", "/persons"), ("DELETE", "/persons/grace")],
)
def test_a_misspelt_parameter_is_no_other_gallery(
    client: httpx.Client, collins: bytes, method: str, path: str
) -> None:
    photo = {"content": collins, "headers": {"Content-Type": "image/png"}} if "ada" in path else {}
    answer = client.request(method, path, params={"galery": "staff"}, **photo)
    detail = assert_problem(answer, 422, "invalid_request")["detail"]
    assert "query.galery: there is no such parameter here; there are: " in detail
    assert " gallery" in detail


def test_what_takes_no_parameters_says_so(client: httpx.Client, hopper: bytes) -> None:
    answer = client.post("/detect?gallery=staff", content=hopper, headers=JPEG)
    assert "there is none" in assert_problem(answer, 422, "invalid_request")["detail"]


def test_unknown_things(client: httpx.Client) -> None:
    face = "00000000-0000-0000-0000-000000000000"
    for method, url, code in (
        ("GET", "/persons/nobody", "person_not_found"),
        ("DELETE", "/persons/nobody", "person_not_found"),
        ("GET", "/persons/nobody/faces", "person_not_found"),
        ("DELETE", f"/persons/nobody/faces/{face}", "person_not_found"),
        ("DELETE", f"/persons/grace/faces/{face}", "face_not_found"),
        ("GET", "/nothing/here", "not_found"),
    ):
        assert_problem(client.request(method, url), 404, code)
    assert_problem(client.patch("/persons/nobody", json={"metadata": {}}), 404, "person_not_found")
    assert_problem(client.put("/persons/grace"), 405, "method_not_allowed")


def test_more_faces_than_a_person_may_have(
    client: httpx.Client, hopper: bytes, collins: bytes, group: bytes
) -> None:
    answer = client.post(
        "/persons/many/faces?face=largest&on_inconsistent=allow&on_duplicate=allow",
        files=[("image", hopper), ("image", collins), ("image", group)],
    )
    assert_problem(answer, 422, "too_many_faces")


def test_a_client_that_hangs_up_halfway(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"POST /identify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 1000\r\n\r\nonly this"
        )
    time.sleep(0.1)


def test_the_clients_request_id_is_kept_if_it_is_sane(client: httpx.Client) -> None:
    kept = client.get("/health/live", headers={"X-Request-ID": "trace-7.a_b"})
    assert kept.headers["X-Request-ID"] == "trace-7.a_b"
    replaced = client.get("/health/live", headers={"X-Request-ID": "{bad}"})
    assert replaced.headers["X-Request-ID"] != "{bad}"
    assert json.dumps(replaced.headers["X-Request-ID"])
