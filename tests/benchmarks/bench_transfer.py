"""How fast everybody is moved, backed up and restored, and whether it is the same to the bit.

    python -m tests.benchmarks.bench_transfer --faces 100000

One gallery of random unit vectors, three faces a person, is copied from an embedded store into
another engine, from there back into a second folder, and through a backup into a third. The
other engine is the server that FACEID_TEST_QDRANT_URL names; without it qdrant-client's in-memory
twin, whose speed says nothing about a server's. Whether everything is the same is told by reading
both stores again (counts, and the digest over all payloads and vectors) and by searches.
While the backup is written, one client searches the store without a pause; its times are compared
with those of the same client beside nothing else.
"""

import argparse
import asyncio
import os
import tempfile
import time
import uuid
import warnings
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import uvloop
from qdrant_client import AsyncQdrantClient
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.store import EmbeddedStore, Embedder, Face, FloatArray, Store, transfer
from app.store.backup import Backup, write_backup
from app.store.server import ServerStore, connect
from app.store.transfer import Source, StoreSource, compare_searches, copy, verify

GALLERY = "bench"
FACES_PER_PERSON = 3
DIMENSION = 128
EMBEDDER = Embedder("bench", DIMENSION, "0" * 64)
QUALITY = {
    "eye_distance_px": 61.25,
    "sharpness": 210.5,
    "brightness": 121.5,
    "contrast": 48.75,
    "yaw_degrees": -7.5,
    "pitch_degrees": 3.25,
    "roll_degrees": 1.125,
}

Result = TypeVar("Result")


def unit(count: int) -> FloatArray:
    rows = np.random.default_rng(7).standard_normal((count, DIMENSION), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


async def fill(store: Store, rows: FloatArray) -> None:
    now = datetime.now(UTC)

    async def enrol(start: int) -> None:
        person_id = f"person-{start // FACES_PER_PERSON}"
        some = rows[start : start + FACES_PER_PERSON]
        faces = [
            Face(str(uuid.uuid4()), person_id, (1, 2, 64, 80), 0.9, QUALITY, "0" * 64, now)
            for _ in some
        ]
        await store.enrol(GALLERY, person_id, faces, some, FACES_PER_PERSON)

    for start in range(0, len(rows), 3000):
        end = min(start + 3000, len(rows))
        await asyncio.gather(*(enrol(at) for at in range(start, end, FACES_PER_PERSON)))


async def timed(call: Awaitable[Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    return await call, time.perf_counter() - start


class Report:
    def __init__(self, faces: int) -> None:
        self._faces = faces
        self._table = Table(title=f"{faces:,} faces of {DIMENSION} dimensions")
        for column in ("way", "s", "faces/s", "verified in s"):
            self._table.add_column(column, justify="left" if column == "way" else "right")

    def row(self, way: str, seconds: float, verified: float | None) -> None:
        shown = "" if verified is None else f"{verified:.1f}"
        self._table.add_row(way, f"{seconds:.1f}", f"{self._faces / seconds:,.0f}", shown)

    def show(self, console: Console) -> None:
        console.print(self._table)


async def move(source: Source, destination: Store, way: str, report: Report) -> None:
    """Raises `TransferIncomplete` where anything differs."""
    _, seconds = await timed(copy(source, destination, lambda _: None))
    _, verified = await timed(verify(source, destination))
    report.row(way, seconds, verified)


async def searching(store: Store, probes: FloatArray, until: asyncio.Event) -> list[float]:
    samples = []
    while not until.is_set():
        for probe in probes:
            _, seconds = await timed(store.search(GALLERY, probe[None], 10))
            samples.append(seconds * 1e3)
            await asyncio.sleep(0)
    return samples


async def back_up(store: Store, path: Path) -> None:
    with path.open("wb") as file:
        async for piece in write_backup(store, EMBEDDER):
            file.write(piece)


async def run(folder: Path, count: int, console: Console) -> None:
    url = os.environ.get("FACEID_TEST_QDRANT_URL")
    client = connect(url, timeout_s=60) if url else AsyncQdrantClient(":memory:")
    other_name = "server" if url else "in-memory twin"
    collection = f"faceid-bench-{uuid.uuid4().hex}"
    other = ServerStore(client, EMBEDDER, template, collection=collection)
    first, second, third = (
        EmbeddedStore(folder / name, EMBEDDER, template) for name in ("first", "second", "third")
    )
    for store in (first, second, third, other):
        await store.open()
    rows, report = unit(count), Report(count)
    await fill(first, rows)

    backup = folder / "backup.jsonl.gz"
    _, seconds = await timed(back_up(first, backup))
    report.row("embedded to a backup", seconds, None)
    with backup.open("rb") as file:
        start = time.perf_counter()
        saved = Backup(file)
        checked = time.perf_counter() - start
        await move(saved, third, "that backup to embedded", report)
    await verify(StoreSource(first), third)
    console.print(
        f"backup of {backup.stat().st_size / count:.0f} bytes a face, checked in {checked:.1f} s"
    )
    await third.close()

    probes = rows[:: max(1, count // 500)]
    alone = asyncio.Event()
    asyncio.get_running_loop().call_later(5, alone.set)
    before = await searching(first, probes, alone)
    finished = asyncio.Event()
    searches = asyncio.create_task(searching(first, probes, finished))
    _, seconds = await timed(back_up(first, backup))
    finished.set()
    beside = await searches
    console.print(
        f"searches beside a backup of {seconds:.1f} s: {len(beside)}, ms at 50, 99 and 100 %: "
        f"{' '.join(f'{x:.2f}' for x in np.percentile(beside, [50, 99, 100]))}; without: "
        f"{' '.join(f'{x:.2f}' for x in np.percentile(before, [50, 99, 100]))}"
    )

    await move(StoreSource(first), second, "embedded to embedded", report)
    await second.close()
    if not url:
        # The twin looks through everybody for each page.
        transfer._PAGE_PERSONS, transfer._PAGE_FACES = 5000, 20_000
    await move(StoreSource(first), other, f"embedded to {other_name}", report)
    agreement = await compare_searches(first, other)
    console.print(
        f"{agreement.searches} searches in both: {agreement.missed} of {agreement.neighbours} "
        f"neighbours differ, similarities by {agreement.largest_difference:.1e} at most"
    )
    back = EmbeddedStore(folder / "back", EMBEDDER, template)
    await back.open()
    await move(StoreSource(other), back, f"{other_name} to embedded", report)
    await verify(StoreSource(first), back)
    await client.delete_collection(collection)
    for store in (first, back, other):
        await store.close()
    report.show(console)
    console.print("every copy is the same bit for bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faces", type=int, default=100_000)
    arguments = parser.parse_args()
    # The twin's opinion on its own size.
    warnings.filterwarnings("ignore", module="qdrant_client|app.store")
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(run(Path(folder), arguments.faces, Console(width=120)))


if __name__ == "__main__":
    main()
