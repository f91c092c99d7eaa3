"""What a folder is taken for, and what is known when the service is lost half way."""

import asyncio
from pathlib import Path

import httpx
import pytest

from app.cli import client
from app.cli.client import Service, Unreachable
from app.cli.enrolment import Photo, Report, enrol, scan


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_folder_per_person(tmp_path: Path) -> None:
    make(tmp_path, "grace/b.JPG", "grace/a.png", "eileen@nasa.gov/portrait.webp")
    found = scan(tmp_path)
    assert found.photos == [
        Photo("eileen@nasa.gov", tmp_path / "eileen@nasa.gov/portrait.webp"),
        Photo("grace", tmp_path / "grace/a.png"),
        Photo("grace", tmp_path / "grace/b.JPG"),
    ]
    assert found.rejected == []
    assert found.ignored == []


def test_formats_the_service_does_not_read_are_sent_for_its_answer(tmp_path: Path) -> None:
    make(tmp_path, "grace/phone.heic", "grace/scan.tif")
    assert len(scan(tmp_path).photos) == 2


@pytest.mark.parametrize("name", ["Grace Hopper", "-grace", "élodie", "g" * 129, "a\nb", "grace\n"])
def test_an_illegal_name_is_reported_and_its_photos_are_not_sent(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"{name}/a.jpg", "grace/a.jpg")
    found = scan(tmp_path)
    assert found.photos == [Photo("grace", tmp_path / "grace/a.jpg")]
    assert [(r.path, r.code) for r in found.rejected] == [(tmp_path / name, "invalid_person_id")]


def test_photos_in_the_wrong_place_are_rejected(tmp_path: Path) -> None:
    make(tmp_path, "nobody.jpg", "grace/1906/a.jpg")
    found = scan(tmp_path)
    assert found.photos == []
    assert [(r.path, r.code) for r in found.rejected] == [
        (tmp_path / "grace/1906", "nested_folder"),
        (tmp_path / "nobody.jpg", "no_person"),
    ]


def test_other_files_are_named_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "README.txt", "grace/Thumbs.db", "grace/.DS_Store", ".git/HEAD.jpg")
    found = scan(tmp_path)
    assert found.photos == []
    assert found.rejected == []
    assert found.ignored == [tmp_path / "README.txt", tmp_path / "grace/Thumbs.db"]


def test_what_was_done_is_known_when_the_service_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "pause", lambda *_: 0)
    make(tmp_path, *(f"grace/{number}.jpg" for number in range(20)))
    photos = scan(tmp_path).photos
    for number, photo in enumerate(photos):
        photo.path.write_bytes(bytes([number]))
    enrolled = 0

    def network(request: httpx.Request) -> httpx.Response:
        nonlocal enrolled
        if enrolled == 5:
            raise httpx.ReadError("")
        if request.method == "GET":
            return httpx.Response(200, json={"faces": []})
        enrolled += 1
        return httpx.Response(201, json={"faces": []})

    report = Report()
    advanced = []

    async def main() -> None:
        transport = httpx.MockTransport(network)
        async with httpx.AsyncClient(transport=transport, base_url="http://f") as http:
            await enrol(
                Service(http), photos, {"face": "only"}, 3, report, lambda: advanced.append(1)
            )

    with pytest.raises(Unreachable):
        asyncio.run(main())
    assert report.enrolled == len(advanced) == 5
    assert report.rejected == []


def test_a_photo_that_breaks_the_connection_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "pause", lambda *_: 0)
    make(tmp_path, "grace/a.jpg", "grace/huge.jpg", "grace/z.jpg")
    photos = scan(tmp_path).photos
    for photo in photos:
        photo.path.write_text(photo.path.name)

    def network(request: httpx.Request) -> httpx.Response:
        if b"huge.jpg" in request.content:
            raise httpx.ReadError("")
        return httpx.Response(200, json={"faces": []})

    report = Report()

    async def main() -> None:
        transport = httpx.MockTransport(network)
        async with httpx.AsyncClient(transport=transport, base_url="http://f") as http:
            await enrol(Service(http), photos, {"face": "only"}, 1, report, lambda: None)

    asyncio.run(main())
    assert report.enrolled == 2
    assert [(r.path.name, r.code) for r in report.rejected] == [("huge.jpg", "no_answer")]


def test_warnings_of_the_service_are_kept_by_photo(tmp_path: Path) -> None:
    make(tmp_path, "grace/a.jpg", "grace/b.jpg")
    photos = scan(tmp_path).photos
    photos[1].path.write_bytes(b"blurred")
    sent = []

    def network(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"faces": []})
        sent.append(dict(request.url.params))
        codes = ["blurred", "too_dark"] if b"blurred" in request.content else []
        warnings = [{"code": code, "detail": "..."} for code in codes]
        return httpx.Response(201, json={"faces": [{"warnings": warnings}]})

    report = Report()
    params = {"face": "only", "gate": "warn"}

    async def main() -> None:
        transport = httpx.MockTransport(network)
        async with httpx.AsyncClient(transport=transport, base_url="http://f") as http:
            await enrol(Service(http), photos, params, 1, report, lambda: None)

    asyncio.run(main())
    assert sent == [params] * 2
    assert report.enrolled == 2
    assert [(w.path.name, w.code) for w in report.warnings] == [
        ("b.jpg", "blurred"),
        ("b.jpg", "too_dark"),
    ]
