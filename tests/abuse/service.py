"""The service as a process of its own, to be killed, starved and watched."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.commands import ROOT, environment

_KEY = re.compile(r"export FACEID_API_KEY=(\S+)")
_ADDRESS = re.compile(r"serving on (http://[^\"]+)")
_START_SECONDS = 60

# For runs that are not about the wait for a core, which large photos or other tests prolong.
PATIENT = {"FACEID_LIMITS__MAX_QUEUE_S": "30"}


class NotStarted(Exception):
    """The service ended instead of serving; the message is what it said."""


class Usage(NamedTuple):
    """
    Attributes:
        memory: resident MB.
        private: MB of those that are not files mapped into memory.
        descriptors, threads: how many.
    """

    memory: float
    private: float
    descriptors: int
    threads: int


class Service:
    """`faceid serve` on a free port of loopback, with an API key.

    Args:
        folder: holds the store and the log; kept from one start to the next.
        store: the store's folder, where it is not in `folder`.
        variables: environment variables for it.

    Attributes:
        authorization: the header of that name.
    """

    def __init__(self, folder: Path, store: Path | None = None, **variables: str) -> None:
        self.log = folder / "log"
        self.store = store or folder / "store"
        self.environment = environment(**{"FACEID_STORE__PATH": str(self.store)} | variables)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.authorization = ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def start(self) -> None:
        """Start it, again where it has ended, and wait until it serves.

        Raises:
            NotStarted: it ended, or took longer than a minute.
        """
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", "0"],
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while (found := _ADDRESS.search(self.log.read_text())) is None:
            if self._process.poll() is not None:
                raise NotStarted(self.log.read_text())
            if time.monotonic() > deadline:
                self.kill()
                raise NotStarted("It did not serve within a minute.\n" + self.log.read_text())
            time.sleep(0.02)
        self.url = found[1]
        if shown := _KEY.search(self.log.read_text()):  # the first start shows one, once
            self.authorization = f"Bearer {shown[1]}"

    def client(self, timeout_s: float = 30) -> httpx.Client:
        """With the key that may do everything."""
        headers = {"Authorization": self.authorization}
        return httpx.Client(base_url=self.url, timeout=timeout_s, headers=headers)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Its exit status after SIGTERM."""
        self.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def audit_holds(self) -> bool:
        """Whether `faceid audit verify` finds the chain of the audit log whole."""
        finished = subprocess.run(
            [sys.executable, "-m", "app.cli", "audit", "verify"],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
        )
        return finished.returncode == 0

    def usage(self) -> Usage:
        proc = Path("/proc") / str(self.process.pid)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())

        def megabytes(name: str) -> float:
            return int(status[name].split()[0]) / 1024

        return Usage(
            memory=megabytes("VmRSS"),
            private=megabytes("RssAnon"),
            descriptors=len(list((proc / "fd").iterdir())),
            threads=int(status["Threads"]),
        )


@contextmanager
def serving(folder: Path, store: Path | None = None, **variables: str) -> Iterator[Service]:
    """A service that is running now, and not any more when left."""
    service = Service(folder, store, **variables)
    service.start()
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()
