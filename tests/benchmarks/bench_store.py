"""How fast and how exact the embedded store searches.

    python -m tests.benchmarks.bench_store --sizes 100000 1000000

For each size one gallery is filled with random unit vectors, three faces a person. The ways to
find the persons nearest to a probe are timed in blocks of fifty probes, one way after the other,
round after round, so that whatever else the machine does meets all of them alike, and each finds
the processor's cache filled with its own data:

- numpy, faces: a scan of all faces and the best one of each person, as without templates;
- numpy: a scan of the same templates that the store goes over;
- edge: the bare engine on a shard of its own that holds these templates, a name beside each,
  and nothing else;
- store: `Store.search`; queued: the same through its worker, as when the engine is busy.

After each block of numpy there is a pause: the threads of its BLAS go on spinning for a while,
and whoever is measured next would have a core less. Medians are shown. The last columns say
whether the store is at least 3 times faster than numpy's scan of the faces, and at most 1.3
times slower than the bare engine. Run it on a machine that does nothing else: numpy and the
engine both want all of its cores.
"""

import argparse
import asyncio
import inspect
import resource
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import qdrant_edge as edge
import uvloop
from rich.console import Console
from rich.table import Table

from app.decision.fusion import template
from app.store import EmbeddedStore, Embedder, Face, FloatArray, records, segments

GALLERY = "bench"
FACES_PER_PERSON = 3
BLOCK = 50
NOW = datetime.now(UTC)


def unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def make_face(person: int, number: int) -> Face:
    face_id = str(uuid.UUID(int=person * FACES_PER_PERSON + number))
    quality = {"sharpness": 0.5, "yaw_degrees": 3.5}
    return Face(face_id, f"person-{person}", (1, 2, 64, 80), 0.9, quality, "0" * 64, NOW)


async def fill(store: EmbeddedStore, rows: FloatArray) -> None:
    # Handed over without waiting in between: one sync for many enrolments.
    for start in range(0, len(rows), 3000):
        await asyncio.gather(
            *(
                store.enrol(
                    GALLERY,
                    f"person-{at // FACES_PER_PERSON}",
                    [
                        make_face(at // FACES_PER_PERSON, number)
                        for number in range(len(rows[at : at + FACES_PER_PERSON]))
                    ],
                    rows[at : at + FACES_PER_PERSON],
                    FACES_PER_PERSON,
                )
                for at in range(start, min(start + 3000, len(rows)), FACES_PER_PERSON)
            )
        )


def numpy_top(rows: FloatArray, probe: FloatArray, limit: int) -> list[tuple[int, float]]:
    similarities = rows @ probe
    best = np.argpartition(similarities, -limit)[-limit:]
    best = best[np.argsort(-similarities[best])]
    return [(int(index), float(similarities[index])) for index in best]


def numpy_top_of_faces(rows: FloatArray, probe: FloatArray, limit: int) -> list[tuple[int, float]]:
    """The persons with the nearest faces: enough faces that they are of `limit` persons."""
    found: dict[int, float] = {}
    for face, similarity in numpy_top(rows, probe, limit * FACES_PER_PERSON):
        found.setdefault(face // FACES_PER_PERSON, similarity)
    return list(found.items())[:limit]


def request(probe: FloatArray, limit: int) -> edge.QueryRequest:
    """What the store asks of the engine."""
    return edge.QueryRequest(
        limit=limit,
        query=edge.Query.Nearest(probe.tolist(), using=records.VECTOR),
        with_payload=["person_id"],
        params=edge.SearchParams(
            quantization=edge.QuantizationSearchParams(
                rescore=True, oversampling=records.oversampling(limit)
            )
        ),
    )


def bare_engine(folder: Path, templates: FloatArray, threads: int) -> edge.EdgeShard:
    """These templates in as many segments as threads, as the store lays them out."""
    folder.mkdir()
    config = segments.config(templates.shape[1], threads)
    edge.EdgeShard.create(str(folder), config).close()
    embedder = Embedder("bench", templates.shape[1], "0" * 64)
    segments.add_segments(folder, threads - 1, embedder, folder.with_name("scratch"))
    shard = edge.EdgeShard.load(str(folder), config)
    for start in range(0, len(templates), 257):
        rows = templates[start : start + 257].tolist()
        points = [
            edge.Point(start + number, {records.VECTOR: row}, {"person_id": f"person-{number}"})
            for number, row in enumerate(rows)
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.flush()
    return shard


async def timed(samples: list[float], call: Callable[[], object]) -> None:
    start = time.perf_counter()
    result = call()
    if inspect.isawaitable(result):
        await result
    samples.append((time.perf_counter() - start) * 1e3)


async def measure(path: Path, count: int, dimension: int, rounds: int, console: Console) -> None:
    rng = np.random.default_rng(7)
    rows = unit(rng.standard_normal((count, dimension), dtype=np.float32))
    rows = rows[: count // FACES_PER_PERSON * FACES_PER_PERSON]
    templates = np.stack(
        [template(of_one) for of_one in rows.reshape(-1, FACES_PER_PERSON, dimension)]
    )
    near = rows[rng.integers(0, len(rows), rounds)]
    noise = rng.standard_normal((rounds, dimension), dtype=np.float32)
    probes = unit(near + np.float32(0.05) * noise)

    store = EmbeddedStore(path, Embedder("bench", dimension, "0" * 64), template)
    await store.open()
    start = time.perf_counter()
    await fill(store, rows)
    filled = time.perf_counter() - start
    await store.close()
    store = EmbeddedStore(path, Embedder("bench", dimension, "0" * 64), template)
    before = resource_mb()
    start = time.perf_counter()
    await store.open()
    loaded = time.perf_counter() - start
    grown = resource_mb() - before
    spread = store._galleries.open[GALLERY]._engine.info().segments_count
    shard = bare_engine(path / ".bare", templates, spread)

    names = ("numpy, faces", "numpy", "edge", "store", "queued")
    samples: dict[tuple[str, int], list[float]] = {
        (name, limit): [] for name in names for limit in (10, 50)
    }
    blocks = [probes[at : at + BLOCK] for at in range(0, rounds, BLOCK)]
    for block in blocks:
        for limit in (10, 50):
            ways: dict[str, Callable[[FloatArray], object]] = {
                "numpy, faces": lambda p, n=limit: numpy_top_of_faces(rows, p, n),
                "numpy": lambda p, n=limit: numpy_top(templates, p, n),
                "edge": lambda p, n=limit: shard.query_batch(
                    edge.QueryBatchRequest([request(p, n)])
                ),
                "store": lambda p, n=limit: store.search(GALLERY, p[None], n),
                # Through the queue, as when the engine is busy.
                "queued": lambda p, n=limit: store._submit(
                    None, lambda: store._galleries.open[GALLERY].search(p[None], n)
                ),
            }
            for name in names:
                for probe in block:
                    await timed(samples[name, limit], lambda w=ways[name], p=probe: w(p))
                time.sleep(0.3 if name.startswith("numpy") else 0)

    sixteen: dict[str, list[float]] = {"batch": [], "gather": [], "queued": [], "loop": []}
    for at in range(0, min(len(probes) - 16, 16 * 10), 16):
        block = probes[at : at + 16]
        await timed(sixteen["batch"], lambda b=block: store.search(GALLERY, b, 50))
        await timed(
            sixteen["gather"],
            lambda b=block: gathered(*(store.search(GALLERY, p[None], 50) for p in b)),
        )
        await timed(
            sixteen["loop"], lambda b=block: [shard.query(request(probe, 50)) for probe in b]
        )
        await timed(
            sixteen["queued"],
            lambda b=block: shard.query_batch(
                edge.QueryBatchRequest([request(probe, 50) for probe in b])
            ),
        )

    hits, error = 0, 0.0
    for probe in probes:
        (found,) = await store.search(GALLERY, probe[None], 10)
        nearest = {int(neighbour.person_id[7:]): neighbour.similarity for neighbour in found}
        hits += len(dict(numpy_top(templates, probe, 10)).keys() & nearest.keys())
        for person, similarity in nearest.items():
            error = max(error, abs(similarity - float(templates[person] @ probe)))

    persons = [f"person-{number}" for number in rng.integers(0, len(templates), 50)]
    fetched: list[float] = []
    enrolments: list[float] = []
    for number in range(30):
        await timed(fetched, lambda: store.embeddings(GALLERY, persons))
        person = count + number
        await timed(
            enrolments,
            lambda p=person, n=number: store.enrol(
                GALLERY, f"person-{p}", [make_face(p, 0)], probes[n : n + 1], 1
            ),
        )
    start = time.perf_counter()
    cursor = None
    while True:
        page = await store.templates(GALLERY, 1000, cursor)
        cursor = page.cursor
        if cursor is None:
            break
    paged = time.perf_counter() - start
    shard.close()
    await store.close()

    def median(name: str, limit: int) -> float:
        return float(np.median(samples[name, limit]))

    title = f"{count:,} faces of {len(templates):,} persons, {dimension}-d, one probe, median ms"
    table = Table(title=title)
    for column in ("limit", *names, "faces / store", "store / edge"):
        table.add_column(column, justify="right")
    for limit in (10, 50):
        faster = median("numpy, faces", limit) / median("store", limit)
        slower = median("store", limit) / median("edge", limit)
        table.add_row(
            str(limit),
            *(f"{median(name, limit):.3f}" for name in names),
            f"{faster:.1f} {'ok' if faster >= 3 else 'MISSED'}",
            f"{slower:.2f} {'ok' if slower <= 1.3 else 'MISSED'}",
        )
    console.print(table)
    recall = hits / (10 * len(probes))
    console.print(
        f"recall@10 {recall:.4f} {'ok' if recall >= 0.999 else 'MISSED'}, "
        f"largest error of a similarity {error:.1e} {'ok' if error <= 1e-4 else 'MISSED'}\n"
        f"16 probes, limit 50: one search of 16 {np.median(sixteen['batch']):.2f} ms, "
        f"16 concurrent searches {np.median(sixteen['gather']):.2f} ms, "
        f"bare query_batch {np.median(sixteen['queued']):.2f} ms, "
        f"16 bare queries {np.median(sixteen['loop']):.2f} ms\n"
        f"embeddings of 50 persons {np.median(fetched):.2f} ms, "
        f"durable enrolment of one face {np.median(enrolments):.2f} ms, "
        f"all templates in pages of 1,000 {paged:.2f} s\n"
        f"{spread} segments, filled in {filled:.1f} s, opened in {loaded:.2f} s, "
        f"memory of the open gallery {grown:.0f} MB"
    )


async def gathered(*searches: object) -> None:
    await asyncio.gather(*searches)  # type: ignore[arg-type]


def resource_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            console = Console(width=120)
            # In the event loop that the service runs in.
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(
                    measure(Path(folder), size, arguments.dimension, arguments.rounds, console)
                )


if __name__ == "__main__":
    main()
