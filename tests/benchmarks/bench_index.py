"""What the settings of a server's graph and codes bring, without a server.

    python -m tests.benchmarks.bench_index --persons 100000

The embedded engine is the server's own. It is given what the service gives a server: a graph for
each gallery and none across them, 4-bit codes, an index on the gallery by which every search is
filtered; here all are of one gallery. Vectors are random unit vectors, which have no
neighbourhoods to follow: the hard case for a graph. A probe is a stored vector with noise, as
another photo of the person would be (cosine about 0.66). Twenty persons are asked for, as an
identification does; recall@10 compares the first ten with an exact search, "found" is how often the
vector behind the probe came first.
"""

import argparse
import os
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from rich.console import Console
from rich.table import Table

from app.store import FloatArray
from app.store.vector_index import DEFAULT_INDEX, Quantization, VectorIndex
from tests.benchmarks.bench_capacity import DIMENSION, unit_vectors
from tests.benchmarks.bench_server import disk_bytes

LINKS = (8, 16, 32)
EFS = (128, 256, 512)
PLACES: tuple[Quantization, ...] = ("disk", "off")
FACTORS = (1.0, 4.0, 16.0)
NOISE = 0.1
PROBES = 500
WANTED = 20
AT_ONCE = 5000
GALLERY = edge.Filter(
    must=[edge.FieldCondition(key="gallery", match=edge.MatchValue(value="default"))]
)
CODES = {
    "ram": edge.TurboQuantQuantizationConfig(
        bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned
    ),
    "disk": edge.TurboQuantQuantizationConfig(
        bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Cold
    ),
    "off": None,
}


def open_new(folder: Path, index: VectorIndex) -> edge.EdgeShard:
    shard = edge.EdgeShard.create(
        str(folder),
        edge.EdgeConfig(
            vectors={"v": edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Dot)},
            hnsw_config=edge.HnswIndexConfig(
                m=0, payload_m=index.m, ef_construct=100, full_scan_threshold=10_000
            ),
            quantization_config=CODES[index.quantization],
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1000, default_segment_number=1),
            max_search_threads=1,
        ),
    )
    tenant = edge.KeywordIndexParams(is_tenant=True)
    shard.update(edge.UpdateOperation.create_field_index("gallery", tenant))
    return shard


def build(folder: Path, index: VectorIndex, rows: FloatArray) -> tuple[edge.EdgeShard, float]:
    """A shard of these vectors, ids are their rows, and the seconds that its graph took."""
    shard = open_new(folder, index)
    for start in range(0, len(rows), AT_ONCE):
        points = [
            edge.Point(uuid.UUID(int=start + number), {"v": vector}, {"gallery": "default"})
            for number, vector in enumerate(rows[start : start + AT_ONCE].tolist())
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
    begun = time.perf_counter()
    shard.optimize()
    seconds = time.perf_counter() - begun
    shard.close()
    return edge.EdgeShard.load(str(folder)), seconds


def search(
    shard: edge.EdgeShard, index: VectorIndex, probes: FloatArray, nearest: np.ndarray
) -> list[str]:
    """Median milliseconds, recall@10, and the share of probes whose nearest came first."""
    asked = index.search(0, WANTED, exact=False)
    assert asked.quantization is not None
    params = edge.SearchParams(
        hnsw_ef=asked.hnsw_ef,
        quantization=edge.QuantizationSearchParams(
            rescore=True, oversampling=asked.quantization.oversampling
        ),
    )
    times, recalled, first = [], 0, 0
    for probe, wanted in zip(probes.tolist(), nearest.tolist(), strict=True):
        query = edge.Query.Nearest(probe, using="v")
        request = edge.QueryRequest(limit=WANTED, query=query, params=params, filter=GALLERY)
        begun = time.perf_counter()
        hits = shard.query(request)
        times.append((time.perf_counter() - begun) * 1e3)
        found = [uuid.UUID(str(hit.id)).int for hit in hits[:10]]
        recalled += len(set(found) & set(wanted))
        first += found[0] == wanted[0]
    count = len(times)
    return [f"{np.median(times):.2f}", f"{recalled / count / 10:.1%}", f"{first / count:.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=100_000)
    persons = parser.parse_args().persons
    rng = np.random.default_rng(0)
    rows = unit_vectors(rng, persons)
    probes = rows[rng.integers(0, persons, PROBES)]
    probes = probes + np.float32(NOISE) * rng.standard_normal(probes.shape, dtype=np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    nearest = np.argsort(-(probes @ rows.T), axis=1)[:, :10]

    def measured(index: VectorIndex, searched: dict[str, VectorIndex]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shard, seconds = build(Path(folder), index, rows)
            graph = disk_bytes(Path(folder), "vector_index") / persons
            for name, search_index in searched.items():
                built = f"{seconds:,.0f}", f"{graph:,.0f}"
                table.add_row(name, *search(shard, search_index, probes, nearest), *built)
            shard.close()

    table = Table(
        *("setting", "ms", "recall@10", "found", "build, s", "graph, bytes each"),
        title=f"{persons:,} persons; otherwise {DEFAULT_INDEX}; {os.cpu_count()} cores",
    )
    for links in LINKS:
        index = replace(DEFAULT_INDEX, m=links)
        measured(index, {f"m {links}, ef {ef}": replace(index, min_ef=ef) for ef in EFS})
    for place in PLACES:
        index = replace(DEFAULT_INDEX, quantization=place)
        measured(index, {f"codes {place}": index})
    for links in (DEFAULT_INDEX.m, 0):
        index = replace(DEFAULT_INDEX, m=links)
        measured(
            index,
            {f"m {links}, oversampling {n:g}": replace(index, oversampling=n) for n in FACTORS},
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
