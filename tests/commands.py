"""The command line in a process of its own."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
FACEID = [sys.executable, "-W", "error", "-c", "from app.cli import main; main()"]

# Its processes are forked from one that has imported everything and opened nothing: that takes
# longer than most of what they do.
forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["app.cli", "app.main"])


def environment(**variables: str) -> dict[str, str]:
    """That of this process, without whatever it sets of faceid's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FACEID_")}
    return inherited | {"PYTHONPATH": str(ROOT)} | variables


def faceid(
    *arguments: str | Path, env: Mapping[str, str], timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """What a command says, and its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "stdout"), Path(folder, "stderr")
        process = forked.Process(target=_faceid, args=(list(map(str, arguments)), dict(env), said))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(f"faceid {arguments}", timeout_s)
        return subprocess.CompletedProcess(
            arguments, process.exitcode, *(file.read_text() for file in said)
        )


def _faceid(arguments: list[str], env: dict[str, str], said: tuple[Path, Path]) -> None:
    from app.cli import main

    for file, stream in zip(said, (sys.stdout, sys.stderr), strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), stream.fileno())
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["faceid", *arguments]
    warnings.simplefilter("error")
    main()
