"""The command line from end to end: the real application, models and store."""

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.inference.device import cuda_problem
from tests import commands
from tests.commands import FACEID, ROOT

PHOTOS = ROOT / "tests" / "photos"
HOPPER, COLLINS, GROUP = (
    str(PHOTOS / name) for name in ("grace_hopper.jpg", "astronaut.png", "group.jpg")
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return commands.environment(
        FACEID_STORE__PATH=str(tmp_path / "store"), FACEID_AUTH__DISABLED="true"
    )


@pytest.fixture
def faceid(environment: dict[str, str]) -> Run:
    def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return commands.faceid(*arguments, env=environment | variables)

    return run


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Two persons, a broken file, a photo of two faces and a file that is no photo."""
    folder = tmp_path / "people"
    for name, source in {
        "grace/portrait.jpg": HOPPER,
        "grace/both.jpg": GROUP,
        "eileen@nasa.gov/portrait.png": COLLINS,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(Path(source).read_bytes())
    (folder / "grace" / "broken.jpg").write_bytes(Path(HOPPER).read_bytes()[:2000])
    (folder / "list.txt").write_text("grace, eileen")
    return folder


def test_without_a_service(faceid: Run, people: Path) -> None:
    enrolled = faceid("enrol", people, "--local")
    assert enrolled.returncode == 1
    assert enrolled.stderr == ""
    lines = [line.split("\t") for line in enrolled.stdout.splitlines()]
    assert [line[:3] for line in lines[:3]] == [
        ["rejected", str(people / "grace/both.jpg"), "multiple_faces"],
        ["rejected", str(people / "grace/broken.jpg"), "unreadable_image"],
        ["ignored", str(people / "list.txt")],
    ]
    assert lines[3][0].startswith("2 enrolled, 0 already there, 2 rejected, 1 ignored")

    again = faceid("enrol", people, "--local", "--face", "largest")
    assert again.returncode == 1
    assert "1 enrolled, 2 already there, 1 rejected" in again.stdout

    listed = faceid("persons", "--local")
    assert sorted(listed.stdout.splitlines()) == ["eileen@nasa.gov\t1\t{}", "grace\t2\t{}"]

    found = faceid("identify", GROUP, "missing.jpg", "--local")
    assert found.returncode == 1
    assert "missing.jpg: No such file or directory" in found.stderr
    rows = [line.split("\t") for line in found.stdout.splitlines()]
    assert [row[:4] for row in rows] == [
        [GROUP, "1", "match", "grace"],
        [GROUP, "2", "match", "eileen@nasa.gov"],
    ]

    closed = faceid("identify", GROUP, "--mode", "closed", "--unique", "--local")
    assert [line.split("\t")[3] for line in closed.stdout.splitlines()] == [
        "grace",
        "eileen@nasa.gov",
    ]
    assert all(float(line.split("\t")[6]) > 0.99 for line in closed.stdout.splitlines())

    assert faceid("duplicates", "--local").stdout == "Nobody looks like somebody else.\n"
    (people / "eileen@nasa.gov").rename(people / "eileen")
    refused = faceid("enrol", people, "--local")
    assert f"{people / 'eileen/portrait.png'}\tduplicate_person" in refused.stdout
    faceid("enrol", people, "--local", "--on-duplicate", "allow")
    twice = faceid("duplicates", "--local")
    assert twice.returncode == 1
    (pair,) = (line.split("\t") for line in twice.stdout.splitlines())
    assert pair[:3] == ["one face, two persons", "eileen", "eileen@nasa.gov"]
    assert faceid("persons", "delete", "eileen", "--local", "--yes").returncode == 0

    assert faceid("verify", HOPPER, "--person", "grace", "--local").returncode == 0
    exported = json.loads(faceid("persons", "export", "grace", "--local").stdout)
    assert [len(face["embedding"]) for face in exported["faces"]] == [128, 128]
    deleted = faceid("persons", "delete", "grace", "--local", "--yes")
    assert deleted.returncode == 0
    assert "with 2 faces; 0 of 3 exact searches still find them" in deleted.stdout
    assert faceid("persons", "--local").stdout.splitlines() == ["eileen@nasa.gov\t1\t{}"]
    receipts = faceid("erasures", "--local").stdout.splitlines()
    assert [line.split("\t")[4:] for line in receipts] == [
        ["request", "erased", n, "0"] for n in "12"
    ]
    assert receipts[1].split("\t")[0] in deleted.stdout
    as_json = faceid("erasures", "--local", "--json", "--since", "2100-01-01T00:00:00Z")
    assert (as_json.returncode, as_json.stdout) == (0, "")


def test_a_purge_from_the_command_line(faceid: Run, people: Path) -> None:
    shutil.rmtree(people / "grace")
    faceid("enrol", people, "--local", "--expires-at", "2100-01-01T00:00:00Z")
    person_id = "eileen@nasa.gov"
    exported = json.loads(faceid("persons", "export", person_id, "--local").stdout)
    assert exported["expires_at"] == "2100-01-01T00:00:00Z"
    purged = faceid("purge", "--local")
    assert purged.returncode == 0
    assert purged.stdout.startswith("0 persons erased, with 0 faces; ")


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def service(
    environment: dict[str, str], port: int, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with serving(environment, port, tmp_path / "service.log") as process:
        yield process


@contextmanager
def serving(environment: dict[str, str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*FACEID, "serve", "--port", str(port)], env=environment, stderr=stderr
        )
    try:
        deadline = time.monotonic() + 60
        while not is_ready(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def test_with_a_service(
    faceid: Run, people: Path, service: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    def ask(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return faceid(*arguments, FACEID_URL=f"http://127.0.0.1:{port}")

    assert "2 enrolled, 0 already there, 2 rejected" in ask("enrol", people).stdout
    (people / "grace/broken.jpg").unlink()
    (people / "grace/both.jpg").unlink()
    again = ask("enrol", people)
    assert again.returncode == 0
    assert "0 enrolled, 2 already there, 0 rejected" in again.stdout
    assert len(ask("persons", "show", "grace").stdout.splitlines()) == 1

    raw = ask("identify", GROUP, "--json", "--limit", "2", "--threshold", "0.99")
    assert raw.returncode == 0
    answer = json.loads(raw.stdout)
    assert answer["file"] == GROUP
    assert [len(face["candidates"]) for face in answer["faces"]] == [2, 2]
    assert "embedding" not in raw.stdout

    assert "\tunknown\t" in ask("identify", HOPPER, "--gallery", "other").stdout
    assert "invalid_request" in ask("persons", "--gallery", "Not A Gallery").stderr

    assert ask("verify", HOPPER, GROUP, "--face", "largest").returncode == 0
    assert ask("verify", HOPPER, COLLINS).returncode == 1
    assert ask("verify", HOPPER, GROUP).returncode == 2
    person = ask("verify", HOPPER, "--person", "grace", "--metric", "euclidean")
    assert person.returncode == 0
    assert "verified\tyes\n" in person.stdout
    assert "metric\teuclidean\n" in person.stdout
    nobody = ask("verify", HOPPER, "--person", "nobody")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert "person_not_found" in nobody.stderr

    # The service keeps its port and its store to itself, and says so in one line.
    for arguments, code, reason in [
        (("serve", "--port", port), 1, f"port {port}: Address already in use"),
        (("serve", "--port", 0), 1, "Another process uses the store"),
        (("persons", "--local"), 2, "Another process uses the store"),
    ]:
        refused = faceid(*arguments)
        assert (refused.returncode, refused.stderr.count("\n")) == (code, 1)
        assert reason in refused.stderr

    service.send_signal(signal.SIGTERM)
    assert service.wait(30) == 0
    log = [json.loads(line) for line in (tmp_path / "service.log").read_text().splitlines()]
    assert {line["level"] for line in log} == {"info"}
    assert log[-1]["message"].startswith("Finished server process")
    # What it has stored is there for the next one.
    assert "grace\t1\t" in faceid("persons", "--local").stdout


def test_poor_photos_are_named_and_rejected_on_request(faceid: Run, tmp_path: Path) -> None:
    photo = tmp_path / "people" / "grace" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(Path(HOPPER).read_bytes())
    strict = {"FACEID_ENROLMENT__MIN_EYE_DISTANCE_PX": "100"}

    rejected = faceid("enrol", tmp_path / "people", "--local", "--gate", "enforce", **strict)
    assert rejected.returncode == 1
    assert rejected.stdout.startswith(f"rejected\t{photo}\ttoo_small\t")

    warned = faceid("enrol", tmp_path / "people", "--local", **strict)
    assert warned.returncode == 0
    assert warned.stdout.startswith(f"warning\t{photo}\ttoo_small\t")
    assert "1 enrolled, 0 already there, 0 rejected, 0 ignored, 1 with warnings" in warned.stdout


def test_an_interrupt_ends_it_cleanly(service: subprocess.Popen[bytes]) -> None:
    service.send_signal(signal.SIGINT)
    assert service.wait(30) == 0


@pytest.mark.skipif(cuda_problem() is None, reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_message(faceid: Run) -> None:
    for arguments, code in [(("serve", "--port", 0), 1), (("persons", "--local"), 2)]:
        refused = faceid(*arguments, FACEID_MODEL__DEVICE="cuda")
        assert (refused.returncode, refused.stderr.count("\n")) == (code, 1)
        assert refused.stderr.startswith("faceid: FACEID_MODEL__DEVICE=cuda, but ")


def test_an_invalid_setting_is_named(faceid: Run) -> None:
    refused = faceid("serve", FACEID_LIMITS__MAX_IMAGES="0")
    assert refused.returncode == 1
    assert refused.stderr == (
        "faceid: FACEID_LIMITS__MAX_IMAGES: Input should be greater than or equal to 1\n"
    )


def test_a_model_file_that_is_not_the_one_that_was_meant(faceid: Run) -> None:
    for model in ("EMBEDDER", "DETECTOR"):
        refused = faceid("serve", "--port", 0, **{f"FACEID_MODEL__{model}_SHA256": "0" * 64})
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert f"but the settings ask for {'0' * 64}" in refused.stderr


def test_keys_from_the_first_start_on(
    faceid: Run, environment: dict[str, str], people: Path, port: int, tmp_path: Path
) -> None:
    environment["FACEID_AUTH__DISABLED"] = "false"
    store = tmp_path / "store"
    url = f"http://127.0.0.1:{port}"

    def ask(key: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return faceid(*arguments, FACEID_URL=url, FACEID_API_KEY=key)

    log = tmp_path / "first.log"
    with serving(environment, port, log) as process:
        (shown,) = re.findall(r"^    export FACEID_API_KEY=(\S+)$", log.read_text(), re.MULTILINE)
        assert not any(
            shown in line for line in log.read_text().splitlines() if line.startswith("{")
        )
        refused = faceid("persons", FACEID_URL=url)
        assert (refused.returncode, "valid API key" in refused.stderr) == (2, True)
        assert "2 enrolled" in ask(shown, "enrol", people).stdout

        made = faceid("keys", "create", "--scope", "identify", "--name", "door")
        door = made.stdout.strip()
        assert "\tmatch\tgrace\t" in ask(door, "identify", HOPPER).stdout
        assert "forbidden" in ask(door, "persons").stderr
        listed = [line.split("\t") for line in faceid("keys", "list").stdout.splitlines()]
        assert [(key[1], key[2]) for key in listed] == [("first", "admin"), ("door", "identify")]
        identifier = listed[1][0]
        rotated = faceid("keys", "rotate", identifier, "--overlap-hours", "0").stdout.strip()
        assert "valid API key" in ask(door, "identify", HOPPER).stderr
        assert ask(rotated, "identify", HOPPER).returncode == 0
        assert faceid("keys", "revoke", rotated.split("_")[1]).returncode == 0
        assert "valid API key" in ask(rotated, "identify", HOPPER).stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    with serving(environment, port, log):
        assert "FACEID_API_KEY" not in log.read_text(), "a key is shown once"
        assert ask(shown, "persons").returncode == 0

    checked = faceid("audit", "verify")
    assert checked.returncode == 0, checked.stderr
    events = [json.loads(line) for line in (store / "audit.jsonl").read_text().splitlines()]
    assert [event["action"] for event in events if event["outcome"] == "done"] == [
        *("key.create", "person.enrol", "person.enrol"),
        *("key.create", "key.rotate", "key.revoke"),
    ]
    assert events[1]["key"] == events[0]["details"]["key"]
    head = re.search(r"head (\S+)", checked.stdout)[1]
    text = (store / "audit.jsonl").read_text().splitlines(keepends=True)
    (store / "audit.jsonl").write_text("".join(text[:-1]))
    for arguments in ((), ("--head", head)):
        found = faceid("audit", "verify", *arguments)
        assert (found.returncode, "missing at the end" in found.stderr) == (1, True)
    assert shown not in "".join(file.read_text() for file in store.glob("*.json*"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_only_this_machine_is_served(faceid: Run, host: str) -> None:
    refused = faceid("serve", "--host", host, "--port", "0", FACEID_AUTH__DISABLED="true")
    assert refused.returncode == 1
    assert refused.stderr.startswith("faceid: FACEID_AUTH__DISABLED is for this machine alone")
    assert refused.stderr.count("\n") == 1
