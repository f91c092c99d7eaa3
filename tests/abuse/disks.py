"""Disks that are full, read-only or damaged, and a clock that jumps.

    python -m tests.abuse.disks [--damages 160] [--seed 0]

The service has to say what is wrong, lose nothing, and go on once it is mended. Full and
read-only disks are small file systems in memory, which only root can mount; the clock is
libfaketime's (Debian: `apt-get install faketime`).
"""

import argparse
import os
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.abuse import calls
from tests.abuse.ledger import Broken, Ledger
from tests.abuse.report import Row, finish
from tests.abuse.service import NotStarted, Service, serving
from tests.damage import DAMAGES, Content, content, files_of, put_back

Run = Callable[[Path], str]

_DISK_MB = 500
FAKE_CLOCKS = [Path(p) for p in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """
    Raises:
        OSError, subprocess.CalledProcessError: only root can.
    """
    disk = folder / "disk"
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={_DISK_MB}m", "faceid-test", str(disk))
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _fill(disk: Path, leave_mb: int) -> Path:
    """A file that takes all but so many megabytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free - leave_mb * 2**20
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free)
    return ballast


def _require(answer: httpx.Response, status: int, code: str = "", word: str = "") -> None:
    problem = answer.json() if answer.status_code >= 400 else {}
    if (
        answer.status_code != status
        or problem.get("code", "") != code
        or word not in problem.get("detail", "")
    ):
        raise Broken(f"{answer.status_code} {answer.text}, not {status} {code} about {word!r}")


def _require_unavailable(answer: httpx.Response) -> None:
    # Whichever comes first to the last byte: the store, the receipts or the audit log.
    if answer.status_code != 503:
        raise Broken(f"{answer.status_code} {answer.text}, not 503")


def _work(ledger: Ledger, service: Service, requests: int) -> None:
    with service.client() as client:
        for _ in range(requests):
            ledger.request(client)


def _check(ledger: Ledger, service: Service) -> None:
    with service.client() as client:
        ledger.check(client)


def full_disk(folder: Path) -> str:
    """New things are refused while little room is left, and there is a way out.

    Raises:
        Broken: what is not so.
    """
    ledger = Ledger("full", seed=1)
    photo = calls.faces(1)[0]
    with small_disk(folder) as disk, serving(folder, disk / "store") as service:
        _work(ledger, service, 25)
        with service.client() as client:
            ballast = _fill(disk, leave_mb=100)
            _require(calls.enrol(client, "late", [photo]), 503, "store_unavailable", "full")
            _require(calls.identify(client, photo), 200)
            _check(ledger, service)
            ballast = _fill(disk, leave_mb=0)
            _require(calls.identify(client, photo), 200)
            forgotten = ledger.forget_one()
            _require_unavailable(calls.delete(client, forgotten))
            ballast = _fill(disk, leave_mb=8)
            _require(calls.delete(client, forgotten), 200)
            ballast.unlink()
            _require(calls.enrol(client, "late", [photo]), 201)
        _work(ledger, service, 10)
        service.stop()
        service.start()
        _check(ledger, service)
        if not service.audit_holds():
            raise Broken("the audit chain is broken")
    return "new enrolments 503 store_unavailable, the rest goes on; room made: as before"


def read_only_folder(folder: Path) -> str:
    """The start is refused, by name of the folder, and nothing is changed.

    Raises:
        Broken: what is not so.
    """
    ledger = Ledger("frozen", seed=2)
    with small_disk(folder) as disk:
        with serving(folder, disk / "store") as service:
            _work(ledger, service, 15)
        _mount("-o", "remount,ro", str(disk))
        _require_refusal(service, str(disk / "store"))
        _mount("-o", "remount,rw", str(disk))
        service.start()
        _check(ledger, service)
        service.stop()
    return "refuses to start and names the folder; writable again: all there"


def _require_refusal(service: Service, *words: str) -> str:
    try:
        service.start()
    except NotStarted as refusal:
        said = str(refusal)
        if service.process.returncode != 1 or "Traceback" in said:
            raise Broken(f"exit status {service.process.returncode}: {said}") from None
        if missing := [word for word in words if word not in said]:
            raise Broken(f"does not say {missing}: {said}") from None
        return said
    with service.client() as client:
        ready = calls.ready(client)
    service.stop()
    raise Broken(f"it started, readiness {ready.status_code} {ready.text}")


def damaged_store(
    folder: Path, damages: int, seed: int, *, killed: bool = False
) -> tuple[Counter[str], list[str]]:
    """One file of a store at a time is cut, overwritten in one place, or lost.

    Args:
        damages: how many; every file in every way takes four for each file.
        killed: the service had the store open when it ended.

    Returns:
        What came of it, counted, and what must not be: a start that dies of a signal or with a
        traceback, a service that starts and has lost something, a refusal that changes the
        store, a store that is not whole again when the file is put back.
    """
    chance = random.Random(seed)
    ledger = Ledger("whole", seed=3)
    service = Service(folder)
    service.start()
    _work(ledger, service, 40)
    if killed:
        service.kill()
    else:
        service.stop()
    whole, authorization = folder / "whole", service.authorization
    shutil.copytree(service.store, whole)
    files = [file for file in files_of(whole) if file.name != ".lock"]
    ways = [(file, damage) for damage in DAMAGES for file in files]
    chance.shuffle(ways)
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in range(damages):
        file, damage = ways[number % len(ways)]
        shutil.rmtree(service.store)
        shutil.copytree(whole, service.store)
        service.authorization = authorization  # another one, where the file of keys was lost
        damage(service.store / file, chance)
        before = _galleries_of(service.store)
        outcome = _outcome(service, ledger)
        if outcome == "refused to start" and _galleries_of(service.store) != before:
            outcome = "refused to start, and altered"
        outcomes[outcome] += 1
        if outcome not in _HARMLESS:
            wrong.append(f"{damage.__name__} {file}: {outcome}: {service.log.read_text()[-400:]}")
        if outcome == "nothing lost":
            continue
        # Put back what was damaged, and nothing else.
        try:
            put_back(service.store / file, content(whole / file))
            service.start()
            _check(ledger, service)
        except (Broken, NotStarted, httpx.HTTPError, OSError) as error:
            wrong.append(f"{damage.__name__} {file}, then put back: {str(error)[-400:]}")
        finally:
            service.kill()
    return outcomes, wrong


_HARMLESS = {"refused to start", "nothing lost"}


def _galleries_of(store: Path) -> dict[Path, Content]:
    return {file: content(store / file) for file in files_of(store) if len(file.parts) > 1}


def _outcome(service: Service, ledger: Ledger) -> str:
    try:
        service.start()
    except NotStarted as refusal:
        if service.process.returncode != 1:
            return f"died, exit status {service.process.returncode}"
        return "traceback" if "Traceback" in str(refusal) else "refused to start"
    try:
        with service.client() as client:
            if calls.ready(client).status_code == 503:
                return "not ready, with a reason"
            ledger.check(client)
        return "nothing lost"
    except httpx.HTTPStatusError as error:
        return f"answers {error.response.status_code}"
    except Broken as error:
        return "error 500" if " 500" in str(error) else "ready, and something lost"
    except httpx.TransportError:
        return "died while serving"
    finally:
        service.kill()


def clock_that_jumps(folder: Path) -> str:
    """An hour back, a day on, and back again.

    Raises:
        Broken: what is not so.
    """
    ledger = Ledger("clock", seed=4)
    clock = folder / "clock"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": str(FAKE_CLOCKS[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with serving(folder, **fake) as service:
        _work(ledger, service, 12)
        for offset in ("-3600", "+86400", "-3600"):
            clock.write_text(offset)
            _work(ledger, service, 12)
            with service.client() as client:
                _require(calls.ready(client), 200)
        clock.write_text("-7200")
        service.stop()
        service.start()
        _check(ledger, service)
        _work(ledger, service, 10)
    return "every request answered as always, also after a start in the past"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--damages", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for what, run, possible in (
        ("full disk", full_disk, can_mount()),
        ("read-only folder", read_only_folder, can_mount()),
        ("clock that jumps", clock_that_jumps, bool(FAKE_CLOCKS)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            if not possible:
                rows.append(Row(what, "not possible here"))
                continue
            try:
                rows.append(Row(what, run(Path(folder)), "clear error, no damage", True))
            except (Broken, NotStarted, httpx.HTTPError) as error:
                rows.append(Row(what, str(error)[-600:], "clear error, no damage", False))
    for killed, when in ((False, "closed"), (True, "killed")):
        with tempfile.TemporaryDirectory() as folder:
            outcomes, wrong = damaged_store(
                Path(folder), options.damages, options.seed, killed=killed
            )
        rows += [
            Row(f"damaged file, service {when}: {what}", str(count))
            for what, count in outcomes.most_common()
        ]
        rows.append(Row("of them harmful", str(len(wrong)), "0", not wrong))
        for line in wrong:
            print(line)
    finish("disks and clocks", rows)


if __name__ == "__main__":
    main()
