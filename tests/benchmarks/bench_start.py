"""How long the service takes from its start to ready, and what it then holds in memory.

python -m tests.benchmarks.bench_start [--faces 100000] [--killed]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.inference.session import open_session
from app.models.spec import SHIPPED_EMBEDDER, EmbedderSpec
from app.store import EmbeddedStore, Embedder, Face
from tests.benchmarks.bench_identify import resident_mb, wait_until_ready

FACES_PER_PERSON = 3


async def fill(path: Path, faces: int) -> None:
    _, spec = open_session(SHIPPED_EMBEDDER, EmbedderSpec, "cpu", 1)
    identity = Embedder(spec.name, spec.dimension, spec.weights_sha256)
    store = EmbeddedStore(path, identity, template, durable=False)
    await store.open()
    rng = np.random.default_rng(0)
    now = datetime.now(UTC)
    for first in range(0, faces, FACES_PER_PERSON):
        count = min(FACES_PER_PERSON, faces - first)
        vectors = rng.normal(size=(count, spec.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        person = f"person-{first}"
        await store.enrol(
            "default",
            person,
            [
                Face(str(uuid.uuid4()), person, (0, 0, 90, 120), 0.9, {}, "0" * 64, now)
                for _ in range(count)
            ],
            vectors,
            FACES_PER_PERSON,
        )
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8766)
    parser.add_argument("--killed", action="store_true", help="start after kill -9")
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}"
    seconds, memory = [], []
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "store"
        asyncio.run(fill(store, options.faces))
        # The first one after kill -9 is the second one.
        for _ in range(options.rounds + options.killed):
            started = time.perf_counter()
            server = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", str(options.port)],
                env=os.environ
                | {"FACEID_STORE__PATH": str(store), "FACEID_AUTH__DISABLED": "true"},
                stderr=subprocess.DEVNULL,
            )
            wait_until_ready(url, server)
            seconds.append(time.perf_counter() - started)
            memory.append(resident_mb(server.pid))
            if options.killed:
                server.kill()
            else:
                server.terminate()
            server.wait()
    seconds = seconds[options.killed :]
    ended = " after kill -9" if options.killed else ""
    title = f"start{ended} with {options.faces:,} stored faces, median of {options.rounds}"
    table = Table(title=title)
    for column in ("what", "measured", "must be"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("start to ready", f"{np.median(seconds):.1f} s", "<= 5 s")
    table.add_row("resident memory", f"{np.median(memory):.0f} MB", "")
    Console().print(table)


if __name__ == "__main__":
    main()
