"""The audit log: whatever becomes of its files, a change shows and a crash does not."""

import asyncio
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from app.audit import AuditLog, Event, Head, verify
from app.audit import log as module
from app.errors import AuditUnavailable, AuditUnusable

ROOT = Path(__file__).parents[3]
BIG = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def fill(path: Path, count: int, max_file_bytes: int = BIG) -> None:
    log = AuditLog(path, max_file_bytes)
    log.open()
    for number in range(count):
        log.write(Event("person.delete", "done", person_id=f"p{number}"))


def test_every_line_carries_the_hash_of_the_one_before(path: Path) -> None:
    fill(path, 3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert [line["previous"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    report = verify(path)
    assert (report.problems, report.lines, report.head) == ([], 3, Head(3, lines[-1]["hash"]))


def test_only_the_owner_may_read_it(path: Path) -> None:
    fill(path, 3, max_file_bytes=1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def forge(lines: list[bytes]) -> None:
    """Change a line and make its own hash right again."""
    record = json.loads(lines[4])
    digest = record.pop("hash")
    record["person_id"] = "somebody-else"
    body = json.dumps(record, separators=(",", ":"))
    assert digest != sha256(body.encode()).hexdigest()
    lines[4] = f'{body[:-1]},"hash":"{sha256(body.encode()).hexdigest()}"}}\n'.encode()


def change(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b'"p4"', b'"p5"')


def swap(lines: list[bytes]) -> None:
    lines[4], lines[5] = lines[5], lines[4]


def garble(lines: list[bytes]) -> None:
    lines[4] = b"nothing\n"


TAMPERING = {
    "changed": (change, "line 5 was changed"),
    "changed with its own hash": (forge, "line 6 does not follow"),
    "removed": (lambda lines: lines.pop(4), "lines 5 to 5 are missing in audit.jsonl, line 5"),
    "the first removed": (lambda lines: lines.pop(0), "lines 1 to 1 are missing"),
    "the last removed": (lambda lines: lines.pop(), "lines 10 to 10 are missing at the end"),
    "the last three removed": (lambda lines: lines.__delitem__(slice(7, 10)), "lines 8 to 10"),
    "repeated": (lambda lines: lines.insert(4, lines[4]), "is out of order"),
    "reordered": (swap, "is out of order"),
    "garbled": (garble, "line 5 is not a line of this log"),
    "emptied": (lambda lines: lines.clear(), "lines 1 to 10 are missing at the end"),
    "the last changed": (
        lambda lines: lines.append(lines.pop().replace(b'"p9"', b'"p8"')),
        "line 10 was changed",
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_found(path: Path, name: str) -> None:
    fill(path, 10)
    tamper, problem = TAMPERING[name]
    lines = lines_of(path)
    tamper(lines)
    path.write_bytes(b"".join(lines))
    problems = verify(path).problems
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_still_found_when_the_log_went_on(path: Path, name: str) -> None:
    fill(path, 10)
    lines = lines_of(path)
    TAMPERING[name][0](lines)
    path.write_bytes(b"".join(lines))
    fill(path, 3)
    assert verify(path).problems


def test_a_head_that_was_noted_elsewhere_finds_a_log_that_was_written_anew(path: Path) -> None:
    fill(path, 5)
    noted = verify(path).head
    for file in path.parent.iterdir():
        file.unlink()
    fill(path, 8)
    assert verify(path).problems == []
    assert "was noted" in verify(path, [noted]).problems[0]


def test_rotation_goes_on_with_the_chain(path: Path) -> None:
    fill(path, 1)
    fill(path, 9, max_file_bytes=3 * path.stat().st_size)
    files = sorted(file.name for file in path.parent.glob("audit*.jsonl"))
    firsts = [1, 4, 7]
    assert files == [*(f"audit.{seq:012d}.jsonl" for seq in firsts), "audit.jsonl"]
    report = verify(path)
    assert (report.problems, report.files, report.lines) == ([], len(files), 10)

    (path.parent / files[0]).rename(path.parent / "archived.jsonl")
    assert f"lines 1 to {firsts[1] - 1} are missing" in verify(path).problems[0]
    assert verify(path, first=firsts[1]).problems == []
    (path.parent / files[1]).rename(path.parent / "taken away")
    (path.parent / "archived.jsonl").rename(path.parent / files[0])
    assert f"lines {firsts[1]} to {firsts[2] - 1} are missing" in verify(path).problems[0]


def test_a_file_that_was_moved_away_by_others_does_not_break_the_chain(path: Path) -> None:
    log = AuditLog(path, BIG)
    log.open()
    log.write(Event("key.create", "done"))
    path.rename(path.with_name("audit.000000000001.jsonl"))
    log.write(Event("key.create", "done"))
    assert json.loads(path.read_text())["seq"] == 2
    assert verify(path).problems == []


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_line_cut_short_by_a_crash_is_dropped(path: Path, cut: int) -> None:
    fill(path, 3)
    lines = lines_of(path)
    with path.open("ab") as file:
        file.write(lines[2][:-cut])
    report = verify(path)
    assert (report.problems, report.incomplete, report.lines) == ([], True, 3)
    fill(path, 2)
    report = verify(path)
    assert (report.problems, report.incomplete, report.lines) == ([], False, 5)


def test_lines_larger_than_what_is_read_at_once(path: Path) -> None:
    log = AuditLog(path, BIG)
    for _ in range(3):
        log.write(Event("identify", "done", details={"matches": ["somebody"] * 20_000}))
    with path.open("ab") as file:
        file.write(b"x" * 200_000)
    fill(path, 1)
    assert (verify(path).problems, verify(path).lines) == ([], 4)


WRITER = """
import sys
from pathlib import Path
from app.audit import AuditLog, Event
log = AuditLog(Path(sys.argv[1]), int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    log.write(Event("person.delete", "done", person_id=f"p{number}"))
    print(number, flush=True)
"""


def writer(path: Path, max_file_bytes: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(max_file_bytes), str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_several_processes_write_one_chain(path: Path) -> None:
    writers = [writer(path, 5000, 100) for _ in range(3)]
    for process in writers:
        process.communicate()
        assert process.returncode == 0
    report = verify(path)
    assert (report.problems, report.lines) == ([], 300)
    assert report.files > 5


def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    random.seed(3)
    acknowledged = 0
    for _ in range(10):
        process = writer(path, 20_000, 100_000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += 1 + len(process.stdout.read().splitlines())
        process.wait()
        process.stdout.close()
        report = verify(path)
        assert report.problems == []
        assert report.lines >= acknowledged


def test_a_full_disk_leaves_whole_lines(path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from app.audit import AuditLog, Event
from app.errors import AuditUnavailable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog(Path(sys.argv[1]), 1 << 30)
event = Event("person.delete", "done", person_id="p")
log.write(event)
log.write(event)
size = Path(sys.argv[1]).stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, -1))
try:
    log.write(event)
except AuditUnavailable as error:
    print(error.detail)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
log.write(event)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "File too large" in done.stdout
    assert (verify(path).problems, verify(path).lines) == ([], 3)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditUnusable, match="FACEID_AUDIT__PATH"):
        AuditLog(tmp_path / "file" / "audit.jsonl", BIG).open()


@pytest.mark.anyio
async def test_lines_that_wait_together_share_a_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = 0
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        fsync(descriptor)

    log = AuditLog(path, BIG)
    log.open()
    await log.record(Event("person.enrol", "done"), durable=True)
    monkeypatch.setattr(module.os, "fsync", counted)
    await asyncio.gather(
        *(log.record(Event("person.enrol", "done"), durable=True) for _ in range(50))
    )
    assert verify(path).lines == 51
    assert synced == 1
    await log.record(Event("identify", "done"), durable=False)
    assert synced == 1


@pytest.mark.anyio
async def test_after_a_failure_it_says_when_it_can_write_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(path, BIG)
    log.open()
    await log.check()
    write = module._write_all

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_all", full)
    for _ in range(2):
        with pytest.raises(AuditUnavailable, match="No space left"):
            await log.record(Event("person.enrol", "done"), durable=True)
    with pytest.raises(AuditUnavailable):
        await log.check()
    monkeypatch.setattr(module, "_write_all", write)
    await log.check()
    await log.check()
    assert [json.loads(line)["action"] for line in lines_of(path)] == ["audit.resume"]


@pytest.mark.anyio
async def test_whatever_keeps_a_line_from_being_written_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(path, BIG)
    log.open()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.asyncio, "to_thread", fail)
    async with asyncio.timeout(5):
        with pytest.raises(AuditUnavailable, match="new thread"):
            await log.record(Event("person.enrol", "done"), durable=True)


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_is_still_written_down(path: Path) -> None:
    log = AuditLog(path, BIG)
    log.open()
    requests = [
        asyncio.create_task(log.record(Event("person.enrol", "done"), durable=True))
        for _ in range(3)
    ]
    await asyncio.sleep(0)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    await log.close()
    assert verify(path).lines == 3
