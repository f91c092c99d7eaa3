"""What it costs to be rid of deleted persons on disk, and to ask whether somebody has expired.

    python -m tests.benchmarks.bench_vacuum [--faces 100000]

A gallery of random unit vectors, three faces a person, searched by one client again and again:
while nothing else happens, and while the gallery is written anew after a deletion. Then an
erasure with its receipt and exact searches. Then the bare engine, asked for what a search reads of
a person with and without the time of expiry, in turns.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import qdrant_edge as edge
import uvloop
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.metrics import Metrics
from app.services.erasure import Eraser
from app.store import EmbeddedStore, Embedder, FloatArray, records
from tests.benchmarks.bench_store import BLOCK, FACES_PER_PERSON, GALLERY, fill, timed, unit
from tests.stores import writer_of

DIMENSION = 128
ROUNDS = 8
ERASURES = 20
SEARCHES = 500


async def search(store: EmbeddedStore, probe: FloatArray, samples: list[float]) -> None:
    await timed(samples, lambda: store.search(GALLERY, probe[None], 10))
    await asyncio.sleep(0)


def engine_blocks(store: EmbeddedStore, probes: FloatArray) -> dict[str, list[float]]:
    engine = store._galleries.open[GALLERY]._engine
    params = edge.SearchParams(
        quantization=edge.QuantizationSearchParams(
            rescore=True, oversampling=records.oversampling(10)
        )
    )
    ways = {
        "engine, person_id alone": ["person_id"],
        "engine, with expires_at": records.NEIGHBOUR_FIELDS,
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, fields in ways.items():
            for probe in probes.tolist():
                request = edge.QueryRequest(
                    limit=10,
                    query=edge.Query.Nearest(probe, using=records.VECTOR),
                    with_payload=fields,
                    params=params,
                )
                start = time.perf_counter()
                engine.query_batch(edge.QueryBatchRequest([request]))
                samples[name].append((time.perf_counter() - start) * 1e3)
    return samples


async def measure(path: Path, faces: int, console: Console) -> None:
    rng = np.random.default_rng(3)
    rows = unit(rng.standard_normal((faces, DIMENSION), dtype=np.float32))
    probes = unit(rng.standard_normal((BLOCK, DIMENSION), dtype=np.float32))
    store = EmbeddedStore(path, Embedder("bench", DIMENSION, "0" * 64), template)
    await store.open()
    await fill(store, rows)

    samples: dict[str, list[float]] = {"search, undisturbed": [], "search, during a vacuum": []}
    for number in range(SEARCHES):
        await search(store, probes[number % BLOCK], samples["search, undisturbed"])
    await store.delete_person(GALLERY, "person-1")
    start = time.perf_counter()
    vacuum = asyncio.create_task(store.vacuum())
    while not vacuum.done():
        await search(store, probes[0], samples["search, during a vacuum"])
    assert await vacuum == 1
    seconds = time.perf_counter() - start

    eraser = Eraser(writer_of(store), Metrics())
    samples["erasure with receipt"] = []
    for number in range(2, 2 + ERASURES):
        await timed(
            samples["erasure with receipt"], lambda n=number: eraser.erase(GALLERY, f"person-{n}")
        )
    samples |= engine_blocks(store, probes)
    await store.close()

    table = Table(
        title=f"{faces:,} faces, {FACES_PER_PERSON} a person; written anew in {seconds:.1f} s"
    )
    table.add_column("ms")
    for column in ("median", "99 %", "longest"):
        table.add_column(column, justify="right")
    for name, values in samples.items():
        figures = (np.median(values), np.percentile(values, 99), max(values))
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=100_000)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(measure(Path(folder) / "store", chosen.faces, Console()))


if __name__ == "__main__":
    main()
