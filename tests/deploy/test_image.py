"""The image: its Dockerfile, its locked packages, and its code on a read-only root.

`make image-check` builds the whole image and runs it; that takes minutes.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

HADOLINT = Path(sys.executable).with_name("hadolint")
# Where both images run.
TARGET = {
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "python_version": "3.11",
    "python_full_version": "3.11.14",
}
USER = "10001:10001"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def instructions(root: Path, name: str) -> list[str]:
    """The arguments of every `name` in the Dockerfile, continuation lines joined."""
    text = (root / "Dockerfile").read_text().replace("\\\n", "")
    return re.findall(rf"^\s*{name}\s+(.*)$", text, re.MULTILINE)


@pytest.mark.skipif(not HADOLINT.exists(), reason="no hadolint for this machine")
def test_hadolint_has_nothing_to_say(root: Path) -> None:
    judged = subprocess.run([HADOLINT, root / "Dockerfile"], capture_output=True, text=True)
    assert (judged.returncode, judged.stdout) == (0, "")


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_the_lock_holds_what_the_project_asks_for(deploy: Path, root: Path, variant: str) -> None:
    lines = (deploy / "image" / f"requirements-{variant}.txt").read_text().splitlines()
    locked = {}
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line[:1].isalnum():
            pinned = Requirement(line.rstrip(" \\"))
            assert following.strip().startswith("--hash=sha256:"), line
            if pinned.marker is None or pinned.marker.evaluate(TARGET):
                locked[pinned.name] = str(pinned.specifier).removeprefix("==")
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + (
        project["optional-dependencies"]["cuda"] if variant == "cuda" else []
    )
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate(TARGET):
            name = requirement.name
            if variant == "cpu":
                name = name.removesuffix("-gpu")
            assert requirement.specifier.contains(locked[name]), f"{requirement}; run make lock"
    assert not {"torch", "setuptools", "onnx"} & set(locked)
    assert ("nvidia-cudnn-cu13" in locked) == (variant == "cuda")


def test_every_base_is_pinned_by_its_digest(root: Path) -> None:
    (base,) = [a for a in instructions(root, "ARG") if a.startswith("PYTHON=")]
    assert re.fullmatch(r"PYTHON=python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    assert {line.split()[0] for line in instructions(root, "FROM")} == {"${PYTHON}"}


def test_the_context_holds_the_default_models(root: Path) -> None:
    rules = (root / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    assert "!app" in rules
    assert {r for r in rules if r.startswith("app/")} == {"app/models/sface-arcface.*"}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="needs root, to make the root read-only and to become another user",
)
def test_it_runs_as_the_image_says_on_a_read_only_root(
    root: Path, open_folder: Path, hopper: bytes
) -> None:
    assert instructions(root, "USER") == [USER]
    (entry,) = instructions(root, "ENTRYPOINT")
    (command,) = [c for c in instructions(root, "CMD") if "serve" in c]
    (check,) = [h.partition("CMD ")[2] for h in instructions(root, "HEALTHCHECK")]
    assert (json.loads(entry), json.loads(command)[0]) == (["faceid"], "serve")

    user, group = USER.split(":")
    as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    as_user += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    if subprocess.run([*as_user, sys.executable, "-c", "import numpy"]).returncode:
        pytest.skip("the environment of the tests is closed to other users")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What the build copies, and no more: the application, writable for nobody but root.
    source = open_folder / "source"
    shutil.copytree(root / "app", source / "app", ignore=shutil.ignore_patterns("*arcface*"))
    shutil.copy(root / "deploy" / "image" / "faceid", source)
    data = open_folder / "data"
    data.mkdir()
    os.chown(data, int(user), int(group))
    script = (
        f"mount --rbind / /mnt && mount -o remount,bind,ro /mnt && mount --bind {data} /mnt{data}"
        " && if touch /mnt/written 2>/dev/null; then exit 99; fi"
        f" && cd /mnt{source} && exec chroot /mnt "
        + " ".join(as_user)
        + f" {sys.executable} {source}/faceid serve --port {port}"
    )
    environment = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",  # where chroot is
        "PYTHONPATH": str(source),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FACEID_STORE__PATH": str(data),
        "FACEID_MODEL__DEVICE": "cpu",
    }
    log = open_folder / "log"
    with log.open("wb") as stderr:
        service = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], env=environment, stderr=stderr
        )
    healthy = [sys.executable, *(p.replace("8000", str(port)) for p in json.loads(check)[1:])]
    try:
        for _ in range(120):
            if subprocess.run(healthy, stderr=subprocess.DEVNULL).returncode == 0:
                break
            assert service.poll() is None, log.read_text()
            time.sleep(0.25)
        else:
            pytest.fail("the health check never passed")
        key = re.search(r"FACEID_API_KEY=(\S+)", log.read_text())
        assert key is not None
        headers = {"X-API-Key": key[1]}
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/persons").status_code == 401
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            enrolled = client.post("/persons/grace/faces", files={"image": hopper})
            assert enrolled.status_code == 201
            (face,) = client.post("/identify", files={"image": hopper}).json()["faces"]
            assert face["person_id"] == "grace"
    finally:
        service.terminate()
        service.wait()
    assert service.returncode == 0
    assert subprocess.run(healthy, stderr=subprocess.DEVNULL).returncode != 0
