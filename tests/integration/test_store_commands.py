"""`faceid store` from end to end: migrate, back up and restore, on the real model's store."""

import asyncio
import multiprocessing
import random
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from app.decision.fusion import template
from app.inference.session import open_session
from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec
from app.store import EmbeddedStore, Embedder, FloatArray
from app.store.backup import Backup
from app.store.transfer import Contents, StoreSource, copy
from tests import commands
from tests.commands import FACEID
from tests.service import JPEG, running
from tests.stores import faces_of

PERSONS = 3000

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    _, spec = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", threads=1)
    return Embedder(spec.name, spec.dimension, spec.weights_sha256)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Path:
    """A store of random faces in two galleries; not to be changed."""
    path = tmp_path_factory.mktemp("laptop") / "store"
    rows = np.random.default_rng(1).standard_normal((2 * PERSONS, embedder.dimension))
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    async def fill() -> None:
        store = EmbeddedStore(path, embedder, template, durable=False)
        await store.open()
        for number in range(PERSONS):
            person_id = f"person-{number}"
            await store.enrol(
                "default" if number % 3 else "other",
                person_id,
                faces_of(person_id, 2),
                unit[2 * number : 2 * number + 2],
                100,
            )
        await store.close()

    asyncio.run(fill())
    return path


def contents(path: Path, embedder: Embedder) -> dict[str, Contents]:
    async def read() -> dict[str, Contents]:
        folder = path / f"model.{embedder.weights_sha256[:12]}"
        store = EmbeddedStore(folder if folder.is_dir() else path, embedder, template)
        await store.open()
        found = await StoreSource(store).contents()
        await store.close()
        return found

    return asyncio.run(read())


@pytest.fixture
def environment() -> dict[str, str]:
    return commands.environment()


@pytest.fixture
def faceid(environment: dict[str, str]) -> Run:
    def run(
        *arguments: str | Path, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*FACEID, "store", *map(str, arguments)],
            env=environment | variables,
            input=stdin,
            capture_output=True,
            timeout=120,
        )

    return run


def move(source: Path, destination: Path, embedder: Embedder, told: Connection) -> None:
    """The child: says so after each page."""

    async def run() -> None:
        old, new = (EmbeddedStore(path, embedder, template) for path in (source, destination))
        await old.open()
        await new.open()
        await copy(StoreSource(old), new, told.send)

    asyncio.run(run())


def test_a_migration_killed_again_and_again_ends_as_if_it_never_was(
    laptop: Path, embedder: Embedder, faceid: Run, tmp_path: Path
) -> None:
    chance = random.Random(4)
    destination = tmp_path / "moved"
    partly = []
    context = multiprocessing.get_context("forkserver")
    for pages in (1, 3, 6, 9):
        heard, told = context.Pipe(duplex=False)
        process = context.Process(target=move, args=(laptop, destination, embedder, told))
        process.start()
        told.close()
        for _ in range(pages):
            heard.recv()
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        partly.append(sum(its.persons for its in contents(destination, embedder).values()))
    assert 0 < partly[0] < partly[-1] < PERSONS
    assert partly == sorted(partly)

    finished = faceid("migrate", laptop, destination)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == b""
    copied, verified = finished.stdout.decode().splitlines()
    assert f"{2 * PERSONS} faces in " in copied
    assert " faces/s" in copied
    assert f"{PERSONS} persons with {2 * PERSONS} faces of 2 galleries are the same" in verified
    assert "of 2560 neighbours in 256 searches 2560 are the same" in verified
    assert contents(destination, embedder) == contents(laptop, embedder)


def test_a_backup_of_a_running_service(
    faceid: Run, embedder: Embedder, hopper: bytes, collins: bytes, tmp_path: Path
) -> None:
    with running(tmp_path / "store") as client:
        for person_id, photo in (("grace", hopper), ("eileen", collins)):
            assert client.post(
                f"/persons/{person_id}/faces", content=photo, headers=JPEG
            ).is_success
        client.patch("/persons/grace", json={"metadata": {"rank": "Rear Admiral"}})
        client.put("/galleries/default", json={"target_fpir": 0.02})
        before = client.get("/persons/grace/faces").json()
        url = str(client.base_url)

        refused = faceid("migrate", tmp_path / "store", tmp_path / "other")
        assert refused.returncode == 2
        assert b"A service is using the store" in refused.stderr
        assert b"Stop it" in refused.stderr

        file = tmp_path / "backup.jsonl.gz"
        saved = faceid("backup", file, "--url", url)
        assert saved.returncode == 0, saved.stderr
        assert b"2 faces, as of 20" in saved.stdout
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        again = faceid("backup", file, "--url", url)
        assert again.returncode == 2
        assert b"exists" in again.stderr
        folder = tmp_path / "backups"
        folder.mkdir()
        assert faceid("backup", folder, "--url", url).returncode == 0
        (dated,) = folder.iterdir()
        assert dated.name.endswith("Z.jsonl.gz")
        piped = faceid("backup", "-", "--url", url)
        assert piped.returncode == 0
        client.patch("/persons/grace", json={"metadata": {"rank": None}})
    assert '"backup"' in (tmp_path / "store" / "audit.jsonl").read_text()

    restored = tmp_path / "restored"
    for source, stdin in ((file, b""), ("-", piped.stdout)):
        # The second finds everybody there.
        done = faceid("restore", source, stdin=stdin, FACEID_STORE__PATH=str(restored))
        assert done.returncode == 0, done.stderr
        assert b"with 2 faces of 1 galleries" in done.stdout
    with running(restored) as client:
        assert client.get("/persons/grace/faces").json() == before
        assert client.get("/persons/grace").json()["metadata"] == {"rank": "Rear Admiral"}
        assert client.get("/galleries/default").json()["target_fpir"] == 0.02
        answer = client.post("/identify", content=collins, headers=JPEG).json()
        assert [f["person_id"] for f in answer["faces"]] == ["eileen"]
    now = contents(tmp_path / "store", embedder)
    occupied = faceid("restore", file, FACEID_STORE__PATH=str(tmp_path / "store"))
    assert occupied.returncode == 2
    assert b"holds persons whom the source does not have" in occupied.stderr
    assert contents(tmp_path / "store", embedder) == now


def test_nothing_is_touched_where_a_backup_is_damaged(
    laptop: Path, faceid: Run, tmp_path: Path
) -> None:
    file, restored = tmp_path / "backup.jsonl.gz", tmp_path / "restored"
    saved = faceid("backup", file, "--local", FACEID_STORE__PATH=str(laptop))
    assert saved.returncode == 0, saved.stderr
    assert f"{2 * PERSONS} faces".encode() in saved.stdout
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for source, stdin in ((file, b""), ("-", whole[:-1]), (tmp_path / "missing", b"")):
        refused = faceid("restore", source, stdin=stdin, FACEID_STORE__PATH=str(restored))
        assert refused.returncode == 2
        assert refused.stderr.startswith(b"faceid: ")
        assert refused.stderr.count(b"\n") == 1
        assert not restored.exists()
    # Nor is a file left behind where there is nobody to back up from.
    gone = faceid("backup", tmp_path / "new", "--url", "http://127.0.0.1:9")
    assert gone.returncode == 2
    assert b"No service answers" in gone.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_backup_that_the_service_breaks_off_leaves_no_file(
    laptop: Path, faceid: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "store"
    assert faceid("migrate", laptop, moved).returncode == 0
    original = EmbeddedStore.export_persons
    pages = 0

    async def failing(*arguments: object) -> object:
        nonlocal pages
        pages += 1
        if pages == 3:
            raise RuntimeError("the disk is gone")
        return await original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddedStore, "export_persons", failing)
    with running(moved) as client:
        broken = faceid("backup", tmp_path / "backup", "--url", str(client.base_url))
        assert client.get("/health/live").is_success
    assert broken.returncode == 2
    assert broken.stderr.startswith(b"faceid: ")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_searches_and_deletions_go_on_during_a_backup(
    laptop: Path, faceid: Run, embedder: Embedder, hopper: bytes, tmp_path: Path
) -> None:
    moved, restored, file = tmp_path / "store", tmp_path / "restored", tmp_path / "backup"
    assert faceid("migrate", laptop, moved).returncode == 0
    acknowledged: list[datetime] = []
    searched: list[int] = []
    with running(moved) as client:
        finished = threading.Event()

        def work() -> None:
            numbers = iter(n for n in range(PERSONS) if n % 3)
            while not finished.is_set():
                assert client.delete(f"/persons/person-{next(numbers)}").is_success
                acknowledged.append(datetime.now(UTC))
                answer = client.post("/identify", content=hopper, headers=JPEG)
                searched.append(answer.status_code)

        worker = threading.Thread(target=work)
        worker.start()
        saved = faceid("backup", file, "--url", str(client.base_url))
        finished.set()
        worker.join()
    assert saved.returncode == 0, saved.stderr
    assert set(searched) == {200}
    with file.open("rb") as opened:
        taken_at = Backup(opened).taken_at
    done = faceid("restore", file, FACEID_STORE__PATH=str(restored))
    assert done.returncode == 0, done.stderr
    known = contents(restored, embedder)
    assert known["other"].persons == PERSONS / 3
    earlier = sum(moment <= taken_at for moment in acknowledged)
    assert earlier
    total = PERSONS * 2 // 3
    assert total - len(acknowledged) <= known["default"].persons <= total - earlier
