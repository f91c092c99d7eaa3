"""What a person weighs: bytes on disk by kind of file, resident memory, and the time of a search.

    python -m tests.benchmarks.bench_capacity --persons 100000 --faces 1 3

Fills the embedded store, which is the engine of the Qdrant server, with random unit vectors; its
files are those of a server's segment, but for the graph. `docs/capacity.md` is made from this.
"""

import argparse
import asyncio
import os
import tempfile
import time
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.store import EmbeddedStore, Embedder, Face, FloatArray

DIMENSION = 128
PROBES = 200
AT_ONCE = 1000
NOW = datetime.now(UTC)


def unit_vectors(rng: np.random.Generator, count: int) -> FloatArray:
    rows = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def resident_bytes(kind: str) -> int:
    """`kind` of /proc/self/status: RssAnon, or RssFile, which are mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(kind)


def disk_bytes(folder: Path) -> Counter[str]:
    """Allocated bytes by the name of the folder inside a segment."""
    sizes: Counter[str] = Counter()
    for file in folder.rglob("*"):
        if file.is_file():
            parts = file.relative_to(folder).parts
            place = parts.index("segments") + 2 if "segments" in parts else len(parts) - 2
            sizes["wal" if "wal" in parts else parts[place]] += file.stat().st_blocks * 512
    return sizes


async def measure(persons: int, faces: int, folder: Path) -> tuple[Counter[str], dict[str, float]]:
    embedder = Embedder("bench", DIMENSION, "0" * 64)
    rng = np.random.default_rng(0)
    store = EmbeddedStore(folder, embedder, template, durable=False)
    await store.open()

    async def enrol(person: int, rows: FloatArray) -> None:
        found = [
            Face(
                str(uuid.UUID(int=person * faces + number)),
                f"person-{person}",
                (1.0, 2.0, 64.0, 80.0),
                0.9,
                {"sharpness": 0.5, "yaw_degrees": 3.5, "eye_distance_px": 40.0},
                "0" * 64,
                NOW,
            )
            for number in range(faces)
        ]
        await store.enrol("bench", f"person-{person}", found, rows, 100)

    started = time.perf_counter()
    for start in range(0, persons, AT_ONCE):
        rows = unit_vectors(rng, AT_ONCE * faces).reshape(AT_ONCE, faces, DIMENSION)
        await asyncio.gather(*(enrol(start + i, row) for i, row in enumerate(rows)))
    filled = time.perf_counter() - started
    # Opened again: what is only the filling's goes, and segments are in their final form.
    await store.close()
    before = resident_bytes("RssAnon"), resident_bytes("RssFile")
    store = EmbeddedStore(folder, embedder, template, durable=False)
    await store.open()
    times = []
    for probe in unit_vectors(rng, PROBES):
        begun = time.perf_counter()
        await store.search("bench", probe[np.newaxis], 20)
        times.append(time.perf_counter() - begun)
    anonymous, mapped = resident_bytes("RssAnon"), resident_bytes("RssFile")
    await store.close()
    return disk_bytes(folder), {
        "anonymous memory": (anonymous - before[0]) / persons,
        "mapped memory": (mapped - before[1]) / persons,
        "search, ms": float(np.median(times)) * 1e3,
        "enrolments/s": persons / filled,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 3])
    arguments = parser.parse_args()
    table = Table("", *(f"{n} faces each" for n in arguments.faces), title="bytes for each person")
    columns = []
    for faces in arguments.faces:
        with tempfile.TemporaryDirectory() as folder:
            columns.append(asyncio.run(measure(arguments.persons, faces, Path(folder))))
    for name in sorted(set().union(*(sizes for sizes, _ in columns))):
        table.add_row(name, *(f"{sizes[name] / arguments.persons:,.0f}" for sizes, _ in columns))
    for name in columns[0][1]:
        table.add_row(name, *(f"{figures[name]:,.2f}" for _, figures in columns))
    Console().print(f"{arguments.persons:,} persons, {os.cpu_count()} cores", table)


if __name__ == "__main__":
    main()
