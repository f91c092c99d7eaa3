"""More than the service can do, and clients that do not wait."""

import concurrent.futures
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.service import JPEG, running

pytestmark = pytest.mark.alone


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_what_does_not_fit_is_refused_at_once(tmp_path: Path, hopper: bytes) -> None:
    with (
        running(tmp_path, limits={"max_photos_per_core": 2}, model={"cores": 1}) as client,
        concurrent.futures.ThreadPoolExecutor(16) as threads,
    ):
        answers = list(
            threads.map(lambda _: client.post("/identify", content=hopper, headers=JPEG), range(32))
        )
        statuses = {answer.status_code for answer in answers}
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert statuses == {200, 503}
        assert refused.json()["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.post("/identify", content=hopper, headers=JPEG).status_code == 200
        assert metric(client, "faceid_photos_in_flight") == 0
        count = 'faceid_http_requests_total{method="POST",route="/identify",status="503"}'
        assert metric(client, count) == sum(answer.status_code == 503 for answer in answers)


def test_who_would_wait_too_long_is_refused_and_enrolments_wait(
    tmp_path: Path, hopper: bytes, collins: bytes
) -> None:
    with (
        running(tmp_path, limits={"max_queue_s": 0.001}, model={"cores": 1}) as client,
        concurrent.futures.ThreadPoolExecutor(16) as threads,
    ):
        photos = [("image", hopper)] * 8 + [("image", collins)] * 2
        enrolled = threads.submit(
            client.post, "/persons/both/faces?gate=off&on_duplicate=allow", files=photos
        )
        deadline = time.monotonic() + 10
        while not metric(client, "faceid_queue_depth") and time.monotonic() < deadline:
            time.sleep(0.001)
        refused = client.post("/identify", content=hopper, headers=JPEG)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert "has waited" in refused.json()["detail"]
        assert enrolled.result().status_code != 503, "its own photos are no reason"


def test_no_photo_is_looked_at_that_has_waited_too_long(tmp_path: Path, hopper: bytes) -> None:
    with (
        running(tmp_path, limits={"max_queue_s": 0.001}, model={"cores": 1}) as client,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        answers = list(
            threads.map(lambda _: client.post("/identify", content=hopper, headers=JPEG), range(16))
        )
        late = [answer for answer in answers if "The photo waited" in answer.text]
        assert late
        assert {(answer.status_code, answer.json()["code"]) for answer in late} == {
            (503, "queue_full")
        }
        found = metric(client, 'faceid_stage_duration_seconds_count{stage="detect"}')
        assert found == sum(answer.status_code == 200 for answer in answers)


def test_enrolling_is_refused_where_nothing_fits(tmp_path: Path, hopper: bytes) -> None:
    with (
        running(tmp_path, limits={"max_photos_per_core": 2}, model={"cores": 1}) as client,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        answers = list(
            threads.map(
                lambda n: client.post(f"/persons/p{n}/faces", content=hopper, headers=JPEG),
                range(8),
            )
        )
        refused = [answer.json()["code"] for answer in answers if answer.status_code == 503]
        assert refused
        assert set(refused) == {"queue_full"}


def test_an_enrolment_is_not_refused_for_its_own_photos(tmp_path: Path, hopper: bytes) -> None:
    limits = {"max_photos_per_core": 2, "max_queue_s": 0.001}
    with running(tmp_path, limits=limits, model={"cores": 1}) as client:
        answer = client.post("/persons/grace/faces", files=[("image", hopper)] * 8)
        assert answer.status_code == 201, answer.text


def test_an_image_of_too_many_faces_is_refused(tmp_path: Path, hopper: bytes, group: bytes) -> None:
    with running(tmp_path, limits={"max_faces_per_image": 1}) as client:
        for path in ("/identify", "/detect", "/embed"):
            refused = client.post(path, content=group, headers=JPEG)
            assert (refused.status_code, refused.json()["code"]) == (422, "crowded_image")
            assert "2 faces were found, and 1 may be in one image" in refused.json()["detail"]
        assert client.post("/identify", content=hopper, headers=JPEG).status_code == 200
        assert metric(client, 'faceid_rejected_images_total{code="crowded_image"}') == 3


def test_a_client_that_has_gone_costs_no_inference(tmp_path: Path, hopper: bytes) -> None:
    request = (
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: %d\r\n\r\n" % len(hopper)
    ) + hopper
    with (
        running(tmp_path, limits={"max_photos_per_core": 64}, model={"cores": 1}) as client,
    ):
        address = (client.base_url.host, client.base_url.port)
        connections = [socket.create_connection(address) for _ in range(40)]
        for connection in connections:
            connection.sendall(request)
        time.sleep(0.1)
        for connection in connections:
            connection.close()
        while metric(client, "faceid_photos_in_flight"):
            time.sleep(0.05)
        embedded = metric(client, 'faceid_stage_duration_seconds_count{stage="embed"}')
        assert embedded < 20
        assert metric(
            client, 'faceid_http_requests_total{method="POST",route="/embed",status="499"}'
        )
        assert client.get("/health/ready").status_code == 200


def test_a_slow_sender_holds_nobody_up(tmp_path: Path, hopper: bytes) -> None:
    with running(tmp_path, model={"cores": 1}) as client:
        address = (client.base_url.host, client.base_url.port)
        slow = [socket.create_connection(address) for _ in range(50)]
        for connection in slow:
            connection.sendall(
                b"POST /identify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
                b"Content-Length: 100000\r\n\r\n"
            )
        assert client.post("/identify", content=hopper, headers=JPEG).status_code == 200
        for connection in slow:
            connection.close()


def test_answers_go_on_while_somebody_enrols(tmp_path: Path, hopper: bytes, collins: bytes) -> None:
    with running(tmp_path) as client:
        client.post("/persons/grace/faces", content=hopper, headers=JPEG)
        stop = threading.Event()

        def enrol() -> int:
            count = 0
            while not stop.is_set():
                answer = client.post(
                    f"/persons/p{count}/faces?on_duplicate=allow", files={"image": collins}
                )
                assert answer.status_code == 201
                count += 1
            return count

        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            enrolled = thread.submit(enrol)
            for _ in range(20):
                (face,) = client.post("/identify", content=hopper, headers=JPEG).json()["faces"]
                assert face["person_id"] == "grace"
            stop.set()
            assert client.get("/persons?limit=1000").json()["persons"]
            total = enrolled.result()
        sizes = client.get("/metrics").text
        assert f'faceid_gallery_persons{{gallery="default"}} {total + 1:.1f}' in sizes
