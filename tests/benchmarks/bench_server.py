"""What a point costs a Qdrant server in memory, and what its graph brings, without a server.

    python -m tests.benchmarks.bench_server --sizes 100000 400000

The embedded engine is the server's own. Here it builds what the server's collection has and the
embedded store has not: the payload indexes, and a graph with the parameters below, over random
unit vectors. A probe is a stored vector with noise, as another photo of the person would be
(cosine about 0.66), and counts as found when that vector is the nearest. Random vectors have
no neighbourhoods to follow, which is the hard case for a graph.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from qdrant_client import models
from rich.console import Console
from rich.table import Table

from app.store.collection import _INDEXES
from app.store.vector_index import DEFAULT_INDEX
from tests.benchmarks.bench_capacity import DIMENSION, FloatArray, resident_bytes, unit_vectors

LINKS = DEFAULT_INDEX.m
EFS = (256, 1024)
NOISE = 0.1
PROBES = 500
AT_ONCE = 5000
GALLERY = edge.Filter(
    must=[edge.FieldCondition(key="gallery", match=edge.MatchValue(value="default"))]
)
SHARED_VALUES = {"gallery": "default", "kind": "person", "face_count": 1}


def open_new(folder: Path) -> edge.EdgeShard:
    shard = edge.EdgeShard.create(
        str(folder),
        edge.EdgeConfig(
            vectors={"v": edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Dot)},
            hnsw_config=edge.HnswIndexConfig(m=LINKS, ef_construct=100, full_scan_threshold=10),
            quantization_config=edge.TurboQuantQuantizationConfig(
                bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
            ),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1000, default_segment_number=1),
            max_search_threads=1,
        ),
    )
    for field, schema in _INDEXES.items():
        index = (
            edge.KeywordIndexParams()
            if isinstance(schema, models.KeywordIndexParams)
            else edge.IntegerIndexParams()
        )
        shard.update(edge.UpdateOperation.create_field_index(field, index))
    return shard


def memory_when_loaded(folder: str) -> int:
    """Anonymous memory; in a process of its own, where nothing freed is used again."""
    before = resident_bytes("RssAnon")
    shard = edge.EdgeShard.load(folder)
    grown = resident_bytes("RssAnon") - before
    shard.close()
    return grown


def disk_bytes(folder: Path, part: str) -> int:
    files = folder.glob(f"segments/*/{part}*/**/*")
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def payload() -> dict[str, object]:
    return {name: SHARED_VALUES.get(name, str(uuid.uuid4())) for name in _INDEXES}


def measure(count: int, folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    rows = unit_vectors(rng, count)
    ids = [uuid.UUID(int=number) for number in rng.permutation(count).tolist()]
    shard = open_new(folder)
    for start in range(0, count, AT_ONCE):
        vectors = rows[start : start + AT_ONCE].tolist()
        points = [
            edge.Point(point, {"v": vector}, payload())
            for point, vector in zip(ids[start : start + AT_ONCE], vectors, strict=True)
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    chosen = rng.integers(0, count, PROBES)
    noise = np.float32(NOISE) * rng.standard_normal((PROBES, DIMENSION), dtype=np.float32)
    probes = rows[chosen] + noise
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    wanted = [ids[row] for row in chosen.tolist()]
    # There is no graph yet.
    line = [f"{count:,}", *search(shard, probes, wanted), *search(shard, probes, wanted, GALLERY)]
    begun = time.perf_counter()
    shard.optimize()
    line.append(f"{time.perf_counter() - begun:,.0f}")
    shard.close()
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        memory = alone.apply(memory_when_loaded, (str(folder),))
    sizes = disk_bytes(folder, "vector_index"), disk_bytes(folder, "payload_index"), memory
    line += [f"{size / count:,.0f}" for size in sizes]

    shard = edge.EdgeShard.load(str(folder))
    for ef in EFS:
        line += search(shard, probes, wanted, ef=ef)
    shard.close()
    return line


def search(
    shard: edge.EdgeShard,
    probes: FloatArray,
    wanted: list[uuid.UUID],
    condition: edge.Filter | None = None,
    ef: int | None = None,
) -> list[str]:
    """The median time, and how often the vector behind the probe came first."""
    params = edge.SearchParams(
        hnsw_ef=ef, quantization=edge.QuantizationSearchParams(rescore=True, oversampling=4.0)
    )
    found, times = 0, []
    for probe, point in zip(probes.tolist(), wanted, strict=True):
        query = edge.Query.Nearest(probe, using="v")
        request = edge.QueryRequest(limit=20, query=query, params=params, filter=condition)
        begun = time.perf_counter()
        hits = shard.query(request)
        times.append((time.perf_counter() - begun) * 1e3)
        found += hits[0].id == point
    return [f"{np.median(times):.2f}", f"{found / len(times):.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 400_000])
    table = Table(
        *("points", "scan, ms", "found", "of a gallery, ms", "found"),
        *("build, s", "graph, bytes each", "indexes", "memory"),
        *(heading for ef in EFS for heading in (f"ef {ef}, ms", "found")),
        title=f"indexes on {', '.join(_INDEXES)}; {LINKS} links, {os.cpu_count()} cores",
    )
    for count in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as folder:
            table.add_row(*measure(count, Path(folder)))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
