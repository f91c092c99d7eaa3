"""Exit codes and messages that need no service."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app

NOWHERE = "http://127.0.0.1:9"  # discard, reserved


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "people" / "grace" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("command", ["enrol", "identify", "verify", "persons"])
def test_no_service_is_one_message_and_2(command: str, photo: Path) -> None:
    arguments = {"enrol": [photo.parents[1]], "verify": [photo, photo], "persons": []}
    code, _, stderr = run(command, *arguments.get(command, [photo]), "--url", NOWHERE)
    assert code == 2
    assert stderr.startswith(f"faceid: No service answers at {NOWHERE}")
    assert "faceid serve" in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["nonsense", "http://[::", "ftp://example.org", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    code, _, stderr = run("persons", "--url", url)
    assert code == 2
    assert stderr.startswith("faceid: ")
    assert stderr.count("\n") == 1


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEID_URL", NOWHERE)
    assert NOWHERE in run("persons")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "a.jpg"),
        ("verify", "a.jpg", "b.jpg", "--person", "grace"),
        ("identify",),
        ("identify", "a.jpg", "--threshold", "2"),
        ("enrol", "no-such-folder"),
        ("enrol", ".", "--jobs", "0"),
        ("persons", "--gallery", "team", "delete", "grace", "--yes"),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2


def test_an_empty_folder_is_2(tmp_path: Path) -> None:
    code, _, stderr = run("enrol", tmp_path)
    assert code == 2
    assert "No photos" in stderr


def test_nothing_but_misplaced_photos_is_1_without_a_service(photo: Path) -> None:
    code, stdout, _ = run("enrol", photo.parent, "--url", NOWHERE)
    assert code == 1
    assert "no_person" in stdout
    assert "0 enrolled, 0 already there, 1 rejected" in stdout


def test_a_missing_photo_is_2_for_verify(photo: Path) -> None:
    code, _, stderr = run("verify", photo, photo.parent / "b.jpg")
    assert code == 2
    assert "b.jpg: No such file or directory" in stderr


def test_a_person_is_not_deleted_unasked() -> None:
    code, _, stderr = run("persons", "delete", "grace", "--url", NOWHERE)
    assert code == 1
    assert "No service" not in stderr


def test_help_needs_neither_models_nor_server() -> None:
    heavy = {"cv2", "fastapi", "numpy", "onnxruntime", "pydantic", "qdrant_edge", "torch"}
    script = f"import sys, app.cli; print({heavy!r} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
